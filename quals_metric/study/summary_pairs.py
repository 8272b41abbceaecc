"""The pairs of a human study: two systems' summaries of one source, side by side, with the systems hidden.

The QUALS paper had people judge 100 pairs of each data set. A file of pairs is JSON lines. Every answer names its file
of pairs by a digest, so that no answer counts for another file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from qa_inference.checks import integer_from
from quals_metric.files import durable
from quals_metric.files.tables import Row, Table, has_text_cells, records, source_of_cell

SIZE = 100  # as in the paper
SEED = 12345

SYSTEMS = ("a", "b")


@dataclass(frozen=True)
class SummaryPair:
    """A source and two summaries of it.

    `number` is their row in the score files, counted from 1. `left_system` is the system of the left summary, "a" or
    "b". A score is None where it is undefined.
    """

    number: int
    source: str
    left: str
    right: str
    left_system: str
    left_score: float | None
    right_score: float | None


@dataclass(frozen=True)
class Study:
    """The pairs in the order of their file, the names of both systems, and the digest of the file."""

    a: str
    b: str
    pairs: tuple[SummaryPair, ...]
    key: str


@dataclass(frozen=True)
class PreparedPairs:
    """The written file, its number of pairs, and the numbers of rows left out: a text is blank, or both are equal."""

    output: Path
    pairs: int
    blank: int
    equal: int


def prepare(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    size: int = SIZE,
    seed: int = SEED,
    summary: str = "summary",
    source: str = "source",
    overwrite: bool = False,
) -> PreparedPairs:
    """Draw pairs from two systems' score files. The same files and seed give the same rows and sides.

    System a is on the left in half of the pairs; for an odd number the seed decides which system has one more. Rows
    with a blank summary or source, and rows with the same summary twice, are left out and counted.

    Args:
        a: the score file of system a, from `quals score --keep`.
        b: the score file of system b, on the same sources in the same order.
        output: the .jsonl file to write.
        size: the number of pairs; all usable rows if there are fewer.
        seed: the seed of the draw and of the sides.
        summary: the column of the summaries.
        source: the column of the sources.
        overwrite: whether to replace an existing output. Answers to it become invalid.

    Raises:
        FileExistsError: if the output exists and `overwrite` is off.
        TypeError: if a summary or source is not text.
        ValueError: if the files lack a column, differ in their sources, or have no usable row.
        OSError: if a file cannot be read or written.
    """
    first, second, output = Path(a), Path(b), Path(output)
    integer_from(1)("size", size)
    if output.suffix.lower() != ".jsonl":
        raise ValueError(f"{output}: the name of a study's pairs must end in .jsonl. Choose such a name")
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output}: there is a file of that name, and it is kept. Name another, or: --overwrite")
    tables = [_score_table(path, summary, source) for path in (first, second)]
    usable, num_blank, num_equal = [], 0, 0
    for number, (row_a, row_b) in _paired_rows(*tables):
        if not (row_a.summary.strip() and row_b.summary.strip() and row_a.source_text.strip()):
            num_blank += 1
        elif row_a.summary.strip() == row_b.summary.strip():
            num_equal += 1
        else:
            usable.append(number)
    if not usable:
        raise ValueError(
            f"{first} and {second}: must have a row with two different summaries; none has. Compare two other systems"
        )
    rng = random.Random(seed)
    chosen = sorted(rng.sample(usable, min(size, len(usable))))
    sides = (rng.sample(SYSTEMS, 2) * len(chosen))[: len(chosen)]
    rng.shuffle(sides)
    left_of = dict(zip(chosen, sides, strict=True))
    with durable.replacing(output) as file:
        for number, rows in _paired_rows(*tables):
            if number in left_of:
                line = asdict(_summary_pair(number, rows, left_of[number])) | {"a": first.name, "b": second.name}
                file.write(json.dumps(line).encode() + b"\n")  # in ASCII: a lone surrogate is escaped
    return PreparedPairs(output, len(chosen), num_blank, num_equal)


def read_study(path: str | os.PathLike[str]) -> Study:
    """The pairs of a file that `prepare` wrote.

    Raises:
        ValueError: if the file is not such a file.
        OSError: if it cannot be read.
    """
    path = Path(path)
    pairs, names = [], set()
    for location, line in records(path):
        names.add((line.pop("a", None), line.pop("b", None)))
        try:
            pairs.append(SummaryPair(**line))
        except TypeError as error:
            raise ValueError(f"{location}: must be a pair as `quals study prepare` writes it; {error}") from error
    if len(names) != 1 or len({pair.number for pair in pairs}) != len(pairs):
        raise ValueError(f"{path}: must be what `quals study prepare` wrote, each pair once, of the same two systems")
    ((first, second),) = names
    return Study(str(first), str(second), tuple(pairs), hashlib.sha256(path.read_bytes()).hexdigest()[:16])


def _score_table(path: Path, summary: str, source: str) -> Table:
    """The score file as a table of texts."""
    for location, columns in records(path):
        for name in (summary, source):
            if name not in columns:
                raise ValueError(
                    f"{location}: must have the texts, in columns {summary!r} and {source!r}; it has no {name!r}. "
                    f"Score with --keep, or name your columns with --summary-column and --source-column"
                )
        break
    return Table((path,), summary, source, keep=True)


def _paired_rows(a: Table, b: Table) -> Iterator[tuple[int, tuple[Row, Row]]]:
    """The number of a row, from 1, with the row of either table."""
    for number, (row_a, row_b) in enumerate(zip_longest(_rows_of_scores(a), _rows_of_scores(b)), 1):
        if row_a is None or row_b is None or row_a.source != row_b.source:
            raise ValueError(
                f"{a.name} and {b.name}: must be scores of the same sources in the same order; row {number} differs. "
                f"Score both systems on the same sources"
            )
        yield number, (row_a, row_b)


def _rows_of_scores(table: Table) -> Iterator[Row]:
    """The rows of a score file, with passages as such in CSV too."""
    is_text = has_text_cells(table.paths[0])
    for row in table.read():
        yield replace(row, source=source_of_cell(row.source, is_text) or row.source)


def _summary_pair(number: int, rows: tuple[Row, Row], left_system: str) -> SummaryPair:
    left, right = rows if left_system == SYSTEMS[0] else rows[::-1]
    scores = (_score_of_row(row) for row in (left, right))
    return SummaryPair(number, left.source_text, left.summary, right.summary, left_system, *scores)


def _score_of_row(row: Row) -> float | None:
    """The score of a row of a score file; None: it has none, or it is undefined. A cell of CSV is a text."""
    value: Any = row.columns.get("score")
    try:
        number = float(value) if isinstance(value, float | int | str) and value != "" else math.nan
    except ValueError:
        number = math.nan
    return None if math.isnan(number) else number
