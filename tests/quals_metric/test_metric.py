from __future__ import annotations

import doctest
import math
from pathlib import Path
from typing import Any

import datasets
import evaluate
import pytest
from evaluate.evaluation_suite import SubTask

from qa_inference.formats import PairFormat
from qa_inference.presets import PRESETS
from quals_metric import metric as metric_file
from quals_metric.metric import Quals

SCRIPT = Path(__file__).parents[2] / "spaces" / "quals"

# A stand-in for evaluate's rouge, whose script is on the Hub: the same inputs, and a number of its own.
OTHER_METRIC = '''
import datasets
import evaluate


class Overlap(evaluate.Metric):
    """Share of shared words."""

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="", citation="", features=datasets.Features({"predictions": text, "references": text})
        )

    def _compute(self, predictions, references):
        shares = [len({*p.split()} & {*r.split()}) / len({*p.split()}) for p, r in zip(predictions, references)]
        return {"overlap": sum(shares) / len(shares)}
'''


pytestmark = pytest.mark.usefixtures("own_evaluate_cache")


@pytest.fixture
def quals(fake_scorer: Any) -> Quals:
    return Quals()


def test_result(quals: Quals) -> None:
    results = quals.compute(predictions=["Ann won.", "Bob won.", " "], sources=["Ann won.", "Ann won.", "Ann won."])

    assert results["quals"] == -0.5
    assert results["quals_01"] == pytest.approx((1 + math.exp(-1)) / 2)
    assert results["scores"][:2] == [0, -1]
    assert math.isnan(results["scores"][2])
    assert results["num_pairs"] == [1, 1, 0]
    assert (results["num_undefined"], results["num_windowed_summaries"], results["num_windowed_sources"]) == (1, 0, 0)
    assert results["signature"] == "fake:all"
    assert set(results) == {
        "quals", "quals_01", "scores", "num_pairs", "num_undefined", "num_windowed_summaries", "num_windowed_sources",
        "signature",
    }  # fmt: skip


def test_nothing_defined(quals: Quals) -> None:
    results = quals.compute(predictions=[""], sources=["Ann won."])
    assert math.isnan(results["quals"])
    assert math.isnan(results["quals_01"])


def test_pairs_on_request(quals: Quals) -> None:
    results = quals.compute(predictions=["Ann won.", ""], sources=["Ann won.", "Ann won."], return_pairs=True)
    assert [len(pairs) for pairs in results["pairs"]] == [1, 0]
    assert results["pairs"][0][0]["answer"] == "Ann"
    assert results["pairs"][0][0]["source_log_probs"] == (-1.0, -1.0)


def test_models_load_once_per_process(fake_scorer: Any) -> None:
    for _ in range(2):
        quals = Quals()
        quals.download_and_prepare()
        for _ in range(3):
            quals.compute(predictions=["Ann won."], sources=["Ann won."])
    assert len(fake_scorer.made) == len(fake_scorer.loaded) == 1
    quals.compute(predictions=["Ann won."], sources=["Ann won."], groups=5, tokens="answer")
    assert len(fake_scorer.made) == 2
    assert len(fake_scorer.loaded) == 1


def test_loaded_with_options(fake_scorer: Any) -> None:
    pair_format = PairFormat(separator="|")
    quals = Quals(
        model="folder/of/mine", format=pair_format, model_revision="main", device="cpu", tokens="answer", max_pairs=3,
        gguf="weights.gguf", cache="kept", cache_size=1 << 24, device_map="auto",
    )  # fmt: skip
    quals.compute(predictions=["Ann won."], sources=["Ann won."])
    (config,) = fake_scorer.made
    assert (config.model, config.format, config.revision) == ("folder/of/mine", pair_format, "main")
    assert (config.device, config.tokens, config.max_pairs) == ("cpu", "answer", 3)
    assert (config.gguf, config.cache) == ("weights.gguf", "kept")
    assert (config.cache_size, config.device_map) == (1 << 24, "auto")
    # The file is another model; the cache is another scorer on the same.
    assert [(one.gguf, one.cache) for one in fake_scorer.loaded] == [("weights.gguf", None)]


def test_the_search_can_have_a_type_of_its_own(fake_scorer: Any) -> None:
    for search_dtype, loaded in (("float32", ["bfloat16", "float32"]), ("bfloat16", [])):
        fake_scorer.loaded.clear()
        quals = Quals(device="cpu", dtype="bfloat16", search_dtype=search_dtype)
        quals.compute(predictions=["Ann won."], sources=["Ann won."])
        assert [one.dtype for one in fake_scorer.loaded] == loaded  # the first is loaded already
        assert fake_scorer.made[-1].search_dtype == search_dtype


def test_options_of_one_call(quals: Quals, fake_scorer: Any) -> None:
    results = quals.compute(predictions=["Ann won."], sources=["Ann won."], tokens="answer", groups=5)
    assert results["signature"] == "fake:answer"
    assert fake_scorer.made[-1].groups == 5
    assert quals.compute(predictions=["Ann won."], sources=["Ann won."])["signature"] == "fake:all"


@pytest.mark.parametrize("name", [None, "default", "embedded", "t5-large-squad-qa"])
def test_presets_by_name(name: str | None, fake_scorer: Any) -> None:
    assert Quals(name).config.model == (name if name in PRESETS else "embedded")


@pytest.mark.parametrize("name", ["someone/model", "../elsewhere", "no-preset", ""])
def test_other_config_names_are_refused_before_a_folder_is_made(name: str, fake_scorer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config_name must be a preset \(embedded, .*\), got .*; .* use model="):
        Quals(name)
    assert not (tmp_path / "metrics").exists()


def test_preset_and_model_are_refused(fake_scorer: Any) -> None:
    with pytest.raises(ValueError, match="give config_name or model, not both"):
        Quals("embedded", model="someone/model")


def test_unknown_options_are_refused(quals: Quals) -> None:
    with pytest.raises(TypeError, match="unknown options beams, modle"):
        Quals(modle="x", beams=4)
    with pytest.raises(TypeError, match="beams"):
        quals.compute(predictions=["Ann won."], sources=["Ann won."], beams=4)
    with pytest.raises(ValueError, match="tokens"):
        Quals(tokens="some")


@pytest.mark.parametrize(
    "inputs",
    [
        {"predictions": "Ann won.", "sources": "Bob won."},
        {"predictions": ["Ann won."], "sources": "Ann won."},
        {"predictions": ["Ann won.", None], "sources": ["Ann won.", "Ann won."]},
        {"predictions": ["Ann won.", 3], "sources": ["Ann won.", "Ann won."]},
        {"predictions": ["Ann won."], "sources": ["Ann won.", "Bob won."]},
        {"predictions": None, "sources": ["Ann won."]},
        {"predictions": ["Ann won."], "sources": None},
        {"predictions": ["Ann won."]},
        {"predictions": []},
        {},
    ],
)
def test_wrong_inputs(inputs: dict[str, Any], quals: Quals) -> None:
    with pytest.raises((TypeError, ValueError)):
        quals.compute(**inputs)
    # What was refused leaves nothing behind.
    assert quals.compute(predictions=["Ann won."], sources=["Ann won."])["scores"] == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retrun_pairs": True}, "unknown option retrun_pairs"),
        ({"tokens": "some"}, "tokens: must be one of"),
        ({"preset": "agreement", "tokens": "all"}, "preset"),
    ],
)
def test_a_wrong_option_keeps_what_was_added(options: dict[str, Any], message: str, quals: Quals) -> None:
    quals.add_batch(predictions=["Ann won.", "Bob won."], sources=["Ann won."] * 2)
    with pytest.raises((TypeError, ValueError), match=message):
        quals.compute(**options)
    assert quals.compute(tokens="answer")["scores"] == [0, -1]


def test_an_error_while_scoring_leaves_the_metric_usable(quals: Quals) -> None:
    with pytest.raises(ValueError, match="tokens"):
        quals.compute(predictions=["Bob won."], sources=["Ann won."], tokens="some")
    assert quals.compute(predictions=["Ann won."], sources=["Ann won."])["scores"] == [0]


def test_in_batches_and_one_by_one(quals: Quals) -> None:
    quals.add_batch(predictions=["Ann won."], sources=["Ann won."])
    quals.add_batch(predictions=["Bob won."], sources=["Ann won."])
    quals.add(prediction="Ann lost.", sources="Ann won.")
    assert quals.compute()["scores"] == [0, -1, 0]


def test_passages(quals: Quals) -> None:
    contexts = [["Cy lost.", "Ann won."], ["Ann won."], []]
    summaries = ["Ann won.", "Bob won.", "Bob won."]
    results = quals.compute(predictions=summaries, contexts=contexts, return_pairs=True)
    assert results["scores"] == [0, -1, -1] and [pair["passage"] for (pair,) in results["pairs"]] == [1, 0, 0]
    # By every door, beside summaries with a source, and beside references for another metric.
    quals.add_batch(predictions=summaries[:1], contexts=contexts[:1])
    quals.add(prediction="Ann \ud83e won.", contexts=["Bob", "Cy \ud83e", "Ann"])
    quals.add(prediction="Bob won.", sources="Bob")
    results = quals.compute(predictions=["Ann"], contexts=[["Ann"]], references=["Bob"], tokens="answer")
    assert results["scores"] == [0, 0, 0, 0] and results["signature"] == "fake:answer"
    sources = quals.compute(predictions=["Ann"], sources=["Ann"], contexts=None)
    assert sources == quals.compute(predictions=["Ann"], contexts=[["Ann"]])
    with_references = evaluate.load(str(SCRIPT), references_are_sources=True)
    assert with_references.compute(predictions=["Ann"], contexts=[["Bob", "Ann"]])["scores"] == [0]
    assert "contexts (list of list of str): instead of sources: for each summary" in quals.compute.__doc__


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"contexts": [["Ann"]], "sources": ["Ann"]},
            "sources and contexts: must not both be given. Sources are",
        ),
        ({"contexts": ["Ann"]}, r"contexts\[0\]: must be a list of str; got str. Put a single text into a list"),
        ({"contexts": "Ann"}, "contexts: must be a list of lists of str; got str"),
        ({"contexts": [["Ann", None]]}, r"contexts\[0\]\[1\]: must be str; got NoneType"),
        ({"contexts": [["Ann"], ["Bob"]]}, "predictions and contexts: must be of the same length; got 1 and 2"),
        ({"sources": [["Ann"]]}, r"sources\[0\]: must be str; got list"),
        ({"references": ["Ann"]}, "sources must be given"),
    ],
)
def test_wrong_passages(inputs: dict[str, Any], message: str, quals: Quals) -> None:
    for give in (quals.compute, quals.add_batch):
        with pytest.raises((TypeError, ValueError), match=message):
            give(predictions=["Ann won."], **inputs)
    assert quals.compute(predictions=["Ann won."], sources=["Ann won."])["scores"] == [0]


def test_21_b11_half_a_character_added_leaves_the_metric_usable(quals: Quals) -> None:
    quals.add(prediction="Ann \ud83e won.", sources="Ann \ud83e won.")
    quals.add(prediction="Bob won.", sources="Ann won.")
    assert quals.compute()["scores"] == [0, -1]
    assert quals.compute(predictions=["Ann won."], sources=["Ann won."])["scores"] == [0]


@pytest.mark.parametrize("wrong", [{"prediction": None, "sources": "Ann won."}, {"prediction": "Ann won."}, {}])
def test_21_b11_a_wrong_text_added_leaves_the_metric_usable(wrong: dict[str, Any], quals: Quals) -> None:
    with pytest.raises(TypeError, match="must be str; got NoneType"):
        quals.add(**wrong)
    assert quals.compute(predictions=["Ann won."], sources=["Ann won."])["scores"] == [0]


def test_references_are_sources_on_request(fake_scorer: Any) -> None:
    quals = evaluate.load(str(SCRIPT), references_are_sources=True)
    quals.add_batch(predictions=["Ann won."], references=["Ann won."])
    quals.add(prediction="Bob won.", reference="Ann won.")
    assert quals.compute()["scores"] == [0, -1]
    results = quals.compute(predictions=["Ann won."], references=["Bob won."], tokens="answer")
    assert (results["scores"], results["signature"]) == ([-1], "fake:answer")
    assert "references (list of str): for each summary, the text it was written from" in quals.compute.__doc__
    assert list(quals.features) == ["predictions", "references"]
    with pytest.raises(TypeError, match="references: must be a list of str; got str"):
        quals.compute(predictions=["Ann won."], references="Ann won.")
    for give in (quals.compute, quals.add_batch):
        with pytest.raises(ValueError, match="sources must not be given, because the metric was"):
            give(predictions=["Ann won."], sources=["Ann won."])
    with pytest.raises(ValueError, match="sources must not be given, because the metric was"):
        quals.add(prediction="Ann won.", sources="Ann won.")
    assert quals.compute(predictions=["Ann won."], references=["Ann won."])["scores"] == [0]


def test_references_are_never_sources_without_the_request(quals: Quals) -> None:
    for give in (quals.compute, quals.add_batch):
        with pytest.raises(ValueError, match=r"sources must be given: .* load the metric with references_are_sources"):
            give(predictions=["Ann won."], references=["Ann won."])
    with pytest.raises(ValueError, match=r"sources must be given: .* load the metric with references_are_sources"):
        quals.add(prediction="Ann won.", reference="Ann won.")
    results = quals.compute(predictions=["Ann won."], references=["Ann won."], sources=["Bob won."])
    assert results["scores"] == [-1]
    with pytest.raises(TypeError, match="references_are_sources: must be True or False; got 'no'"):
        Quals(references_are_sources="no")


def summarize(texts: Any, **_: Any) -> list[dict[str, str]]:
    """A "pipeline" of evaluate's evaluators: the first two words of every text."""
    return [{"summary_text": " ".join(text.split()[:2])} for text in texts]


def test_the_evaluator_of_summarization(fake_scorer: Any) -> None:
    """Transformers 5 has no such pipeline, so evaluate makes none: a class that takes a function does it."""
    with pytest.raises(KeyError, match="summarization has been removed from transformers"):
        evaluate.evaluator("summarization")

    class Evaluator(evaluate.SummarizationEvaluator):
        def prepare_pipeline(self, model_or_pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            return model_or_pipeline

    rows = datasets.Dataset.from_dict({"document": ["Ann won.", "Bob lost."]})
    results = Evaluator().compute(
        model_or_pipeline=summarize,
        data=rows,
        metric=Quals(references_are_sources=True),
        input_column="document",
        label_column="document",
    )
    assert results["scores"] == [0, 0]


def test_the_evaluation_suite(fake_scorer: Any) -> None:
    """It asks for the same evaluators, so it cannot evaluate a summarizer with transformers 5."""
    suite = evaluate.EvaluationSuite("summaries")
    suite.suite = [SubTask(task_type="summarization", data="rows", args_for_task={})]
    with pytest.raises(KeyError, match="summarization has been removed from transformers"):
        suite.run(summarize)


def test_in_memory(fake_scorer: Any) -> None:
    quals = Quals(keep_in_memory=True)
    assert quals.compute(predictions=["Ann won."], sources=["Ann won."])["scores"] == [0]


def test_combined_with_a_metric_that_has_references(fake_scorer: Any, tmp_path: Path) -> None:
    other = tmp_path / "overlap"
    other.mkdir()
    (other / "overlap.py").write_text(OTHER_METRIC)
    both = evaluate.combine([evaluate.load(str(other)), evaluate.load(str(SCRIPT))])
    for summary in ("Ann won.", "Bob won."):
        both.add_batch(predictions=[summary], references=["Ann won."], sources=["Ann won."])
    results = both.compute()
    assert results["scores"] == [0, -1]
    assert results["overlap"] == 0.75


def test_loading_the_script_loads_the_model_and_takes_options(fake_scorer: Any) -> None:
    quals = evaluate.load(str(SCRIPT), "t5-small-squad-qag", tokens="answer")
    assert isinstance(quals, Quals)
    assert quals.name == "quals"
    assert [(config.model, config.tokens) for config in fake_scorer.made] == [("t5-small-squad-qag", "answer")]
    with pytest.raises(TypeError, match="unknown option beams"):
        evaluate.load(str(SCRIPT), beams=4)


def test_help_shows_the_inputs(quals: Quals) -> None:
    assert "predictions (list of str): the summaries" in quals.compute.__doc__
    assert "log p(token | source)" in quals.description


def test_doctests() -> None:
    test = doctest.DocTestParser().get_doctest(metric_file.Quals.compute_help(), {}, "Quals", "metric.py", 0)
    assert len([example for example in test.examples if example.want]) > 1
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0
