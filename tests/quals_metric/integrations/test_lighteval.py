"""lighteval, or the contract that the integration has with it; `.ci/harnesses` runs this file with lighteval itself."""

from __future__ import annotations

import copy
import json
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
from tests.quals_metric.integrations.harness_toys import DOCUMENTS, fake_scores
from tests.test_readme import GUIDE, blocks

is_required = "QUALS_REQUIRE_HARNESSES" in os.environ


@pytest.fixture
def lighteval() -> Iterator[ModuleType]:
    with stand_ins.integration("lighteval") as module:
        yield module


def answered(*texts: str) -> list[Any]:
    return [SimpleNamespace(final_text=[text]) for text in texts]


def test_all_summaries_are_scored_at_once(lighteval: ModuleType, fake_scorer: Any) -> None:
    metric = lighteval.lighteval_metric("quals", tokens="answer")
    assert metric.batched_compute and metric.higher_is_better and metric.category.name == "GENERATIVE"
    assert not fake_scorer.made  # nothing is loaded before the generation
    docs = [SimpleNamespace(specific={"document": document}) for document in DOCUMENTS]
    summaries = ["Ann Lee won.", "Nobody came.", " "]
    scores = metric.compute_sample(responses=answered(*summaries), docs=docs)["quals"]
    assert scores == pytest.approx(fake_scores(summaries), nan_ok=True)
    assert metric.get_corpus_aggregations()["quals"](scores) == {"quals": -0.5, "quals_undefined": 1}
    assert fake_scorer.made[0].tokens == "answer"
    copied = copy.deepcopy(metric).sample_level_fn  # as lighteval does, to print the settings
    assert copied.scorer is metric.sample_level_fn.scorer
    assert repr(copied.scorer) == "HarnessScorer('quals', tokens='answer')"


def test_errors(lighteval: ModuleType, fake_scorer: Any) -> None:
    with pytest.raises(TypeError, match="quals: unknown option beams"):
        lighteval.lighteval_metric("quals", beams=4)
    metric = lighteval.lighteval_metric("quals", source_column="article")
    docs = [SimpleNamespace(specific={"document": "Ann won."}), SimpleNamespace(specific=None)]
    for doc in docs:
        with pytest.raises(ValueError, match=r"source_column: must be a key of Doc.specific; 'article' is not among"):
            metric.compute_sample(responses=answered("Ann won."), docs=[doc])


@pytest.mark.filterwarnings("default")  # those of the library are not ours
@pytest.mark.skipif(find_spec("lighteval") is None and not is_required, reason="lighteval is not installed")
def test_the_task_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lighteval.logging.evaluation_tracker import EvaluationTracker
    from lighteval.models.transformers.transformers_model import TransformersModelConfig
    from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters
    from lighteval.tasks.registry import Registry

    from quals_metric import QualsConfig, QualsScorer

    # One of lighteval's own tasks downloads a file when it is imported.
    monkeypatch.setattr(Registry, "_load_from_files", staticmethod(lambda files, package: {}))
    monkeypatch.setattr(Registry, "_load_from_subdirs", staticmethod(lambda folders: {}))
    monkeypatch.chdir(tmp_path)
    Path("documents").mkdir()
    rows = "".join(json.dumps({"document": document}) + "\n" for document in DOCUMENTS)
    Path("documents/test.jsonl").write_text(rows)
    (task,) = (block for block in blocks(GUIDE["harnesses.md"], "py") if "lighteval" in block)
    Path("summaries_task.py").write_text(task)
    pipeline = Pipeline(
        tasks="summaries|0",
        pipeline_parameters=PipelineParameters(
            launcher_type=ParallelismManager.ACCELERATE, custom_tasks_directory="summaries_task.py"
        ),
        evaluation_tracker=EvaluationTracker(output_dir="results"),
        model_config=TransformersModelConfig(
            model_name=str(tiny_causal.save("llama", tmp_path / "model")), device="cpu", batch_size=3, cache_dir="cache"
        ),
    )
    pipeline.evaluate()
    found = pipeline.get_results()["results"]["summaries:0"]
    details = pipeline.evaluation_tracker.details_logger.details["summaries|0"]
    summaries = [detail.model_response.final_text[0] for detail in details]
    sources = [detail.doc.specific["document"] for detail in details]
    assert sorted(sources) == sorted(DOCUMENTS)
    expected = QualsScorer(QualsConfig(groups=20)).score(summaries, sources)
    assert found["quals"] == pytest.approx(expected.score, abs=1e-4, nan_ok=True)
    assert found["quals_undefined"] == expected.num_undefined
    scores = [detail.metric["quals"] for detail in details]
    assert scores == pytest.approx(expected.scores, abs=1e-4, nan_ok=True)
    assert any(not math.isnan(score) for score in scores)
