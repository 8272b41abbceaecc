"""Read summaries with their sources from files, row by row: JSON lines, CSV, Parquet, or two text files.

Memory holds only the current row; of a Parquet file, the current few hundred. Every error names the file and the line,
or the row of a Parquet file.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

from quals_metric.files.groups import group_of

Record = tuple[str, dict[str, Any]]  # its location (file and line), and its columns
Source = str | tuple[str, ...]  # a text, or several passages

STANDARD_INPUT = Path("-")

_BOM = b"\xef\xbb\xbf"
_CELL = 2**31 - 1  # the most characters of a CSV cell that every platform allows
_BATCH = 256  # rows of a Parquet file that are read at once


@dataclass(frozen=True)
class Row:
    """A summary and its source: a text, or several passages.

    `location` names the file and the line; `columns` holds all columns, if kept. `group` is the group of the row; "":
    rows are not grouped.
    """

    summary: str
    source: Source
    location: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""

    @property
    def passages(self) -> tuple[str, ...]:
        """The passages of the source; a text is one."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def source_text(self) -> str:
        """The source as one text; a blank line stands between passages."""
        return "\n\n".join(self.passages)


class Rows(Protocol):
    """Rows that can be read more than once."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files they are read from."""

    @property
    def name(self) -> str:
        """The name that errors use for all of them."""

    @property
    def keep(self) -> bool:
        """Whether each row keeps all its columns."""

    @property
    def by(self) -> str:
        """The column that rows are grouped by; "": none."""

    def read(self) -> Iterator[Row]:
        """The rows in order, from the first."""


@dataclass(frozen=True)
class Table:
    """Rows from files with columns, one file after another.

    `summary` and `source` name the columns of the two texts; a source may be a list of passages. With `keep`, all
    columns are read. `title` is the name of the file in errors ("": its path). `by` names the column that rows are
    grouped by ("": none). The path `-` is standard input in JSON lines; `score_files` saves it in a file.
    """

    paths: tuple[Path, ...]
    summary: str = "summary"
    source: str = "source"
    keep: bool = False
    title: str = ""
    by: str = ""

    @property
    def name(self) -> str:
        """The title, or the paths."""
        return self.title or ", ".join(map(str, self.paths))

    def read(self) -> Iterator[Row]:
        """The rows in order.

        Raises:
            TypeError: if a summary or source is not text.
            ValueError: if a line cannot be read or lacks a column.
            OSError: if a file cannot be opened.
        """
        wanted = None if self.keep else (self.summary, self.source, *([self.by] if self.by else []))
        for path in self.paths:
            for location, columns in records(path, wanted, self.title):
                summary = text_in(columns, self.summary, location, "summary")
                source = source_in(columns, self.source, location)
                group = group_of(_value_of(columns, self.by, location, "by"), location, self.by) if self.by else ""
                yield Row(summary, source, location, columns if self.keep else {}, group)


@dataclass(frozen=True)
class TextFiles:
    """Rows from two text files: line N of the first is a summary, line N of the second its source."""

    summaries: Path
    sources: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The two files."""
        return self.summaries, self.sources

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.summaries} and {self.sources}"

    @property
    def keep(self) -> bool:
        """False: text files have no other columns."""
        return False

    @property
    def by(self) -> str:
        """No column."""
        return ""

    def read(self) -> Iterator[Row]:
        """The rows in order; a blank line is a blank text.

        Raises:
            ValueError: if the files have different numbers of lines, or one is not UTF-8.
            OSError: if a file cannot be opened.
        """
        number = 0
        for number, (summary, source) in enumerate(zip_longest(*(_lines(path, str(path)) for path in self.paths)), 1):
            if summary is None or source is None:
                shorter, longer = self.paths if summary is None else self.paths[::-1]
                raise ValueError(
                    f"{self.name}: must have the same number of lines, one text per line; "
                    f"{shorter} ends after {number - 1}, {longer} does not"
                )
            yield Row(_without_end(summary[1]), _without_end(source[1]), f"line {number}")


def expand(inputs: Sequence[str | Path]) -> tuple[Path, ...]:
    """The files of names, folders and globs; those of a folder or a glob are sorted by name.

    A folder stands for the tables in it, recognized by their endings. Hidden files and folders in it are skipped. A
    file is read once, however many names and links lead to it. `-` alone is standard input and stays as it is.

    Raises:
        ValueError: if a name stands for no file, or a file has another ending.
    """
    if list(map(str, inputs)) == [str(STANDARD_INPUT)]:
        return (STANDARD_INPUT,)
    paths: list[Path] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            matches = [child for child in sorted(path.iterdir()) if child.is_file() and _is_table(child)]
        elif path.exists():
            matches = [path]
        else:
            matches = [match for match in map(Path, sorted(_glob(str(name)))) if match.is_file()]
        if not matches:
            raise ValueError(f"{name}: must be a file, a folder or a glob of {', '.join(READERS)} files; none is there")
        paths += matches
    unique: dict[tuple[int, int], Path] = {}
    for path in paths:
        unique.setdefault(_identity(path), path)
        check_regular(path)
        if ending(path) is None:
            raise ValueError(
                f"{path}: its name must end in {', '.join(READERS)}. Rename it to say what it is; for two text files "
                f"use --summaries and --sources"
            )
    return tuple(unique.values())


def ending(path: Path) -> str | None:
    """The ending that makes a file a table; None for another file."""
    return next((known for known in READERS if path.name.lower().endswith(known)), None)


def records(path: Path, wanted: Sequence[str] | None = None, name: str = "") -> Iterator[Record]:
    """The rows of one file, each with its location.

    Args:
        path: a file whose name ends in one of `READERS`.
        wanted: the columns that are needed; only these are read from a Parquet file. None: all.
        name: the name of the file in errors; "": its path.

    Raises:
        ValueError: if the file or a line is not in the format of the file's ending.
        OSError: if the file cannot be opened.
    """
    return READERS[ending(path) or ".jsonl"](path, name or str(path), wanted)


def count_rows(path: Path) -> int:
    """How many rows a file has. Raises as `records` does."""
    return sum(1 for _ in records(path, ("score",)))  # of a Parquet file, one column is read


def check_regular(path: Path) -> None:
    """Raise ValueError for a pipe, a device or a socket: such an input cannot be read twice, or never ends."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path}: must be a regular file. Save what it gives to a file and name that, or use -")


def _glob(pattern: str) -> list[str]:
    """The paths that match a pattern. `**` visits every folder once, by its identity, so a loop of links ends."""
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)  # Windows has two separators
    if "**" not in parts:
        return glob.glob(pattern)
    first = parts.index("**")
    root, rest = os.sep.join(parts[:first]), os.sep.join(parts[first + 1 :]) or "*"
    starts = glob.glob(root) if root else [os.sep if pattern.startswith(os.sep) else os.curdir]
    matches: list[str] = []
    visited: set[tuple[int, int]] = set()
    waiting = sorted(filter(os.path.isdir, starts), reverse=True)
    while waiting:
        folder = waiting.pop()
        if (identity := _identity(Path(folder))) in visited:
            continue
        visited.add(identity)
        matches += _glob(os.path.join("" if folder == os.curdir else glob.escape(folder), rest))
        names = sorted((name for name in _names(folder) if not name.startswith(".")), reverse=True)
        waiting += [path for name in names if os.path.isdir(path := os.path.join(folder, name))]
    return list(dict.fromkeys(matches))


def _names(folder: str) -> list[str]:
    """The names in a folder; none if it cannot be read, as in `glob`."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _identity(path: Path) -> tuple[int, int]:
    """The device and the number of a file or folder, equal for all names of it."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_table(path: Path) -> bool:
    return not path.name.startswith(".") and ending(path) is not None


def _value_of(columns: Mapping[str, Any], name: str, location: str, option: str) -> Any:
    """The value in a column. Raises ValueError without the column; `option` names the option that can help."""
    if name not in columns:
        names = ", ".join(map(repr, columns)) or "none"
        raise ValueError(f"{location}: must have a column {name!r}; it has {names}. Name yours with --{option}")
    return columns[name]


def as_source(value: Any) -> Source | None:
    """The value of a cell as a source: a text, or the passages of a list of texts; None if it is neither.

    A list of one text is that text: the score is the same.
    """
    if isinstance(value, list):
        passages = tuple(value) if all(isinstance(passage, str) for passage in value) else None
        return passages[0] if passages is not None and len(passages) == 1 else passages
    return value if isinstance(value, str) else None


def source_of_cell(value: Any, is_text: bool) -> Source | None:
    """The source in a cell of a score file, as `as_source`. If all cells are text, passages are written as JSON."""
    if is_text and isinstance(value, str) and value.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            return as_source(json.loads(value)) or value
    return as_source(value)


def source_in(columns: Mapping[str, Any], name: str, location: str) -> Source:
    """The source of a row. Raises as `text_in` if it is none."""
    source = as_source(columns.get(name))
    return text_in(columns, name, location, "source") if source is None else source


def text_in(columns: Mapping[str, Any], name: str, location: str, role: str) -> str:
    """The text in a column of a row; `role` is the text's name in the option that names the column.

    Raises ValueError if the row lacks the column, TypeError if it holds no text.
    """
    text = _value_of(columns, name, location, f"{role}-column")
    if not isinstance(text, str):
        got = "null" if text is None else f"{type(text).__name__} ({text!r:.40})"
        raise TypeError(
            f"{location}: column {name!r} must be text; got {got}. Write an empty text for one that is missing: its "
            f"score is then undefined"
        )
    return text


def has_text_cells(path: Path) -> bool:
    """Whether all cells of a file are text, as in CSV."""
    return ending(path) in (".csv", ".csv.gz")


def number_in(columns: Mapping[str, Any], name: str, location: str, *, is_text: bool, remedy: str) -> float:
    """The number in a column of a row; NaN for a null.

    `is_text`: all cells are text, as in CSV, and a null is an empty cell. Raises ValueError, with the remedy, if the
    row lacks the column or holds anything else in it.
    """
    value: Any = columns.get(name, "a row without it")
    try:
        if value is None or (is_text and value == ""):
            return math.nan
        number = float(value) if is_text or (isinstance(value, int | float) and not isinstance(value, bool)) else None
        if number is not None and math.isfinite(number):
            return number
    except (ValueError, OverflowError):
        pass
    got = f"{value!r:.40}" if name in columns else value
    raise ValueError(f"{location}: column {name!r} must be a number or null; got {got}. {remedy}")


def _lines(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """The lines of a UTF-8 file, plain or gzip, with their ends, each with its location."""
    check_regular(path)
    opened: Callable[..., Any] = gzip.open if path.name.lower().endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{name}, line {number}", (line.removeprefix(_BOM) if number == 1 else line).decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}, line {number}: must be UTF-8 text; at byte {error.start} of the line it is not. Save it as UTF-8"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name}: must be a whole gzip file; after line {number}: {error}. Write it anew") from error


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _json_records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    for location, line in _lines(path, name):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{location}: must be a JSON object; {error}. Correct the line or take it out") from error
        if not isinstance(value, dict):
            raise ValueError(f"{location}: must be a JSON object, {{...}}; got {line.strip():.40}. Correct the line")
        yield location, value


def _csv_records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    csv.field_size_limit(_CELL)  # of the whole process; 131,072 characters, the usual limit, is a short book
    reader = csv.reader((line for _, line in _lines(path, name)), strict=True)
    location, header = f"{name}, line 1", None
    try:
        for cells in reader:
            if header is None:
                header = _header(cells, location)
            elif cells:
                if len(cells) != len(header):
                    raise ValueError(f"must have {len(header)} cells, as the header has; got {len(cells)}")
                yield location, dict(zip(header, cells, strict=True))
            location = f"{name}, line {reader.line_num + 1}"
    except (csv.Error, ValueError) as error:
        if str(error).startswith(name):  # it names the location already
            raise
        raise ValueError(f"{location}: {error}. Check its commas and quotation marks") from error


def _header(cells: Sequence[str], location: str) -> list[str]:
    if len(set(cells)) != len(cells):
        raise ValueError(f"{location}: the header must name every column once; got {', '.join(map(repr, cells))}")
    return list(cells)


def _parquet_records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    import pyarrow.parquet as pq

    check_regular(path)
    with reading_parquet(name), pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        columns = names if wanted is None else [column for column in names if column in wanted]
        # If a wanted column is missing, all columns are read: the error names them.
        columns = columns if wanted is None or set(wanted) <= set(names) else names
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
            for row in _python_rows(batch, name, number):
                number += 1
                yield f"{name}, row {number}", row


@contextlib.contextmanager
def reading_parquet(name: str) -> Iterator[None]:
    """Raise ValueError, with the name of the file, where Arrow finds that a file is no Parquet file or is damaged."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError) as error:
        # Arrow calls a damaged footer an OSError without a number. Those of the system have one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{name}: must be a Parquet file; {error}") from error


def _python_rows(batch: Any, name: str, before: int) -> list[dict[str, Any]]:
    """The rows of a batch as dicts; `before`: how many rows of the file come before it.

    Raises ValueError that names the row and the column of a value that Python cannot hold: a text that is not UTF-8, a
    time after the year 9999.
    """
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows
    except (ValueError, OverflowError):
        for column, values in zip(batch.schema.names, batch.columns, strict=True):
            for index, value in enumerate(values):
                try:
                    value.as_py()
                except (ValueError, OverflowError) as error:
                    raise ValueError(
                        f"{name}, row {before + index + 1}: column {column!r} holds a value that cannot be read; "
                        f"{error}. Correct it, or do not keep the columns"
                    ) from error
        raise


READERS: Mapping[str, Callable[[Path, str, Sequence[str] | None], Iterator[Record]]] = {
    ".jsonl": _json_records,
    ".jsonl.gz": _json_records,
    ".csv": _csv_records,
    ".csv.gz": _csv_records,
    ".parquet": _parquet_records,
}
