"""QUALS and QAGS as a metric of torchmetrics, in a training loop of your own or in Lightning.

It needs the extra `torchmetrics`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch

from qa_inference.metric_base.question_scorer import QuestionScorer
from quals_metric.integrations._harness import mean_and_undefined

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat
except ImportError as error:
    raise ImportError(
        "torchmetrics: must be installed for this metric. pip install 'quals-metric[torchmetrics]'"
    ) from error


class ConsistencyScore(Metric):
    """The mean score of all summaries that were given to `update`.

    Each process scores its own summaries. Under DDP, `compute` gathers the scores of all processes.

    >>> metric = ConsistencyScore(QualsScorer())  # doctest: +SKIP
    >>> metric.update(preds=summaries, sources=documents)  # doctest: +SKIP
    >>> metric.compute()  # doctest: +SKIP
    {'quals': tensor(-0.5832), 'quals_undefined': tensor(0.)}

    Args:
        scorer: a loaded `QualsScorer` or `QagsScorer`.
        options: options of `torchmetrics.Metric`, for example `sync_on_compute`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    scores: list[torch.Tensor]

    def __init__(self, scorer: QuestionScorer[Any], **options: Any) -> None:
        super().__init__(**options)
        self.scorer = scorer
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    def __deepcopy__(self, memo: dict[int, Any]) -> ConsistencyScore:
        """A copy with the same scorer, so that `clone` does not load the models again."""
        made = type(self).__new__(type(self))
        memo |= {id(self): made, id(self.scorer): self.scorer}
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    def update(self, preds: Iterable[str], sources: Iterable[str]) -> None:
        """Score summaries against their sources.

        Args:
            preds: the summaries.
            sources: for each summary, the text it was written from.

        Raises:
            TypeError: if an argument is no collection of str.
            ValueError: if the lengths differ or are 0.
        """
        result = self.scorer.score(summaries=preds, sources=sources)
        self.scores.append(torch.tensor(result.scores, device=self.device, dtype=self.dtype))

    def compute(self) -> dict[str, torch.Tensor]:
        """The mean of the defined scores, NaN if there is none, and the number of summaries without a score."""
        scores = dim_zero_cat(self.scores).tolist() if len(self.scores) else []
        values = mean_and_undefined(self.scorer.key.metric, scores)
        return {name: torch.tensor(value, device=self.device) for name, value in values.items()}
