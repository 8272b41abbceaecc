"""Options that are fields of a configuration."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest

from qa_inference import evaluate_metric
from qa_inference.checks import integer_from
from qa_inference.evaluate_metric import QuestionMetric
from qa_inference.metric_base.options import (
    ModelOptions,
    as_config,
    default_text,
    option,
    options_of,
    with_options,
)
from qags_metric.config import QagsConfig
from quals_metric.config import QualsConfig
from quals_metric.metric import Quals
from quals_metric.result import QualsResult, SummaryScore

TEXTS = ["Ann won.", "Bob lost."]


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
    for name in ("whole_answers", "local_files_only"):
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
