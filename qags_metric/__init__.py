"""QAGS measures how far a summary and its source give the same answers to questions about the summary.

A name is imported when it is first used, so `import qags_metric` does not import torch.

>>> from qags_metric import QagsScorer
>>> scorer = QagsScorer()  # doctest: +SKIP
>>> result = scorer.score(summaries=["Ann won."], sources=["Bob lost to Ann."])  # doctest: +SKIP
>>> result.score, result.summaries[0].questions  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference import __version__
from qa_inference.lazy import lazily

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

__getattr__, __dir__ = lazily(globals(), _HOMES)
