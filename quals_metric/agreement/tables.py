"""Agreement and reliability as tables and lines of text, for a page and for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quals_metric.agreement.agreement import STATISTICS, Agreement
from quals_metric.agreement.fitting import Fit, Reliability
from quals_metric.agreement.statistics import Estimate
from quals_metric.metrics import format_number


@dataclass(frozen=True)
class StatisticsTable:
    """A table of a page or of a terminal: its title, lines above it, its head and its rows."""

    title: str
    notes: tuple[str, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def interval_text(estimate: Estimate) -> str:
    """A statistic with its 95 % interval."""
    if math.isnan(estimate.value):
        return "undefined"
    low, high = map(format_number, estimate.interval)
    return f"{format_number(estimate.value)} [{low}, {high}]"


def agreement_tables(agreement: Agreement) -> list[StatisticsTable]:
    """The statistics of an agreement: correlations, and then accuracies with thresholds."""
    first = next(iter(agreement.scores))
    correlations = [
        (
            name,
            *(interval_text(score.statistics[statistic]) for statistic in STATISTICS[:3]),
            "" if score.less_first is None else interval_text(score.less_first),
        )
        for name, score in agreement.scores.items()
    ]
    accuracies = [
        (
            name,
            *(interval_text(score.statistics[statistic]) for statistic in STATISTICS[3:]),
            format_number(score.threshold),
        )
        for name, score in agreement.scores.items()
    ]
    pairs = f"pairwise accuracy ({agreement.num_pairs:,} pairs)"
    return [
        StatisticsTable(
            "Correlation with the labels",
            (
                "ROC AUC, the area under the ROC curve, is the chance that a consistent summary scores above another "
                "one; .5 is no better than chance. In brackets: 95 % intervals, from resamples of the sources.",
            ),
            ("score", *STATISTICS[:3], f"ROC AUC less {first}"),
            tuple(correlations),
        ),
        StatisticsTable(
            "Accuracy",
            (
                "Pairwise accuracy: how often the better one of two summaries of a source has the higher score. "
                "Balanced accuracy: a summary is called consistent if its score is at least the threshold; the "
                "accuracy is the mean of two shares, of the consistent summaries that are called so and of the others "
                "that are not. The best threshold was chosen on the same summaries, so its accuracy is too high. The "
                "cross-validated one was chosen on all other sources: expect this accuracy on new summaries. .5 is no "
                "better than chance.",
            ),
            ("score", pairs, "balanced accuracy, best", "… cross-validated", "best threshold"),
            tuple(accuracies),
        ),
    ]


def reliability_table(reliabilities: Sequence[Reliability]) -> StatisticsTable:
    """How reliable probabilities are, one row for each set of summaries."""
    rows = [
        (
            reliability.name,
            f"{reliability.num_summaries:,}",
            format_number(reliability.share),
            format_number(reliability.mean),
            interval_text(reliability.brier),
            format_number(reliability.brier_of_share),
            format_number(reliability.calibration_error),
            format_number(reliability.roc_auc),
        )
        for reliability in reliabilities
    ]
    return StatisticsTable(
        "Reliability of the probabilities",
        (
            "The Brier score is the mean squared distance of probability and label; lower is better. It should be "
            "below “… of the share”: the Brier score of one probability for all, the share that is consistent. The "
            "error is the mean distance between the probability and the share that is consistent.",
        ),
        ("summaries", "number", "consistent", "mean probability", "Brier score", "… of the share", "error", "ROC AUC"),
        tuple(rows),
    )


def tables_of_set(agreement: Agreement, reliabilities: Sequence[Reliability]) -> list[StatisticsTable]:
    """The tables of one set: its statistics, and the reliability where it was measured."""
    return agreement_tables(agreement) + ([reliability_table(reliabilities)] if reliabilities else [])


def count_of_sources(count: int) -> str:
    """A number of sources in words."""
    return f"{count:,} {'source' if count == 1 else 'sources'}"


def counts_line(agreement: Agreement) -> str:
    """The numbers of summaries in one line."""
    left_out = [
        f"{count:,} {reason}"
        for count, reason in (
            (agreement.num_undefined, "left out: a score is undefined"),
            (agreement.num_unlabelled, "without a label"),
        )
        if count
    ]
    about = (
        f"{agreement.num_summaries:,} summaries of {count_of_sources(agreement.num_sources)}, "
        f"{agreement.num_consistent:,} consistent"
    )
    return "; ".join([about, *left_out])


def threshold_text(fit: Fit) -> str:
    """The scores with a probability of at least .5, in words."""
    if math.isnan(fit.threshold):
        return "no score has a probability of .5"
    if fit.calibration.probabilities[0] >= 0.5:
        return "every score has a probability of .5 or more"
    return f"the probability is .5 or more from a score of {format_number(fit.threshold)} on"
