"""The human study's pairs: two systems' summaries of one source, side by side, whose is whose kept from the people.

The article had people judge 100 pairs of a data set. A file of pairs is JSON lines; answers name the file they are to
by a digest, so that none is counted for another.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from quals_metric.files import durable
from quals_metric.files.tables import Row, Table, records

SIZE = 100  # the article's
SEED = 12345

SYSTEMS = ("a", "b")


@dataclass(frozen=True)
class StudyPair:
    """A source and two summaries of it; `number` is their row in the score files, from 1.

    `left_system` says whose the left one is, "a" or "b"; the two scores are None where undefined.
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
    """Pairs in the order of their file, the two systems' names, and the digest of the file."""

    a: str
    b: str
    pairs: tuple[StudyPair, ...]
    key: str


@dataclass(frozen=True)
class Prepared:
    """What was written: so many pairs; so many rows that could not be one, as a summary is blank or both are equal."""

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
) -> Prepared:
    """Draw pairs from two systems' score files: the same rows and sides for the same files and seed.

    System a is on the left in half of the pairs (of an odd number: in the greater or the lesser half, by the seed).
    Rows where a summary or the source is blank, and rows where both systems wrote the same, are left out and counted.

    Args:
        a: what `quals score --keep` wrote for the one system,
        b: and for the other, on the same sources in the same order.
        output: a .jsonl file to write.
        size: how many pairs; all there are if there are fewer.
        seed: of the draw.
        summary: the column of the summaries.
        source: the column of the sources.
        overwrite: whether an output that exists is replaced: answers to it become worthless.

    Raises:
        FileExistsError: if the output exists and `overwrite` is not given.
        TypeError: if a text is not text.
        ValueError: if the files lack a column, differ in their sources, or have no row that can be a pair.
        OSError: if a file cannot be read or written.
    """
    first, second, output = Path(a), Path(b), Path(output)
    if size < 1:
        raise ValueError(f"size: must be at least 1 pair; got {size}")
    if output.suffix.lower() != ".jsonl":
        raise ValueError(f"{output}: the name of a study's pairs must end in .jsonl. Choose such a name")
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output}: there is a file of that name, and it is kept. Name another, or: --overwrite")
    tables = [_table(path, summary, source) for path in (first, second)]
    usable, blank, equal = [], 0, 0
    for number, (x, y) in _rows(*tables):
        if not (x.summary.strip() and y.summary.strip() and x.source.strip()):
            blank += 1
        elif x.summary.strip() == y.summary.strip():
            equal += 1
        else:
            usable.append(number)
    if not usable:
        raise ValueError(f"{first} and {second}: must have a row with two different summaries; there is none")
    rng = random.Random(seed)
    chosen = sorted(rng.sample(usable, min(size, len(usable))))
    sides = (rng.sample(SYSTEMS, 2) * len(chosen))[: len(chosen)]
    rng.shuffle(sides)
    left_of = dict(zip(chosen, sides, strict=True))
    with durable.replacing(output) as file:
        for number, rows in _rows(*tables):
            if number in left_of:
                line = asdict(_pair(number, rows, left_of[number])) | {"a": first.name, "b": second.name}
                file.write(json.dumps(line).encode() + b"\n")  # in ASCII: half a character has an escape too
    return Prepared(output, len(chosen), blank, equal)


def read_study(path: str | os.PathLike[str]) -> Study:
    """The pairs that `prepare` wrote.

    Raises:
        ValueError: if the file is not one of those.
        OSError: if it cannot be read.
    """
    path = Path(path)
    pairs, names = [], set()
    for place, line in records(path):
        names.add((line.pop("a", None), line.pop("b", None)))
        try:
            pairs.append(StudyPair(**line))
        except TypeError as error:
            raise ValueError(f"{place}: must be a pair as `quals study prepare` writes it; {error}") from error
    if len(names) != 1 or len({pair.number for pair in pairs}) != len(pairs):
        raise ValueError(f"{path}: must be what `quals study prepare` wrote, each pair once, of the same two systems")
    ((first, second),) = names
    return Study(str(first), str(second), tuple(pairs), hashlib.sha256(path.read_bytes()).hexdigest()[:16])


def _table(path: Path, summary: str, source: str) -> Table:
    """The score file as a table of texts."""
    for place, columns in records(path):
        for name in (summary, source):
            if name not in columns:
                raise ValueError(
                    f"{place}: must have the texts, in columns {summary!r} and {source!r}; it has no {name!r}. Score "
                    f"with --keep, or name yours with --summary-column and --source-column"
                )
        break
    return Table((path,), summary, source, keep=True)


def _rows(a: Table, b: Table) -> Iterator[tuple[int, tuple[Row, Row]]]:
    """The rows of both, with their number."""
    for number, (x, y) in enumerate(zip_longest(a.read(), b.read()), 1):
        if x is None or y is None or x.source != y.source:
            raise ValueError(
                f"{a.name} and {b.name}: must be scores of the same sources in the same order; row {number} differs. "
                f"Score both systems on the same sources"
            )
        yield number, (x, y)


def _pair(number: int, rows: tuple[Row, Row], left_system: str) -> StudyPair:
    left, right = rows if left_system == SYSTEMS[0] else rows[::-1]
    return StudyPair(number, left.source, left.summary, right.summary, left_system, _score(left), _score(right))


def _score(row: Row) -> float | None:
    value: Any = row.columns.get("score")
    return value if isinstance(value, float | int) else None
