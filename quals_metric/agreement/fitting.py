"""Fit a calibration to labelled summaries, and measure how reliable its probabilities are.

The map is an isotonic regression: the best one among all that do not fall. Several files are several data sets, and
each has the same weight, however many summaries it has.

Reliability is measured on summaries that the map has not seen: by cross-validation over sources, and with every data
set left out in turn. The second says more about a user's own summaries, which are a set of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qa_inference import __version__
from qa_inference.calibration import Calibration
from qa_inference.metric_base.results import json_ready
from quals_metric.agreement.labelled import LabelledSet
from quals_metric.agreement.statistics import DocumentSample, Estimate, Flags, Floats, Places, roc_auc
from quals_metric.files.tables import Source

FOLDS = 10
BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Summaries with similar probabilities: their number, mean probability, and the share that is consistent.

    `low` and `high` bound the 95 % interval of the share.
    """

    count: int
    probability: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Reliability:
    """How well probabilities fit the labels of summaries that they were not made from.

    Attributes:
        name: the summaries.
        num_summaries: how many they are.
        share: the share of them that is consistent.
        mean: the mean of their probabilities. Good probabilities have the same mean as the labels.
        brier: the Brier score, the mean squared distance of probability and label; lower is better.
        brier_of_share: the Brier score of one probability for all, the `share`. A lower `brier` says that the
            probabilities tell more than the share does.
        calibration_error: the mean distance of probability and share in the `bins`.
        roc_auc: the area under the ROC curve of the scores.
        bins: up to ten bins of about equally many summaries.
    """

    name: str
    num_summaries: int
    share: float
    mean: float
    brier: Estimate
    brier_of_share: float
    calibration_error: float
    roc_auc: float
    bins: tuple[ReliabilityBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict for JSON."""
        bins = [asdict(part) for part in self.bins]
        plain: dict[str, Any] = json_ready(vars(self) | {"brier": self.brier.to_dict(), "bins": bins})
        return plain


@dataclass(frozen=True)
class Fit:
    """A calibration, its reliability by cross-validation, and that on each data set when it is left out."""

    calibration: Calibration
    cross_validated: Reliability
    left_out: tuple[Reliability, ...]

    @property
    def threshold(self) -> float:
        """The least score with a probability of at least .5; NaN if no score has one."""
        scores, probabilities = self.calibration.scores, self.calibration.probabilities
        above = next((index for index, value in enumerate(probabilities) if value >= 0.5), None)
        if above is None:
            return math.nan
        points = slice(max(0, above - 1), above + 1)
        return float(np.interp(0.5, probabilities[points], scores[points]))


@dataclass(frozen=True)
class ScoredSet:
    """A labelled set with a defined score of every summary that is kept."""

    labelled: LabelledSet
    scores: Floats
    good: Flags
    sources: Sequence[Source]

    @classmethod
    def of(cls, labelled: LabelledSet, scores: Floats) -> ScoredSet:
        """The summaries of a set that have a score."""
        kept = ~np.isnan(scores)
        sources = [source for source, is_kept in zip(labelled.sources, kept, strict=True) if is_kept]
        return cls(labelled, scores[kept], labelled.good[kept], sources)


def fit_calibration(sets: Sequence[ScoredSet], metric: str, settings: Mapping[str, object]) -> Fit:
    """Fit a calibration to the scores of labelled summaries.

    Args:
        sets: the data sets, each with its scores.
        metric: the metric of the scores.
        settings: the settings in their signature.

    Raises:
        ImportError: without scikit-learn.
        ValueError: if a set has no score, all summaries are consistent, or none, or they have less than two sources.
    """
    for scored_set in sets:
        if len(sets) > 1 and not len(scored_set.scores):
            raise ValueError(
                f"{scored_set.labelled.name}: must have a summary with a score; none has. Leave the file out"
            )
    sources = check_can_be_fitted((scored_set.good, scored_set.sources) for scored_set in sets)
    scores, good, weights = _joined(sets)
    sample = DocumentSample(sources)
    cross_validated = measure_reliability(
        "all, cross-validated", out_of_fold(scores, good, weights, sample.documents), scores, good, sample
    )
    left_out = [_left_out(sets, index) for index in range(len(sets))] if len(sets) > 1 else []
    thresholds, probabilities = _isotonic(scores, good, weights)
    about = {
        "data": [_described(scored_set) for scored_set in sets],
        "cross_validated": cross_validated.to_dict(),
        "left_out": [reliability.to_dict() for reliability in left_out],
        "version": __version__,
    }
    calibration = Calibration(
        metric,
        {name: str(value) for name, value in settings.items()},
        tuple(map(float, thresholds)),
        tuple(map(float, probabilities)),
        about,
    )
    return Fit(calibration, cross_validated, tuple(left_out))


def check_can_be_fitted(sets: Iterable[tuple[Flags, Sequence[Source]]]) -> list[Source]:
    """The sources of all labelled summaries. Raises ValueError unless a calibration can be fitted to them.

    Args:
        sets: for each data set, whether each summary is consistent, and its source.
    """
    labels, sources = [], list[Source]()
    for good, of_set in sets:
        labels += list(good)
        sources += of_set
    if not 0 < sum(labels) < len(labels) or len(set(sources)) < 2:
        raise ValueError(
            f"the labelled summaries: must come from two sources or more, some consistent and some not; got "
            f"{len(labels)} of {len(set(sources))} sources, {int(sum(labels))} of them consistent. Label more"
        )
    return sources


def out_of_fold(scores: Floats, good: Flags, weights: Floats, documents: Places) -> Floats:
    """The probability of every summary by a map that has seen no summary of the same document."""
    from sklearn.model_selection import GroupKFold

    folds = GroupKFold(min(FOLDS, len(np.unique(documents))))
    probabilities = np.full(len(scores), math.nan)
    for seen, unseen in folds.split(scores, groups=documents):
        probabilities[unseen] = np.interp(scores[unseen], *_isotonic(scores[seen], good[seen], weights[seen]))
    return probabilities


def measure_reliability(
    name: str, probabilities: Floats, scores: Floats, good: Flags, sample: DocumentSample
) -> Reliability:
    """Measure how well probabilities fit labels.

    Args:
        name: a name for the summaries.
        probabilities: the probability of every summary.
        scores: the score of every summary.
        good: a mask of the summaries that are consistent.
        sample: the documents of the summaries.
    """
    labels = good.astype(float)
    share = float(labels.mean())
    # 1. Bounds that cut the summaries into bins of about equal size; equal probabilities stay together.
    bounds = np.unique(np.quantile(probabilities, np.linspace(0, 1, BINS + 1)[1:-1]))
    bin_of = np.searchsorted(bounds, probabilities, side="right")
    # 2. The share of consistent summaries in every bin, with its interval.
    bins = []
    for number in np.unique(bin_of):
        here = bin_of == number
        estimate = sample.mean(labels, here)
        count, mean = int(here.sum()), float(probabilities[here].mean())
        bins.append(ReliabilityBin(count, mean, estimate.value, *estimate.interval))
    return Reliability(
        name=name,
        num_summaries=len(labels),
        share=share,
        mean=float(probabilities.mean()),
        brier=sample.mean((probabilities - labels) ** 2),
        brier_of_share=share * (1 - share),
        calibration_error=sum(part.count * abs(part.probability - part.share) for part in bins) / len(labels),
        roc_auc=roc_auc(scores, good),
        bins=tuple(bins),
    )


def check_scikit_learn() -> None:
    """Raise ImportError, with the remedy, if scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "calibration: needs scikit-learn; it is not installed. pip install 'quals-metric[calibrate]'"
        ) from error


def _left_out(sets: Sequence[ScoredSet], index: int) -> Reliability:
    """The reliability on one set of the map that is fitted to the others."""
    left_out, others = sets[index], [scored_set for number, scored_set in enumerate(sets) if number != index]
    probabilities = np.interp(left_out.scores, *_isotonic(*_joined(others)))
    sample = DocumentSample(left_out.sources)
    return measure_reliability(left_out.labelled.name, probabilities, left_out.scores, left_out.good, sample)


def _joined(sets: Sequence[ScoredSet]) -> tuple[Floats, Flags, Floats]:
    """The scores and labels of all sets, and weights that give every set the same."""
    scores = np.concatenate([scored_set.scores for scored_set in sets])
    good = np.concatenate([scored_set.good for scored_set in sets])
    weights = np.concatenate(
        [np.full(len(scored_set.scores), 1 / max(1, len(scored_set.scores))) for scored_set in sets]
    )
    return scores, good, weights * len(scores) / len(sets)


def _isotonic(scores: Floats, good: Flags, weights: Floats) -> tuple[Floats, Floats]:
    """The map as points: scores and their probabilities, for `np.interp`."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1).fit(scores, good.astype(float), weights)
    return fitted.X_thresholds_, fitted.y_thresholds_


def _described(scored: ScoredSet) -> dict[str, Any]:
    """A data set in the file of a calibration."""
    return {
        "name": scored.labelled.name,
        "sha256": scored.labelled.digest,
        "summaries": len(scored.scores),
        "undefined": len(scored.labelled.labels) - len(scored.scores),
        "sources": len(set(scored.sources)),
        "consistent": int(scored.good.sum()),
    }
