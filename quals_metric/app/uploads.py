"""A visitor's file: its rows are checked before they are scored, and the scores come back in the same format."""

from __future__ import annotations

import csv
import math
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qa_inference.metric_base.results import CorpusResult
from quals_metric.app.limits import Limits, RefusedError
from quals_metric.files.scored_rows import JsonLines, scored_row
from quals_metric.files.tables import Row, records
from quals_metric.metrics import metric_spec

ENDINGS = (".csv", ".jsonl")


def read_upload(path: Path, metric: str, limits: Limits) -> list[Row]:
    """The rows of an uploaded file with the columns `summary` and `source`.

    Args:
        path: the file in the upload folder.
        metric: the name of a metric; the file must not have its columns.
        limits: the limits on the file and its texts.

    Raises:
        RefusedError: if the file or a row is invalid; it names the row.
    """
    if path.suffix.lower() not in ENDINGS:
        raise RefusedError("The file's name must end in .csv or .jsonl.")
    if (size := path.stat().st_size) > limits.file:
        raise RefusedError(f"The file has {size:,} bytes; the limit is {limits.file:,}. Please send a part of it.")
    rows: list[Row] = []
    written = metric_spec(metric).summary_type().columns(spans=path.suffix.lower() == ".jsonl")
    try:
        for location, columns in records(path, name="Your file"):
            if len(rows) == limits.rows:
                raise RefusedError(f"The file has more than {limits.rows:,} rows. Please send a part of it.")
            rows.append(_checked_row(location, columns, written, limits))
    except RefusedError:
        raise
    except ValueError as error:
        raise RefusedError(str(error)) from error
    if not rows:
        raise RefusedError("The file has no rows. Please choose another.")
    return rows


def write_scores(folder: Path, ending: str, rows: Sequence[Row], result: CorpusResult[Any]) -> Path:
    """Write the file's own columns with the scores, in a new folder.

    JSON lines hold the questions, the sentences and the unsupported spans too.

    Args:
        folder: the upload folder.
        ending: ".csv" or ".jsonl".
        rows: the file's rows.
        result: their scores.

    Returns:
        The path of the new file.
    """
    path = _new_folder(folder) / f"scores{ending}"
    has_lists = ending == ".jsonl"
    threshold = metric_spec(result.kind.metric).threshold if has_lists else None
    scored = [
        scored_row(row.columns, score, has_lists, threshold) for row, score in zip(rows, result.summaries, strict=True)
    ]
    if has_lists:
        with path.open("wb") as lines:
            JsonLines().shard(scored, lines)
        return path
    with path.open("w", encoding="utf-8", newline="") as cells:
        writer = csv.DictWriter(cells, list(scored[0]))
        writer.writeheader()
        writer.writerows({name: _csv_cell(value) for name, value in row.items()} for row in scored)
    return path


def _checked_row(location: str, columns: Mapping[str, Any], written: Collection[str], limits: Limits) -> Row:
    """The row, if its columns and texts are valid. `written` are the columns of the scores."""
    for name in ("summary", "source"):
        if not isinstance(columns.get(name), str):
            if isinstance(columns.get(name), list):
                raise RefusedError(f'{location}: "{name}" must be a text; it is a list. Please join its texts.')
            raise RefusedError(f'{location}: must have a text called "{name}"; it has {_quoted(columns)}.')
    if clashes := [name for name in columns if name in written]:
        raise RefusedError(f'{location}: must not have a column "{clashes[0]}", where the scores go. Please rename it.')
    limits.check(columns["summary"], columns["source"], location)
    return Row(columns["summary"], columns["source"], location, columns)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name:.40}"' for name in list(names)[:10]) or "nothing"


def _csv_cell(value: object) -> object:
    """A value as a CSV cell: an undefined number is empty."""
    return "" if isinstance(value, float) and math.isnan(value) else value


def _new_folder(parent: Path) -> Path:
    """A new folder in `parent`, which must exist: a server that has stopped writes nothing any more."""
    (parent / "scores").mkdir(exist_ok=True)
    folder = parent / "scores" / uuid.uuid4().hex
    folder.mkdir()
    return folder
