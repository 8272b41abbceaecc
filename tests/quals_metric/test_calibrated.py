"""A scorer with a calibration: the probability is in every result and output, and its digest in the signature."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import quals_metric
from qa_inference.calibration import Calibration
from quals_metric import Quals, QualsConfig, QualsScorer
from quals_metric.cli import app
from quals_metric.files.tables import records
from tests import tiny

SUMMARIES = [tiny.CORPUS[0], "Anthony Joshua won.", "", tiny.CORPUS[3]]
SOURCES = [tiny.CORPUS[0], tiny.CORPUS[0], tiny.CORPUS[0], tiny.CORPUS[2]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.trained(tmp_path_factory.mktemp("calibrated") / "model")


@pytest.fixture(scope="module")
def calibration(model: Path) -> Path:
    """One for the scores of the model: the probability rises from .1 at a score of -4 to .9 at 0."""
    settings = {name: str(value) for name, value in QualsScorer(str(model)).key.settings.items()}
    path = model.parent / "calibration.json"
    about = {"data": [{"name": name, "summaries": 60, "consistent": 20} for name in ("a.jsonl", "b.jsonl")]}
    path.write_text(Calibration("quals", settings, (-4.0, 0.0), (0.1, 0.9), about).to_json())
    return path


def config(model: Path, **options: Any) -> QualsConfig:
    return QualsConfig(str(model), groups=60, **options)


def expected(score: float) -> float:
    return math.nan if math.isnan(score) else min(0.9, max(0.1, 0.9 + 0.2 * score))


def test_results(model: Path, calibration: Path) -> None:
    plain = QualsScorer(config(model))
    scorer = QualsScorer(config(model, calibration=calibration), model=plain.model)
    result, uncalibrated = (each.score(SUMMARIES, SOURCES) for each in (scorer, plain))
    assert result.scores == pytest.approx(uncalibrated.scores, nan_ok=True)
    assert result.probabilities == pytest.approx([expected(score) for score in result.scores], nan_ok=True)
    assert math.isnan(result.scores[2]) and len({*result.scores}) >= 3
    assert uncalibrated.probabilities is None and uncalibrated.summaries[0].probability is None
    # The digest is in the signature, and nothing else changes there.
    digest = json.loads(calibration.read_text())
    assert scorer.calibration is not None and digest["scores"] == [-4, 0]
    before, after = plain.signature.split("|"), scorer.signature.split("|")
    assert [part for part in after if part not in before] == [f"calibration:{scorer.calibration.digest}"]
    assert result.signature == scorer.signature and set(before) <= set(after)
    # JSON and pandas.
    rows = result.to_dict()["summaries"]
    assert list(rows[0]) == ["score", "score_01", "probability", "num_pairs", "note", "pairs"]
    assert rows[2]["probability"] is None and rows[0]["probability"] == result.summaries[0].probability
    assert "probability" not in uncalibrated.to_dict()["summaries"][0]
    frame = result.to_pandas()
    assert list(frame.columns) == ["score", "score_01", "probability", "num_pairs", "note"]
    assert frame["probability"].tolist() == pytest.approx(result.probabilities, nan_ok=True)
    assert type(result.summaries[0]).from_row(rows[0], SUMMARIES[0], calibrated=True) == result.summaries[0]


def test_another_kind_of_score_is_refused_and_another_search_warned_about(model: Path, calibration: Path) -> None:
    with pytest.raises(ValueError, match="tokens is answer, not all"):
        QualsScorer(config(model, calibration=calibration, tokens="answer"))
    with pytest.warns(UserWarning, match="it was made with other settings: groups is 30, not 60"):
        QualsScorer(QualsConfig(str(model), groups=30, calibration=calibration))


def test_evaluate(model: Path, calibration: Path, tmp_path: Path) -> None:
    quals = Quals(model=str(model), cache_dir=str(tmp_path))
    texts = {"predictions": SUMMARIES, "sources": SOURCES}
    assert "probabilities" not in quals.compute(**texts)
    found = quals.compute(**texts, calibration=str(calibration))
    assert found["probabilities"] == pytest.approx([expected(score) for score in found["scores"]], nan_ok=True)
    assert "|calibration:" in found["signature"]


def test_a_calibration_that_does_not_fit_keeps_what_was_added(model: Path, calibration: Path, tmp_path: Path) -> None:
    quals = Quals(model=str(model), cache_dir=str(tmp_path))
    quals.add_batch(predictions=SUMMARIES, sources=SOURCES)
    with pytest.raises(ValueError, match="tokens is answer, not all"):
        quals.compute(calibration=str(calibration), tokens="answer")
    assert len(quals.compute(calibration=str(calibration))["probabilities"]) == 4
    with pytest.raises((TypeError, ValueError), match="calibration"):
        quals_metric.score("a", "b", model=str(model), calibration=0.5)


def test_a_calibration_that_is_made_again_is_read_again(model: Path, calibration: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    quals = Quals(model=str(model), cache_dir=str(tmp_path))
    results = []
    for probabilities in ([0.1, 0.9], [0.2, 0.3]):
        own.write_text(json.dumps(json.loads(calibration.read_text()) | {"probabilities": probabilities}))
        found = quals.compute(predictions=SUMMARIES, sources=SOURCES, calibration=str(own))["probabilities"]
        called = quals_metric.score(SUMMARIES, SOURCES, model=str(model), calibration=str(own)).probabilities
        assert called == pytest.approx(found, nan_ok=True)
        results.append(found)
    assert results[1] != pytest.approx(results[0], nan_ok=True)


def test_files_and_report(model: Path, calibration: Path, tmp_path: Path) -> None:
    rows = [
        {"summary": summary, "source": source, "probability": "mine"}
        for summary, source in zip(SUMMARIES, SOURCES, strict=True)
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def quals(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, "--model", str(model), "--device", "cpu"])

    def output(ending: str) -> Path:
        return tmp_path / f"out.{ending}"

    options = ("--calibration", str(calibration))
    for ending, more in (("jsonl", ["--report", str(tmp_path / "page.html")]), ("parquet", []), ("csv", [])):
        result = quals("score", str(path), "-o", str(output(ending)), *options, *more)
        assert result.exit_code == 0, result.output
    written = [row for _, row in records(output("jsonl"))]
    assert list(written[0]) == ["score", "score_01", "probability", "num_pairs", "note", "pairs"]
    assert written[2]["probability"] is None
    for row in written:
        if row["score"] is not None:
            assert row["probability"] == pytest.approx(expected(row["score"]))
    table = pq.read_table(output("parquet"))
    assert table.schema.names == ["score", "score_01", "probability", "num_pairs", "note"]
    assert str(table.schema.field("probability").type) == "double"
    assert table["probability"].to_pylist() == pytest.approx([row["probability"] for row in written])
    cells = [row for _, row in records(output("csv"))]
    assert cells[2]["probability"] == "" and float(cells[0]["probability"]) == pytest.approx(written[0]["probability"])
    page = (tmp_path / "page.html").read_text()
    assert page.count("Probability that people call it consistent, by the calibration: 0.") == 3
    assert "|calibration:" in json.loads(Path(f"{output('jsonl')}.meta.json").read_text())["signature"]
    origin = "was made from 120 labelled summaries, of which 40 are consistent (a.jsonl; b.jsonl). The"
    assert page.count(origin) == 1
    # So does the page of a finished file, which needs no model. Its rows have no column of that name before.
    texts = "".join(json.dumps({name: row[name] for name in ("summary", "source")}) + "\n" for row in rows)
    (tmp_path / "texts.jsonl").write_text(texts)
    finished = [str(tmp_path / name) for name in ("texts.jsonl", "finished.jsonl", "finished.html")]
    scored = quals("score", finished[0], "-o", finished[1], "--keep", "--pairs", *options)
    assert scored.exit_code == 0, scored.output
    assert "probability: how likely it is that people call the summary consistent. Calibration" in scored.stdout
    assert CliRunner().invoke(app, ["report", finished[1], "-o", finished[2]]).exit_code == 0
    again = Path(finished[2]).read_text()
    assert again.count("Probability that people call it consistent, by the calibration: 0.") == 3
    assert again.count(origin) == 1 and '<dt dir="auto">probability</dt>' not in again
    # A kept column must not have its name; without a calibration it may.
    refused = quals("score", str(path), "-o", str(tmp_path / "kept.jsonl"), "--keep", *options)
    assert refused.exit_code == 1 and "must not be named as one that is written; got 'probability'" in str(
        refused.exception
    )
    kept = quals(
        "score", str(path), "-o", str(tmp_path / "kept.jsonl"), "--keep", "--report", str(tmp_path / "own.html")
    )
    assert kept.exit_code == 0, kept.output
    own = (tmp_path / "own.html").read_text()
    assert "by the calibration" not in own
    assert own.count('<dt dir="auto">probability</dt><dd dir="auto">mine</dd>') == len(rows)
    # In a terminal.
    explained = quals("explain", "--source", SOURCES[0], "--summary", SUMMARIES[0], *options)
    assert "   probability: 0." in explained.stdout, explained.output
    assert "was made from 120 labelled summaries, of which 40" in " ".join(explained.stdout.split())
    plain = quals("explain", "--source", SOURCES[0], "--summary", SUMMARIES[0])
    assert "probability" not in plain.stdout
