"""Results as plain text for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quals_metric.metrics import format_number, format_share, metric_spec
from quals_metric.report.spelling import natural_question

if TYPE_CHECKING:
    from qa_inference.metric_base.results import ScoredSummary
    from quals_metric.agreement.agreement import Agreement
    from quals_metric.agreement.fitting import Fit, Reliability
    from quals_metric.agreement.tables import StatisticsTable
    from quals_metric.files.compare import Comparison, SystemsComparison, SystemScore
    from quals_metric.files.scoring import FileScores

WIDTH = 100


def paragraph(label: str, text: str) -> str:
    """A labelled text, wrapped, with its lines below one another."""
    lead = f"{label}: "
    filled = textwrap.fill(printable(text), WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead))
    return filled or lead.rstrip()


def summary_block(
    label: str, scored: ScoredSummary, passages: Sequence[str] = (), threshold: float | None = None
) -> str:
    """One summary, its score, and the questions behind the score, the lowest first.

    If the source is several `passages`, each question has the number of its passage, from 1. If there are several
    sentences, their scores follow, and then the answers below `threshold` (None: the metric's). Words of a question are
    written as in the summary or in the source.
    """
    head, spec = paragraph(label, scored.text), metric_spec(scored.metric)
    if math.isnan(scored.score):
        return f"{head}\n  {spec.title} undefined: {printable(scored.note)}"
    items = [
        replace(item, question=natural_question(item.question, scored.text, *passages))
        for item in sorted(scored.items, key=lambda item: item.score)
    ]
    columns, rows = spec.columns, [(format_number(item.score), *spec.cells(item)) for item in items]
    if len(passages) > 1:
        columns = (*columns[:-1], "passage", columns[-1])
        rows = [(*row[:-1], str(item.passage + 1), row[-1]) for row, item in zip(rows, items, strict=True)]
    in_01 = f"   (0 to 1: {format_number(scored.score_01)})" if spec.shows_01 else ""
    probability = "" if scored.probability is None else f"   probability: {format_number(scored.probability)}"
    score = f"{spec.title} {format_number(scored.score)}{in_01}{probability}"
    limit = spec.threshold if threshold is None else threshold
    return "\n".join([f"{head}\n  {score}\n{rows_block(columns, rows)}", *_places(scored, limit)])


def _places(scored: ScoredSummary, threshold: float) -> list[str]:
    """The scores of the sentences, if there are several, and the answers below the threshold."""
    sentences = [(format_number(part.score), part.text) for part in scored.sentences]
    blocks = [rows_block(("score", "sentence"), sentences)] if len(sentences) > 1 else []
    if spans := scored.spans(threshold):
        answers = ", ".join(f"{span['text']} ({format_number(span['score'])})" for span in spans)
        blocks.append(textwrap.indent(paragraph(f"unsupported (below {threshold:g})", answers), "    "))
    return blocks


def file_scores_text(scores: FileScores, spans: bool = False) -> str:
    """The mean of a score file, its interval, its counts and its groups; with `spans`, the rate of unsupported ones."""
    spec = metric_spec(scores.metric)
    in_01 = f"   (0 to 1: {format_number(scores.score_01, 4)})" if spec.shows_01 else ""
    windowed = f"{scores.num_windowed_summaries:,} summaries and {scores.num_windowed_sources:,} sources in windows"
    return "\n".join(
        (
            f"{spec.title:<11}{_interval(scores.score, scores.low, scores.high)}{in_01}",
            f"rows       {scores.rows:,}, of which {scores.num_undefined:,} undefined; {windowed}",
            f"written    {printable(str(scores.output))}",
            f"signature: {printable(scores.signature)}",
            *([probability_legend(scores.calibration)] if scores.calibration else []),
            *([_unsupported(scores)] if spans or scores.by else []),
            *([_groups_block(scores)] if scores.by else []),
        )
    )


def probability_legend(calibration: str) -> str:
    """The meaning of a probability, and the labels that its calibration was made from."""
    return paragraph("probability", f"how likely it is that people call the summary consistent. {calibration}")


def _unsupported(scores: FileScores) -> str:
    rate = format_share(scores.unsupported_rate)
    return f"unsupported: {rate} of the summaries with a score have an answer below {scores.threshold:g}"


def _groups_block(scores: FileScores) -> str:
    """A table of the groups."""
    header = ("summaries", "mean", "95 % interval", "undefined", "unsupported", scores.by)
    rows = [
        (
            f"{group.rows:,}",
            format_number(group.score),
            f"{format_number(group.low)} to {format_number(group.high)}",
            format_share(group.undefined_rate),
            format_share(group.unsupported_rate),
            group.name,
        )
        for group in scores.groups
    ]
    return rows_block(header, rows)


def comparison_text(comparison: Comparison, a: Path, b: Path) -> str:
    """Two systems' means, their difference, and whether it may be chance."""
    resamples, trials = f"{comparison.resamples:,}", f"{comparison.trials:,}"
    return "\n".join(
        (
            *(
                f"{name:<11}{_interval(system.score, system.low, system.high)}   {printable(str(path))}"
                for name, system, path in (("a", comparison.a, a), ("b", comparison.b, b))
            ),
            f"b - a      {_interval(comparison.difference, comparison.low, comparison.high)}",
            f"p          {comparison.p_bootstrap:.4f} paired bootstrap ({resamples} resamples)",
            f"           {comparison.p_randomization:.4f} paired approximate randomization ({trials} trials)",
            f"rows       {comparison.num_rows:,} compared, {comparison.num_undefined:,} left out: undefined in a or b",
            f"seed       {comparison.seed}",
        )
    )


def systems_text(comparison: SystemsComparison, paths: Sequence[Path]) -> str:
    """Several systems, the best first, and their differences in pairs."""
    paths_of = dict(zip(comparison.systems, paths, strict=True))
    best_first = sorted(comparison.systems.items(), key=lambda item: -item[1].score)
    systems = [
        (
            name,
            format_number(system.score, 4),
            _bounds_text(system),
            f"{comparison.undefined[name]:,}",
            str(paths_of[name]),
        )
        for name, system in best_first
    ]
    pairs = [
        (
            f"{pair.b} - {pair.a}",
            format_number(pair.comparison.difference, 4),
            _bounds_text(pair.comparison),
            f"{pair.comparison.p_bootstrap:.4f}",
            f"{pair.comparison.p_randomization:.4f}",
            f"{pair.p_holm:.4f}",
        )
        for pair in comparison.pairs
    ]
    return "\n".join(
        (
            rows_block(("system", "mean", "95 % interval", "undefined", "file"), systems),
            "",
            rows_block(("pair", "difference", "95 % interval", "p bootstrap", "p randomization", "p Holm"), pairs),
            "",
            f"rows       {comparison.num_rows:,} compared, {comparison.num_undefined:,} left out: "
            "undefined in a system",
            f"p          paired bootstrap ({comparison.resamples:,} resamples), paired approximate randomization",
            f"           ({comparison.trials:,} trials), and the latter after Holm's correction for {len(pairs)} pairs",
            f"seed       {comparison.seed}",
        )
    )


def rows_block(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns. The last column is wrapped to the rest of the width, the others at a third of the width."""
    cells = [[textwrap.wrap(printable(cell), WIDTH // 3) or [""] for cell in row[:-1]] for row in (header, *rows)]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(header) - 1)]
    left = max(24, WIDTH - 2 - sum(width + 2 for width in widths))
    lines = []
    for row, start in zip((header, *rows), cells, strict=True):
        columns = [*start, textwrap.wrap(printable(row[-1]), left) or [""]]
        for index in range(max(map(len, columns))):
            parts = [column[index] if index < len(column) else "" for column in columns]
            padded = [part.ljust(width) for part, width in zip(parts, [*widths, 0], strict=True)]
            lines.append(("    " + "  ".join(padded)).rstrip())
    return "\n".join(lines)


def agreement_text(agreement: Agreement, reliabilities: Sequence[Reliability]) -> str:
    """An agreement with people's labels: its counts, its tables and its signatures."""
    from quals_metric.agreement.tables import counts_line, tables_of_set

    return "\n\n".join(
        [
            f"{printable(agreement.name)}: {counts_line(agreement)}",
            *map(_statistics_text, tables_of_set(agreement, reliabilities)),
            *(f"signature of {name}: {printable(text)}" for name, text in agreement.signatures.items()),
        ]
    )


def fit_text(fit: Fit, output: Path, signature: str) -> str:
    """A calibration: its reliability, its threshold, and where it was written."""
    from quals_metric.agreement.tables import reliability_table, threshold_text

    return "\n\n".join(
        [
            _statistics_text(reliability_table([fit.cross_validated, *fit.left_out])),
            f"{threshold_text(fit)}\nwritten    {printable(str(output))} ({fit.calibration.digest})\n"
            f"signature: {printable(signature)}",
        ]
    )


def _statistics_text(table: StatisticsTable) -> str:
    """A table of statistics: its title, what it shows, and its rows in columns."""
    notes = [textwrap.fill(note, WIDTH, initial_indent="  ", subsequent_indent="  ") for note in table.notes]
    return "\n".join([table.title, *notes, rows_block(table.head, table.rows)])


def printable(text: str) -> str:
    """A text without the characters that move a terminal's cursor or change its colours."""
    return "".join(char if char.isprintable() else " " for char in text)


def _bounds_text(interval: SystemScore | Comparison) -> str:
    return f"{format_number(interval.low, 4)} to {format_number(interval.high, 4)}"


def _interval(value: float, low: float, high: float) -> str:
    point, first, last = (format_number(number, 4) for number in (value, low, high))
    return f"{point}   95 % interval {first} to {last}"
