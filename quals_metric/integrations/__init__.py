"""QUALS and QAGS inside other libraries, one file for each library.

A library is needed only where its file is used. Each has an extra of the package, for example
`pip install 'quals-metric[trl]'`. A name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference.lazy import lazily

if TYPE_CHECKING:
    from quals_metric.integrations.inspect_ai import qags_scorer, quals_scorer
    from quals_metric.integrations.lighteval import lighteval_metric
    from quals_metric.integrations.lm_eval import lm_eval_metric
    from quals_metric.integrations.rows import QualsRows
    from quals_metric.integrations.torchmetrics import ConsistencyScore
    from quals_metric.integrations.trl import (
        CopyPenalty,
        LengthPenalty,
        QualsReward,
        RepetitionPenalty,
        to_preferences,
    )

__all__ = [
    "ConsistencyScore",
    "CopyPenalty",
    "LengthPenalty",
    "QualsReward",
    "QualsRows",
    "RepetitionPenalty",
    "lighteval_metric",
    "lm_eval_metric",
    "qags_scorer",
    "quals_scorer",
    "to_preferences",
]

_HOMES = {
    "ConsistencyScore": "torchmetrics",
    "CopyPenalty": "trl",
    "LengthPenalty": "trl",
    "QualsReward": "trl",
    "QualsRows": "rows",
    "RepetitionPenalty": "trl",
    "lighteval_metric": "lighteval",
    "lm_eval_metric": "lm_eval",
    "qags_scorer": "inspect_ai",
    "quals_scorer": "inspect_ai",
    "to_preferences": "trl",
}

__getattr__, __dir__ = lazily(globals(), _HOMES)
