from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quals_metric.agreement.agreement import STATISTICS, measure_agreement
from quals_metric.agreement.labelled import read_labelled


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


ROWS = [
    {"source": "A b c.", "summary": "a b", "label": 1, "other": 0.75},
    {"source": "A b c.", "summary": "x", "label": 0, "other": None},
    {"source": "D e f.", "summary": "d e f", "label": True, "other": 2},
    {"source": "D e f.", "summary": "d x", "label": 0.5, "other": -1},
    {"source": "G.", "summary": "nobody has read it", "label": None, "other": 1},
]


def test_rows_with_a_label(tmp_path: Path) -> None:
    labelled = read_labelled(write(tmp_path / "rows.jsonl", ROWS), scores=["other"])
    assert labelled.labels.tolist() == [1, 0, 1, 0.5] and labelled.good.tolist() == [True, False, True, False]
    assert labelled.num_unlabelled == 1 and labelled.summaries == ["a b", "x", "d e f", "d x"]
    np.testing.assert_equal(labelled.columns["other"], [0.75, np.nan, 2, -1])
    assert labelled.pairs.tolist() == [[0, 1], [2, 3]]
    assert labelled.copied_shares()["copied 1-grams"].tolist() == [1, 0, 1, 0.5]
    assert labelled.name == "rows.jsonl" and len(labelled.digest) == 64
    half = read_labelled(tmp_path / "rows.jsonl", consistent_from=0.5)
    assert half.good.tolist() == [True, False, True, True]


def test_a_csv_file_with_other_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("document,text,rating,mine\nA b.,a,5,0.5\nA b.,x,2,\nC.,c,,1\n")
    labelled = read_labelled(path, summary="text", label="rating", consistent_from=4, scores=["mine"])
    assert labelled.labels.tolist() == [5, 2] and labelled.good.tolist() == [True, False]
    assert labelled.sources == ["A b.", "A b."] and np.isnan(labelled.columns["mine"][1])


def test_pairs(tmp_path: Path) -> None:
    rows = [
        {"document": "A b c.", "faithful": "a b", "unfaithful": text, "m_faithful": 2, "m_unfaithful": 1}
        for text in ("x", "y")
    ]
    labelled = read_labelled(write(tmp_path / "pairs.jsonl.gz", rows), scores=["m"])
    assert labelled.summaries == ["a b", "x", "a b", "y"] and labelled.labels.tolist() == [1, 0, 1, 0]
    assert labelled.pairs.tolist() == [[0, 1], [2, 3]]  # as they stand in the file, not all of the source
    assert labelled.columns["m"].tolist() == [2, 1, 2, 1]


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"label": "good"}, {}, r"rows.jsonl, line 1: column 'label' must be a number or null; got 'good'"),
        (
            {},
            {"label": "gold"},
            "column 'gold' must be a number or null; got a row without it. Name yours with",
        ),
        ({}, {"scores": ["no"]}, "column 'no' must be a number or null; got a row without it. Name yours with --score"),
        ({}, {"summary": "text"}, "must have a column 'text'; it has"),
        ({}, {"source": "text"}, "must have a column 'text'; it has"),
        ({}, {"consistent_from": 2}, "of 4 with a label, 0 have one of at least 2. --consistent-from says"),
    ],
)
def test_what_does_not_fit_is_refused(row: dict[str, Any], options: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [ROWS[0] | row, *ROWS[1:]])
    with pytest.raises(ValueError, match=message):
        read_labelled(path, **options)


def test_a_source_may_be_passages(tmp_path: Path) -> None:
    """Those of the same passages are of the same source; n-grams are copied from all of them."""
    passages = ["Ann won.", "Bob lost."]
    rows = [row | {"source": passages, "summary": "Bob lost it all"} for row in ROWS]
    found = read_labelled(write(tmp_path / "rows.jsonl", rows))
    assert found.sources == [tuple(passages)] * 4 and len(found.pairs)
    assert found.copied_shares()["copied 1-grams"].tolist() == [0.5] * 4
    with pytest.raises(TypeError, match="line 1: column 'source' must be text; got list"):
        read_labelled(write(tmp_path / "mixed.jsonl", [ROWS[0] | {"source": ["a", 3]}]))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"label": math.nan},
            ValueError,
            "line 2: column 'label' must be a number or null; got nan. Write a",
        ),
        ({"label": "1"}, ValueError, "line 2: column 'label' must be a number or null; got '1'"),
        ({"label": [1]}, ValueError, r"line 2: column 'label' must be a number or null; got \[1\]"),
        ({"theirs": math.inf}, ValueError, "line 2: column 'theirs' must be a number or null; got inf"),
        ({"theirs": "high"}, ValueError, "got 'high'. Write a number, or name another column with --score-column"),
        ({"summary": None}, TypeError, "line 2: column 'summary' must be text; got null"),
    ],
)
def test_a_value_that_is_none(change: dict[str, Any], error: Any, message: str, tmp_path: Path) -> None:
    rows = [row | {"theirs": 0.5} for row in ROWS]
    rows[1] |= change
    with pytest.raises(error, match=message):
        read_labelled(write(tmp_path / "rows.jsonl", rows), scores=["theirs"])


@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize(
    ("side", "error", "message"),
    [
        (
            {},
            ValueError,
            "must have the columns 'faithful' and 'unfaithful'; it lacks 'unfaithful'. Add",
        ),
        ({"unfaithful": None}, TypeError, "column 'unfaithful' must be text; got null"),
    ],
)
def test_a_pair_with_one_side(row: int, side: dict[str, Any], error: Any, message: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"source": "s", "faithful": "a", "unfaithful": "b"} for _ in range(3)]
    rows[row] = {"source": "s", "faithful": "a", **side}
    with pytest.raises(error, match=f"rows.jsonl, line {row + 1}: {message}"):
        read_labelled(write(tmp_path / "rows.jsonl", rows))


def test_an_empty_file_and_a_source_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have at least one row"):
        read_labelled(write(tmp_path / "none.jsonl", []))
    with pytest.raises(TypeError, match="column 'source' must be text; got null"):
        read_labelled(write(tmp_path / "null.jsonl", [ROWS[0] | {"source": None}]))


def test_the_agreement_of_several_scores(tmp_path: Path) -> None:
    labelled = read_labelled(write(tmp_path / "rows.jsonl", ROWS))
    scores = {
        "good": np.array([2.0, 0.0, 3.0, 1.0]),
        "bad": np.array([0.0, 2.0, 1.0, 3.0]),
        "equal": np.zeros(4),
    }
    found = measure_agreement(labelled, scores, {"good": "good|x:1"})
    values = {
        name: {statistic: each.value for statistic, each in score.statistics.items()}
        for name, score in found.scores.items()
    }
    assert all(tuple(each) == STATISTICS for each in values.values())
    assert [values[name]["ROC AUC"] for name in scores] == [1, 0, 0.5]
    assert [values[name]["pairwise accuracy"] for name in scores] == [1, 0, 0.5]
    assert [values[name]["balanced accuracy, best threshold"] for name in scores] == [1, 0.5, 0.5]
    assert values["good"]["Spearman"] == pytest.approx(0.9486833)  # ranks 3 1 4 2 and 3.5 1 3.5 2
    assert np.isnan(values["equal"]["Pearson"])
    # The threshold of each source comes from the other: 3 and 2.
    assert values["good"]["balanced accuracy, cross-validated"] == 0.75
    assert found.scores["good"].threshold == 2 and found.scores["good"].less_first is None
    assert found.scores["bad"].less_first is not None and found.scores["bad"].less_first.value == -1
    about = found.to_dict()
    json.dumps(about, allow_nan=False)
    assert (about["num_summaries"], about["num_sources"], about["num_consistent"], about["num_pairs"]) == (4, 2, 2, 2)
    assert about["scores"]["equal"]["statistics"]["Pearson"]["value"] is None
    assert about["signatures"] == {"good": "good|x:1"}


def test_a_summary_without_a_score_is_left_out_of_all(tmp_path: Path) -> None:
    labelled = read_labelled(write(tmp_path / "rows.jsonl", ROWS), scores=["other"])
    found = measure_agreement(labelled, {"all": np.arange(4.0), **labelled.columns})
    assert (found.num_summaries, found.num_undefined, found.num_pairs) == (3, 1, 1)
    assert found.scores["other"].num_undefined == 1 and found.scores["all"].num_undefined == 0
    with pytest.raises(ValueError, match="of 2 with all of few, 2 are consistent"):
        measure_agreement(labelled, {"few": np.array([1, np.nan, 1, np.nan])})
