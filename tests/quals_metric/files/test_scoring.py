from __future__ import annotations

import errno
import gzip
import io
import json
import math
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quals_metric
from qa_inference.significance import bootstrap_interval
from quals_metric.files import scoring, tables
from quals_metric.files.scoring import FileScores, durable, score_files
from quals_metric.files.tables import Table, TextFiles, expand, records
from tests import PATIENCE
from tests.quals_metric.files.score_program import QuickScorer

PROGRAM = str(Path(__file__).with_name("score_program.py"))
ROOT = str(Path(quals_metric.__file__).parents[1])
# Blank texts, several scripts, a line separator that is no line's end, quotation marks, a comma, a tab.
ODD = ["", "  ", "Ωmega wins", "他赢了", "a\u2028b", 'say "no", he', "tab\there", "line\nbreak", "<sep> </s> [SEP]"]


def _texts(count: int) -> list[dict[str, Any]]:
    rows = [
        {"id": n, "summary": f"summary {n} of Ann", "source": f"source {n // 3} " * (n % 7 + 1)} for n in range(count)
    ]
    for number, odd in enumerate(ODD):
        rows[(number * 5 + 3) % count]["summary"] = odd
    rows[count // 2]["source"] = " "
    return rows


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in records(path)]


def _expected(rows: list[dict[str, Any]], pairs: bool = False) -> list[dict[str, Any]]:
    texts = {name: [row[name] for row in rows] for name in ("summary", "source")}
    result = QuickScorer().score(summaries=texts["summary"], sources=texts["source"])
    expected: list[dict[str, Any]] = result.to_dict(pairs=pairs)["summaries"]
    return expected


def _score(inputs: Any, output: Path, **options: Any) -> FileScores | None:
    keep = options.pop("keep", False)
    table = inputs if isinstance(inputs, Table | TextFiles) else Table(expand([inputs]), keep=keep)
    options.setdefault("shard_rows", 10)
    return score_files(table, output, options.pop("load", QuickScorer), **options)


def _start(*arguments: Any, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(*arguments: Any, **variables: str) -> int:
    process = _start(*arguments, **variables)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, -signal.SIGKILL), error
    return process.returncode


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return _texts(57)


@pytest.fixture
def source(rows: list[dict[str, Any]], tmp_path: Path) -> Path:
    return _write(tmp_path / "in.jsonl", rows)


# --- What comes out


def test_a_row_for_every_row_in_order(source: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    found = _score(source, tmp_path / "out.jsonl")
    written = _read(tmp_path / "out.jsonl")
    assert written == _expected(rows)
    assert list(written[0]) == ["score", "score_01", "num_pairs", "note"]
    assert [row["note"] for row in written].count("blank summary") == 2
    assert found is not None
    scores = [row["score"] for row in written if row["score"] is not None]
    assert found.rows == 57 and found.num_undefined == 3 == 57 - len(scores)
    assert found.score == pytest.approx(sum(scores) / len(scores), abs=1e-12)
    assert (found.low, found.high) == bootstrap_interval(scores)
    assert found.num_windowed_sources == sum(len(row["source"]) > 30 for row in rows)
    about = json.loads((tmp_path / "out.jsonl.meta.json").read_text())
    assert about["signature"] == "quick" and about["rows"] == 57 and about["score"] == found.score
    assert _names(tmp_path) == ["in.jsonl", "out.jsonl", "out.jsonl.meta.json"]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_columns_and_pairs_on_request(ending: str, source: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    _score(source, tmp_path / f"out{ending}", keep=True, pairs=True)
    written = _read(tmp_path / f"out{ending}")
    assert written == [row | score for row, score in zip(rows, _expected(rows, pairs=True), strict=True)]


def test_parquet_and_json_lines_say_the_same(source: Path, tmp_path: Path) -> None:
    for ending in (".jsonl", ".parquet"):
        _score(source, tmp_path / f"out{ending}", pairs=True)
    assert _read(tmp_path / "out.jsonl") == _read(tmp_path / "out.parquet")


def test_types_of_kept_columns(tmp_path: Path) -> None:
    """In the first shard the columns are null and whole numbers, in the second fractions; a column comes late."""
    rows = [{"summary": "a", "source": "b", "x": None if n < 10 else 0.5, "y": n} for n in range(10)]
    rows += [{"summary": "a", "source": "b", "x": 0.5, "y": 0.5, "late": ["l"]} for _ in range(3)]
    _score(_write(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet", keep=True)
    written = _read(tmp_path / "out.parquet")
    assert [row["y"] for row in written] == [*map(float, range(10)), 0.5, 0.5, 0.5]
    assert written[0]["late"] is None and written[-1]["late"] == ["l"]


def test_kept_columns_of_a_parquet_file_keep_their_types(tmp_path: Path) -> None:
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    day = datetime.date(2020, 2, 29)
    table = pa.table(
        {"summary": ["a", "b"], "source": ["a", "b"], "day": [day, None], "n": pa.array([1, 2], pa.int8())}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    _score(tmp_path / "in.parquet", tmp_path / "out.parquet", keep=True)
    assert pq.read_schema(tmp_path / "out.parquet").field("n").type == pa.int8()
    assert [row["day"] for row in _read(tmp_path / "out.parquet")] == [day, None]
    _score(tmp_path / "in.parquet", tmp_path / "out.jsonl", keep=True)
    assert [row["day"] for row in _read(tmp_path / "out.jsonl")] == ["2020-02-29", None]


@pytest.mark.parametrize("shard_rows", [2, 128])
@pytest.mark.parametrize("first", ["a", "b"])
def test_parquet_files_of_different_columns(first: str, shard_rows: int, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {"summary": ["Ann", "Bo", "Cy"], "source": ["Ann", "Bo", "Cy"]}
    tables = {"a": {**texts, "id": [1, 2, 3]}, "b": {**texts, "remark": ["x", "y", None]}}
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate((first, *(name for name in tables if name != first))):
        pq.write_table(pa.table(tables[name]), folder / f"{number}.parquet")
    _score(folder, tmp_path / "out.parquet", keep=True, shard_rows=shard_rows)
    rows = _read(tmp_path / "out.parquet")
    expected = {name: [*tables[name].get("id", [None] * 3)] for name in tables}
    order = [first, *(name for name in tables if name != first)]
    assert [row["id"] for row in rows] == [value for name in order for value in expected[name]]
    assert [row["remark"] for row in rows if row["id"] is None] == ["x", "y", None]
    _score(folder, tmp_path / "bare.parquet", shard_rows=shard_rows)
    assert not {"id", "remark", "summary"} & _read(tmp_path / "bare.parquet")[0].keys()


def test_parquet_inputs_may_differ_in_columns_that_are_not_kept(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    inputs = tmp_path / "in"
    inputs.mkdir()
    for name, values in (("a", [1]), ("b", ["one"])):
        pq.write_table(pa.table({"summary": ["Ann"], "source": ["Ann"], "id": values}), inputs / f"{name}.parquet")
    _score(inputs, tmp_path / "out.parquet")
    assert len(_read(tmp_path / "out.parquet")) == 2
    with pytest.raises(ValueError, match="Parquet needs values of one type in a column"):
        _score(inputs, tmp_path / "kept.parquet", keep=True)


@pytest.mark.parametrize("shard_rows", [1, 128])
def test_integers_that_a_column_of_fractions_cannot_hold(shard_rows: int, tmp_path: Path) -> None:
    rows = [{"summary": "a", "source": "b", "id": value} for value in (1.5, 2**60 + 1)]
    source = _write(tmp_path / "in.jsonl", rows)
    with pytest.raises(ValueError, match=r"in\.jsonl, line 2: column 'id': Parquet needs values of one type"):
        _score(source, tmp_path / "out.parquet", keep=True, shard_rows=shard_rows)
    assert not list(tmp_path.glob("out*"))
    _score(_write(tmp_path / "in.jsonl", rows[1:]), tmp_path / "out.parquet", keep=True)
    assert _read(tmp_path / "out.parquet")[0]["id"] == 2**60 + 1
    nested = [{"summary": "a", "source": "b", "m": [{"id": value, "x": 0.5}]} for value in (2**60 + 1, 1.5)]
    with pytest.raises(ValueError, match=r"in\.jsonl, line [12]: column 'm': Parquet needs values of one type"):
        _score(_write(tmp_path / "in.jsonl", nested), tmp_path / "nested.parquet", keep=True, shard_rows=shard_rows)
    _score(_write(tmp_path / "in.jsonl", nested[:1]), tmp_path / "nested.parquet", keep=True)
    assert _read(tmp_path / "nested.parquet")[0]["m"] == nested[0]["m"]


def test_an_undefined_corpus(tmp_path: Path) -> None:
    found = _score(_write(tmp_path / "in.jsonl", [{"summary": "", "source": "x"}]), tmp_path / "out.jsonl")
    assert found is not None and math.isnan(found.score) and math.isnan(found.low) and found.num_undefined == 1
    assert found.to_dict()["score"] is None
    assert _read(tmp_path / "out.jsonl") == [{"score": None, "score_01": None, "num_pairs": 0, "note": "blank summary"}]


def test_lone_surrogates(tmp_path: Path) -> None:
    """In a kept column, and in the answer, which is the summary's own characters."""
    (tmp_path / "in.jsonl").write_text('{"summary": "a\\ud800b c", "source": "b", "x": ["\\ud800"]}\n')
    for ending, half in ((".jsonl", "\ud800"), (".parquet", "\ufffd")):
        _score(tmp_path / "in.jsonl", tmp_path / f"out{ending}", keep=True, pairs=True)
        (row,) = _read(tmp_path / f"out{ending}")
        assert row["x"] == [half] and row["pairs"][0]["answer"] == row["summary"].split()[0] == f"a{half}b"


# --- What goes in


def _as_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    import csv

    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["id", "summary", "source"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def _as_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)
    return path


def _as_gzip(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    ".jsonl": _write,
    ".jsonl.gz": _as_gzip,
    ".csv": _as_csv,
    ".csv.gz": _as_csv,
    ".parquet": _as_parquet,
}


@pytest.mark.parametrize("ending", WRITERS)
def test_every_input_format(ending: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = WRITERS[ending](tmp_path / f"in{ending}", rows)
    _score(path, tmp_path / "out.jsonl")
    assert _read(tmp_path / "out.jsonl") == _expected(rows)
    _score(path, tmp_path / "kept.jsonl", keep=True)
    assert [(row["summary"], str(row["id"])) for row in _read(tmp_path / "kept.jsonl")] == [
        (row["summary"], str(row["id"])) for row in rows
    ]


def test_two_text_files(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    rows = [row for row in rows if "\n" not in row["summary"]]
    for name, end in (("summary", "\n"), ("source", "\r\n")):
        text = end.join(row[name] for row in rows) + (end if name == "source" else "")
        (tmp_path / name).write_bytes(text.encode())
    _score(TextFiles(tmp_path / "summary", tmp_path / "source"), tmp_path / "out.jsonl")
    assert _read(tmp_path / "out.jsonl") == _expected(rows)


def test_text_files_of_different_lengths(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\ny\nz\n")
    (tmp_path / "b.txt").write_text("x\n")
    with pytest.raises(ValueError, match=r"same number of lines.*b\.txt ends after 1, .*a\.txt does not"):
        _score(TextFiles(tmp_path / "a.txt", tmp_path / "b.txt"), tmp_path / "out.jsonl")
    assert _names(tmp_path) == ["a.txt", "b.txt"]


def test_both_separators_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        (folder / "x.jsonl").touch()
    monkeypatch.setattr(tables.os, "altsep", "\\")
    found = tables._glob(f"{tmp_path}\\**\\*.jsonl")
    assert sorted(found) == sorted(map(str, tmp_path.rglob("x.jsonl")))


def test_a_folder_and_a_glob_of_shards(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, ending in enumerate(WRITERS):
        WRITERS[ending](folder / f"part-{number}{ending}", rows[number * 10 : number * 10 + 10])
    (folder / "README.txt").write_text("no table")
    (folder / ".hidden.jsonl").write_text("no table")
    _score(folder, tmp_path / "a.jsonl", shard_rows=7)
    _score(f"{folder}/part-*", tmp_path / "b.jsonl")
    assert _read(tmp_path / "a.jsonl") == _read(tmp_path / "b.jsonl") == _expected(rows[:50])


def test_columns_of_other_names(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    renamed = [{"hyp": row["summary"], "doc": row["source"]} for row in rows]
    table = Table((_write(tmp_path / "in.jsonl", renamed),), summary="hyp", source="doc")
    _score(table, tmp_path / "out.jsonl")
    assert _read(tmp_path / "out.jsonl") == _expected(rows)


def test_standard_input(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _score(source, tmp_path / "expected.jsonl")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    _score("-", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "expected.jsonl").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"summary": "a"}\n')))
    with pytest.raises(ValueError, match=r"^standard input, line 1: must have a column 'source'"):
        _score("-", tmp_path / "other.jsonl")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="standard input can be read by one process only"):
        _score("-", tmp_path / "other.jsonl")
    assert [name for name in _names(tmp_path) if "other" in name] == []


def test_standard_input_resumes(source: Path, tmp_path: Path) -> None:
    _score(source, tmp_path / "expected.jsonl")
    for variables in ({"DIE_AT": "14"}, {}):
        with source.open() as stream:
            environment = {**os.environ, "PYTHONPATH": ROOT, **variables}
            subprocess.run([sys.executable, PROGRAM, "-", str(tmp_path / "out.jsonl")], env=environment, stdin=stream,
                           check=not variables)  # fmt: skip
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "expected.jsonl").read_bytes()
    assert _names(tmp_path) == sorted(
        ["in.jsonl", *(f"{name}.jsonl{end}" for name in ("expected", "out") for end in ("", ".meta.json"))]
    )


# --- Wrong input: nothing is scored, nothing is left behind


CORRUPT = gzip.compress(b"", mtime=0)[:10] + b"\xff" * 40
CUT_SHORT = gzip.compress(b'{"summary": "a", "source": "b"}\n', mtime=0)[:-9]


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("a.jsonl", b'{"summary": "a", "source": "b"}\n{"summary": "a", \n', ValueError,
         r"a\.jsonl, line 2: must be a JSON object; Expecting property name.*Correct the line"),
        ("a.jsonl", b'\n\n["a", "b"]\n', ValueError, r'a\.jsonl, line 3: must be a JSON object, .*got \["a", "b"\]'),
        ("a.jsonl", b"[" * 100_000, ValueError, r"line 1: must be a JSON object"),
        ("a.jsonl", b'{"summary": null, "source": "b"}\n', TypeError,
         r"a\.jsonl, line 1: column 'summary' must be text; got null\. Write an empty text"),
        ("a.jsonl", b'{"summary": "a", "source": 3}\n', TypeError,
         r"line 1: column 'source' must be text; got int \(3\)"),
        ("a.jsonl", b'{"summary": "a", "document": "b"}\n', ValueError,
         r"line 1: must have a column 'source'; it has 'summary', 'document'. Name yours with --source-column"),
        ("a.jsonl", b'{"summary": "a", "source": "b"}\ncaf\xe9\n', ValueError,
         r"a\.jsonl, line 2: must be UTF-8 text; at byte 3 of the line it is not"),
        ("a.jsonl", b"", ValueError, r"a\.jsonl: must hold at least one row; there is none"),
        ("a.csv", b"summary,source\n", ValueError, r"must hold at least one row"),
        ("a.csv", b'summary,source\n"a\nb",c\nd\n', ValueError,
         r"a\.csv, line 4: must have 2 cells, as the header has; got 1\. Check its commas"),
        ("a.csv", b'summary,source\na,"b\n', ValueError, r"a\.csv, line 2: unexpected end of data"),
        ("a.csv", b"summary,summary\n", ValueError, r"line 1: the header must name every column once"),
        ("a.csv", b"summary,source\na,caf\xe9\n", ValueError, r"a\.csv, line 2: must be UTF-8 text"),
        ("a.csv", b"text,source\na,b\n", ValueError, r"line 2: must have a column 'summary'; it has 'text', 'source'"),
        ("a.jsonl.gz", b"no gzip", ValueError, r"a\.jsonl\.gz: must be a whole gzip file"),
        ("a.jsonl.gz", CUT_SHORT, ValueError, r"must be a whole gzip"),
        ("a.jsonl.gz", CORRUPT, ValueError, r"a\.jsonl\.gz: must be a whole gzip file; .*while decompressing"),
        ("a.parquet", b"no parquet", ValueError, r"a\.parquet: must be a Parquet file"),
        ("a.txt", b"a\n", ValueError, r"a\.txt: its name must end in \.jsonl, .*--summaries and --sources"),
    ],
)  # fmt: skip
def test_wrong_files(name: str, content: bytes, kind: type[Exception], message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kind, match=message):
        _score(tmp_path / name, tmp_path / "out.jsonl", load=lambda: pytest.fail("a model was loaded"))
    assert _names(tmp_path) == [name]


def test_wrong_rows_of_a_parquet_file(tmp_path: Path) -> None:
    path = _as_parquet(tmp_path / "a.parquet", [{"summary": "a", "source": "b"}, {"summary": None, "source": "b"}])
    with pytest.raises(TypeError, match=r"a\.parquet, row 2: column 'summary' must be text; got null"):
        _score(path, tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match=r"row 1: must have a column 'doc'; it has 'summary', 'source'"):
        _score(Table((path,), source="doc"), tmp_path / "out.jsonl")


def test_kept_columns_that_cannot_be_written(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", [{"summary": "a", "source": "b", "score": 1}])
    with pytest.raises(ValueError, match="line 1: a column that is kept must not be named as one that is written"):
        _score(path, tmp_path / "out.jsonl", keep=True)
    _score(path, tmp_path / "out.jsonl")
    mixed = [{"summary": "a", "source": "b", "x": x} for x in (1, "one")]
    for shard_rows in (1, 2):
        with pytest.raises(ValueError, match=r"Parquet needs values of one type in a column.*Write \.jsonl"):
            _score(_write(path, mixed), tmp_path / "out.parquet", keep=True, shard_rows=shard_rows)
    bytes_column = _as_parquet(tmp_path / "a.parquet", [{"summary": "a", "source": "b", "x": b"1"}])
    with pytest.raises(ValueError, match="row 1: column 'x': JSON cannot hold a value of type bytes"):
        _score(bytes_column, tmp_path / "other.jsonl", keep=True)


def test_no_such_input(tmp_path: Path) -> None:
    for name in ("missing.jsonl", "*.jsonl"):
        with pytest.raises(ValueError, match=r"must be a file, a folder or a glob.*none is there"):
            expand([tmp_path / name])
    with pytest.raises(ValueError, match="none is there"):
        expand([tmp_path])


# --- Outputs in the way, disks that are full


def test_an_output_that_exists_is_kept(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("precious")
    with pytest.raises(FileExistsError, match=r"out\.jsonl: there is a file of that name.*--overwrite"):
        _score(source, output, load=lambda: pytest.fail("a model was loaded"))
    assert output.read_text() == "precious" and _names(tmp_path) == ["in.jsonl", "out.jsonl"]
    _score(source, output, overwrite=True)
    assert len(_read(output)) == 57
    with pytest.raises(FileExistsError):
        _score(source, output)


def test_a_failed_run_leaves_the_old_output(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("precious")
    assert _finish(source, output, "--overwrite", DIE_AT="12") == -signal.SIGKILL
    assert output.read_text() == "precious"
    with pytest.raises(FileExistsError, match="--overwrite"):
        _score(source, output)
    assert _finish(source, output, "--overwrite") == 0
    assert len(_read(output)) == 57


def test_the_output_must_not_be_an_input(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(ValueError, match="the output must not be one of the inputs"):
        _score(source, source, overwrite=True)
    with pytest.raises(ValueError, match="the output must not be one of the inputs"):
        _score(tmp_path, source, overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("output", "kind", "message"),
    [
        ("out.txt", ValueError, r"the output's name must end in \.jsonl or \.parquet"),
        ("out.jsonl.gz", ValueError, r"the output's name must end in \.jsonl or \.parquet"),
        ("no/out.jsonl", FileNotFoundError, r"its folder must exist; .*no does not"),
        ("folder.jsonl", IsADirectoryError, r"must be the name of a file; it is a folder"),
    ],
)
def test_outputs_that_cannot_be(output: str, kind: type[Exception], message: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(kind, match=message):
        _score(source, tmp_path / output)


def test_a_folder_that_cannot_be_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PermissionError, match=r"out\.jsonl\.unfinished cannot be made.*: Permission denied") as caught:
        _score(source, tmp_path / "out.jsonl", load=lambda: pytest.fail("a model was loaded"))
    assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize("full_at", [1, 3, 4, 9, 14, 15])
def test_a_full_disk_keeps_finished_shards(
    full_at: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 15 files: the manifest, 2 for each of 6 shards, the sidecar, the output."""
    _score(source, tmp_path / "expected.jsonl")
    calls, fsync = [0], os.fsync

    def fill_up(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            calls[0] += 1
            if calls[0] == full_at:
                raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(durable.os, "fsync", fill_up)
    with pytest.raises(OSError, match=r"cannot be written: No space left on device") as caught:
        _score(source, tmp_path / "out.jsonl")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "out.jsonl").exists()
    folder = tmp_path / "out.jsonl.unfinished"
    if full_at == 1:
        assert not folder.exists()
    else:
        remedy = f". Put it right and give the same command again: finished parts are kept in {folder}"
        assert str(caught.value).endswith(remedy)
        done = len(list(folder.glob("*.jsonl")))
        assert done == min(6, max(0, full_at - 2) // 2)
        assert not list(folder.glob(".*.part"))
    _score(source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "expected.jsonl").read_bytes()


# --- Killed and resumed


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 rows in 40 shards, and what an uninterrupted run makes of them."""
    folder = tmp_path_factory.mktemp("long")
    source = _write(folder / "in.jsonl", _texts(400))
    for ending in (".jsonl", ".parquet"):
        _score(source, folder / f"expected{ending}", keep=True, pairs=True)
    return folder


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_killed_ten_times_at_random(ending: str, long: Path, tmp_path: Path) -> None:
    output, log = tmp_path / f"out{ending}", tmp_path / "log"
    arguments = (long / "in.jsonl", output, "--keep", "--pairs")
    moments = random.Random(ending)
    kills = 0
    for _ in range(10):
        process = _start(*arguments, AT_MOST="3", LOG=str(log))
        seen = len(log.read_text().splitlines()) if log.exists() else 0
        wanted = seen + moments.randrange(3)
        while process.poll() is None:  # wait until it works, then a random moment
            if log.exists() and len(log.read_text().splitlines()) > wanted:
                break
            time.sleep(0.002)
        time.sleep(moments.random() * 0.06)
        kills += process.poll() is None
        _kill(process)
        assert not output.exists()
    assert kills == 10
    assert _finish(*arguments, LOG=str(log)) == 0
    assert output.read_bytes() == (long / f"expected{ending}").read_bytes()
    assert (
        output.with_name(output.name + ".meta.json").read_bytes() == (long / f"expected{ending}.meta.json").read_bytes()
    )
    # A kill costs one shard at most: it was not done all over again.
    assert 40 <= len(log.read_text().splitlines()) <= 40 + 10
    assert _names(tmp_path) == ["log", output.name, f"{output.name}.meta.json"]


# With 3 shards: each file is a flush, a renaming and a flush of its folder. The manifest, 2 x 3 files of shards, then
# the output's flush after the sidecar's three, its renaming, its folder, and the removal of the work folder.
@pytest.mark.parametrize("moment", range(1, 29))
def test_killed_at_every_write(moment: int, tmp_path: Path) -> None:
    source = _write(tmp_path / "in.jsonl", _texts(25))
    output = tmp_path / "out.jsonl"
    _score(source, tmp_path / "expected.jsonl")
    killed = _finish(source, output, DIE_AT=str(moment)) != 0
    assert killed == (moment <= 28)
    if not (tmp_path / "out.jsonl.unfinished").exists():  # killed once all was done but to sweep up
        assert moment == 28
    else:
        assert _finish(source, output) == 0
    assert output.read_bytes() == (tmp_path / "expected.jsonl").read_bytes()
    assert (tmp_path / "out.jsonl.meta.json").read_bytes() == (tmp_path / "expected.jsonl.meta.json").read_bytes()


def test_an_input_that_changed_between_runs(source: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    assert _finish(source, output, DIE_AT="14") != 0
    kept = _names(tmp_path / "out.jsonl.unfinished")
    for changed in (rows[:-1], rows[::-1], [*rows, rows[0]], [rows[0] | {"source": "another"}, *rows[1:]]):
        _write(source, changed)
        with pytest.raises(ValueError, match=r"unfinished scoring that differs in its input: .*delete the folder"):
            _score(source, output)
    _write(source, rows)
    with pytest.raises(ValueError, match=r"differs in pairs \(False then, True now\)"):
        _score(source, output, pairs=True)
    with pytest.raises(ValueError, match=r"differs in columns \(False then, True now\)"):
        _score(source, output, keep=True)
    with pytest.raises(ValueError, match=r"differs in shard_rows \(10 then, 20 now\)"):
        _score(source, output, shard_rows=20)
    other = type("Other", (QuickScorer,), {"signature": "other"})
    with pytest.raises(ValueError, match=r"differs in signature \('quick' then, 'other' now\)"):
        _score(source, output, load=other)
    assert _names(tmp_path / "out.jsonl.unfinished") == kept
    found = _score(source, output)
    assert found is not None and _read(output) == _expected(rows)


def test_an_input_that_changes_while_it_is_scored(source: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    def change() -> QuickScorer:
        _write(source, rows[:20] + rows[21:])
        return QuickScorer()

    with pytest.raises(ValueError, match=r"in\.jsonl: must not change while it is scored; rows 21 to 30 did"):
        _score(source, tmp_path / "out.jsonl", load=change)
    assert not (tmp_path / "out.jsonl").exists()
    _write(source, rows)
    _score(source, tmp_path / "out.jsonl")
    assert _read(tmp_path / "out.jsonl") == _expected(rows)


def test_progress(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert _finish(source, tmp_path / "out.jsonl", DIE_AT="15") != 0
    _score(source, tmp_path / "out.jsonl", on_shard=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 57) for done in (20, 30, 40, 50, 57)]


# --- Several processes


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_shards(size: int, long: Path, tmp_path: Path) -> None:
    arguments = (long / "in.jsonl", tmp_path / "out.jsonl", "--keep", "--pairs")
    ranks = [
        _start(
            *arguments,
            RANK=str(rank),
            WORLD_SIZE=str(size),
            LOG=str(tmp_path / f"log-{rank}"),
            TOGETHER=str(tmp_path / "log-begun"),
        )
        for rank in range(size)
    ]
    for process in ranks:
        _, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, error
    assert (tmp_path / "out.jsonl").read_bytes() == (long / "expected.jsonl").read_bytes()
    done = [len((tmp_path / f"log-{rank}").read_text().splitlines()) for rank in range(size)]
    assert min(done) > 0 and 40 <= sum(done) < 60  # two that do the same at the same time do no harm
    assert [name for name in _names(tmp_path) if not name.startswith("log")] == ["out.jsonl", "out.jsonl.meta.json"]


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("then", [1, 2, 3])
def test_the_loss_of_one_process(lost: int, then: int, long: Path, tmp_path: Path) -> None:
    """Of two processes one is killed, then the other, as a launcher does; restarting finishes with any number."""
    arguments = (long / "in.jsonl", tmp_path / "out.jsonl", "--keep", "--pairs")
    log = tmp_path / "log"
    ranks = [_start(*arguments, RANK=str(r), WORLD_SIZE="2", AT_MOST="6", LOG=str(log)) for r in range(2)]
    while not log.exists() or len(log.read_text().splitlines()) < 8:
        assert [process.poll() for process in ranks] == [None, None]
        time.sleep(0.005)
    _kill(ranks[lost])
    _kill(ranks[1 - lost])
    assert not (tmp_path / "out.jsonl").exists()
    ranks = [_start(*arguments, RANK=str(r), WORLD_SIZE=str(then), LOG=str(log)) for r in range(then)]
    for process in ranks:
        _, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, error
    assert (tmp_path / "out.jsonl").read_bytes() == (long / "expected.jsonl").read_bytes()
    assert _names(tmp_path) == ["log", "out.jsonl", "out.jsonl.meta.json"]


def test_rank_0_finishes_alone_if_the_others_are_lost(long: Path, tmp_path: Path) -> None:
    arguments = (long / "in.jsonl", tmp_path / "out.jsonl", "--keep", "--pairs")
    shared, log = {"WORLD_SIZE": "2", "TOGETHER": str(tmp_path / "begun")}, tmp_path / "log"
    ranks = [_start(*arguments, RANK="0", **shared), _start(*arguments, RANK="1", AT_MOST="3", LOG=str(log), **shared)]
    while not log.exists():
        assert ranks[1].poll() is None
        time.sleep(0.005)
    _kill(ranks[1])
    _, error = ranks[0].communicate(timeout=PATIENCE)
    assert ranks[0].returncode == 0, error
    assert (tmp_path / "out.jsonl").read_bytes() == (long / "expected.jsonl").read_bytes()


def test_the_others_leave_the_joining_to_rank_0(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert _score(source, tmp_path / "out.jsonl") is None
    assert not (tmp_path / "out.jsonl").exists()
    assert len(list((tmp_path / "out.jsonl.unfinished").glob("*.jsonl"))) == 6
    monkeypatch.setenv("RANK", "0")
    assert _score(source, tmp_path / "out.jsonl", load=QuickScorer) is not None
    # A process that comes too late finds the work published, with or without leave to overwrite.
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(scoring, "_PATIENCE", 0.1)
    for overwrite in (False, True):
        assert _score(source, tmp_path / "out.jsonl", overwrite=overwrite) is None
        assert _names(tmp_path) == ["in.jsonl", "out.jsonl", "out.jsonl.meta.json"]


def test_all_processes_share_a_job_that_is_done_again(long: Path, tmp_path: Path) -> None:
    arguments, log = (long / "in.jsonl", tmp_path / "out.jsonl", "--keep", "--pairs", "--overwrite"), tmp_path / "log"
    assert _finish(*arguments) == 0
    shared = {"WORLD_SIZE": "2", "TOGETHER": str(tmp_path / "begun")}
    late = _start(*arguments, RANK="1", LOG=str(log), **shared)  # it finds the old output first
    first = _start(*arguments, RANK="0", **shared)
    for process in (first, late):
        _, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, error
    assert log.read_text()  # it has scored
    assert (tmp_path / "out.jsonl").read_bytes() == (long / "expected.jsonl").read_bytes()


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("one", "2")])
def test_wrong_ranks(rank: str, size: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match="RANK must be an integer from 0 to WORLD_SIZE - 1"):
        _score(source, tmp_path / "out.jsonl")
