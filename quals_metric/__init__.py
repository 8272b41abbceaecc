"""QUALS: how far a summary says what its source says, measured by asking questions.

Nothing is imported and nothing happens until a name is used: `import quals_metric` costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qa_inference import __version__

if TYPE_CHECKING:
    from quals_metric.metric import Quals
    from quals_metric.registry import register, unregister
    from quals_metric.result import PairScore, QualsResult, SummaryScore
    from quals_metric.scorer import QualsConfig, QualsScorer

__all__ = [
    "PairScore",
    "Quals",
    "QualsConfig",
    "QualsResult",
    "QualsScorer",
    "SummaryScore",
    "__version__",
    "register",
    "unregister",
]

_HOMES = {
    "PairScore": "result",
    "Quals": "metric",
    "QualsConfig": "scorer",
    "QualsResult": "result",
    "QualsScorer": "scorer",
    "SummaryScore": "result",
    "register": "registry",
    "unregister": "registry",
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
