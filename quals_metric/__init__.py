"""QUALS measures how well a source supports its summary, by asking questions about the summary.

A name is imported when it is first used, so `import quals_metric` does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference import __version__
from qa_inference.lazy import lazily

if TYPE_CHECKING:
    from quals_metric.config import QualsConfig
    from quals_metric.metric import Quals
    from quals_metric.one_call import score
    from quals_metric.registry import register, unregister
    from quals_metric.result import PairScore, QualsResult, SummaryScore
    from quals_metric.scorer import QualsScorer

__all__ = [
    "PairScore",
    "Quals",
    "QualsConfig",
    "QualsResult",
    "QualsScorer",
    "SummaryScore",
    "__version__",
    "register",
    "score",
    "unregister",
]

_HOMES = {
    "PairScore": "result",
    "Quals": "metric",
    "QualsConfig": "config",
    "QualsResult": "result",
    "QualsScorer": "scorer",
    "SummaryScore": "result",
    "register": "registry",
    "score": "one_call",
    "unregister": "registry",
}

__getattr__, __dir__ = lazily(globals(), _HOMES)
