"""benchmarks/speed.py: the published procedures, written plainly there, give the scores that ours give."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import pytest

from tests import programs, tiny
from tests.qags_metric import models

speed = programs.load("benchmarks/speed.py")

SUMMARIES = ["Anthony Joshua beat Klitschko at Wembley Stadium.", "The council approved a new bridge in Perth."]
SOURCES = [tiny.CORPUS[0], " ".join([tiny.CORPUS[3], *tiny.CORPUS[:2]])]


def _args(model: Path, reader: Path = Path()) -> argparse.Namespace:
    names = {"model": str(model), "question_model": str(model), "reader": str(reader)}
    return argparse.Namespace(**names, dtype="float32", rows=2, threads=1, data="x.jsonl")


def test_published_quals_has_the_scores_of_ours(tmp_path: Path) -> None:
    args = _args(tiny.trained(tmp_path / "model"))
    published, ours = (speed.make(name, args) for name in "cd")
    expected = ours.score(SUMMARIES, SOURCES)
    assert not any(map(math.isnan, expected))
    assert published.score(SUMMARIES, SOURCES) == pytest.approx(expected, abs=1e-4)
    assert set(published.stages) == {"generate", "score"} == set(ours.stages)


def test_published_qags_has_the_scores_of_ours(tmp_path: Path) -> None:
    args = _args(models.generator(tmp_path / "generator"), models.reader(tmp_path / "reader"))
    batched, one_by_one, ours = (speed.make(name, args) for name in ("a'", "a", "b"))
    summaries = [tiny.CORPUS[0], tiny.CORPUS[3]]  # what the toys know by heart, whatever the processor
    expected = ours.score(summaries, SOURCES)
    assert not all(map(math.isnan, expected))
    for published in (batched, one_by_one):
        assert published.score(summaries, SOURCES) == pytest.approx(expected, abs=1e-4, nan_ok=True)
    assert set(ours.stages) == {"candidates", "generate", "read"} == set(batched.stages)


def test_tables_and_the_check_of_the_scores(tmp_path: Path) -> None:
    run: dict[str, object] = {"seconds": 4.0, "processor": 3.0, "scores": [0.5, math.nan], "peak": 9.0}
    run["stages"] = {"read": 3.0, "the rest": 1.0}
    found = {"a": [run, {**run, "seconds": 8.0}], "b": [run, run]}
    table = speed.show(found, _args(tmp_path))
    assert "| (a) QAGS, published | 3.00 (2.00 to 4.00) | 1.50 | read 75 %, the rest 25 % | 9 |" in table
    assert "| (a) / (b) | 1.50 (1.00 to 2.00) |" in table
    for scores in ([0.6, math.nan], [0.5, 0.1]):
        with pytest.raises(ValueError, match="must give the same scores"):
            speed.check({**found, "b": [{**run, "scores": scores}]})


def test_the_limit_is_the_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setitem(sys.modules, "limit", argparse.Namespace(main=asked.append))
    speed.main(["--limit", "--data", "rows.jsonl"])
    assert asked == [["--data", "rows.jsonl"]]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"n": n}) for n in range(5)))
    assert [row["n"] for row in speed.read(str(tmp_path / "rows.jsonl"), 3)] == [0, 1, 2]
