"""Options that are fields, texts in any collection, results that print as a person would, and the key of a result."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from qa_inference import evaluate_metric
from qa_inference.evaluate_metric import QuestionMetric
from qa_inference.metric_base import (
    ModelOptions,
    ResultKey,
    as_config,
    check_passages,
    check_texts,
    default_text,
    integer_from,
    json_ready,
    option,
    options_of,
    with_options,
)
from qags_metric.config import QagsConfig
from qags_metric.result import FoundAnswer, QagsResult, QuestionScore
from qags_metric.result import SummaryScore as QagsScore
from quals_metric.config import QualsConfig
from quals_metric.metric import Quals
from quals_metric.result import PairScore, QualsResult, SummaryScore

TEXTS = ["Ann won.", "Bob lost."]


# ---- options --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToyConfig(QualsConfig):
    """QUALS with one option more: the one field that a new option takes."""

    patience: int = option(3, help="Rounds without a new pair.", check=integer_from(1), kind=int)


class ToyMetric(QuestionMetric):
    """The door of the toy."""

    metric, items_field, presets = "toy", "pairs", Quals.presets
    config_type = ToyConfig
    description_text = citation_text = reference_url = examples = returns = ""

    @classmethod
    def make_scorer(cls, config: Any) -> Any:
        class Scorer:
            def score(self, summaries: list[str], sources: list[str]) -> QualsResult:
                return QualsResult(tuple(SummaryScore(float(config.patience), ()) for _ in summaries), "toy")

        return Scorer()


@pytest.mark.parametrize("value", ["no", 1, None])
def test_an_option_that_is_true_or_false_takes_nothing_else(value: object) -> None:
    for name in ("by_sentence", "whole_answers", "local_files_only"):
        with pytest.raises(ValueError, match=f"{name}: must be True or False; got {value!r}"):
            QualsConfig(**{name: value})
    with pytest.raises(ValueError, match=f"exact: must be True or False; got {value!r}"):
        QagsConfig(exact=value)


def test_an_option_is_one_field(own_evaluate_cache: None) -> None:
    """Its check, its place at evaluate's door, in `compute` and in both help texts all come from the field."""
    with pytest.raises(ValueError, match="patience: must be an integer of at least 1; got 0"):
        ToyConfig(patience=0)
    assert inspect.signature(ToyMetric).parameters["patience"].default is None
    assert "patience: Rounds without a new pair. Default: 3." in str(ToyMetric.__doc__)
    metric = ToyMetric(patience=4)
    assert metric.compute(predictions=TEXTS, sources=TEXTS)["toy"] == 4
    assert metric.compute(predictions=TEXTS, sources=TEXTS, patience=5)["toy"] == 5
    assert "patience: Rounds without a new pair." in metric.inputs_description
    with pytest.raises(TypeError, match="unknown option patience"):
        Quals(patience=4)
    evaluate_metric.loaded.cache_clear()


@pytest.mark.parametrize("config_type", [QualsConfig, QagsConfig])
def test_every_option_has_a_help_of_whole_sentences(config_type: type[ModelOptions]) -> None:
    options = options_of(config_type)
    assert len(options) > 15
    for field, about in options:
        assert about.help.endswith(".") and about.help[0].isupper() | about.help.startswith("spaCy"), field.name
        assert len(about.help) < 200
        default_text(field, about)


def test_a_loaded_model_is_known_by_its_own_options() -> None:
    config = QualsConfig("some/model", groups=5, tokens="answer", dtype="bfloat16", gguf="file", cache="folder")
    assert config.model_options() == QualsConfig("some/model", dtype="bfloat16", gguf="file")
    qags = QagsConfig("some/model", reader="some/reader", reader_revision="b", revision="a", device="cpu", exact=True)
    assert qags.model_options() == QagsConfig("some/model", revision="a", device="cpu")
    assert qags.model_options("reader") == QagsConfig(reader="some/reader", reader_revision="b", device="cpu")


def test_options_that_are_none_keep_their_value() -> None:
    assert with_options(QualsConfig(groups=5), {"groups": None, "max_pairs": 2}) == QualsConfig(groups=5, max_pairs=2)


def test_21_d24_a_name_stands_for_a_configuration() -> None:
    assert as_config("t5-small-squad-qag", QualsConfig) == QualsConfig("t5-small-squad-qag")
    assert as_config(None, QagsConfig) == QagsConfig()
    with pytest.raises(TypeError, match=r"config: must be a QualsConfig or the name of a model; got QagsConfig"):
        as_config(QagsConfig(), QualsConfig)  # type: ignore[type-var]


# ---- texts ----------------------------------------------------------------------------------------------------------


def _generated() -> Iterator[str]:
    yield from TEXTS


COLLECTIONS = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "generator": _generated,
    "pandas Series": pd.Series(TEXTS, index=[7, 3]),
    "NumPy array": np.array(TEXTS),
    "NumPy array of objects": np.array(TEXTS, dtype=object),
    "Arrow array": pa.array(TEXTS),
    "chunked Arrow array": pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    "data set's column": datasets.Dataset.from_dict({"text": TEXTS})["text"],
    "dictionary's values": dict(enumerate(TEXTS)).values(),
}


@pytest.mark.parametrize("texts", COLLECTIONS.values(), ids=COLLECTIONS)
def test_21_e_any_one_dimensional_collection_of_texts_is_taken(texts: Any) -> None:
    made = texts() if callable(texts) else texts
    summaries, sources = check_texts(made, TEXTS)
    assert summaries == sources == TEXTS
    assert type(summaries) is list and all(type(text) is str for text in summaries)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("Ann won.", r"summaries: must be a list of str; got str. Put a single text into a list: \[text\]"),
        (b"Ann", "summaries: must be a list of str; got bytes"),
        (3, "summaries: must be a list of str; got int. Pass one text per summary, in order"),
        ({"a": "Ann"}, "summaries: must be a list of str; got dict"),
        ({"Ann"}, "summaries: must be a list of str; got set"),
        (np.array([TEXTS]), r"summaries\[0\]: must be str; got list"),
        (pd.Series(["Ann", None]), r"summaries\[1\]: must be str; got (NoneType|float)"),
        (["Ann", 2], r"summaries\[1\]: must be str; got int \(2\). Pass '' for a missing text"),
    ],
)
def test_other_texts_are_refused(texts: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_texts(texts, TEXTS)


def test_lengths() -> None:
    with pytest.raises(ValueError, match="must be of the same length; got 1 and 2"):
        check_texts(TEXTS[:1], TEXTS)
    with pytest.raises(ValueError, match="predictions: must not be empty"):
        check_texts([], [], ("predictions", "sources"))


# ---- results --------------------------------------------------------------------------------------------------------

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


# ---- key ------------------------------------------------------------------------------------------------------------


def test_the_signature_shows_all_and_the_model_part_leaves_choices_out() -> None:
    settings = {"model": "m@1", "groups": 60, "dtype": "float32"}
    key = ResultKey("toy", settings, frozenset({"groups"}))
    assert key.signature().startswith("toy|model:m@1|groups:60|dtype:float32|torch:")
    other_choice = ResultKey("toy", settings | {"groups": 5}, frozenset({"groups"}))
    assert key.model_part() == other_choice.model_part() and key.signature() != other_choice.signature()
    assert key.model_part() != ResultKey("toy", settings | {"model": "m@2"}, frozenset({"groups"})).model_part()
    assert key.model_part(dtype="bfloat16") == ResultKey(
        "toy", settings | {"dtype": "bfloat16"}, frozenset({"groups"})
    ).model_part()  # fmt: skip
    # A value cannot run into the next setting, whatever characters it has.
    assert ResultKey("toy", {"a": "1|b:2"}).model_part() != ResultKey("toy", {"a": "1", "b": "2"}).model_part()


# ---- passages -------------------------------------------------------------------------------------------------------


def test_contexts_are_lists_of_passages() -> None:
    assert check_passages(TEXTS, TEXTS, None) == (TEXTS, [["Ann won."], ["Bob lost."]])
    for contexts in ([["a", "b"], []], pd.Series([["a", "b"], []]), pa.array([["a", "b"], []])):
        assert check_passages(TEXTS, None, contexts) == (TEXTS, [["a", "b"], []])


@pytest.mark.parametrize(
    ("contexts", "message"),
    [
        (["a", "b"], r"contexts\[0\]: must be a list of str; got str. Put a single text into a list: \[text\]"),
        ("ab", r"contexts: must be a list of lists of str; got str"),
        ([["a"], None], r"contexts\[1\]: must be a list of str; got NoneType"),
        ([["a"], ["b", 3]], r"contexts\[1\]\[1\]: must be str; got int \(3\)"),
        ([["a"]], "summaries and contexts: must be of the same length; got 2 and 1"),
    ],
)
def test_other_contexts_are_refused(contexts: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        check_passages(TEXTS, None, contexts)
