"""Score labelled sets by a metric, and measure the probabilities; warn where labels are few or not independent."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qa_inference.calibration import Calibration
from qa_inference.metric_base.results import CorpusResult, ScoredSummary
from qa_inference.metric_base.texts import texts_of_scorer
from quals_metric.agreement.agreement import Agreement
from quals_metric.agreement.fitting import Fit, Reliability, measure_reliability, out_of_fold
from quals_metric.agreement.labelled import LabelledSet
from quals_metric.agreement.statistics import DocumentSample, Flags, Floats
from quals_metric.agreement.tables import count_of_sources
from quals_metric.metrics import format_number

FEWEST_SOURCES = 30  # with fewer, an interval by source is too narrow
FEWEST_LABELS = 100  # with fewer, an isotonic map follows chance


def score_set(scorer: Any, labelled: LabelledSet) -> CorpusResult[ScoredSummary]:
    """The result of a set; on a terminal with a progress bar."""
    texts = {"summaries": labelled.summaries, **texts_of_scorer(labelled.sources)}
    result: CorpusResult[ScoredSummary] = scorer.score(**texts, progress=sys.stderr.isatty())
    return result


def array_of(values: Sequence[float]) -> Floats:
    """The scores or probabilities of a result as an array."""
    return np.array(values, dtype=float)


def measure_reliabilities(
    labelled: LabelledSet, kept: Flags, scores: Mapping[str, Floats], probabilities: Mapping[str, Floats]
) -> list[Reliability]:
    """The reliability of the probabilities that a calibration gave, or else of cross-validated ones of the scores."""
    good = labelled.good[kept]
    sample = DocumentSample([source for source, is_kept in zip(labelled.sources, kept, strict=True) if is_kept])
    measured = []
    for name in {**scores, **probabilities}:
        if name in probabilities:
            values = probabilities[name][kept]
            measured.append(measure_reliability(f"{name}, by the calibration", values, values, good, sample))
        elif len(sample.of_document) > 1:
            values = scores[name][kept]
            fitted = out_of_fold(values, good, np.ones(len(values)), sample.documents)
            measured.append(measure_reliability(f"{name}, cross-validated", fitted, values, good, sample))
    return measured


def warn_of_own_labels(calibration: Calibration | None, labelled: LabelledSet) -> None:
    """Warn if a calibration was made from these labels."""
    if calibration is None:
        return
    if labelled.digest in {data.get("sha256") for data in calibration.about.get("data", ())}:
        warnings.warn(
            f"{labelled.name}: the calibration was made from this file, so it looks better here than it is. Measure it "
            f"on other labels",
            UserWarning,
            stacklevel=2,
        )


def warn_of_few_sources(agreement: Agreement) -> None:
    """Warn if a set has too few sources for its intervals."""
    if agreement.num_sources < FEWEST_SOURCES:
        warnings.warn(
            f"{agreement.name}: only {count_of_sources(agreement.num_sources)}: below {FEWEST_SOURCES} the intervals "
            f"are too narrow, and hardly any difference shows",
            UserWarning,
            stacklevel=2,
        )


def warn_of_weak_fit(fit: Fit) -> None:
    """Warn of a calibration from few labels, or one that is no better than a single probability."""
    reliability = fit.cross_validated
    if reliability.num_summaries < FEWEST_LABELS:
        warnings.warn(
            f"only {reliability.num_summaries} labelled summaries: below {FEWEST_LABELS} the probabilities mean little",
            UserWarning,
            stacklevel=2,
        )
    for measured in (reliability, *fit.left_out):
        if measured.brier.value >= measured.brier_of_share:
            warnings.warn(
                f"{measured.name}: the probabilities are no better than one probability for all: Brier score "
                f"{format_number(measured.brier.value)}, that of the share {format_number(measured.brier_of_share)}",
                UserWarning,
                stacklevel=2,
            )
