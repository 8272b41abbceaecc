"""A decoder-only model that asks, in the callback and in a collection; and one that is the summarizer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from qa_inference.models.decoder_only import DecoderOnly
from quals_metric.config import QualsConfig
from quals_metric.scorer import QualsScorer
from quals_metric.training import CollectionSettings, QualsCallback, TextFormat, collect
from quals_metric.training.collector import ConseqCollector
from tests import tiny, tiny_causal
from tests.quals_metric.training import callback_toys as toys
from tests.quals_metric.training.callback_toys import ROWS, SHORT

DOCUMENTS = Dataset.from_list([{"document": text, "ground_truth": text} for text in tiny.CORPUS[:4]])
SETTINGS = CollectionSettings(samples=2, max_new_tokens=8, negative_ratio=1.0, positive_ratio=1.0, shard_rows=3)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> QualsScorer:
    """QUALS asked by a toy Llama that writes pairs about the toy corpus."""
    folder = str(tiny_causal.trained(tmp_path_factory.mktemp("model") / "llama"))
    search = {"groups": 10, "min_new_tokens": 2, "max_new_tokens": 40, "device": "cpu"}
    made = QualsScorer(QualsConfig(folder, format=tiny_causal.SHORT, **search))
    assert isinstance(made.model, DecoderOnly) and made.model.shared
    return made


def test_the_callback(scorer: QualsScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is reported is what the scorer says of the summaries in the file, and some of it is defined."""
    monkeypatch.setattr(
        "quals_metric.training.callback.generate_summaries",
        lambda model, tokenizer, documents, settings, seeds: [[document] for document in documents],
    )
    trainer = toys.trainer(tmp_path)
    QualsCallback(scorer, dataset=ROWS[:4], generation=SHORT).attach(trainer)
    trainer.train()
    returned = trainer.evaluate()
    sources = [row["document"] for row in ROWS[:4]]
    again = scorer.score(summaries=sources, sources=sources)
    assert again.num_undefined < 4 and abs(again.score) < 1e-5  # each is its own source
    assert returned["eval_quals"] == pytest.approx(again.score, abs=1e-5)
    assert (
        returned["eval_quals_undefined_runtime"] == again.num_undefined and "eval_quals_stale_runtime" not in returned
    )
    lines = [json.loads(line) for line in (tmp_path / "quals_samples.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines[-4:]] == sources and any(line["worst_question"] for line in lines)


def test_the_collector(scorer: QualsScorer, tmp_path: Path) -> None:
    """The scores in the data set are the scorer's of its texts."""
    trainer = toys.trainer(tmp_path / "run", eval_strategy="no")
    collector = ConseqCollector(scorer, trainer.processing_class, DOCUMENTS, tmp_path / "data", SETTINGS)
    collector.attach(trainer)
    trainer.train()
    found = collector.dataset()
    assert list(found["document"]) == tiny.CORPUS[:4] and not all(
        score is None for score in found["ground_truth_score"]
    )
    for row in found:
        summaries = [*row["samples"], row["ground_truth"]]
        scored = scorer.score(summaries=summaries, sources=[row["document"]] * len(summaries)).scores
        kept = [*row["sample_scores"], row["ground_truth_score"]]
        np.testing.assert_allclose([math.nan if score is None else score for score in kept], scored, atol=1e-5)


def test_a_decoder_only_summarizer_by_its_folder(scorer: QualsScorer, tmp_path: Path) -> None:
    """A checkpoint is sampled as the same model in memory is."""
    folder = tiny_causal.save("qwen3", tmp_path / "qwen3")
    settings = CollectionSettings(samples=2, max_new_tokens=8, text_format=TextFormat("Text: {text}\nSummary:"))
    by_name = collect(folder, scorer, DOCUMENTS, tmp_path / "by_name", settings)
    model, tokenizer = tiny_causal.checkpoint("qwen3")
    given = collect(model.eval(), scorer, DOCUMENTS, tmp_path / "given", settings, tokenizer=tokenizer)
    assert by_name["samples"] == given["samples"]
    samples = [sample for drawn in by_name["samples"] for sample in drawn]
    assert len(samples) == 8 and any(samples) and not any("Summary:" in sample for sample in samples)
