"""The page of an agreement or of a calibration: its tables, and a reliability plot for each set of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from quals_metric.agreement.agreement import Agreement
from quals_metric.agreement.fitting import Fit, Reliability
from quals_metric.agreement.tables import (
    StatisticsTable,
    counts_line,
    reliability_table,
    tables_of_set,
    threshold_text,
)
from quals_metric.metrics import metric_spec
from quals_metric.report.figures import reliability_svg, render_template
from quals_metric.report.html import PAGE


def agreement_page(agreements: Sequence[tuple[Agreement, Sequence[Reliability]]], consistent_from: float) -> bytes:
    """The page of `quals agree`, as UTF-8.

    Args:
        agreements: of every set, the agreement and the reliabilities to plot.
        consistent_from: the least label of a summary that counts as consistent.
    """
    intro = (
        f"How far do scores agree with people's labels? A summary counts as consistent if its label is "
        f"{consistent_from:g} or more.",
        "The shares of copied n-grams say how many of a summary's words, and of its runs of 2, 3 and 4 words, are in "
        "the source. They need no model. A useful metric agrees better than they do.",
    )
    facts, tables, plots = [], [], []
    for agreement, reliabilities in agreements:
        facts.append((agreement.name, counts_line(agreement)))
        tables += [
            replace(table, title=f"{table.title}: {agreement.name}")
            for table in tables_of_set(agreement, reliabilities)
        ]
        plots += [replace(reliability, name=f"{agreement.name}: {reliability.name}") for reliability in reliabilities]
    signatures = {name: text for agreement, _ in agreements for name, text in agreement.signatures.items()}
    facts += [(f"Signature of {name}", text) for name, text in signatures.items()]
    return _html("Agreement with people", facts, tables, plots, intro)


def calibration_page(fit: Fit, signature: str) -> bytes:
    """The page of `quals calibrate`, as UTF-8. `signature`: of the scorer that the calibration is for."""
    reliabilities = [fit.cross_validated, *fit.left_out]
    intro = [
        "A calibration is a map from a score to the probability that people call the summary consistent. The tables "
        "and plots are of summaries that the map has not seen.",
        fit.calibration.origin,
        f"{threshold_text(fit).capitalize()}.",
    ]
    if fit.left_out:
        intro.append("Each file was also left out once: its numbers are those of a map that was made from the others.")
    facts = [
        ("Metric", metric_spec(fit.calibration.metric).title),
        ("Calibration", fit.calibration.digest),
        ("Signature", signature),
    ]
    return _html("Calibration", facts, [reliability_table(reliabilities)], reliabilities, intro)


def _html(
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
