"""Results print in one line, and rows are read back as they were."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from qa_inference.metric_base.results import json_ready
from qags_metric.result import FoundAnswer, QagsResult, QuestionScore
from qags_metric.result import SummaryScore as QagsScore
from quals_metric.result import PairScore, QualsResult, SummaryScore

PAIR = PairScore("Who won?", "Ann", 0, 3, -0.5, ("who", "[UNK]"), (-1.0, -0.25), (-1.5, math.nan))
QUESTION = QuestionScore(
    "Who won?", "Ann", 0, 3, FoundAnswer("Ann", 0, 3, 2.5), FoundAnswer("", -1, -1, math.nan), 0.0, -0.5
)
QUALS = QualsResult((SummaryScore(-0.5, (PAIR,)), SummaryScore(math.nan, (), "no pair kept")), "quals|signature")
QAGS = QagsResult((QagsScore(0.0, (QUESTION,)),), "qags|signature")


def test_21_d24_a_result_prints_in_one_line() -> None:
    assert repr(QUALS) == "QualsResult(score=-0.5000, 2 summaries, 1 undefined)"
    assert repr(QUALS.summaries[0]) == "SummaryScore(score=-0.5000, 1 pairs)"
    assert repr(QUALS.summaries[1]) == "SummaryScore(undefined: no pair kept, 0 pairs)"
    assert repr(PAIR) == "PairScore(question='Who won?', answer='Ann', start=0, end=3, score=-0.5)"
    assert repr(QAGS) == "QagsResult(score=0.0000, 1 summaries, 0 undefined)"


def test_21_d24_a_table_has_scalars_and_pairs_on_request() -> None:
    assert list(QUALS.to_pandas().columns) == ["score", "score_01", "num_pairs", "note"]
    assert QUALS.to_pandas(pairs=True).pairs[0][0]["question"] == "Who won?"


@pytest.mark.parametrize("summary", [*QUALS.summaries, *QAGS.summaries], ids=repr)
def test_a_row_is_read_back_as_it_was(summary: Any) -> None:
    text = json.dumps(json_ready(summary.row()), allow_nan=False)
    back = type(summary).from_row(json.loads(text))
    assert json.dumps(json_ready(back.row()), allow_nan=False) == text  # NaN, which stands for null, equals nothing
    assert [type(item) for item in back.items] == [type(item) for item in summary.items]
    assert math.isnan(back.score) == math.isnan(summary.score)


def test_items_are_the_questions_of_either_metric() -> None:
    for summary, item in ((QUALS.summaries[0], PAIR), (QAGS.summaries[0], QUESTION)):
        assert summary.items == (item,)
        assert (summary.items[0].question, summary.items[0].answer) == ("Who won?", "Ann")
        assert (summary.items[0].start, summary.items[0].end) == (0, 3)
        assert math.isfinite(summary.items[0].score)
