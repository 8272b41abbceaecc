"""A visitor's file: rows to score read with care, scores written in the same form."""

from __future__ import annotations

import csv
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qa_inference.metric_base import CorpusResult
from quals_metric.app.limits import Limits, RefusedError
from quals_metric.files.scored_rows import KINDS, JsonLines, scored_row
from quals_metric.files.tables import Row, records

ENDINGS = (".csv", ".jsonl")


def read_upload(path: Path, metric: str, limits: Limits) -> list[Row]:
    """The rows of an uploaded file, which has the columns `summary` and `source`.

    Args:
        path: the file in the upload folder.
        metric: "quals" or "qags", whose columns the file must not have.
        limits: what is taken.

    Raises:
        RefusedError: if the file or a row is not what it must be; it says where.
    """
    if path.suffix.lower() not in ENDINGS:
        raise RefusedError("The file's name must end in .csv or .jsonl.")
    if (size := path.stat().st_size) > limits.file:
        raise RefusedError(f"The file has {size:,} bytes; here it may have {limits.file:,}. Please send a part of it.")
    rows: list[Row] = []
    try:
        for place, columns in records(path, name="Your file"):
            if len(rows) == limits.rows:
                raise RefusedError(f"The file has more than {limits.rows:,} rows. Please send a part of it.")
            rows.append(_row(place, columns, metric, limits))
    except RefusedError:
        raise
    except ValueError as error:
        raise RefusedError(str(error)) from error
    if not rows:
        raise RefusedError("The file has no rows.")
    return rows


def write_scores(folder: Path, ending: str, rows: Sequence[Row], result: CorpusResult[Any]) -> Path:
    """Write the file's own columns with the scores, in a new folder; JSON lines have the questions too."""
    path = _new_folder(folder) / f"scores{ending}"
    scored = [
        scored_row(row.columns, score, ending == ".jsonl") for row, score in zip(rows, result.summaries, strict=True)
    ]
    if ending == ".jsonl":
        with path.open("wb") as lines:
            JsonLines().shard(scored, lines)
        return path
    with path.open("w", encoding="utf-8", newline="") as cells:
        writer = csv.DictWriter(cells, list(scored[0]))
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in scored)
    return path


def _row(place: str, columns: Mapping[str, Any], metric: str, limits: Limits) -> Row:
    """A row whose texts are what they must be."""
    for name in ("summary", "source"):
        if not isinstance(columns.get(name), str):
            raise RefusedError(f'{place}: must have a text called "{name}"; it has {_names(columns)}.')
    if taken := [name for name in columns if name in KINDS[metric].columns()]:
        raise RefusedError(f'{place}: must not have a column "{taken[0]}", where the scores go. Please rename it.')
    limits.check(columns["summary"], columns["source"], place)
    return Row(columns["summary"], columns["source"], place, columns)


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name:.40}"' for name in list(columns)[:10]) or "nothing"


def _cell(value: object) -> object:
    """A number as a cell: undefined is an empty one."""
    return "" if isinstance(value, float) and math.isnan(value) else value


def _new_folder(parent: Path) -> Path:
    made = parent / "scores" / uuid.uuid4().hex
    made.mkdir(parents=True)
    return made
