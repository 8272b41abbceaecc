"""`quals_metric.score`: single texts, pandas, passages, and one scorer that stays loaded."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

import quals_metric
from quals_metric.metrics import METRICS
from quals_metric.one_call import _last_scorer
from tests.quals_metric.toy_metric import TOY

SOURCE = "Ann won the cup."


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(METRICS, "toy", TOY)
    _last_scorer.clear()
    yield
    _last_scorer.clear()


def score(*arguments: Any, **options: Any) -> Any:
    return quals_metric.score(*arguments, metric="toy", **options)


def test_lists_and_single_texts() -> None:
    assert score(["Ann won", "Bo won"], [SOURCE, SOURCE]).scores == [1.0, 0.5]
    assert score("Bo won", SOURCE).scores == score(["Bo won"], [SOURCE]).scores == [0.5]
    assert score(["Ann won", "Bo won"], SOURCE).scores == [1.0, 0.5]
    assert score(["Ann won today"], SOURCE, words=3).scores == [pytest.approx(2 / 3)]


def test_passages() -> None:
    result = score("Bo won", contexts=["Bo lost.", "Ann won."])
    assert result.scores == [1.0] and [word.passage for word in result.summaries[0].words] == [0, 1]
    assert score(["Bo won"], contexts=[["Bo lost.", "Ann won."]]).summaries == result.summaries


def test_passages_of_all_kinds() -> None:
    """None, blank ones, and a thousand; a text in place of a list is refused, and so is a list in place of a text."""
    for passages in ([], ["", " "]):
        (summary,) = score(["Bo won"], contexts=[passages]).summaries
        assert math.isnan(summary.score) and (summary.note, summary.words) == ("blank source", ())
    many = [f"p {number}" for number in range(998)]
    (summary,) = score(["Bo won"], contexts=[[*many, "Bo", "won"]]).summaries
    assert (summary.score, [word.passage for word in summary.words]) == (1.0, [998, 999])
    with pytest.raises(TypeError, match=r"contexts\[0\]: must be a list of str; got str. Put a single text"):
        score(["Bo won"], contexts=["Bo"])
    with pytest.raises(TypeError, match="contexts: must be a list of lists of str; got str"):
        score(["Bo won"], contexts="Bo")
    with pytest.raises(TypeError, match=r"sources\[0\]: must be str; got list .* Pass lists of passages as contexts"):
        score(["Bo won"], [["Bo", "won"]])


def test_pandas_in_pandas_out() -> None:
    frame = pd.DataFrame({"summary": ["Ann won", "Bo won"], "source": [SOURCE, SOURCE]}, index=["x", "y"])
    table = score(frame["summary"], frame["source"])
    assert list(table.index) == ["x", "y"] and table["score"].tolist() == [1.0, 0.5]
    assert list(table.columns) == ["score", "score_01", "num_words", "note"]
    assert table.attrs["signature"].startswith("toy|words:2|")
    assert frame.join(table)["score"].tolist() == [1.0, 0.5]
    assert list(score(frame["summary"], [SOURCE, SOURCE]).index) == ["x", "y"]
    passages = pd.Series([["Ann"], ["won"]], index=["x", "y"])
    assert score(frame["summary"], contexts=passages)["score"].tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="summaries and their texts: must have the same index"):
        score(frame["summary"], frame["source"][::-1])
    for sources in (frame["source"], SOURCE):
        with pytest.raises(TypeError, match="summaries: must be a list of str; got DataFrame"):
            score(frame, sources)


def test_one_scorer_stays_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[dict[str, Any]] = []
    load = type(TOY).load_scorer

    def counting(spec: Any, **options: Any) -> Any:
        loaded.append(options)
        return load(spec, **options)

    monkeypatch.setattr(type(TOY), "load_scorer", counting)
    for options in ({}, {}, {"words": 1}, {"words": 1, "strict": True}, {"strict": True, "words": 1}):
        score("Ann", SOURCE, **options)
    assert loaded == [{}, {"words": 1}, {"words": 1, "strict": True}]


def test_the_last_scorer_is_freed_before_the_next_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    load, alive = type(TOY).load_scorer, []

    def counting(spec: Any, **options: Any) -> Any:
        gc.collect()
        alive.append(sum(kept() is not None for kept in made))
        scorer = load(spec, **options)
        made.append(weakref.ref(scorer))
        return scorer

    made: list[Any] = []
    monkeypatch.setattr(type(TOY), "load_scorer", counting)
    for words in (1, 2, 3):
        score("Ann", SOURCE, words=words)
    assert alive == [0, 0, 0]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"metric: must be one of .*toy; got 'tox'"):
        quals_metric.score("a", "b", metric="tox")
    with pytest.raises(TypeError, match="toy: unknown option word"):
        score("a", "b", word=3)
    with pytest.raises(TypeError, match="sources: must be a list of str; got NoneType"):
        score("a")
    with pytest.raises(ValueError, match="sources and contexts: must not both be given"):
        score("a", "b", contexts=["c"])
    with pytest.raises(ValueError, match="must be of the same length; got 1 and 2"):
        score("a", ["b", "c"])
