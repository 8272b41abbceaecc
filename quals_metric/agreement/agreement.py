"""The agreement of several scores with the labels of the same summaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qa_inference.metric_base.results import json_ready
from qa_inference.significance import RESAMPLES
from quals_metric.agreement.labelled import LabelledSet
from quals_metric.agreement.statistics import (
    DocumentSample,
    Estimate,
    Flags,
    Floats,
    best_threshold,
    pearson,
    roc_auc,
    spearman,
    wins,
)

STATISTICS = (
    "Pearson",
    "Spearman",
    "ROC AUC",
    "pairwise accuracy",
    "balanced accuracy, best threshold",
    "balanced accuracy, cross-validated",
)


@dataclass(frozen=True)
class ScoreAgreement:
    """The agreement of one score with the labels.

    Attributes:
        statistics: the `STATISTICS`, by name.
        threshold: the best threshold of all: summaries with at least this score are called consistent.
        less_first: the difference of the ROC AUC to that of the first score; None for the first.
        num_undefined: how many summaries have no such score.
    """

    statistics: Mapping[str, Estimate]
    threshold: float
    less_first: Estimate | None
    num_undefined: int

    def to_dict(self) -> dict[str, Any]:
        """The agreement as a dict for JSON."""
        return {
            "statistics": {name: estimate.to_dict() for name, estimate in self.statistics.items()},
            "threshold": self.threshold,
            "roc_auc_less_first": None if self.less_first is None else self.less_first.to_dict(),
            "num_undefined": self.num_undefined,
        }


@dataclass(frozen=True)
class Agreement:
    """The agreement of several scores with the labels of one file, over the summaries that all of them define.

    Attributes:
        name: the name of the file.
        num_summaries: how many summaries were compared.
        num_sources: how many different sources they have.
        num_consistent: how many of them count as consistent.
        num_pairs: how many pairs the pairwise accuracy is the share of.
        num_unlabelled: how many rows of the file have no label.
        num_undefined: how many labelled summaries were left out, because some score is undefined.
        scores: the agreement of every score, by its name.
        signatures: the signatures of the scores that were computed.
    """

    name: str
    num_summaries: int
    num_sources: int
    num_consistent: int
    num_pairs: int
    num_unlabelled: int
    num_undefined: int
    scores: Mapping[str, ScoreAgreement]
    signatures: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict for JSON, and the number of resamples. An undefined number is None."""
        scores = {name: score.to_dict() for name, score in self.scores.items()}
        plain: dict[str, Any] = json_ready(vars(self) | {"scores": scores, "resamples": RESAMPLES})
        return plain


def defined_rows(scores: Mapping[str, Floats]) -> Flags:
    """A mask of the rows in which every score is defined."""
    return np.asarray(~np.isnan(np.stack(list(scores.values()))).any(axis=0))


def measure_agreement(
    labelled: LabelledSet, scores: Mapping[str, Floats], signatures: Mapping[str, str] | None = None
) -> Agreement:
    """Measure how far scores agree with labels.

    Args:
        labelled: the labelled summaries.
        scores: for every score, a number for every summary; NaN where undefined. Others are compared with the first.
        signatures: the signatures of scores, by their names.

    Raises:
        ValueError: if the summaries that all scores define are all consistent or all not.
    """
    kept = defined_rows(scores)
    good, labels = labelled.good[kept], labelled.labels[kept]
    if not 0 < good.sum() < len(good):
        raise ValueError(
            f"{labelled.name}: must have consistent summaries and others with all scores; of {len(good)} with all of "
            f"{', '.join(scores)}, {int(good.sum())} are consistent. Leave out a score that few summaries have"
        )
    sample = DocumentSample([source for source, is_kept in zip(labelled.sources, kept, strict=True) if is_kept])
    # The pairs of which both summaries are kept, by their new places.
    pairs = (np.cumsum(kept) - 1)[labelled.pairs[kept[labelled.pairs].all(axis=1)]]
    measured: dict[str, ScoreAgreement] = {}
    first: Estimate | None = None
    for name, column in scores.items():
        values = column[kept]
        threshold = best_threshold(values, good)
        won = wins(*values[pairs.T])
        estimates = (
            sample.pooled(pearson, values, labels),
            sample.pooled(spearman, values, labels),
            sample.pooled(roc_auc, values, good),
            sample.mean(won, rows=pairs[:, 0]),
            sample.balanced_accuracy(values >= threshold, good),
            sample.cross_validated_accuracy(values, good),
        )
        statistics = dict(zip(STATISTICS, estimates, strict=True))
        auc = statistics["ROC AUC"]
        less_first = None if first is None else auc - first
        first = first or auc
        num_undefined = int(np.isnan(column).sum())
        measured[name] = ScoreAgreement(statistics, threshold, less_first, num_undefined)
    return Agreement(
        name=labelled.name,
        num_summaries=len(good),
        num_sources=len(sample.of_document),
        num_consistent=int(good.sum()),
        num_pairs=len(pairs),
        num_unlabelled=labelled.num_unlabelled,
        num_undefined=int((~kept).sum()),
        scores=measured,
        signatures=dict(signatures or {}),
    )
