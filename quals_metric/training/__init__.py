"""QUALS in training: in the log of a `Trainer`, and as what a summarizer is retrained with.

Nothing is imported until a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quals_metric.training.callback import QualsCallback
    from quals_metric.training.candidates import CollectionSettings
    from quals_metric.training.collection import collect
    from quals_metric.training.collector import ConseqCollector
    from quals_metric.training.conseq import ConseqTrainer, conseq_loss
    from quals_metric.training.examples import TextFormat
    from quals_metric.training.generation import GenerationSettings, generate_summaries
    from quals_metric.training.predictions import make_compute_metrics
    from quals_metric.training.rouge import RougeScorer
    from quals_metric.training.selection import reselect, select

__all__ = [
    "CollectionSettings",
    "ConseqCollector",
    "ConseqTrainer",
    "GenerationSettings",
    "QualsCallback",
    "RougeScorer",
    "TextFormat",
    "collect",
    "conseq_loss",
    "generate_summaries",
    "make_compute_metrics",
    "reselect",
    "select",
]

_HOMES = {
    "CollectionSettings": "candidates",
    "ConseqCollector": "collector",
    "ConseqTrainer": "conseq",
    "GenerationSettings": "generation",
    "QualsCallback": "callback",
    "RougeScorer": "rouge",
    "TextFormat": "examples",
    "collect": "collection",
    "conseq_loss": "conseq",
    "generate_summaries": "generation",
    "make_compute_metrics": "predictions",
    "reselect": "selection",
    "select": "selection",
}


def __getattr__(name: str) -> Any:
    """Import a public name's file when the name is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
