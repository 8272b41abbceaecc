"""QAGS: how far a summary and its source give the same answers to questions about the summary.

Nothing is imported and nothing happens until a name is used: `import qags_metric` costs no torch.

>>> from qags_metric import QagsScorer
>>> scorer = QagsScorer()  # doctest: +SKIP
>>> result = scorer.score(summaries=["Ann won."], sources=["Bob lost to Ann."])  # doctest: +SKIP
>>> result.score, result.summaries[0].questions  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qa_inference import __version__

if TYPE_CHECKING:
    from qags_metric.config import QagsConfig
    from qags_metric.metric import Qags
    from qags_metric.result import FoundAnswer, QagsResult, QuestionScore, SummaryScore
    from qags_metric.scorer import QagsScorer

__all__ = [
    "FoundAnswer",
    "Qags",
    "QagsConfig",
    "QagsResult",
    "QagsScorer",
    "QuestionScore",
    "SummaryScore",
    "__version__",
]

_HOMES = {
    "FoundAnswer": "result",
    "Qags": "metric",
    "QagsConfig": "config",
    "QagsResult": "result",
    "QagsScorer": "scorer",
    "QuestionScore": "result",
    "SummaryScore": "result",
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
