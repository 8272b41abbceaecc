"""Writing scored rows as JSON lines or as Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, get_args, get_origin, get_type_hints

from qa_inference.metric_base import ScoredSummary, json_ready
from quals_metric.files.tables import Row, ending
from quals_metric.metrics import metric_spec

if TYPE_CHECKING:
    import pyarrow as pa


def scored_row(kept: Mapping[str, Any], summary: ScoredSummary, pairs: bool) -> dict[str, Any]:
    """The row to write for a summary: the kept columns, then those of `ScoredSummary.row`, with questions if `pairs`.

    A kept column must not have the name of one of the others.
    """
    return {**kept, **summary.row(pairs)}


def json_text(value: Any, location: str) -> str:
    """A value as JSON in ASCII: undefined numbers as null, dates in ISO 8601, decimals as text.

    Raises:
        ValueError: for a value that JSON cannot hold, such as bytes; it names the location.
    """
    return _dumps(value, location, ensure_ascii=True)


class Format(Protocol):
    """A file format: writes some rows as a shard, and joins shards to one file."""

    ending: str

    def learn(self, rows: Sequence[Row]) -> None:
        """See rows whose columns will be written, before any row is written."""

    def shard(self, rows: Sequence[dict[str, Any]], file: BinaryIO) -> None:
        """Write some rows."""

    def join(self, shards: Iterable[Path], file: BinaryIO) -> None:
        """Write the rows of all shards, in order."""


class JsonLines:
    """A JSON object per line, in UTF-8."""

    ending = ".jsonl"

    def learn(self, rows: Sequence[Row]) -> None:
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
        pairs: whether the questions behind the scores are written.
        metric: the metric of the scores.
    """

    ending = ".parquet"

    def __init__(self, inputs: Sequence[Path], pairs: bool, metric: str = "quals") -> None:
        import pyarrow as pa

        self._summary_type = metric_spec(metric).summary_type()
        self._known = bool(inputs) and all(ending(path) == ".parquet" for path in inputs)
        self._kept = pa.schema([])
        self._pairs = pairs
        if self._known:
            import pyarrow.parquet as pq

            self._kept = _unified([pq.read_schema(path).remove_metadata() for path in inputs], "the inputs")

    def learn(self, rows: Sequence[Row]) -> None:
        """Find the types of the columns in `rows`.

        Raises:
            ValueError: if a column holds values that Parquet cannot have in one column.
        """
        import pyarrow as pa

        if self._known or not rows[0].columns:
            return
        location = f"{rows[0].location} to {rows[-1].location}"
        fields = []
        for name in dict.fromkeys(name for row in rows for name in row.columns):
            try:
                fields.append((name, pa.array([_storable(row.columns.get(name)) for row in rows]).type))
            except pa.ArrowException as error:
                raise ValueError(_mixed(f"column {name!r} in {location}", error)) from error
        self._kept = _unified([self._kept, pa.schema(fields)], location)

    def shard(self, rows: Sequence[dict[str, Any]], file: BinaryIO) -> None:
        """Write a file of one row group."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        own = self._summary_type.columns()
        plain = [_storable(row | {name: json_ready(row[name]) for name in own if name in row}) for row in rows]
        pq.write_table(pa.Table.from_pylist(plain, schema=self._schema(rows[0])), file)

    def join(self, shards: Iterable[Path], file: BinaryIO) -> None:
        """Write one row group per shard."""
        import pyarrow.parquet as pq

        paths = list(shards)
        with pq.ParquetWriter(file, pq.read_schema(paths[0])) as writer:
            for path in paths:
                with pq.ParquetFile(path) as shard:
                    writer.write_table(shard.read())

    def _schema(self, row: Mapping[str, Any]) -> pa.Schema:
        import pyarrow as pa

        hints = (float, float, int, str, get_type_hints(self._summary_type)[self._summary_type.items_field])
        own = zip(self._summary_type.columns(), map(_arrow_type, hints), strict=True)
        kept = [column for column in self._kept if column.name in row or not self._known]
        return pa.schema([*kept, *list(own)[: None if self._pairs else -1]])


def _arrow_type(hint: Any) -> pa.DataType:
    """The Arrow type of an annotation: a text, a number, a tuple of one type, or a dataclass."""
    import pyarrow as pa

    simple = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    if hint in simple:
        return simple[hint]
    if get_origin(hint) is tuple:
        return pa.list_(_arrow_type(get_args(hint)[0]))
    return pa.struct([(name, _arrow_type(field)) for name, field in get_type_hints(hint).items()])


def format_of(output: Path, inputs: Sequence[Path], pairs: bool, metric: str = "quals") -> Format:
    """The format that the ending of an output's name stands for.

    Raises:
        ValueError: if it is another than .jsonl and .parquet.
    """
    if ending(output) == ".jsonl":
        return JsonLines()
    if ending(output) == ".parquet":
        return Parquet(inputs, pairs, metric)
    raise ValueError(f"{output}: the output's name must end in .jsonl or .parquet. Choose one of the two")


def _line(row: Mapping[str, Any]) -> bytes:
    text = _dumps(row, "the output", ensure_ascii=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, but JSON can escape it
        return _dumps(row, "the output", ensure_ascii=True).encode() + b"\n"


def _dumps(value: Any, location: str, *, ensure_ascii: bool) -> str:
    try:
        return json.dumps(json_ready(value), ensure_ascii=ensure_ascii, allow_nan=False, default=_as_text)
    except TypeError as error:
        raise ValueError(f"{location}: {error}. Leave the column out, or write .parquet") from error


_TEXTS: Sequence[tuple[tuple[type, ...], Callable[[Any], str]]] = (
    ((date, time), lambda value: value.isoformat()),
    ((Decimal,), str),
)


def _as_text(value: Any) -> str:
    for types, text in _TEXTS:
        if isinstance(value, types):
            return text(value)
    raise TypeError(f"JSON cannot hold a value of type {type(value).__name__}")


def _storable(value: Any) -> Any:
    """`value` without lone surrogates in its texts."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {name: _storable(item) for name, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list | tuple) else value


def _unified(schemas: Sequence[pa.Schema], location: str) -> pa.Schema:
    import pyarrow as pa

    try:
        return pa.unify_schemas(list(schemas), promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(_mixed(f"a column of {location}", error)) from error


def _mixed(subject: str, error: Exception) -> str:
    return f"{subject}: Parquet needs values of one type in a column; {error}. Write .jsonl, or leave the column out"
