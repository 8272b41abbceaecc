"""benchmarks/scaling.py: its texts, its arithmetic, its tables, and points measured at toy size."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import programs, tiny

scaling = programs.load("benchmarks/scaling.py")


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Documents of the toy corpus."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"document": text}) for text in tiny.CORPUS))
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.trained(tmp_path_factory.mktemp("model") / "bart"))


def _measured(processor: float, peak: float = 300.0, **changes: Any) -> Any:
    values = {"processor": processor, "clock": 2 * processor, "peak": peak, "loaded": 200.0, "parameters": 8.0}
    return scaling.Measured(**{**values, "pairs": 30, **changes})


# ---- texts ----------------------------------------------------------------------------------------------------------


def test_texts_have_the_length_and_number_asked_for(data: str) -> None:
    point = scaling.Point("words", 300, data, summaries=40, source_words=300, summary_words=30)
    summaries, sources = scaling.texts(point)
    assert {len(text.split()) for text in summaries} == {30} and {len(text.split()) for text in sources} == {300}
    assert len(set(summaries)) == len(set(sources)) == 40  # more than there are documents, and none twice
    assert all(source.startswith(summary) for summary, source in zip(summaries, sources, strict=True))


def test_candidates_share_a_document(data: str) -> None:
    summaries, sources = scaling.texts(scaling.Point("candidates", 3, data, summaries=6, candidates=3))
    assert sources == [sources[0]] * 3 + [sources[3]] * 3 and sources[0] != sources[3]
    assert len(set(summaries)) == 6


def test_data_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"document": " "}\n')
    with pytest.raises(ValueError, match="must hold rows with a `document` that is not blank"):
        scaling.Sentences(str(tmp_path / "rows.jsonl"))


# ---- axes, tables, plots --------------------------------------------------------------------------------------------


def test_an_axis_changes_one_thing() -> None:
    base = scaling.Point("", 0, "rows", summaries=8)
    expected = {
        "summaries": {"summaries": 4},
        "one-call": {"summaries": 4, "shard": 4},
        "groups": {"groups": 4},
        "words": {"source_words": 4},
        "candidates": {"candidates": 4, "summaries": 8},
    }
    for axis, changes in expected.items():
        assert scaling.points(axis, base, [4]) == [replace(base, axis=axis, value=4, **changes)]
    (size,) = scaling.points("size", base, [120])
    assert size == replace(base, axis="size", value=120, shape=(768, 6), summaries=2)
    assert set(scaling.AXES) == {*expected, "size"}


def test_the_table_of_an_axis() -> None:
    base = scaling.Point("groups", 1, "rows", summaries=10)
    found = [_measured(1.0), _measured(8.0, 600.0), None]
    lines = scaling.table(list(zip(scaling.points("groups", base, [15, 60, 120]), found, strict=True))).splitlines()
    assert lines[2:] == [
        "| 15 | 10 | 1.00 (2.00) |  | 100 | 30 | 300 |  | 100 |",
        "| 60 | 10 | 8.00 (16.00) | 1.50 | 800 | 30 | 600 | 0.50 | 400 |",
        "| 120 | 10 | was killed | | | | | | |",
    ]
    assert {line.count("|") for line in lines} == {10}


def test_models_grow_by_their_parameters() -> None:
    rows = scaling.points("size", scaling.Point("", 0, "rows"), [8, 30])
    table = scaling.table(list(zip(rows, [_measured(1.0), _measured(4.0, parameters=32.0)], strict=True)))
    assert "| 32.0 M | 2 | 4.00 (8.00) | 1.00 | 2000 |" in table  # not 30 ÷ 8


def test_a_plot_is_well_formed() -> None:
    points = scaling.points("words", scaling.Point("", 0, "rows"), [50, 500, 5000, 50000])
    found = [_measured(1.0, 100.0), _measured(10.0, 100.0), _measured(100.0, 1000.0), None]
    root = ElementTree.fromstring(scaling.plot(list(zip(points, found, strict=True))))
    time, memory = (line.get("points").split() for line in root.iter() if line.tag.endswith("polyline"))
    assert time == ["60.0,200.0", "240.0,120.0", "420.0,40.0"]  # a straight line
    assert memory == ["60.0,200.0", "240.0,200.0", "420.0,120.0"]  # flat, then a decade: half of what time has
    assert "5,000" in "".join(root.itertext()) and "50,000" not in "".join(root.itertext())


def test_large_divides_what_the_work_took() -> None:
    asked = []

    def measure(point: Any) -> Any:
        asked.append(point)
        work = {"shared": 50.0, "expanded": 800.0}[point.sharing]
        return None if point.operations == "score" and work == 800.0 else _measured(3.0, 200.0 + work)

    table = scaling.large(scaling.Point("", 0, "rows"), measure)
    assert "| search | expanded | 3.0 | 1,000 | 200 | 800 | 0.062 |" in table
    assert "| score | expanded | was killed |" in table
    assert {(p.shape, p.vocabulary, p.groups) for p in asked} == {((1024, 12), 50_265, 60)}


# ---- points that are measured ---------------------------------------------------------------------------------------


def test_a_point_of_a_checkpoint(data: str, model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    arguments = ["--data", data, "--model", model]
    arguments += ["--base-summaries", "2", "--source-words", "50", "--base-groups", "24"]
    files = ["--plots", str(tmp_path / "plots"), "--out", str(tmp_path / "out.jsonl")]
    try:
        scaling.main([*arguments, *files, "--axes", "summaries", "--summaries", "1", "3"], measure=scaling.run)
    finally:
        torch.set_num_threads(threads)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["summaries"] for row in rows] == [1, 3] and {row["groups"] for row in rows} == {24}
    assert all(row["processor"] > 0 and 0 < row["loaded"] <= row["peak"] and row["pairs"] > 0 for row in rows)
    assert (tmp_path / "plots" / "summaries.svg").exists()
    assert "| 3 | 3 | " in capsys.readouterr().out


@pytest.mark.parametrize("operations", ["search and score", "search", "score"])
def test_a_point_of_random_weights(operations: str, data: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "LARGE_WINDOW", 80)
    point = scaling.Point(
        "size", 1, data, model, summaries=2, source_words=60, summary_words=10, groups=3, shape=(16, 1),
        vocabulary=900, operations=operations, threads=torch.get_num_threads(),
    )  # fmt: skip
    found = scaling.run(point)
    assert found.pairs == 2 * (10 if operations == "score" else 3)
    embeddings, layers = (900 + 2 * 82) * 16, 28 * 16 * 16  # both halves; biases and norms come on top
    assert embeddings + layers < 1e6 * found.parameters < 1.1 * (embeddings + layers)


def test_sizes_are_what_they_are_called() -> None:
    """Twelve squares of the width in a layer of the encoder, sixteen in one of the decoder, and the embeddings."""
    for millions, (width, layers) in scaling.SHAPES.items():
        assert math.isclose(scaling.VOCABULARY * width + layers * 28 * width**2, millions * 1e6, rel_tol=0.1)


def test_epochs_with_a_cache(data: str, model: str) -> None:
    point = scaling.Point("", 0, data, model, summaries=4, source_words=50, summary_words=24)
    rows = scaling.epochs(replace(point, threads=torch.get_num_threads()))
    assert [name for name, *_ in rows] == ["no cache", "first epoch", "second epoch"]
    assert len({score for *_, score in rows}) == 1 and not math.isnan(rows[0][-1])
    table = scaling.epochs_table([("no cache", 4.0, 5.0, -0.5), ("second epoch", 1.0, 5.0, -0.5)], 2)
    assert "| second epoch | 1.00 (5.00) | 500.0 | 0.250 | -0.500000 |" in table


def test_a_process_of_its_own_that_is_killed_is_told(data: str) -> None:
    assert scaling._in_a_process(_killed, scaling.Point("", 0, data)) is None


def _killed(point: Any) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
