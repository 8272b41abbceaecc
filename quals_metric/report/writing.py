"""Writing a report: one HTML file that needs nothing but a browser and asks nothing of a network.

It has no script, and its content security policy allows none. Its one style sheet is in the file, allowed by its
digest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from qa_inference.checks import integer_from
from qa_inference.metric_base.results import CorpusResult, ScoredSummary, check_threshold
from qa_inference.metric_base.texts import check_passages
from quals_metric.files import durable
from quals_metric.metrics import MetricSpec, first_characters, metric_of_row, metric_spec
from quals_metric.report.html import report_html
from quals_metric.report.rows import Entry, Histogram, ShownRows

DETAILS = 50  # rows shown of the lowest scores, of the highest, and of the undefined
MAX_BYTES = 5_000_000

_ABOUT = ("score", "score_01", "num_windowed_summaries", "num_windowed_sources", "signature", "calibration")

_MOST_COLUMNS = 12  # own columns shown of a row
_MOST_TEXT = 120  # characters shown of a value

# A row to come: its score, and a function that makes what is shown of it from its number.
_Row = tuple[float, Callable[[int], Entry]]


def write(
    result: CorpusResult[Any],
    path: str | os.PathLike[str],
    *,
    summaries: Sequence[str],
    sources: Sequence[str | Sequence[str]],
    labels: Sequence[str] | None = None,
    threshold: float | None = None,
    details: int = DETAILS,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the page of a result.

    Args:
        result: a result of any metric's scorer.
        path: the file to write; an existing file is replaced.
        summaries: the texts that were scored.
        sources: the source of each: a text, or a list of passages.
        labels: the name of each summary on the page; None: Row 1, Row 2, …
        threshold: the score below which an answer is unsupported; None: the metric's (`MetricSpec.threshold`).
        details: how many rows are shown of the lowest scores, of the highest and of the undefined.
        max_bytes: the most bytes of the page. Figures are left out first, then rows, and the page says so.

    Raises:
        ValueError: if the lengths differ, a number is too small, or the threshold is NaN.
        OSError: if the file cannot be written.
    """
    spec = metric_spec(result.kind.metric)
    threshold = spec.threshold if threshold is None else threshold
    check_threshold(threshold)
    _, passages = check_passages(
        summaries, None, [[source] if isinstance(source, str) else source for source in sources]
    )
    if len(summaries) != len(result.summaries) or (labels is not None and len(labels) != len(summaries)):
        raise ValueError(
            f"summaries: must be those of the result, each with its label; got {len(summaries)} texts"
            f"{'' if labels is None else f', {len(labels)} labels'} and {len(result.summaries)} scores"
        )
    names = labels if labels is not None else [f"Row {count}" for count in range(1, len(summaries) + 1)]
    texts = zip(names, summaries, map(tuple, passages), strict=True)
    rows = ((scored.score, partial(_entry, *row, scored)) for row, scored in zip(texts, result.summaries, strict=True))
    about = {name: getattr(result, name) for name in _ABOUT} | {"threshold": threshold}
    _write_page(spec, rows, about, Path(path), details, max_bytes)


def write_rows(
    rows: Iterable[Mapping[str, Any]],
    texts: Iterable[tuple[str, str | tuple[str, ...]]],
    path: str | os.PathLike[str],
    *,
    about: Mapping[str, Any],
    details: int = DETAILS,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the page of a score file. Memory does not grow with the number of rows.

    Args:
        rows: the rows of the file in order, with their pairs or questions. Other columns of theirs are shown too.
        texts: the summary of each, and its source: a text, or several passages.
        path: the file to write; an existing file is replaced.
        about: facts of the whole: metric, score, low, high, score_01, num_windowed_summaries, num_windowed_sources,
            signature, calibration (what the probabilities were made from; "": the rows have none), threshold,
            unsupported_rate, by, groups. Those that are missing are not shown; without the metric, the rows' questions
            show it, and without the threshold, it is the metric's.
        details: as in `write`.
        max_bytes: as in `write`.

    Raises:
        ValueError: if there are more rows than texts, or fewer, a row has no questions, or a number is too small.
        OSError: if the file cannot be written.
    """
    stream = iter(rows)
    first = next(stream, {})
    spec = metric_spec(about["metric"]) if "metric" in about else metric_of_row(first)
    if spec is None or spec.summary_type().items_field not in first:
        raise ValueError("rows: must hold scores with their questions and answers. Score with --pairs")
    read = _read_rows(spec, chain([first], stream), texts, bool(about.get("calibration")))
    _write_page(spec, read, about, Path(path), details, max_bytes)


def _read_rows(
    spec: MetricSpec,
    rows: Iterable[Mapping[str, Any]],
    texts: Iterable[tuple[str, str | tuple[str, ...]]],
    calibrated: bool,
) -> Iterator[_Row]:
    """Every row of a score file with its texts; its questions are read only if the row is shown."""
    for count, (row, pair) in enumerate(zip_longest(rows, texts), 1):
        if row is None or pair is None:
            raise ValueError(f"rows and texts: must be of the same summaries; one of them ends before row {count}")
        score = math.nan if row["score"] is None else float(row["score"])
        yield score, partial(entry_of_row, spec.summary_type(), calibrated, row, *pair)


def _entry(label: str, summary: str, source: tuple[str, ...], scored: ScoredSummary, number: int) -> Entry:
    return Entry(number, label, summary, source, scored.with_text(summary))


def entry_of_row(
    summary_type: type[ScoredSummary],
    calibrated: bool,
    row: Mapping[str, Any],
    summary: str,
    source: str | tuple[str, ...],
    number: int,
) -> Entry:
    """The entry of a row of a score file, with the user's columns: all but its texts, its score and lists."""
    calibrated = calibrated and "probability" in row
    scored = summary_type.from_row(row, summary, calibrated=calibrated)
    written = summary_type.columns(spans=True, calibrated=calibrated)
    columns = [
        (name, first_characters(str(value), _MOST_TEXT))
        for name, value in row.items()
        if name not in written and value not in (None, summary, source) and not isinstance(value, list | dict)
    ]
    return Entry(number, f"Row {number}", summary, source, scored, tuple(columns[:_MOST_COLUMNS]))


def _write_page(
    spec: MetricSpec, rows: Iterable[_Row], about: Mapping[str, Any], path: Path, details: int, max_bytes: int
) -> None:
    integer_from(1)("details", details)
    integer_from(100_000)("max_bytes", max_bytes)
    shown = ShownRows(details, Histogram(spec.best))
    for number, (score, make_entry) in enumerate(rows, 1):
        shown.add(score, partial(make_entry, number))
    durable.write_file(path, report_html(spec, shown, about, max_bytes))
