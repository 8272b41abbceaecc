"""Spans, sentences, groups and passages in score files and reports, of a metric that is one row of the table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from qa_inference.significance import bootstrap_interval
from quals_metric.cli import commands
from quals_metric.files.groups import facts_of_scores
from quals_metric.files.tables import records
from quals_metric.metrics import METRICS
from tests.quals_metric.toy_metric import TOY

Quals = Callable[..., Result]

ROWS: list[dict[str, Any]] = [
    {"id": 0, "model": "a", "summary": "Ann won. Bo lost.", "source": "Ann won the cup. It rained."},
    {"id": 1, "model": "b", "summary": "Ann won.", "source": ["Bo won.", "Ann lost."]},
    {"id": 2, "model": "a", "summary": "", "source": "Ann"},
    {"id": 3, "model": None, "summary": "Cy <b>", "source": ["", "Ann"]},
    {"id": 4, "model": "b", "summary": "Bo won.", "source": "Bo won."},
]


@pytest.fixture
def quals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quals:
    """The command with a third metric, in an empty folder with one input."""
    monkeypatch.setitem(METRICS, "toy", TOY)
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    app = commands.make_app()
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def score(quals: Quals, output: str, *options: str) -> list[dict[str, Any]]:
    common = ("--metric", "toy", "--words", "4", "--strict", "--shard-rows", "2")
    result = quals("score", "in.jsonl", "-o", output, *common, *options)
    assert result.exit_code == 0, result.output
    return [row for _, row in records(Path(output))]


def test_spans_in_every_format(quals: Quals) -> None:
    rows = score(quals, "out.jsonl", "--spans")
    assert list(rows[0]) == ["score", "score_01", "num_words", "note", "sentences", "spans"]
    assert rows[0]["spans"] == [
        {"start": 4, "end": 8, "text": "won.", "score": 0.0},
        {"start": 9, "end": 11, "text": "Bo", "score": 0.0},
        {"start": 12, "end": 17, "text": "lost.", "score": 0.0},
    ]
    assert [(part["text"], part["score"], part["items"]) for part in rows[0]["sentences"]] == [
        ("Ann won.", 0.5, [0, 1]), ("Bo lost.", 0.0, [2, 3])
    ]  # fmt: skip
    in_parquet = score(quals, "out.parquet", "--spans", "--pairs")
    assert [row["spans"] for row in in_parquet] == [row["spans"] for row in rows]
    assert [row["sentences"] for row in in_parquet] == [row["sentences"] for row in rows]
    in_csv = score(quals, "out.csv", "--spans")
    assert [json.loads(row["spans"]) for row in in_csv] == [row["spans"] for row in rows]


def test_a_threshold_chooses_the_spans(quals: Quals) -> None:
    assert not any(row["spans"] for row in score(quals, "none.jsonl", "--spans", "--threshold", "0"))
    everything = score(quals, "all.jsonl", "--spans", "--threshold", "2")
    assert [len(row["spans"]) for row in everything] == [row["num_words"] for row in everything]


def test_a_source_may_be_passages(quals: Quals) -> None:
    rows = score(quals, "out.jsonl", "--pairs", "--keep")
    assert [word["passage"] for word in rows[1]["words"]] == [1, 0] and rows[1]["score"] == 1.0
    assert rows[1]["source"] == ["Bo won.", "Ann lost."] and [word["passage"] for word in rows[3]["words"]] == [1, 1]
    about = json.loads(Path("out.jsonl.meta.json").read_text())
    assert about["signature"].endswith("|passages:best")
    joined = [
        row | {"source": " ".join([row["source"]] if isinstance(row["source"], str) else row["source"])} for row in ROWS
    ]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in joined))
    score(quals, "joined.jsonl")
    other = json.loads(Path("joined.jsonl.meta.json").read_text())
    assert about["signature"] == f"{other['signature']}|passages:best" and about["sources"] != other["sources"]
    Path("in.jsonl").write_text(json.dumps(ROWS[0] | {"source": ["a", 3]}))
    result = quals("score", "in.jsonl", "-o", "bad.jsonl", "--metric", "toy")
    assert "column 'source' must be text; got list" in str(result.exception)


def test_groups(quals: Quals) -> None:
    common = ("score", "in.jsonl", "-o", "out.jsonl", "--metric", "toy", "--words", "4", "--shard-rows", "2")
    result = quals(*common, "--by", "model", "--pairs", "--keep", "--report", "one.html")
    assert result.exit_code == 0, result.output
    about = json.loads(Path("out.jsonl.meta.json").read_text())
    rows = [row for _, row in records(Path("out.jsonl"))]
    assert [group["name"] for group in about["groups"]] == ["a", "b", "(none)"] and about["by"] == "model"
    of_a, of_b, of_none = about["groups"]
    assert (of_a["rows"], of_a["undefined_rate"], of_a["score"]) == (2, 0.5, rows[0]["score"])
    assert of_b["score"] == pytest.approx((rows[1]["score"] + rows[4]["score"]) / 2)
    assert [of_b["low"], of_b["high"]] == list(bootstrap_interval([rows[1]["score"], rows[4]["score"]]))
    assert (of_a["unsupported_rate"], of_b["unsupported_rate"], of_none["unsupported_rate"]) == (1.0, 0.0, 1.0)
    assert about["unsupported_rate"] == pytest.approx(2 / 4) and about["threshold"] == 0.5
    lines = result.stdout.splitlines()
    assert lines[-5] == "unsupported: 50.0% of the summaries with a score have an answer below 0.5"
    assert [line.split()[-1] for line in lines[-4:]] == ["model", "a", "b", "(none)"]
    # The same page from the finished file, and without its sidecar.
    page = Path("one.html").read_text()
    for name in ("By model", ">a</th>", "50.0%", "Passage 2", "Unsupported answers (below 0.5)", "Cy", "&lt;b&gt;"):
        assert name in page, name
    assert quals("report", "out.jsonl", "-o", "two.html", "--by", "model").exit_code == 0
    assert Path("two.html").read_text() == page
    Path("out.jsonl.meta.json").unlink()
    assert quals("report", "out.jsonl", "-o", "three.html", "--by", "model", "--threshold", "0.5").exit_code == 0
    assert ">a</th>" in Path("three.html").read_text() and "toy|words" not in Path("three.html").read_text()


def test_the_groups_of_a_killed_run_are_those_of_all_rows(quals: Quals) -> None:
    """A shard keeps the groups of its rows; a run by another column is another job."""
    options = ("--metric", "toy", "--by", "model", "--json")
    first = quals("score", "in.jsonl", "-o", "out.jsonl", *options)
    assert json.loads(first.stdout)["groups"][0]["name"] == "a"
    by_id = quals("score", "in.jsonl", "-o", "other.jsonl", "--metric", "toy", "--by", "id", "--json")
    assert [group["rows"] for group in json.loads(by_id.stdout)["groups"]] == [1] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "in.jsonl", "--by", "system"), "must have a column 'system'; it has 'id', 'model'"),
        (("score", "in.jsonl", "--by", "source"), "column 'source' must be a text, a number or a truth value"),
        (("score", "in.jsonl", "--threshold", "nan"), "threshold: must be a number; got nan"),
        (("report", "in.jsonl"), "must have the questions behind its score. Score with --pairs --keep"),
    ],
)
def test_bad_groups(quals: Quals, arguments: tuple[str, ...], message: str) -> None:
    output = "out.html" if arguments[0] == "report" else "out.jsonl"
    metric = () if arguments[0] == "report" else ("--metric", "toy")
    result = quals(*arguments, "-o", output, *metric)
    assert result.exit_code and message in str(result.exception)
    assert not Path(output).exists()


def test_too_many_groups(quals: Quals) -> None:
    rows = ({"summary": "a", "source": "a", "id": number} for number in range(101))
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = quals("score", "in.jsonl", "-o", "out.jsonl", "--metric", "toy", "--by", "id")
    assert "column 'id': must have at most 100 values to group by" in str(result.exception)
    result = quals("score", "--summaries", "a", "--sources", "b", "-o", "out.jsonl", "--by", "id")
    assert "text files have no columns to group by" in result.output


def test_a_group_without_a_score() -> None:
    undefined = [math.nan, math.nan]
    facts = facts_of_scores(undefined, undefined, [False, False], ["x", "x"], "id")
    assert all(math.isnan(facts[name]) for name in ("score", "low", "high", "score_01", "unsupported_rate"))
    (group,) = facts["groups"]
    assert group.undefined_rate == 1 and all(map(math.isnan, (group.score, group.low, group.unsupported_rate)))
    assert facts_of_scores([0.5], [0.5], [True], [""], "")["groups"] == ()
