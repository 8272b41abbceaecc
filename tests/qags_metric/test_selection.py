"""The filter, in its order, on questions and answers written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from qa_inference.answer_candidates import AnswerCandidate
from qa_inference.decoding import Hypothesis
from qa_inference.models.reader import ReaderAnswer
from qa_inference.tokenization import TextTokenizer
from qags_metric.selection import AskedQuestion, parse_questions, question_of, select_questions
from tests import tiny

PERTH, MONDAY = AnswerCandidate("Perth", 10, 15, "GPE"), AnswerCandidate("The Monday", 30, 40, "DATE")


def _answer(text: str) -> ReaderAnswer:
    return ReaderAnswer(text, 3, 3 + len(text), 5.0, 1.0, 1)


NONE = ReaderAnswer("", -1, -1, 1.0, 5.0, 1)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("where is the bridge?", "where is the bridge?"),
        ("  where is it? who? when", "where is it?"),
        ("where is the bridge", None),
        ("where now?", None),
        ("where now ? ?", None),
        ("who , – ?", None),
        ("who is it ?", "who is it?"),
        ("? where is it?", None),
        ("¿dónde está el puente?", "¿dónde está el puente?"),
        ("", None),
    ],
)
def test_what_a_generated_text_asks(text: str, question: str | None) -> None:
    assert question_of(text) == question


def test_parse_takes_the_mean_log_probability_before_any_length_penalty() -> None:
    tokenizer = TextTokenizer(tiny.wordpiece())
    ids = list(tokenizer.encode("where did joshua win?").ids)
    log_probs = -np.arange(1, len(ids) + 2, dtype=np.float32)
    ended = Hypothesis(np.array([*ids, 3]), log_probs, True)
    cut_off = Hypothesis(np.array([*ids, ids[0]]), log_probs, False)
    no_question = Hypothesis(np.array([*ids[:-1], 3]), log_probs[:-1], True)
    found = parse_questions([ended, no_question, cut_off], PERTH, tokenizer)
    assert [one.question for one in found] == ["where did joshua win?"] * 2
    assert all(one.log_prob == pytest.approx(-(len(ids) + 2) / 2) and one.answer is PERTH for one in found)


def test_select() -> None:
    asked = [
        AskedQuestion("where is it built?", PERTH, -0.9),
        AskedQuestion("where is the bridge?", PERTH, -0.5),
        AskedQuestion("where is the bridge?", PERTH, -0.4),  # the likelier of two that are the same
        AskedQuestion("when was it built?", MONDAY, -0.1),
        AskedQuestion("who built it then?", PERTH, -0.0),  # answered otherwise
        AskedQuestion("what is not said?", PERTH, -0.0),  # not answered
    ]
    answers = {
        "where is it built?": _answer("Perth."),
        "where is the bridge?": _answer("perth"),
        "when was it built?": _answer("Monday"),
        "who built it then?": _answer("the council"),
        "what is not said?": NONE,
    }
    kept = select_questions(asked, answers)
    assert [(one.question, one.log_prob) for one in kept] == [
        ("when was it built?", -0.1),
        ("where is the bridge?", -0.4),
        ("where is it built?", -0.9),
    ]
    assert select_questions(asked, answers, max_questions=2) == kept[:2]
    assert select_questions(asked, answers, exact=True) == []
    assert select_questions(asked, answers | {"where is it built?": _answer("Perth")}, exact=True) == [asked[0]]


def test_so_many_of_an_answer() -> None:
    """The likeliest of each, before the likeliest of all are counted off; a repeat counts for none."""
    texts = ["who won the cup?", "who did win?", "what did she win?", "who has won?", "when was it won?"]
    ann, cup, year = (AnswerCandidate(text, 0, len(text), "X") for text in ("Ann", "the cup", "1998"))
    answers = {text: _answer(one.text) for text, one in zip(texts, (ann, ann, cup, ann, year), strict=True)}
    asked = [
        AskedQuestion(text, one, -i / 8)
        for i, (text, one) in enumerate(zip(texts, (ann, ann, cup, ann, year), strict=True))
    ]
    asked.insert(1, AskedQuestion(texts[0], ann, -0.05))

    def kept(**limits: int) -> list[str]:
        return [one.question for one in select_questions(asked, answers, **limits)]

    assert kept() == texts and kept(max_questions=2) == texts[:2]
    assert kept(max_per_answer=2) == [*texts[:3], texts[4]]
    assert kept(max_per_answer=1) == [texts[0], texts[2], texts[4]]
    assert kept(max_per_answer=1, max_questions=2) == [texts[0], texts[2]]


def test_no_answer_is_never_the_intended_one() -> None:
    article = AnswerCandidate("The", 0, 3, "WORK_OF_ART")
    assert select_questions([AskedQuestion("what is it called?", article, -0.1)], {"what is it called?": NONE}) == []


def test_a_question_asked_for_two_answers_is_kept_for_the_one_it_has() -> None:
    asked = [AskedQuestion("where is it built?", MONDAY, -0.1), AskedQuestion("where is it built?", PERTH, -0.3)]
    assert select_questions(asked, {"where is it built?": _answer("Perth")}) == asked[1:]
