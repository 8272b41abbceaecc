"""A page that explains scores: one HTML file that needs nothing but a browser, and asks nothing of a network.

It holds no script, and its content security policy allows none; the one style sheet is in it, allowed by its digest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from qa_inference.metric_base import CorpusResult, check_texts
from quals_metric.files import durable
from quals_metric.report.evidence import Scored, metric_of, of_row, of_score
from quals_metric.report.page import METRICS, page
from quals_metric.report.rows import Entry, Histogram, Selection

DETAILS = 50  # rows shown of the lowest scores, of the highest, and of the undefined
MAX_BYTES = 5_000_000

_ABOUT = ("score", "score_01", "num_windowed_summaries", "num_windowed_sources", "signature")

# A row to come: its score, its label and texts, and what reads the questions behind it.
_Row = tuple[float, tuple[str, str, str], Callable[[], Scored]]


def write(
    result: CorpusResult[Any],
    path: str | os.PathLike[str],
    *,
    summaries: Sequence[str],
    sources: Sequence[str],
    labels: Sequence[str] | None = None,
    details: int = DETAILS,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the page of a result.

    Args:
        result: what a scorer of either metric gave.
        path: the file to write, replaced if it is there.
        summaries: the texts that were scored,
        sources: and what they were scored against.
        labels: what each summary is called; None: Row 1, Row 2, …
        details: how many rows are shown of the lowest scores, of the highest and of the undefined.
        max_bytes: what the page may take; figures are left out first, then rows, and the page says so.

    Raises:
        ValueError: if the lengths differ, or a number is too small.
        OSError: if the file cannot be written.
    """
    check_texts(summaries, sources)
    if len(summaries) != len(result.summaries) or (labels is not None and len(labels) != len(summaries)):
        raise ValueError(
            f"summaries: must be those of the result, each with its label; got {len(summaries)} texts"
            f"{'' if labels is None else f', {len(labels)} labels'} and {len(result.summaries)} scores"
        )
    names = labels or [f"Row {count}" for count in range(1, len(summaries) + 1)]
    texts = zip(names, summaries, sources, strict=True)
    rows = (
        (score.score, texts, partial(of_score, score)) for texts, score in zip(texts, result.summaries, strict=True)
    )
    _write(result.kind.metric, rows, {name: getattr(result, name) for name in _ABOUT}, Path(path), details, max_bytes)


def write_rows(
    rows: Iterable[Mapping[str, Any]],
    texts: Iterable[tuple[str, str]],
    path: str | os.PathLike[str],
    *,
    about: Mapping[str, Any],
    details: int = DETAILS,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the page of a score file; memory does not grow with the number of its rows.

    Args:
        rows: the file's rows in order, with their pairs or questions.
        texts: the summary and the source of each.
        path: the file to write, replaced if it is there.
        about: what is said of the whole: score, low, high, score_01, num_windowed_summaries, num_windowed_sources,
            signature; what is not given is not said.
        details: as in `write`.
        max_bytes: as in `write`.

    Raises:
        ValueError: if there are more rows than texts, or fewer, a row has no pairs, or a number is too small.
        OSError: if the file cannot be written.
    """
    stream = iter(rows)
    first = next(stream, {})
    metric = metric_of(first)
    if metric is None:
        raise ValueError("rows: must hold scores with their questions and answers. Score with --pairs")
    _write(metric, _read(chain([first], stream), texts), about, Path(path), details, max_bytes)


def _read(rows: Iterable[Mapping[str, Any]], texts: Iterable[tuple[str, str]]) -> Iterator[_Row]:
    for count, (row, pair) in enumerate(zip_longest(rows, texts), 1):
        if row is None or pair is None:
            raise ValueError(f"rows and texts: must be of the same summaries; one of them ends before row {count}")
        score = math.nan if row["score"] is None else float(row["score"])
        yield score, (f"Row {count}", *pair), partial(of_row, row)


def _write(
    metric: str, rows: Iterable[_Row], about: Mapping[str, Any], path: Path, details: int, max_bytes: int
) -> None:
    for name, value, least in (("details", details, 1), ("max_bytes", max_bytes, 100_000)):
        if value < least:
            raise ValueError(f"{name}: must be at least {least}; got {value}")
    selection = Selection(details, Histogram(METRICS[metric].top))
    for score, texts, read in rows:
        selection.add(score, partial(_entry, selection, texts, read))
    durable.write(path, page(METRICS[metric], selection, about, max_bytes))


def _entry(selection: Selection, texts: tuple[str, str, str], read: Callable[[], Scored]) -> Entry:
    """The row that is being added."""
    return Entry(selection.num_rows, *texts, read())
