"""Agreement of scores with labels: correlations, accuracies, thresholds, and bootstrap intervals by document.

Summaries of the same document are not independent, so a resample draws documents and takes all rows of each. All
statistics of one `DocumentSample` use the same resamples: their differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qa_inference.significance import RESAMPLES, SEED

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]


def pearson(scores: Floats, labels: Floats) -> float:
    """Pearson's correlation; NaN where one side is constant."""
    return float(np.corrcoef(scores, labels)[0, 1]) if scores.std() and labels.std() else math.nan


def spearman(scores: Floats, labels: Floats) -> float:
    """Spearman's rank correlation; NaN where one side is constant."""
    return pearson(ranks(scores), ranks(labels))


def roc_auc(scores: Floats, good: Flags) -> float:
    """The chance that a consistent summary (`good`) scores above another one; a tie counts half."""
    count = int(good.sum())
    if not 0 < count < len(good):
        return math.nan
    return float((ranks(scores)[good].sum() - count * (count + 1) / 2) / (count * (len(good) - count)))


def ranks(values: Floats) -> Floats:
    """The ranks from 1 on; equal values share the mean of their ranks."""
    return np.asarray(pd.Series(values).rank(), dtype=np.float64)


def wins(better: Floats, worse: Floats) -> Floats:
    """For pairs of scores: 1 where the better summary scores higher, 0.5 where both score the same, else 0."""
    return np.asarray((better > worse) + 0.5 * (better == worse), dtype=np.float64)


def best_threshold(scores: Floats, good: Flags) -> float:
    """The score from which on to call a summary consistent, so that the balanced accuracy is greatest."""
    candidates = np.unique(scores)
    missed = np.searchsorted(np.sort(scores[good]), candidates) / max(1, good.sum())
    seen = np.searchsorted(np.sort(scores[~good]), candidates) / max(1, (~good).sum())
    return float(candidates[np.argmax(seen - missed)])


def called_consistent(scores: Floats, good: Flags, documents: Places) -> Flags:
    """A mask of the summaries that score at least the `best_threshold` of all the other documents.

    There must be at least two documents, numbered from 0 on.
    """
    others = (documents != document for document in range(documents.max() + 1))
    thresholds = np.array([best_threshold(scores[is_other], good[is_other]) for is_other in others])
    return np.asarray(scores >= thresholds[documents])


@dataclass(frozen=True)
class Estimate:
    """A statistic, and its value in every resample [R]."""

    value: float
    resampled: Floats

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.value + other.value, self.resampled + other.resampled)

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.resampled * factor)

    def __sub__(self, other: Estimate) -> Estimate:
        return self + other * -1

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval: the 2.5th and the 97.5th percentile of the defined values; NaN if there is none."""
        if np.isnan(self.resampled).all():
            return math.nan, math.nan
        low, high = np.nanpercentile(self.resampled, [2.5, 97.5])
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """The statistic with its interval."""
        return {"value": self.value, "interval": list(self.interval)}


class DocumentSample:
    """Rows that belong to documents, and the resamples of these documents.

    Args:
        documents: the document of every row, for example its text. The documents are numbered in order.
    """

    def __init__(self, documents: Sequence[Hashable]) -> None:
        numbers: dict[Hashable, int] = {}
        self.documents: Places = np.array([numbers.setdefault(name, len(numbers)) for name in documents], int)
        self.of_document = [np.flatnonzero(self.documents == number) for number in range(len(numbers))]
        # The same at every call, so that differences of statistics are paired.
        self.draws: Places = np.random.default_rng(SEED).integers(0, len(numbers), (RESAMPLES, len(numbers)))

    @cached_property
    def row_draws(self) -> list[Places]:
        """The rows of every resample's documents."""
        return [np.concatenate([self.of_document[document] for document in draw]) for draw in self.draws]

    def pooled(self, statistic: Callable[..., float], *columns: NDArray[Any]) -> Estimate:
        """A statistic of some columns, over all rows."""
        resampled = [statistic(*(column[rows] for column in columns)) for rows in self.row_draws]
        return Estimate(statistic(*columns), np.array(resampled))

    def mean(self, values: Floats, where: Flags | None = None, rows: Places | None = None) -> Estimate:
        """The mean of some values.

        Args:
            values: one for every row, or for every one of `rows`.
            where: a mask of the values that count; None: all do.
            rows: the row that each value belongs to; a row may have any number of values. None: each has one.
        """
        documents = self.documents if rows is None else self.documents[rows]
        weights = np.ones(len(values)) if where is None else where.astype(float)
        count = len(self.of_document)
        sums, counts = (np.bincount(documents, amounts, count) for amounts in (values * weights, weights))
        with np.errstate(invalid="ignore"):
            resampled = sums[self.draws].sum(1) / counts[self.draws].sum(1)
            return Estimate(float(sums.sum() / counts.sum()), resampled)

    def balanced_accuracy(self, called: Flags, good: Flags) -> Estimate:
        """The mean of two shares: consistent summaries that are called so, and others that are not."""
        right = (called == good).astype(float)
        return (self.mean(right, good) + self.mean(right, ~good)) * 0.5

    def cross_validated_accuracy(self, scores: Floats, good: Flags) -> Estimate:
        """The balanced accuracy at a threshold that is chosen on all other documents; NaN if there is only one."""
        if len(self.of_document) < 2:
            return Estimate(math.nan, np.full(len(self.draws), math.nan))
        return self.balanced_accuracy(called_consistent(scores, good, self.documents), good)
