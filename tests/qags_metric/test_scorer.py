"""The whole procedure: on models written by hand, and on toy checkpoints against itself one question at a time."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qa_inference.decoding import Hypothesis
from qa_inference.formats import QuestionFormat
from qa_inference.models.reader import ReaderAnswer
from qa_inference.tokenization import TextTokenizer
from qags_metric.config import QagsConfig
from qags_metric.result import QagsResult
from qags_metric.scorer import QagsScorer
from qags_metric.selection import exact_match, question_of, token_f1
from tests import device, tiny
from tests.qags_metric import models

Make = Callable[..., QagsScorer]

SUMMARIES = [tiny.CORPUS[0], tiny.CORPUS[3], "Joshua beat Klitschko.", tiny.CORPUS[3], tiny.CORPUS[0]]
SOURCES = [
    tiny.CORPUS[0],
    tiny.CORPUS[0],
    tiny.CORPUS[0],
    " ".join(f"The man number {i} lived in the old house." for i in range(60)) + " " + tiny.CORPUS[3],
    "Anthony Joshua beat Wladimir Klitschko in Perth on Monday.",
]


class HandWritten:
    """Generator and reader in one: says for each marked answer and each question what it is told to."""

    shared, window = True, 64
    device = SimpleNamespace(type="cpu")

    def __init__(self, written: dict[str, list[tuple[str, float]]], answers: dict[tuple[str, str], str]) -> None:
        self.text = TextTokenizer(tiny.wordpiece())
        self.written, self.answers = written, answers
        self.model = SimpleNamespace(config=SimpleNamespace(), dtype="torch.float32")
        self.config = SimpleNamespace(window=1, stride=1, n_best=1, max_answer_tokens=1, null_threshold=0)
        self.read: list[tuple[str, str]] = []

    def generate(self, inputs: Sequence[Any], search: object) -> list[list[Hypothesis]]:
        return [self._hypotheses(list(map(int, ids))) for ids in inputs]

    def _hypotheses(self, ids: list[int]) -> list[Hypothesis]:
        mark = self.text.special_id("<hl>")
        assert ids.count(mark) == 2
        first = ids.index(mark)
        answer = self.text.decode(ids[first + 1 : ids.index(mark, first + 1)])
        found = []
        for text, log_prob in self.written.get(answer, []):
            tokens = np.array([*self.text.encode(text).ids, 3])
            found.append(Hypothesis(tokens, np.full(len(tokens), log_prob, np.float32), True))
        return found

    def windows(self, question: str, text: str) -> list[Any]:
        self.read.append((question, text))
        return [SimpleNamespace(cost=1, place=(question, text))]

    def spans(self, windows: Sequence[Any]) -> list[Any]:
        return [window.place for window in windows]

    def answer(self, text: str, windows: Sequence[Any], found: Sequence[Any]) -> ReaderAnswer:
        said = self.answers.get(found[0], "")
        start = text.index(said) if said else -1
        return ReaderAnswer(said, start, start + len(said) if said else -1, 3.0, 1.0 if said else 4.0, 1)


def test_by_hand() -> None:
    """The filter, the answers and the formula, every number worked out beforehand."""
    summary, source = "Joshua beat Klitschko on Saturday.", "On Saturday Anthony Joshua lost to Klitschko ."
    written = {
        "joshua": [("who beat klitschko? and", -1.0), ("who won it?", -0.25), ("who won it?", -0.75)],
        "klitschko": [("who was beat?", -0.5), ("who was it", -0.1), ("who lost?", -0.1)],
        "saturday": [("when was it beat?", -0.125), ("who won it?", -0.1)],
    }
    answers = {
        ("who beat klitschko?", summary): "Joshua",
        ("who won it?", summary): "Joshua",
        ("who was beat?", summary): "Klitschko",
        ("when was it beat?", summary): "Klitschko",
        ("who beat klitschko?", source): "Anthony Joshua",
        ("who was beat?", source): "Klitschko",
    }
    hand: Any = HandWritten(written, answers)
    finder: Any = models.Finder()
    scorer = QagsScorer(QagsConfig(), finder=finder, generator=hand, reader=hand)
    (scored,) = scorer.score(summaries=[summary], sources=[source]).summaries
    assert [(q.question, q.answer, q.source_answer.text, q.f1, q.log_prob) for q in scored.questions] == [
        ("who won it?", "Joshua", "", 0.0, pytest.approx(-0.25)),
        ("who was beat?", "Klitschko", "Klitschko", 1.0, pytest.approx(-0.5)),
        ("who beat klitschko?", "Joshua", "Anthony Joshua", pytest.approx(2 / 3), pytest.approx(-1.0)),
    ]
    assert scored.score == scored.score_01 == pytest.approx((0 + 1 + 2 / 3) / 3)
    assert [q.source_answer.confidence for q in scored.questions] == [-1.0, 2.0, 2.0]
    assert len(hand.read) == len(set(hand.read)) == 7  # four questions to the summary, three to the source


def test_no_more_questions_are_read_than_may_count() -> None:
    """Likeliest first: what is left once enough are kept is not read, and the result is that of reading all."""
    summary, source = "Joshua beat Klitschko on Saturday.", "Anthony Joshua lost."
    written = {
        "joshua": [(f"who is number {i}?", -0.1 * i) for i in range(1, 9)],
        "klitschko": [("who lost then?", -0.05), ("who is number 3?", -0.35)],
    }
    asks_for = {("who lost then?", summary): "Joshua"} | {
        (f"who is number {i}?", summary): "Joshua" if i > 2 else "Saturday" for i in range(1, 9)
    }
    for most, read in ((2, 5), (3, 8), (20, 9)):
        hand: Any = HandWritten(written, asks_for)
        finder: Any = models.Finder()
        dones: list[int] = []
        scorer = QagsScorer(QagsConfig(max_questions=most), finder=finder, generator=hand, reader=hand)
        (scored,) = scorer.score(
            summaries=[summary], sources=[source], on_batch=lambda done, _, dones=dones: dones.append(done)
        ).summaries
        asked = [q.question for q in scored.questions]
        assert asked == [f"who is number {i}?" for i in range(3, 9)][:most]
        assert len([place for place in hand.read if place[1] == summary]) == read
        assert dones == sorted(dones) and dones[-1] == 4


@pytest.fixture(scope="module")
def result(make: Make) -> QagsResult:
    return make().score(summaries=SUMMARIES, sources=SOURCES)


def _same(a: QagsResult, b: QagsResult) -> None:
    """The same questions and answers, and numbers within 1e-5."""

    def words(result: QagsResult) -> list[Any]:
        asked = [question for summary in result.summaries for question in summary.questions]
        return [(q.question, q.answer, q.start, q.summary_answer.text, q.source_answer.start) for q in asked]

    assert words(a) == words(b) and [s.note for s in a.summaries] == [s.note for s in b.summaries]
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_the_toy_models_ask_and_answer(result: QagsResult) -> None:
    assert result.num_questions[0] >= 4 and result.num_questions[1] >= 3
    assert result.scores[0] == 1 and result.scores[1] == 0  # its own source, and one that says none of it
    assert result.num_windowed_sources == 1 and result.num_windowed_summaries == 0
    assert result.score == pytest.approx(np.nanmean(result.scores))


def test_questions_are_what_they_say(result: QagsResult) -> None:
    for summary, source, scored in zip(SUMMARIES, SOURCES, result.summaries, strict=True):
        for q in scored.questions:
            assert summary[q.start : q.end] == q.answer and question_of(q.question) == q.question
            for text, answer in ((summary, q.summary_answer), (source, q.source_answer)):
                assert answer.text == (text[answer.start : answer.end] if answer.start >= 0 else "")
            assert exact_match(q.summary_answer.text, q.answer)
            assert q.f1 == token_f1(q.summary_answer.text, q.source_answer.text)
        log_probs = [q.log_prob for q in scored.questions]
        assert log_probs == sorted(log_probs, reverse=True) and max(log_probs, default=0) <= 0
        assert len({q.question for q in scored.questions}) == len(scored.questions) <= 20


def test_against_itself_one_question_at_a_time(make: Make, result: QagsResult) -> None:
    """A plain loop: one search per candidate, one reading per question, no engine."""
    scorer = make()
    for summary, source, scored in zip(SUMMARIES, SOURCES, result.summaries, strict=True):
        asked = []
        for candidate in models.Finder().find([summary])[0]:
            marked = scorer.format.input(scorer.generator.text, summary, candidate.start, candidate.end, 64)
            assert marked is not None and not marked[1]
            for hypothesis in scorer.generator.generate([marked[0]], scorer._search)[0]:
                end = -1 if hypothesis.ended else None
                question = question_of(scorer.generator.text.decode(hypothesis.tokens[:end]))
                if question is None:
                    continue
                (own,) = scorer.reader.read([question], [summary])
                if exact_match(own.text, candidate.text):
                    asked.append((float(hypothesis.log_probs.mean()), question, own.text))
        distinct = {question: own for _, question, own in sorted(asked, key=lambda one: -one[0])}
        scores = [token_f1(own, scorer.reader.read([question], [source])[0].text) for question, own in distinct.items()]
        assert [q.question for q in scored.questions] == list(distinct)[:20]
        np.testing.assert_allclose(scored.score, np.mean(scores[:20]) if scores else math.nan, atol=1e-6)


def test_scores_do_not_depend_on_batches_order_or_company(make: Make, result: QagsResult) -> None:
    for settings in ({"token_budget": 1}, {"sharing": "expanded"}):
        _same(make(**settings).score(summaries=SUMMARIES, sources=SOURCES), result)
    scorer, order = make(), list(range(len(SUMMARIES)))
    random.Random(1).shuffle(order)
    shuffled = scorer.score(summaries=[SUMMARIES[i] for i in order], sources=[SOURCES[i] for i in order])
    back = tuple(shuffled.summaries[order.index(i)] for i in range(len(order)))
    _same(QagsResult(back, ""), result)
    alone = [scorer.score(summaries=[s], sources=[t]).summaries[0] for s, t in zip(SUMMARIES, SOURCES, strict=True)]
    _same(QagsResult(tuple(alone), ""), result)


def test_one_passage_is_a_source(make: Make, result: QagsResult) -> None:
    assert make().score(SUMMARIES, contexts=[[source] for source in SOURCES]) == result


def test_a_question_takes_the_passage_with_the_most_confident_answer(make: Make) -> None:
    scorer = make()
    passages = [tiny.CORPUS[0], tiny.CORPUS[3], ""]
    found = scorer.score(SUMMARIES, contexts=[passages] * len(SUMMARIES))
    alone = [scorer.score(SUMMARIES, [passage] * len(SUMMARIES)) for passage in passages[:2]]
    turned = scorer.score(SUMMARIES, contexts=[passages[1::-1]] * len(SUMMARIES))
    num_questions = 0
    for index, summary in enumerate(found.summaries):
        for number, question in enumerate(summary.questions):
            of_passage = [single.summaries[index].questions[number] for single in alone]
            confidences = [one.source_answer.confidence for one in of_passage]
            assert question.source_answer.confidence == pytest.approx(max(confidences), abs=1e-4)
            assert question.source_answer.text == of_passage[question.passage].source_answer.text
            assert question.f1 == of_passage[question.passage].f1
            assert turned.summaries[index].questions[number].passage == 1 - question.passage
            num_questions += 1
        if summary.questions:
            assert summary.score == pytest.approx(np.mean([question.f1 for question in summary.questions]))
    assert num_questions > 5 and found.signature == f"{scorer.signature}|passages:best"


def test_windows_in_parts_give_the_same(make: Make, result: QagsResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qags_metric.scorer.WINDOWS_AT_ONCE", 2)
    calls: list[tuple[int, int]] = []
    scored = make().score(summaries=SUMMARIES, sources=SOURCES, on_batch=lambda *call: calls.append(call))
    _same(scored, result)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (20, 20) and {total for _, total in calls} == {20}


def test_every_text_is_handled_once(make: Make) -> None:
    finder = models.Finder()
    scorer = make(finder=finder)
    asked: list[tuple[str, str]] = []
    original = scorer.reader.windows

    def windows(question: str, text: str) -> Any:
        asked.append((question, text))
        return original(question, text)

    scorer.reader.windows = windows  # type: ignore[method-assign]  # spying on the one door to the reader
    scorer.score(summaries=SUMMARIES, sources=SUMMARIES)
    assert sorted(finder.asked) == sorted(set(SUMMARIES))
    assert len(asked) == len(set(asked)) > 10 and {text for _, text in asked} == set(SUMMARIES)


def test_undefined_is_nan_with_a_count_and_a_note(make: Make) -> None:
    texts = ["", "text", "the man lived there.", SUMMARIES[0], "Nobody Knows."]
    scored = make().score(summaries=texts, sources=["a", " \n", SOURCES[0], SOURCES[0], SOURCES[0]])
    notes = [summary.note for summary in scored.summaries]
    assert notes == ["blank summary", "blank source", "no answer candidate", "", "no question kept"]
    assert scored.num_undefined == 4 and scored.score == 1.0
    assert json.loads(json.dumps(scored.to_dict()))["summaries"][0]["score"] is None
    calls: list[tuple[int, int]] = []
    nothing = make().score(summaries=[" "], sources=["a"], on_batch=lambda *call: calls.append(call))
    assert math.isnan(nothing.score) and not calls


def test_a_summary_longer_than_the_window(make: Make) -> None:
    """An answer is asked for in the window that holds it, and its question is the one of the short text."""
    filler = " ".join("the old house was a well-known house." for _ in range(12))
    long = f"{filler} {tiny.CORPUS[3]}"
    scored = make(max_questions=50).score(summaries=[long], sources=[long])
    assert scored.num_windowed_summaries == 1
    for q in scored.summaries[0].questions:
        assert long[q.start : q.end] == q.answer


def test_a_candidate_longer_than_the_window(make: Make) -> None:
    name = "Joshua " * 80 + "Klitschko"
    scored = make().score(summaries=[name], sources=[name])
    assert scored.summaries[0].note == "no question kept" and scored.num_windowed_summaries == 1


def test_result_as_dict_and_table(result: QagsResult) -> None:
    as_dict, table = result.to_dict(), result.to_pandas()
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert list(table.columns) == ["score", "score_01", "num_questions", "note"]
    assert list(result.to_pandas(pairs=True).columns) == ["score", "score_01", "num_questions", "note", "questions"]
    assert table.num_questions.tolist() == result.num_questions
    assert "questions" not in result.to_dict(pairs=False)["summaries"][0]
    first = as_dict["summaries"][0]["questions"][0]
    assert first["source_answer"]["text"] == result.summaries[0].questions[0].source_answer.text


def test_the_signature_names_what_could_change_a_number(make: Make, folders: tuple[str, str]) -> None:
    signature = make().signature
    for part in (f"qags|model:{folders[0]}@", f"|reader:{folders[1]}@", "|beams:4|", "|finder:capitals|", "|exact:no|"):
        assert part in signature
    changes = {"exact": True, "max_questions": 5, "num_candidates": 3, "hypotheses": 2, "min_question_tokens": 4}
    changes["max_per_answer"] = 3
    assert len({signature, *(make(**{name: value}).signature for name, value in changes.items())}) == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "embeded"}, "model: must be a preset .*embedded.*; got 'embeded'"),
        ({"reader": "bert"}, "reader: must be a preset .*roberta-base-squad2.*; got 'bert'"),
        ({"num_candidates": 0}, "num_candidates: must be an integer of at least 1; got 0"),
        ({"max_questions": 2.5}, "max_questions: must be an integer"),
        ({"max_per_answer": 0}, "max_per_answer: must be an integer of at least 1; got 0"),
        ({"hypotheses": 11}, "hypotheses: must be at most beam_width"),
        ({"max_question_tokens": 5}, "min_question_tokens: must be less than max_question_tokens"),
        ({"sharing": "no"}, "sharing: must be one of auto, shared, expanded; got 'no'"),
        ({"token_budget": 0}, "token_budget: must be an integer of at least 1; got 0"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        (QagsConfig(**settings).model_preset(), QagsConfig(**settings).reader_preset())


def test_a_checkpoint_without_the_mark(make: Make) -> None:
    with pytest.raises(ValueError, match="`opening` must be an added token of the tokenizer; '<mark>' is not one"):
        make(format=QuestionFormat(opening="<mark>"))


def test_a_model_that_asks_nothing_is_said(make: Make) -> None:
    scorer = make(max_question_tokens=3, min_question_tokens=0)
    with pytest.warns(UserWarning, match="none of 16 hypotheses is a question of three words and a question mark"):
        scored = scorer.score(summaries=SUMMARIES[:1], sources=SOURCES[:1])
    assert scored.summaries[0].note == "no question kept"


def test_on_a_pretended_gpu_scores_are_the_same(make: Make, result: QagsResult) -> None:
    with device.pretended():
        found = make(device="cuda:0", dtype="float32").score(summaries=SUMMARIES, sources=SOURCES)
    assert "|device:cuda|" in found.signature
    _same(found, result)
