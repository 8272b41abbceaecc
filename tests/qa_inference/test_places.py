"""Where a summary is wrong: its sentences and its unsupported spans, of any metric's items."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from qags_metric.result import FoundAnswer, QuestionScore
from qags_metric.result import SummaryScore as QagsScore
from quals_metric.result import PairScore, SummaryScore

TEXT = "Ann Lee won in Perth. Bo Ray lost 5 games. Nobody saw it."


def scored(kind: type, *answers: tuple[str, float]) -> Any:
    """A summary of `TEXT` with a question for each answer."""
    items = tuple(map(pair if kind is SummaryScore else question, answers))
    return kind(sum(item.score for item in items) / len(items), items, text=TEXT)


def pair(answer: tuple[str, float]) -> PairScore:
    text, score = answer
    return PairScore("Who?", text, TEXT.index(text), TEXT.index(text) + len(text), score, (), (), ())


def question(answer: tuple[str, float]) -> QuestionScore:
    text, score = answer
    nothing = FoundAnswer("", -1, -1, 0.0)
    return QuestionScore("Who?", text, TEXT.index(text), TEXT.index(text) + len(text), nothing, nothing, score, 0.0)


@pytest.mark.parametrize("kind", [SummaryScore, QagsScore])
def test_a_sentence_has_the_questions_whose_answers_begin_in_it(kind: type) -> None:
    one = scored(kind, ("Perth", 0.5), ("Bo Ray", 0.25), ("Ann Lee", 0.75), ("in Perth. Bo", 0.1))
    first, second, third = one.sentences
    assert [(part.start, part.end, part.text) for part in one.sentences] == [
        (0, 21, "Ann Lee won in Perth."), (22, 42, "Bo Ray lost 5 games."), (43, 57, "Nobody saw it.")
    ]  # fmt: skip
    assert [item.answer for item in first.items] == ["Perth", "Ann Lee", "in Perth. Bo"]
    assert first.score == pytest.approx((0.5 + 0.75 + 0.1) / 3) and second.score == 0.25
    assert third.items == () and math.isnan(third.score)
    (whole,) = one.parts([(0, len(TEXT))])
    assert whole.score == pytest.approx(one.score) and whole.items == one.items


@pytest.mark.parametrize("kind", [SummaryScore, QagsScore])
def test_spans_are_the_answers_below_the_threshold(kind: type) -> None:
    one = scored(kind, ("games", 0.2), ("Perth", 0.4), ("Ann Lee", 0.1), ("Bo Ray", 0.9))
    assert one.spans(0.3) == [
        {"start": 0, "end": 7, "text": "Ann Lee", "score": 0.1},
        {"start": 36, "end": 41, "text": "games", "score": 0.2},
    ]
    assert [span["text"] for span in one.spans(0.4)] == ["Ann Lee", "games"]  # below, not at
    assert not one.spans(-math.inf) and len(one.spans(math.inf)) == 4


def test_an_answer_scores_the_mean_of_its_questions() -> None:
    one = scored(SummaryScore, ("Perth", -3.0), ("Perth", -1.0), ("Perth", math.nan), ("Ann", math.nan))
    assert one.spans(-1.9) == [{"start": 15, "end": 20, "text": "Perth", "score": -2.0}]
    assert one.spans(-2.0) == []


def test_of_answers_that_overlap_the_lowest_stands_for_all() -> None:
    nested = scored(SummaryScore, ("Ann Lee won", -2.0), ("Lee", -3.0), ("won in Perth", -2.5), ("Perth", -1.0))
    assert [span["text"] for span in nested.spans(-1.5)] == ["Lee", "won in Perth"]
    chain = scored(SummaryScore, ("Ann Lee", -2.0), ("Lee won", -4.0), ("won in", -3.0))
    assert [(span["text"], span["score"]) for span in chain.spans(-1.0)] == [("Lee won", -4.0)]
    touching = scored(SummaryScore, ("Ann ", -2.0), ("Lee", -2.0))
    assert [span["text"] for span in touching.spans(-1.0)] == ["Ann ", "Lee"]


def test_a_threshold_is_a_number_and_the_text_is_known() -> None:
    one = scored(SummaryScore, ("Ann", -1.0))
    with pytest.raises(ValueError, match="threshold: must be a number; got nan"):
        one.spans(math.nan)
    unknown = SummaryScore(-1.0, one.pairs)
    for use in (lambda: unknown.sentences, lambda: unknown.spans(0)):
        with pytest.raises(ValueError, match=r"text: must be the summary that was scored.*with_text\(summary\)"):
            use()
    assert unknown.with_text(TEXT) == one
    nothing = SummaryScore(math.nan, (), "no pair kept", text="Ann. Bo.")
    assert [part.text for part in nothing.sentences] == ["Ann.", "Bo."] and nothing.spans(0) == []


def test_a_row_with_places() -> None:
    one = scored(SummaryScore, ("Perth", -1.0), ("Bo Ray", -2.0), ("Ann", -3.0))
    row = json.loads(json.dumps(one.row(pairs=False, threshold=-2.5)))
    assert list(row) == list(SummaryScore.columns(pairs=False, spans=True))
    assert [part["items"] for part in row["sentences"]] == [[0, 2], [1], []]
    assert row["spans"] == [{"start": 0, "end": 3, "text": "Ann", "score": -3.0}]
    assert "spans" not in one.row()
