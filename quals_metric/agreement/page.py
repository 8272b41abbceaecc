"""The page of an agreement or of a calibration: its tables, and a reliability plot for each set of probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from quals_metric.agreement.agreement import STATISTICS, Agreement
from quals_metric.agreement.fitting import Reliability
from quals_metric.agreement.statistics import Estimate
from quals_metric.metrics import format_number
from quals_metric.report.figures import reliability_svg, render_template
from quals_metric.report.html import PAGE


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


def agreement_html(
    title: str,
    facts: Sequence[tuple[str, str]],
    tables: Sequence[StatisticsTable],
    reliabilities: Sequence[Reliability],
    intro: Sequence[str] = (),
) -> bytes:
    """The page as UTF-8. It needs nothing but a browser and asks nothing of a network.

    Args:
        title: the title of the page.
        facts: facts of the whole, each with its name; the last takes a line of its own.
        tables: the tables to show.
        reliabilities: of each, a plot is shown.
        intro: what the page is about, in paragraphs.
    """
    plots = [
        (Markup(reliability_svg(reliability.bins, f"Reliability: {reliability.name}")), reliability)
        for reliability in reliabilities
    ]
    values = dict(title=title, intro=intro, facts=facts, tables=tables, plots=plots)
    return render_template("agreement.html.jinja", **PAGE, **values).encode()
