"""`benchmarks/sentences.py` on scores whose agreement is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quals_metric.result import PairScore, SummaryScore
from tests import programs

program = programs.load("benchmarks/sentences.py")


def row(number: int, scores: tuple[float | None, ...], labels: tuple[int, ...]) -> dict[str, object]:
    """A summary with a sentence for each score; None: a sentence without a question."""
    sentences = [f"Name{index} won {number}." for index in range(len(scores))]
    text = " ".join(sentences)
    pairs = []
    for sentence, score in zip(sentences, scores, strict=True):
        if score is not None:
            start = text.index(sentence)
            pairs.append(PairScore("Who?", sentence[:5], start, start + 5, score, (), (), ()))
    scored = SummaryScore(float(np.mean([pair.score for pair in pairs])), tuple(pairs))
    about = {"document": text, "summary": text, "sentences": sentences, "sentence_labels": labels}
    return about | scored.row()


def test_single_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row(1, (-1.0, -3.0), (1, 0)),  # within: 1
        row(2, (-4.0, -2.0, None), (1, 0, 1)),  # within: 0; the last is not counted
        row(3, (-0.5, -0.5), (1, 1)),  # of one kind
        row(4, (-2.0, -2.0), (1, 0)),  # a tie
    ]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    program.main([str(path)])
    printed = capsys.readouterr().out
    assert "8 sentences of 4 summaries, 5 consistent; 3 summaries have both kinds. 1 sentences have no" in printed
    lines = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in printed.splitlines()}
    # Consistent: -1, -4, -0.5, -0.5, -2. Others: -3, -2, -2. Of 15 pairs 10 are right, and 2 ties count half.
    assert lines["QUALS"][0].startswith(f"{(3 + 0 + 3 + 3 + 2) / 15:.3f} [")
    assert lines["QUALS"][1].startswith("0.500 [") and lines["QUALS, whole summary"][1].startswith(
        "0.500 [0.500, 0.500]"
    )
    assert lines["copied 3-grams"][0].startswith("0.500 [0.500")
    assert "Spans below -1.4: in 3 of 3 inconsistent sentences, in 2 of 5 consistent ones." in printed


def test_sentences_must_be_in_the_summary() -> None:
    with pytest.raises(ValueError, match="substring not found"):
        list(program.bounds({"summary": "Ann won.", "sentences": ["Bo won."]}))
