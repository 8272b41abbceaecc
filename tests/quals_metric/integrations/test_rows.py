"""`QualsRows` in the shapes that engines give it, and in the real `datasets` and Ray."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher

from qa_inference.calibration import Calibration
from qags_metric import QagsConfig
from quals_metric import QualsConfig, QualsScorer
from quals_metric.files.scoring import score_files
from quals_metric.files.tables import Table
from quals_metric.integrations import QualsRows, rows
from quals_metric.report.examples import EXAMPLES
from tests import tiny
from tests.quals_metric.conftest import FakeScorer

PAGE = Path(__file__).parents[3] / "docs" / "scale.md"
PROGRAM = str(Path(__file__).with_name("ray_program.py"))
COLUMNS = {
    "id": [1, 2, 3],
    "summary": ["Ann won.", "", "Bo won."],
    "source": ["Ann Lee won the cup."] * 3,
}
SCORES = [0.0, math.nan, -1.0]


@pytest.fixture(autouse=True)
def own_scorers(fake_scorer: type[FakeScorer], request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test loads its own scorers, which need no model."""
    rows._scorer.cache_clear()
    yield
    rows._scorer.cache_clear()


def test_a_dict_of_lists() -> None:
    found = QualsRows()(COLUMNS)
    assert {name: found[name] for name in COLUMNS} == COLUMNS
    np.testing.assert_equal(found["score"], SCORES)
    np.testing.assert_equal(found["score_01"], [1.0, math.nan, math.exp(-1)])
    assert found["num_pairs"] == [1, 0, 1] and found["note"] == ["", "blank summary", ""]
    assert found["signature"] == ["fake:all"] * 3


def test_a_dict_of_arrays() -> None:
    """The default of Ray Data."""
    found = QualsRows()({name: np.array(values) for name, values in COLUMNS.items()})
    np.testing.assert_equal(found["score"], SCORES)


def test_arrow() -> None:
    table = pa.table(COLUMNS)
    found = QualsRows()(table)
    assert found.schema == pa.schema([*table.schema, *QualsRows().schema])
    assert found.select(table.column_names) == table
    assert found["score"].to_pylist() == [0.0, None, -1.0] and found["score_01"].null_count == 1
    (batch,) = table.to_batches()
    assert QualsRows()(batch) == found.to_batches()[0]


def test_a_calibration_adds_a_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own column, which the schema has too."""
    scored = FakeScorer._one
    monkeypatch.setattr(
        FakeScorer, "_one", lambda *of: replace(found := scored(*of), probability=found.score / 4 + 0.5)
    )
    calibrated = QualsRows(QualsConfig(calibration="embedded"), prefix="q_")
    assert calibrated.schema.names == [
        "q_score", "q_score_01", "q_probability", "q_num_pairs", "q_note", "q_signature"
    ]  # fmt: skip
    table = calibrated(pa.table(COLUMNS))
    assert table.schema.field("q_probability").type == pa.float64()
    assert table["q_probability"].to_pylist() == [0.5, None, 0.25] and table["q_score"].to_pylist() == [0, None, -1]


def test_pandas_as_spark_gives_it() -> None:
    """`mapInPandas` gives an iterator of DataFrames, some empty, and checks the columns of each by the schema."""
    frame = pd.DataFrame(COLUMNS, index=[7, 8, 9])
    add = QualsRows(QualsConfig(tokens="answer"))
    frames = list(map(add, iter([frame, frame[:0], frame[2:]])))
    assert [len(found) for found in frames] == [3, 0, 1]
    for found in frames:
        assert list(found.columns) == ["id", "summary", "source", *add.schema.names]
    np.testing.assert_equal(frames[0]["score"].to_numpy(), SCORES)
    assert frames[0].index.tolist() == [7, 8, 9] and frames[2]["signature"].tolist() == ["fake:answer"]
    assert list(frame.columns) == list(COLUMNS)  # the batch of the engine is left as it was
    assert pa.Table.from_pandas(frames[1], schema=add.schema).num_rows == 0


def test_qags_beside_quals() -> None:
    add = QualsRows(metric="qags", prefix="qags_")
    assert add.config == QagsConfig()
    assert add.schema.names == ["qags_score", "qags_score_01", "qags_num_questions", "qags_note", "qags_signature"]
    assert QualsRows("some/model").config == QualsConfig("some/model")


def test_one_scorer_in_a_process(fake_scorer: type[FakeScorer]) -> None:
    first, other = QualsRows(), QualsRows(QualsConfig(tokens="answer"))
    assert not fake_scorer.made  # nothing is loaded before the first batch
    empty = {name: values[:0] for name, values in COLUMNS.items()}
    assert first(empty)["score"] == [] and not fake_scorer.made
    for add in (first, pickle.loads(pickle.dumps(first)), other, first, QualsRows()):
        add(COLUMNS)
    assert fake_scorer.made == [QualsConfig(), QualsConfig(tokens="answer")]


def test_a_process_takes_its_gpu(fake_scorer: type[FakeScorer], monkeypatch: pytest.MonkeyPatch) -> None:
    QualsRows()(COLUMNS, 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    QualsRows()(COLUMNS, 3)
    QualsRows(QualsConfig(device="cpu"))(COLUMNS, 3)
    assert [config.device for config in fake_scorer.made] == [None, "cuda:1", "cpu"]


def test_the_identity_of_a_function_has_its_weights(tmp_path: Path) -> None:
    """`datasets` must not take the scores of weights that were trained again."""
    folder = tiny.save("bart", tmp_path / "bart")
    add = QualsRows(str(folder))
    before = Hasher.hash(add)
    assert Hasher.hash(pickle.loads(pickle.dumps(add))) == before == Hasher.hash(QualsRows(str(folder)))
    assert Hasher.hash(QualsRows(QualsConfig(str(folder), groups=7))) != before
    config = folder / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    assert Hasher.hash(add) != before


def test_the_identity_of_a_function_has_its_calibration(tmp_path: Path) -> None:
    """Nor the probabilities of a calibration that was made again."""
    file, made = tmp_path / "calibration.json", Calibration("quals", {}, (-1.0, 0.0), (0.25, 0.5))
    file.write_text(made.to_json())
    add, same = (QualsRows(QualsConfig(calibration=file)) for _ in range(2))
    before = Hasher.hash(add)
    assert Hasher.hash(pickle.loads(pickle.dumps(add))) == before == Hasher.hash(same)
    file.write_text(replace(made, probabilities=(0.25, 0.75)).to_json())
    assert Hasher.hash(add) != before
    file.unlink()
    pickle.dumps(add)  # on its way to a machine that has the file


@pytest.mark.parametrize(
    ("batch", "error", "text"),
    [
        ([1], TypeError, "batch: must be a dict of columns, a pandas DataFrame or an Arrow table; got list"),
        (
            {"summary": ["a"]},
            ValueError,
            r"source_column: must be a column of the rows; got .source., and .*summary",
        ),
        (COLUMNS | {"note": [""] * 3}, ValueError, r"prefix: must keep .* these have \['note'\] already"),
        (COLUMNS | {"summary": ["a", None, "b"]}, TypeError, r"summary\[1\]: must be str; got NoneType"),
    ],
)
def test_impossible_batches_are_refused(batch: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        QualsRows()(batch)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="metric: must be one of quals, qags; got 'rouge'"):
        QualsRows(metric="rouge")
    with pytest.raises(TypeError, match="config: must be a QagsConfig"):
        QualsRows(QualsConfig(), metric="qags")


def test_datasets_map(tmp_path: Path) -> None:
    found = Dataset.from_dict(COLUMNS).map(QualsRows(), batched=True, batch_size=2, with_rank=True)
    np.testing.assert_equal(np.array(found["score"][:], float), SCORES)
    assert found.column_names == [*COLUMNS, *QualsRows().schema.names]


def program(language: str, part: str) -> str:
    """The program of the guide in that language that contains `part`."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (text,) = (text for text in found if part in text)
    return str(text)


@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray, which is not installed")
def test_ray_scores_as_quals_score_does(run_python: Callable[..., Any], tmp_path: Path) -> None:
    """Two actors, of which one is killed on the way; Parquet in, Parquet out."""
    options = {"model": str(tiny.trained(tmp_path / "bart")), "groups": 30, "min_new_tokens": 2, "max_new_tokens": 14}
    options |= {"device": "cpu"}
    (tmp_path / "options.json").write_text(json.dumps(options))
    summaries = [tiny.CORPUS[0], "Anthony Joshua won.", "", tiny.CORPUS[3]]
    count = 160  # three batches
    columns = {"summary": summaries * (count // 4), "source": [tiny.CORPUS[0]] * (count // 2)}
    columns["source"] += [tiny.CORPUS[3]] * (count // 2)
    folder = tmp_path / "elsewhere"
    (folder / "summaries").mkdir()
    rows_file = folder / "summaries" / "rows.parquet"
    pq.write_table(pa.table({"id": list(range(count)), **columns}), rows_file, row_group_size=20)
    (tmp_path / "program.py").write_text(program("py", "import ray"))
    files = (tmp_path / name for name in ("program.py", "options.json", "killed"))
    # No report to its makers, no token in the home folder, and no process killed when other programs fill the memory.
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_memory_monitor_refresh_ms": "0"}
    found = run_python(PROGRAM, *map(str, files), **settings)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "killed").exists()
    scored = pq.read_table(folder / "scores").sort_by("id")
    expected = tmp_path / "expected.parquet"
    summary = score_files(Table((rows_file,), keep=True), expected, lambda: QualsScorer(QualsConfig(**options)))
    assert summary is not None and set(scored["signature"].to_pylist()) == {summary.signature}
    given, numbers = pq.read_table(expected).to_pydict(), ("score", "score_01")
    assert scored.drop_columns(["signature", *numbers]).to_pydict() == {
        n: v for n, v in given.items() if n not in numbers
    }
    for name in numbers:  # but for rounding, which depends on the batch
        assert scored[name].to_pylist() == pytest.approx(given[name], abs=1e-5)
    assert 0 < summary.num_undefined < count / 2


class Spark:
    """As much of Spark as the program of the guide uses: `mapInPandas` as its documentation describes it."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame, self.read, self.write = frame, self, self

    def parquet(self, folder: str) -> Spark:
        if folder == "scores":
            self.frame.to_parquet("scores.parquet")
        return self

    def mapInPandas(self, function: Callable[[Any], Iterator[pd.DataFrame]], schema: str) -> Spark:
        batches = (self.frame[start : start + 2] for start in (0, 2, 4))  # the last is empty
        columns = [column.split() for column in schema.split(", ")]
        arrow = pa.schema([(name, {"long": "int64"}.get(kind, kind)) for name, kind in columns])
        tables = []
        for frame in function(batches):
            assert list(frame.columns) == arrow.names
            tables.append(pa.Table.from_pandas(frame, arrow, preserve_index=False))
        return Spark(pa.concat_tables(tables).to_pandas())


def test_the_program_for_spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = SimpleNamespace(builder=SimpleNamespace(getOrCreate=lambda: Spark(pd.DataFrame(COLUMNS))))
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pyspark.sql", SimpleNamespace(SparkSession=session))
    exec(program("py", "pyspark"), {})
    np.testing.assert_equal(pd.read_parquet("scores.parquet")["score"].to_numpy(), SCORES)


def test_the_lines_for_dask() -> None:
    """Dask checks the columns and types of every partition by `meta`."""
    frame = pd.DataFrame(COLUMNS)
    partitions: list[pd.DataFrame] = []

    def map_partitions(function: QualsRows, *, meta: pd.DataFrame) -> None:
        assert meta.empty
        partitions.extend([meta, function(frame), function(frame[:0])])

    dask_frame = SimpleNamespace(_meta=frame[:0], map_partitions=map_partitions)
    exec(program("text", "map_partitions"), {"rows": dask_frame, "add_scores": QualsRows()})
    meta, full, empty = partitions
    assert list(meta.columns) == list(full.columns) == list(empty.columns)
    assert full.dtypes.to_dict() == meta.dtypes.to_dict()


def test_the_batch_script(tmp_path: Path, run_python: Callable[..., Any]) -> None:
    """Two tasks of an array, one after the other: the first does the work of both."""
    folder = tmp_path / "elsewhere"
    lines = [{"summary": example.faithful, "source": example.source} for example in EXAMPLES[:2]]
    (folder / "summaries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = f'#!/bin/sh\nexec {sys.executable} -m quals_metric "$@" --shard-rows 1\n'
    (tmp_path / "quals").write_text(command)
    (tmp_path / "quals").chmod(0o755)
    (tmp_path / "job.sh").write_text(program("slurm", "SBATCH"))
    code = f"import subprocess; subprocess.run(['bash', {str(tmp_path / 'job.sh')!r}], check=True)"
    path = f"{tmp_path}:{os.environ['PATH']}"
    for task in ("1", "0"):
        found = run_python("-c", code, PATH=path, SLURM_ARRAY_TASK_ID=task, SLURM_ARRAY_TASK_COUNT="2")
        assert found.returncode == 0, found.stderr
        assert (folder / "scores.jsonl").exists() == (task == "0")
    assert len((folder / "scores.jsonl").read_text().splitlines()) == 2
