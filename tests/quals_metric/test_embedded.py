"""The embedded model's scores of the demo's examples: a guard against drift.

The numbers are in `tests/golden/pins/embedded.json`. They were computed with the checkpoint in this repository, torch
2.13.0, transformers 5.23.0 and tokenizers 0.23.3 on an x86-64 CPU in float32. Other versions and machines may differ in
the last digits: hence the tolerance. After a change of the checkpoint: `python -m tests.test_pins --write embedded`.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any, Literal

import pytest

from quals_metric import QualsConfig, QualsResult, QualsScorer
from quals_metric.report.examples import EXAMPLES
from tests import test_pins

SUMMARIES = [text for example in EXAMPLES for text in (example.faithful, example.unfaithful)]
SOURCES = [example.source for example in EXAMPLES for _ in range(2)]


@pytest.fixture(scope="module")
def scorer() -> QualsScorer:
    return QualsScorer()


@pytest.mark.parametrize("tokens", ["all", "answer"])
def test_the_calibrations_that_ship_are_of_this_model(tokens: Literal["all", "answer"], scorer: QualsScorer) -> None:
    """After a change of the checkpoint: `python benchmarks/calibrations.py`, and the tables that it prints."""
    calibrated = QualsScorer(QualsConfig(tokens=tokens, calibration="embedded"), model=scorer.model)  # else: an error
    (probability,) = calibrated.score([SUMMARIES[0]], [SOURCES[0]]).probabilities or [math.nan]
    assert 0 < probability < 1 and "|calibration:" in calibrated.signature


@pytest.fixture(scope="module")
def result(scorer: QualsScorer) -> QualsResult:
    return scorer.score(summaries=SUMMARIES, sources=SOURCES)


def test_golden_scores(result: QualsResult) -> None:
    golden = json.loads((test_pins.GOLDEN / "embedded.json").read_text(encoding="utf-8"))["quals"]
    assert test_pins.embedded_rows(result) == [row | {"score": pytest.approx(row["score"], abs=1e-4)} for row in golden]


def test_the_model_shares_its_sources_and_fits_its_format(scorer: QualsScorer, result: QualsResult) -> None:
    assert scorer.model.shared
    assert all(len(summary.pairs) >= 5 for summary in result.summaries)


def test_order_and_batches_do_not_matter(scorer: QualsScorer, result: QualsResult) -> None:
    order = random.Random(3).sample(range(len(SUMMARIES)), len(SUMMARIES))
    shuffled = scorer.score(summaries=[SUMMARIES[i] for i in order], sources=[SOURCES[i] for i in order])
    alone = scorer.score(summaries=SUMMARIES[:1], sources=SOURCES[:1])
    for place, i in enumerate(order):
        assert shuffled.scores[place] == pytest.approx(result.scores[i], abs=1e-5)
    assert alone.scores[0] == pytest.approx(result.scores[0], abs=1e-5)


def test_a_new_process_gives_the_same(result: QualsResult, run_python: Callable[..., Any]) -> None:
    found = run_python("-m", "quals_metric", "demo", "--json")
    assert found.returncode == 0, found.stderr
    scores = [row["score"] for row in json.loads(found.stdout)["summaries"]]
    assert scores == pytest.approx(result.scores, abs=1e-5)
