"""The real torchmetrics, in one process and in two that share their states."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from quals_metric import QualsConfig, QualsScorer
from quals_metric.integrations import ConsistencyScore
from tests import tiny
from tests.quals_metric.integrations.torchmetrics_program import PAIRS
from tests.quals_metric.test_spread import run_twice

PROGRAM = Path(__file__).with_name("torchmetrics_program.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.trained(tmp_path_factory.mktemp("model") / "bart"))


def test_the_mean_over_all_updates(model: str) -> None:
    scorer = QualsScorer(QualsConfig(model, groups=30, min_new_tokens=2, max_new_tokens=14, device="cpu"))
    summaries, sources = (list(column) for column in zip(*PAIRS, strict=True))
    expected = scorer.score(summaries=summaries, sources=sources)
    assert expected.num_undefined == 1 and expected.score < 0
    metric = ConsistencyScore(scorer)
    assert metric.higher_is_better and not metric.is_differentiable
    with pytest.warns(UserWarning, match="was called before the ``update`` method"):
        assert math.isnan(metric.compute()["quals"])
    batch = metric(preds=summaries[:1], sources=sources[:1])
    assert batch["quals"] == pytest.approx(expected.scores[0], abs=1e-5)
    metric.update(summaries[1:], sources[1:])
    values = metric.compute()
    assert values["quals"].dtype == torch.float32
    assert values["quals"] == pytest.approx(expected.score, abs=1e-5) and values["quals_undefined"] == 1
    clone = metric.clone()
    assert clone.scorer is scorer and clone.compute() == values
    metric.reset()
    assert metric.scores == [] and clone.compute() == values
    clone.update(summaries[:1], sources[:1])
    assert len(clone.scores) == 3 and metric.scores == []
    with pytest.raises(ValueError, match="summaries and sources: must be of the same length"):
        metric.update(summaries, sources[:1])


def test_states_of_two_processes(model: str, tmp_path: Path) -> None:
    run_twice(PROGRAM, model, str(tmp_path))
    scorer = QualsScorer(QualsConfig(model, groups=30, min_new_tokens=2, max_new_tokens=14, device="cpu"))
    expected = scorer.score(*map(list, zip(*PAIRS, strict=True)))
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["synced"]["quals"] == pytest.approx(expected.score, abs=1e-5)
        assert found["synced"]["quals_undefined"] == 1
        assert found["again"] == found["synced"]
        assert found["own"] == [2 - rank]  # each keeps its own scores
        assert math.isnan(found["empty"]["quals"])
        assert found["one"] == {"quals": pytest.approx(expected.scores[0], abs=1e-5), "quals_undefined": 0}
