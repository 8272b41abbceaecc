"""Inspect, or the contract that the integration has with it; `.ci/harnesses` runs this file with Inspect itself."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests import tiny_causal
from tests.quals_metric.integrations import stand_ins
from tests.quals_metric.integrations.harness_toys import DOCUMENTS
from tests.test_readme import GUIDE, blocks

is_required = "QUALS_REQUIRE_HARNESSES" in os.environ


@pytest.fixture
def inspect_ai() -> Iterator[ModuleType]:
    with stand_ins.integration("inspect_ai") as module:
        yield module


def state(summary: str, source: str) -> Any:
    output = SimpleNamespace(completion=summary)
    return SimpleNamespace(output=output, metadata={"document": source}, input_text=f"Summarize: {source}")


def test_a_sample_is_scored_and_explained(inspect_ai: ModuleType, fake_scorer: Any) -> None:
    scorer = inspect_ai.quals_scorer(source="document", tokens="answer")
    assert not fake_scorer.made  # nothing is loaded before the first sample

    async def score_all() -> list[Any]:
        states = (state("Ann Lee won.", DOCUMENTS[0]), state("Nobody came.", DOCUMENTS[1]), state(" ", DOCUMENTS[2]))
        return await asyncio.gather(*(scorer(one, None) for one in states))

    won, wrong, blank = asyncio.run(score_all())
    assert (won.value, wrong.value) == (0, -1)
    assert won.answer == "Ann Lee won." and won.metadata == {"signature": "fake:answer", "num_pairs": 1}
    assert wrong.explanation == (
        "| support | answer | question |\n| --- | --- | --- |\n| -1.000 | Nobody | What is the first word? |"
    )
    assert math.isnan(blank.value)
    assert (blank.reason, blank.explanation) == ("scoring_failed", "blank summary")


def test_the_source_may_be_the_input(inspect_ai: ModuleType, fake_scorer: Any) -> None:
    scorer = inspect_ai.quals_scorer()
    assert asyncio.run(scorer(state("Summarize this.", "Ann won."), None)).value == 0


def test_errors(inspect_ai: ModuleType, fake_scorer: Any) -> None:
    with pytest.raises(TypeError, match="quals: unknown option beams"):
        inspect_ai.quals_scorer(beams=4)
    with pytest.raises(TypeError, match="qags: unknown option tokens"):
        inspect_ai.qags_scorer(tokens="answer")
    scorer = inspect_ai.quals_scorer(source="article")
    with pytest.raises(ValueError, match="source: must be a key of the sample's metadata; 'article' is not among"):
        asyncio.run(scorer(state("Ann won.", "Ann won."), None))


@pytest.mark.filterwarnings("default")  # those of the library are not ours
@pytest.mark.skipif(find_spec("inspect_ai") is None and not is_required, reason="inspect_ai is not installed")
def test_the_task_of_the_guide(fake_scorer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect_ai as library
    from inspect_ai.model import GenerateConfig, get_model

    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in blocks(GUIDE["harnesses.md"], "py") if "inspect_ai" in block)
    names: dict[str, Any] = {"__name__": "summaries"}
    exec(compile(block, "summaries.py", "exec"), names)
    tiny_causal.save("llama", tmp_path / "model")
    tiny_causal.tokenizer(chat=True).save_pretrained("model")
    toy = get_model("hf/toy", model_path=str(tmp_path / "model"), device="cpu", config=GenerateConfig(max_tokens=8))
    (log,) = library.eval(names["summaries"](), model=toy, display="none", log_dir="logs")
    assert log.status == "success", log.error
    (scores,) = log.results.scores
    assert scores.name == "quals"
    summaries = [sample.output.completion for sample in log.samples]
    sources = [sample.metadata["document"] for sample in log.samples]
    values = [sample.scores["quals"].value for sample in log.samples]
    expected = fake_scorer().score(summaries=summaries, sources=sources)
    assert values == pytest.approx(expected.scores, nan_ok=True)
    assert scores.unscored_samples == expected.num_undefined
    assert scores.metrics["mean"].value == pytest.approx(expected.score, nan_ok=True)
