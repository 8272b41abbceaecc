"""Faults that users of such tools meet: damaged shards, links, names, columns that cannot be written, odd files."""

from __future__ import annotations

import datetime
import errno
import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quals_metric.files import durable
from quals_metric.files.compare import compare_files
from quals_metric.files.scoring import score_files
from quals_metric.files.shards import WorkFolder, published
from quals_metric.files.tables import Table, TextFiles, expand, records
from tests.quals_metric.files.score_program import QuickScorer


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return _write(tmp_path / "in.jsonl", [{"summary": f"summary {n}", "source": f"source {n}"} for n in range(25)])


def _score(source: Path, output: Path, load: Any = QuickScorer, keep: bool = False, **options: Any) -> Any:
    return score_files(Table((source,), keep=keep), output, load, shard_rows=10, **options)


def _no_model() -> Any:
    pytest.fail("a model was loaded")


def _stopped(source: Path, output: Path, after: int = 3, **options: Any) -> None:
    """A run that ends with an error once `after` shards are written."""

    class Stops(QuickScorer):
        count = 0

        def score(self, **texts: Any) -> Any:
            self.count += 1
            if self.count > after:
                raise RuntimeError("stopped")
            return super().score(**texts)

    with pytest.raises(RuntimeError, match="stopped"):
        _score(source, output, Stops, **options)


@pytest.mark.parametrize(("calibrated", "calibration"), [(True, None), (False, "made from labels")])
def test_a_wrong_word_on_the_calibration_stops_before_the_first_shard(
    calibrated: bool, calibration: str | None, source: Path, tmp_path: Path
) -> None:
    class Scorer(QuickScorer):
        def __init__(self) -> None:
            self.calibration = calibration

        def score(self, **texts: Any) -> Any:
            pytest.fail("a shard was scored")

    has = "has none" if calibration is None else "has one"
    message = f"calibrated: must say whether the scorer has a calibration; got {calibrated}, and the scorer {has}. Pass"
    with pytest.raises(ValueError, match=re.escape(message)):
        _score(source, tmp_path / "out.jsonl", Scorer, calibrated=calibrated)
    assert os.listdir(tmp_path) == ["in.jsonl"]


# --- A4: damaged shards


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _add_a_line(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _nest(path: Path) -> None:
    path.write_text("[" * 100_000)


def _forge(path: Path) -> None:
    seal, numbers = map(json.loads, path.read_text().splitlines())
    numbers["scores"][0] = 0.0
    path.write_text(f"{json.dumps(seal)}\n{json.dumps(numbers)}\n")


DAMAGES = [(damage, ending) for damage in (_truncate, _add_a_line, _flip, _nest, os.unlink)
           for ending in (".jsonl", ".parquet", ".json")]  # fmt: skip


@pytest.mark.parametrize(("damage", "ending"), [*DAMAGES, (_forge, ".json")])
def test_21_a4_a_damaged_shard_is_scored_again(
    damage: Callable[[Path], None], ending: str, source: Path, tmp_path: Path
) -> None:
    """`.json`: the numbers of a shard that the mean needs."""
    name = "out.parquet" if ending == ".parquet" else "out.jsonl"
    expected = _score(source, tmp_path / f"expected{Path(name).suffix}", pairs=True)
    _stopped(source, tmp_path / name, after=2, pairs=True)
    (shard,) = (tmp_path / f"{name}.unfinished").glob(f"000000001-*{ending}")
    damage(shard)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = _score(source, tmp_path / name, pairs=True)
    # A shard whose file of rows is missing is not finished: no word of damage.
    said = [str(warning.message) for warning in caught]
    assert len(said) == (0 if damage is os.unlink and ending != ".json" else 1)
    assert all("is damaged; rows 11 to 20 are scored again" in message for message in said)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"expected{Path(name).suffix}").read_bytes()
    assert (scores.score, scores.rows) == (expected.score, 25)


def test_21_a4_a_disk_that_keeps_nothing_ends_the_job(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file = durable.write_file

    def damaging(path: Path, data: bytes, drafts: Path | None = None) -> None:
        write_file(path, data[:-1] if path.suffix == ".jsonl" else data, drafts)

    monkeypatch.setattr(durable, "write_file", damaging)
    message = "its shards are damaged whenever they are written"
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(OSError, match=message):
        _score(source, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


# --- A5: links


def test_21_a5_a_file_is_read_once_whatever_leads_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g" / "a" / "b").mkdir(parents=True)
    files = [_write(tmp_path / "g" / name, []) for name in ("a/x.jsonl", "a/b/y.jsonl", "z.jsonl")]
    (tmp_path / "g" / "latest").symlink_to("a")
    (tmp_path / "g" / "a" / "up").symlink_to("..")  # two loops
    (tmp_path / "g" / "a" / "b" / "top").symlink_to("../..")
    (tmp_path / "elsewhere").mkdir()
    files.append(_write(tmp_path / "elsewhere" / "w.jsonl", []))
    (tmp_path / "g" / "other").symlink_to("../elsewhere")  # followed, as it was
    (tmp_path / "g" / ".hidden").mkdir()
    _write(tmp_path / "g" / ".hidden" / "no.jsonl", [])
    os.link(files[2], tmp_path / "g" / "zz.jsonl")
    for pattern in ("g/**/*.jsonl", "./g/**/*.jsonl", f"{tmp_path}/g/**/*.jsonl", "**/*.jsonl", "g/**/**/*.jsonl"):
        monkeypatch.chdir(tmp_path)
        found = expand([pattern])
        assert sorted(path.resolve() for path in found if not path.samefile(files[2])) == sorted(files[:2] + files[3:])
        assert len(found) == 4
    assert expand(["g/**/a/*.jsonl"]) == (Path("g/a/x.jsonl"),)
    given = ["g/z.jsonl", "g/a/x.jsonl", "g/zz.jsonl", "g"]
    assert expand(given) == (Path("g/z.jsonl"), Path("g/a/x.jsonl"))  # in the order of the first names
    assert sorted(path.name for path in expand(["g/a/b/**"])) == ["w.jsonl", "x.jsonl", "y.jsonl", "z.jsonl"]


# --- B9: names


@pytest.mark.parametrize("length", [225, 240, 244])
def test_21_b9_a_long_name_of_an_output(length: int, source: Path, tmp_path: Path) -> None:
    """What fits with the names of its helpers works; what does not is refused before anything is loaded."""
    output = tmp_path / ("é" * 50 + "x" * (length - 106) + ".jsonl")
    assert len(os.fsencode(output.name)) == length
    assert _score(source, output).rows == 25
    too_long = output.with_name("x" * (245 - 6) + ".jsonl")
    with pytest.raises(OSError, match="File name too long"):
        _score(source, too_long, _no_model)


def test_21_b9_a_finished_output_is_accepted_on_request(source: Path, tmp_path: Path) -> None:
    first = _score(source, tmp_path / "out.jsonl")
    with pytest.raises(FileExistsError):
        _score(source, tmp_path / "out.jsonl", _no_model)
    assert _score(source, tmp_path / "out.jsonl", accept_finished=True) == first
    with pytest.raises(FileExistsError):
        _score(source, tmp_path / "out.jsonl", accept_finished=True, pairs=True)
    assert not (tmp_path / "out.jsonl.unfinished").exists()


# --- B10: what the writer needs


BAD_COLUMNS: list[tuple[str, Any, str]] = [
    (".parquet", {}, r"in\.jsonl, line 2: column 'meta': Parquet cannot hold it; .*Write \.jsonl"),
    (".parquet", {"a": {}}, r"in\.jsonl, line 2: column 'meta': Parquet cannot hold it"),
    (".parquet", 2**70, r"in\.jsonl, line 2: column 'meta': Parquet needs values of one type"),
    (".parquet", [1, "one"], r"in\.jsonl, line 2: column 'meta': Parquet needs values of one type"),
    (".parquet", 10**400, r"in\.jsonl, line 2: column 'meta': Parquet needs values of one type"),
]


@pytest.mark.parametrize(("ending", "value", "message"), BAD_COLUMNS)
def test_21_b10_a_column_that_cannot_be_written(ending: str, value: Any, message: str, tmp_path: Path) -> None:
    rows = [{"summary": "a", "source": "b"}, {"summary": "a", "source": "b", "meta": value}]
    path = _write(tmp_path / "in.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        _score(path, tmp_path / f"out{ending}", _no_model, keep=True)
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl"]
    assert _score(path, tmp_path / "out.jsonl", keep=True).rows == 2  # JSON lines can hold it
    assert [row for _, row in records(tmp_path / "out.jsonl")][1]["meta"] == value


def test_21_b10_an_empty_object_beside_a_full_one_is_written(tmp_path: Path) -> None:
    rows = [{"summary": "a", "source": "b", "meta": {"k": 1} if n == 15 else {}} for n in range(20)]
    _score(_write(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet", keep=True)
    assert [row["meta"]["k"] for _, row in records(tmp_path / "out.parquet")][14:17] == [None, 1, None]


def test_21_b10_a_surrogate_in_a_name(tmp_path: Path) -> None:
    path = _write(tmp_path / "in.jsonl", [{"summary": "a", "source": "b", "x\ud800": 1, "y": {"\ud800": 1}}])
    with pytest.raises(ValueError, match=r"line 1: column 'x\\ud800': Parquet needs names in UTF-8\. Rename it"):
        _score(path, tmp_path / "out.parquet", _no_model, keep=True)
    for ending in ("jsonl", "csv"):
        assert _score(path, tmp_path / f"out.{ending}", keep=True).rows == 1
    path = _write(path, [{"summary": "a", "source": "b", "y": {"\ud800": 1}}])
    _score(path, tmp_path / "out.parquet", keep=True)
    assert [row["y"] for _, row in records(tmp_path / "out.parquet")] == [{"\ufffd": 1}]


def _parquet(path: Path, **columns: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"summary": ["a", "b"], "source": ["a", "b"], **columns}), path)
    return path


def test_21_b10_parquet_to_parquet_keeps_every_type(tmp_path: Path) -> None:
    import pyarrow as pa

    columns = {
        "bytes": pa.array([b"\xff\x00", None], pa.binary()),
        "took": pa.array([datetime.timedelta(seconds=1), None], pa.duration("us")),
        "map": pa.array([[("k", 1), ("l", 2)], None], pa.map_(pa.string(), pa.int32())),
        "time": pa.array([datetime.datetime(2020, 1, 1), None], pa.timestamp("ms")),
        "empty": pa.nulls(2),
    }
    path = _parquet(tmp_path / "in.parquet", **columns)
    for number in range(2):  # the second resumes nothing and says the same
        _score(path, tmp_path / f"out{number}.parquet", keep=True)
    assert (tmp_path / "out0.parquet").read_bytes() == (tmp_path / "out1.parquet").read_bytes()
    (_, first), (_, second) = records(tmp_path / "out0.parquet")
    assert first["bytes"] == b"\xff\x00" and first["took"] == datetime.timedelta(seconds=1)
    assert first["map"] == [("k", 1), ("l", 2)] and second["map"] is None
    with pytest.raises(ValueError, match=r"in\.parquet, row 1: column 'bytes': JSON cannot hold a value of type bytes"):
        _score(path, tmp_path / "out.jsonl", _no_model, keep=True)
    _score(path, tmp_path / "out.jsonl")  # without the columns


def test_21_b10_a_time_past_the_year_9999_and_text_that_is_not_utf8(tmp_path: Path) -> None:
    import pyarrow as pa

    late = pa.array([0, 10**18], pa.int64()).cast(pa.timestamp("ms"))
    path = _parquet(tmp_path / "late.parquet", day=late)
    with pytest.raises(ValueError, match=r"late\.parquet, row 2: column 'day' holds a value that cannot be read; "):
        _score(path, tmp_path / "out.parquet", _no_model, keep=True)
    _score(path, tmp_path / "out.parquet")
    wrong = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"], pa.binary()).buffers())
    path = _parquet(tmp_path / "wrong.parquet", text=wrong)
    with pytest.raises(ValueError, match=r"wrong\.parquet, row 2: column 'text' holds a value that cannot be read; "):
        _score(path, tmp_path / "other.parquet", _no_model, keep=True)


# --- B14: several processes that know nothing of each other, on one output


def test_21_b14_the_slower_of_two_jobs_reports_what_the_faster_published(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    others: list[Any] = []

    class Slower(QuickScorer):
        def score(self, **texts: Any) -> Any:
            if not others:
                others.append(_score(source, output))
            return super().score(**texts)

    assert _score(source, output, Slower) == others[0]
    assert not (tmp_path / "out.jsonl.unfinished").exists()


def test_21_b14_work_that_was_removed_meanwhile_is_said(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"

    class Removes(QuickScorer):
        def score(self, **texts: Any) -> Any:
            WorkFolder(output).remove()
            return super().score(**texts)

    with pytest.raises(FileNotFoundError, match=r"was removed while its shards were scored\. Put it right") as caught:
        _score(source, output, Removes)
    assert "finished parts are kept" not in str(caught.value)


# --- E: one line with file, row and remedy


def test_21_e_json_that_is_nested_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"summary": "a", "source": "b", "x": ' + "[" * 900 + "]" * 900 + "}\n")
    for ending in ("jsonl", "parquet", "csv"):
        with pytest.raises(ValueError, match=r"in\.jsonl, line 1: is nested too deep\. Leave the column out"):
            _score(path, tmp_path / f"out.{ending}", _no_model, keep=True)
    assert _score(path, tmp_path / "out.jsonl").rows == 1


@pytest.mark.parametrize("score", ["1" + "0" * 400, "1e999", "NaN", '"1"', "[]"])
def test_21_e_a_score_that_is_no_number(score: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"score": ' + score + "}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: column 'score' must be a number or null; got "):
        compare_files(tmp_path / "a.jsonl", tmp_path / "a.jsonl")
    (tmp_path / "a.csv").write_text("score\n1,5\n" if score == "[]" else "score\nx\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 2: "):
        compare_files(tmp_path / "a.csv", tmp_path / "a.csv")


@pytest.mark.parametrize("content", ["[]", "null", "", "[" * 100_000, '"x"', '{"settings": []}', "{"])
def test_21_e_a_manifest_that_is_none(content: str, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    _stopped(source, output, after=1)
    manifest = tmp_path / "out.jsonl.unfinished" / "manifest.json"
    kept = manifest.read_text()
    manifest.write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json: must be .*Delete its folder to start anew"):
        _score(source, output)
    manifest.unlink()  # a missing one is written anew: the shards' names say which job they are of
    assert len(os.listdir(manifest.parent)) == 2
    manifest.write_text(kept)
    assert _score(source, output).rows == 25


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[]"])
def test_21_e_a_sidecar_that_is_none(content: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", [{"score": n} for n in range(12)])
    (tmp_path / "a.jsonl.meta.json").write_text(content)
    assert published(path) is None
    if content == "[]":
        return
    with pytest.raises(ValueError, match=r"a\.jsonl\.meta\.json: must be JSON; .*Delete it"):
        compare_files(path, path)


def test_21_e_a_parquet_file_with_a_bad_footer(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "in.parquet")
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    for damaged in (data[: -8 - length] + b"\xff" * length + data[-8:], data[:-8] + b"\xff\xff\xff\x7fPAR1", b"PAR1"):
        path.write_bytes(damaged)
        for ending in ("parquet", "jsonl"):
            with pytest.raises(ValueError, match=r"in\.parquet: must be a Parquet file; "):
                _score(path, tmp_path / f"out.{ending}", _no_model)
    assert sorted(os.listdir(tmp_path)) == ["in.parquet"]


def test_21_e_pipes_and_devices_are_no_input(source: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.jsonl"
    os.mkfifo(fifo)
    with pytest.raises(ValueError, match=r"fifo\.jsonl: must be a regular file\. Save what it gives to a file"):
        expand([fifo])
    (tmp_path / "zero.parquet").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="must be a regular file"):
        expand([tmp_path / "zero.parquet"])
    for pair in ((fifo, source), (source, Path("/dev/zero"))):
        with pytest.raises(ValueError, match="must be a regular file"):
            score_files(TextFiles(*pair), tmp_path / "out.jsonl", _no_model)
    for path in (fifo, tmp_path / "zero.parquet"):
        with pytest.raises(ValueError, match="must be a regular file"):
            list(records(path))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_21_e_a_folder_that_cannot_be_flushed_stops_nothing(
    number: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(durable.os, "fsync", refuse_folders)
    assert _score(source, tmp_path / "out.jsonl").rows == 25


def test_check_writable(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    for name, kind, message in (
        ("no/out.html", FileNotFoundError, "its folder must exist"),
        ("folder.html", IsADirectoryError, "cannot be written: it is a folder"),
        ("x" * 256, OSError, "cannot be written: File name too long. Choose another name"),
    ):
        with pytest.raises(kind, match=message):
            durable.check_writable(tmp_path / name)
    durable.check_writable(tmp_path / "out.html")
    assert os.listdir(tmp_path) == ["folder.html"]
