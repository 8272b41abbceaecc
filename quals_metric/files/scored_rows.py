"""Write scored rows as JSON lines, Parquet or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, get_args, get_origin, get_type_hints

from qa_inference.metric_base.results import ScoredSummary, json_ready
from quals_metric.files.tables import Row, ending, reading_parquet

if TYPE_CHECKING:
    import pyarrow as pa

_EXACT = 2**53  # a float represents every integer up to this one exactly


def scored_row(
    kept: Mapping[str, Any], summary: ScoredSummary, pairs: bool, threshold: float | None = None
) -> dict[str, Any]:
    """The row to write for a summary: the kept columns, then those of `ScoredSummary.row`.

    A kept column must not have the name of one of the others.
    """
    return {**kept, **summary.row(pairs, threshold)}


def json_text(value: Any, location: str) -> str:
    """A value as JSON in ASCII, for a digest: undefined numbers as null, values that JSON cannot hold by their `repr`.

    Raises:
        ValueError: if it is nested too deep; it names the location.
    """
    return _dumps(value, location, ensure_ascii=True, default=_as_digest_text)


class Format(Protocol):
    """A file format: writes some rows as a shard, and joins shards to one file."""

    ending: str

    def learn(self, rows: Sequence[Row]) -> None:
        """See rows whose columns will be written, before any row is scored.

        Raises ValueError, with the row and the column, for a value that cannot be written.
        """

    def check(self) -> None:
        """Check the columns after all rows were seen. Raises ValueError that names a row and a column."""

    def shard(self, rows: Sequence[dict[str, Any]], file: BinaryIO) -> None:
        """Write some rows."""

    def join(self, shards: Iterable[Path], file: BinaryIO) -> None:
        """Write the rows of all shards, in order."""


class JsonLines:
    """A JSON object per line, in UTF-8."""

    ending = ".jsonl"

    def learn(self, rows: Sequence[Row]) -> None:
        """Try to write every kept column."""
        for row in rows:
            for name, value in row.columns.items():
                _dumps(value, f"{row.location}: column {name!r}", ensure_ascii=False)

    def check(self) -> None:
        """Do nothing: JSON lines need no common types."""

    def shard(self, rows: Sequence[dict[str, Any]], file: BinaryIO) -> None:
        """Write a line per row."""
        for row in rows:
            file.write(_line(row))

    def join(self, shards: Iterable[Path], file: BinaryIO) -> None:
        """Write one shard after another."""
        for shard in shards:
            with shard.open("rb") as part:
                while block := part.read(1 << 20):
                    file.write(block)


class Parquet:
    """A Parquet file with a row group per shard.

    Kept columns have the types of the inputs if these are Parquet files, else types found in the rows. A lone
    surrogate (half a character), which Parquet cannot hold, becomes U+FFFD.

    Args:
        inputs: the files the rows are read from.
        columns: the columns of the scores, with their types (`ScoredSummary.columns`).
    """

    ending = ".parquet"

    def __init__(self, inputs: Sequence[Path], columns: Mapping[str, Any]) -> None:
        import pyarrow as pa

        self._own = columns
        self._known = bool(inputs) and all(ending(path) == ".parquet" for path in inputs)
        self._kept = pa.schema([])
        self._names: set[str] = set()  # the columns that a row has; none if no column is kept
        self._seen: dict[str, str] = {}  # the location of the first row that has a value in a column
        # By column and place in its value: the first row with an integer that a float may not represent exactly.
        self._large: dict[tuple[str, tuple[Any, ...]], tuple[str, Any]] = {}
        if self._known:
            self._kept = _unified([_parquet_schema(path) for path in inputs], "the inputs")

    def learn(self, rows: Sequence[Row]) -> None:
        """Find the types of the columns in `rows`.

        Raises:
            ValueError: if a column holds values that Parquet cannot have in one column.
        """
        import pyarrow as pa

        for row in rows:
            self._names.update(row.columns)
            for name, value in row.columns.items():
                if value is not None:
                    self._seen.setdefault(name, row.location)
                for place in _large_integers(value):
                    self._large.setdefault((name, place), (row.location, value))
        if self._known or not rows[0].columns:
            return
        types = []
        for name in dict.fromkeys(name for row in rows for name in row.columns):
            if _storable(name) != name:
                raise ValueError(
                    f"{self._seen.get(name, rows[0].location)}: column {name!r}: Parquet needs names in UTF-8. Rename "
                    f"it, write .jsonl, or leave the column out"
                )
            types.append((name, _type_of(rows, name)))
        location = f"{rows[0].location} to {rows[-1].location}"
        self._kept = _unified([self._kept, pa.schema(types)], location)

    def check(self) -> None:
        """Write every kept column without rows: Parquet lacks some types, such as objects without a field."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for column in self._kept:
            try:
                pq.write_table(pa.schema([column]).empty_table(), io.BytesIO())
            except pa.ArrowException as error:
                location = self._seen.get(column.name, "the input")
                raise ValueError(
                    f"{location}: column {column.name!r}: Parquet cannot hold it; {error}. Write .jsonl, or leave the "
                    f"column out"
                ) from error

        for (name, _), (location, value) in self._large.items():
            try:
                pa.array([_storable(value)], self._kept.field(name).type)
            except pa.ArrowException as error:  # another row has a fraction there
                raise ValueError(_mixed(f"{location}: column {name!r}", error)) from error

    def shard(self, rows: Sequence[dict[str, Any]], file: BinaryIO) -> None:
        """Write a file of one row group."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        plain = [_storable(row | {name: json_ready(row[name]) for name in self._own}) for row in rows]
        pq.write_table(pa.Table.from_pylist(plain, schema=self._schema()), file)

    def join(self, shards: Iterable[Path], file: BinaryIO) -> None:
        """Write one row group per shard."""
        import pyarrow.parquet as pq

        paths = list(shards)
        with pq.ParquetWriter(file, pq.read_schema(paths[0])) as writer:
            for path in paths:
                with pq.ParquetFile(path) as shard:
                    writer.write_table(shard.read())

    def _schema(self) -> pa.Schema:
        """The columns of every shard: those that any row of the job has, then those of the scores."""
        import pyarrow as pa

        own = [(name, _arrow_type(hint)) for name, hint in self._own.items()]
        kept = [column for column in self._kept if column.name in self._names]
        return pa.schema([*kept, *own])


class Csv:
    """A CSV file in UTF-8 with a header. An undefined number is an empty cell; lists and objects are JSON.

    A lone surrogate becomes U+FFFD. Shards have no header; their columns are those of all rows.

    Args:
        columns: the columns of the scores (`ScoredSummary.columns`).
    """

    ending = ".csv"

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._kept: dict[str, None] = {}
        self._own = columns

    def learn(self, rows: Sequence[Row]) -> None:
        """Collect the names of the kept columns, and try to write their values."""
        for row in rows:
            for name, value in row.columns.items():
                _cell(value, f"{row.location}: column {name!r}")
                self._kept[name] = None

    def check(self) -> None:
        """Do nothing: a cell holds any value."""

    def shard(self, rows: Sequence[dict[str, Any]], file: BinaryIO) -> None:
        """Write a line per row."""
        self._write(file, ([_cell(row.get(name), "the output") for name in (*self._kept, *self._own)] for row in rows))

    def join(self, shards: Iterable[Path], file: BinaryIO) -> None:
        """Write the header, then one shard after another."""
        self._write(file, [[str(_storable(name)) for name in (*self._kept, *self._own)]])
        JsonLines().join(shards, file)

    def _write(self, file: BinaryIO, rows: Iterable[Sequence[str]]) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        csv.writer(text).writerows(rows)
        text.detach()  # leaves the file open


def _cell(value: Any, location: str) -> str:
    """A value as the text of a CSV cell."""
    ready = json_ready(value)
    if ready is None:
        return ""
    return str(_storable(ready if isinstance(ready, str) else _dumps(ready, location, ensure_ascii=False)))


def _type_of(rows: Sequence[Row], name: str) -> pa.DataType:
    """The Arrow type of a kept column in some rows.

    Raises ValueError that names the row from which on the values have no common type.
    """
    import pyarrow as pa

    values = [_storable(row.columns.get(name)) for row in rows]
    refusals = (pa.ArrowException, OverflowError, RecursionError)
    try:
        return pa.array(values).type
    except refusals as error:
        problem = error
    for count in range(1, len(rows) + 1):
        try:
            pa.array(values[:count])
        except refusals:
            raise ValueError(_mixed(f"{rows[count - 1].location}: column {name!r}", problem)) from problem
    raise problem


def _large_integers(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a value of integers that a float may not represent exactly; all items of a list are one place."""
    if isinstance(value, int) and abs(value) > _EXACT:
        yield place
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _large_integers(item, (*place, name))
    elif isinstance(value, list):
        for item in value:
            yield from _large_integers(item, (*place, None))


def _parquet_schema(path: Path) -> pa.Schema:
    """The columns of a Parquet file. Raises ValueError if it is none."""
    import pyarrow.parquet as pq

    with reading_parquet(str(path)):
        return pq.read_schema(path).remove_metadata()


def _arrow_type(hint: Any) -> pa.DataType:
    """The Arrow type of an annotation: a text, a number, a tuple of one type, a dataclass or a TypedDict."""
    import pyarrow as pa

    simple = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    if hint in simple:
        return simple[hint]
    if get_origin(hint) is tuple:
        return pa.list_(_arrow_type(get_args(hint)[0]))
    return pa.struct([(name, _arrow_type(field)) for name, field in get_type_hints(hint).items()])


def format_of(output: Path, inputs: Sequence[Path], pairs: bool, columns: Mapping[str, Any]) -> Format:
    """The format that the ending of an output's name stands for, for scores with these columns.

    Raises:
        ValueError: if it is another than .jsonl, .parquet and .csv, or the questions are to be written as CSV.
    """
    if ending(output) == ".jsonl":
        return JsonLines()
    if ending(output) == ".parquet":
        return Parquet(inputs, columns)
    if ending(output) == ".csv":
        if pairs:
            raise ValueError(f"{output}: CSV has no cells for questions and answers. Write .jsonl or .parquet")
        return Csv(columns)
    raise ValueError(f"{output}: the output's name must end in .jsonl or .parquet, or in .csv. Choose one of them")


def _line(row: Mapping[str, Any]) -> bytes:
    text = _dumps(row, "the output", ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, but JSON can escape it
        return _dumps(row, "the output", ensure_ascii=True).encode() + b"\n"


def _dumps(value: Any, location: str, *, ensure_ascii: bool, default: Callable[[Any], str] | None = None) -> str:
    try:
        return json.dumps(json_ready(value), ensure_ascii=ensure_ascii, allow_nan=False, default=default or _as_text)
    except TypeError as error:
        raise ValueError(f"{location}: {error}. Leave the column out, or write .parquet") from error
    except RecursionError as error:
        raise ValueError(f"{location}: is nested too deep. Leave the column out, or make it a text") from error


_TEXTS: Sequence[tuple[tuple[type, ...], Callable[[Any], str]]] = (
    ((date, time), lambda value: value.isoformat()),
    ((Decimal,), str),
)


def _as_text(value: Any) -> str:
    for types, text in _TEXTS:
        if isinstance(value, types):
            return text(value)
    raise TypeError(f"JSON cannot hold a value of type {type(value).__name__}")


def _as_digest_text(value: Any) -> str:
    try:
        return _as_text(value)
    except TypeError:
        return repr(value)


def _storable(value: Any) -> Any:
    """The value without lone surrogates in its texts; each becomes U+FFFD."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    if isinstance(value, tuple):  # an entry of a Parquet map
        return tuple(_storable(item) for item in value)
    return [_storable(item) for item in value] if isinstance(value, list) else value


def _unified(schemas: Sequence[pa.Schema], location: str) -> pa.Schema:
    import pyarrow as pa

    try:
        return pa.unify_schemas(list(schemas), promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(_mixed(f"a column of {location}", error)) from error


def _mixed(subject: str, error: Exception) -> str:
    return f"{subject}: Parquet needs values of one type in a column; {error}. Write .jsonl, or leave the column out"
