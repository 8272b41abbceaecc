"""Writing the page of a comparison: the rows on which systems differ most, with their summaries side by side.

Like a report, the page is one file that asks nothing of a network. Its one script, allowed by its digest, searches and
filters the rows. Without it, all rows are shown.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files as files_of_package
from pathlib import Path

from markupsafe import Markup

from quals_metric.files import durable
from quals_metric.files.compare import SystemsComparison
from quals_metric.files.scored_files import ScoreFile
from quals_metric.files.tables import has_text_cells, records, source_of_cell
from quals_metric.metrics import MetricSpec, metric_of_row
from quals_metric.report.figures import marked_summary_html, render_template
from quals_metric.report.html import REPORT_CSS, RESERVE, csp_digest, legend_html
from quals_metric.report.rows import SHOWN_TEXT, Entry
from quals_metric.report.spelling import natural_question
from quals_metric.report.writing import DETAILS, MAX_BYTES, entry_of_row

_TEMPLATES = files_of_package("quals_metric.report") / "templates"
_CSS = REPORT_CSS + (_TEMPLATES / "comparison.css").read_text(encoding="utf-8")
_SCRIPT = (_TEMPLATES / "comparison.js").read_text(encoding="utf-8")


def explained_metric(paths: Sequence[Path], summary: str = "summary", source: str = "source") -> MetricSpec:
    """The metric of score files that hold what the page shows: summaries, sources and questions.

    Raises:
        ValueError: if a file does not hold them, or the files are of several metrics.
        OSError: if a file cannot be read.
    """
    metrics = []
    for path in paths:
        _, row = next(records(path), ("", {}))
        spec = metric_of_row(row)
        if spec is None or summary not in row or source not in row:
            raise ValueError(
                f"{path}: must have the columns {summary!r} and {source!r}, and the questions; it has "
                f"{', '.join(map(repr, row)) or 'no rows'}. Score with --keep --pairs"
            )
        metrics.append(spec)
    if len({spec.name for spec in metrics}) > 1:
        names = ", ".join(f"{path} has those of {spec.name}" for path, spec in zip(paths, metrics, strict=True))
        raise ValueError(f"scores: must be of one metric; {names}. Score all systems by it")
    return metrics[0]


def write_comparison(
    files: Sequence[ScoreFile],
    comparison: SystemsComparison,
    path: str | os.PathLike[str],
    *,
    summary: str = "summary",
    source: str = "source",
    details: int = DETAILS,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the page of a comparison.

    Args:
        files: the score files of the systems, with summaries, sources and questions.
        comparison: their comparison.
        path: the file to write; an existing file is replaced.
        summary: the column of the summaries.
        source: the column of the sources.
        details: the number of rows, those with the greatest difference between two systems.
        max_bytes: the most bytes of the page. Rows that do not fit are left out, and the page says so.

    Raises:
        ValueError: as `explained_metric`, or if a row of a file is invalid.
        OSError: if a file cannot be read or written.
    """
    spec = explained_metric([file.path for file in files], summary, source)
    scores = enumerate(zip(*(file.scores for file in files), strict=True), 1)
    spreads = {number: max(row) - min(row) for number, row in scores if not any(map(math.isnan, row))}
    numbers = sorted(spreads, key=lambda number: -spreads[number])[:details]
    names = list(comparison.systems)
    entries = [_entries(file, spec, set(numbers), summary, source) for file in files]
    named_files = {name: str(file.path) for name, file in zip(names, files, strict=True)}
    fixed = {
        "metric": spec,
        "style": _CSS,
        "style_digest": csp_digest(_CSS),
        "script": _SCRIPT,
        "script_digest": csp_digest(_SCRIPT),
        "legend": Markup(legend_html(spec)),
        "comparison": comparison,
        "systems": sorted(comparison.systems.items(), key=lambda item: -item[1].score),
        "files": named_files,
        "signatures": _texts_of_sidecars(files, "signature"),
        "calibrations": _texts_of_sidecars(files, "calibration"),
    }
    room = max_bytes - RESERVE - len(render_template("comparison.html.jinja", **fixed, rows=[], left_out=0).encode())
    rows: list[Markup] = []
    for number in numbers:
        row = _row_html(spec, number, named_files, [of_system[number] for of_system in entries])
        room -= len(row.encode())
        if room < 0:
            break
        rows.append(row)
    page = render_template("comparison.html.jinja", **fixed, rows=rows, left_out=len(numbers) - len(rows))
    durable.write_file(Path(path), page.encode())


def _texts_of_sidecars(files: Sequence[ScoreFile], name: str) -> list[str]:
    """The texts that the sidecars have under a name, each once."""
    return list(dict.fromkeys(text for file in files if (text := file.about.get(name))))


def _entries(
    file: ScoreFile, spec: MetricSpec, numbers: Collection[int], summary: str, source: str
) -> dict[int, Entry]:
    """The rows of a score file that are shown, by number."""
    entries, calibrated, is_text = {}, bool(file.about.get("calibration")), has_text_cells(file.path)
    for number, (location, row) in enumerate(records(file.path), 1):
        if number in numbers:
            text, texts = row.get(summary), source_of_cell(row.get(source), is_text)
            if not isinstance(text, str) or texts is None:
                column = source if isinstance(text, str) else summary
                raise ValueError(
                    f"{location}: column {column!r} must be text; got {row.get(column)!r:.40}. Score with --keep"
                )
            entries[number] = entry_of_row(spec.summary_type(), calibrated, row, text, texts, number)
    return entries


def _row_html(spec: MetricSpec, number: int, files: Mapping[str, str], entries: Sequence[Entry]) -> Markup:
    """A row: its source, and every system's summary with its questions."""
    scores = [entry.scored.score for entry in entries]
    names = list(files)
    shared = [column for column in entries[0].columns if all(column in entry.columns for entry in entries)]
    systems = []
    for name, entry in zip(names, entries, strict=True):
        texts = [text[:SHOWN_TEXT] for text in (entry.summary, *entry.passages)]
        prefix = f"row-{number}-{name}-"
        systems.append(
            {
                "name": name,
                "file": Path(files[name]).name,
                "prefix": prefix,
                "scored": entry.scored,
                "columns": [column for column in entry.columns if column not in shared],
                "marked": Markup(marked_summary_html(texts[0], entry.scored, prefix)),
                "length": len(entry.summary),
                "questions": [(item, natural_question(item.question, *texts)) for item in entry.scored.items],
            }
        )
    return Markup(
        render_template(
            "compared_row.html.jinja",
            metric=spec,
            number=number,
            highest=names[scores.index(max(scores))],
            lowest=names[scores.index(min(scores))],
            difference=max(scores) - min(scores),
            columns=shared,
            texts=entries[0].passages,
            systems=systems,
            limit=SHOWN_TEXT,
        )
    )
