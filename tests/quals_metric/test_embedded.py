"""The embedded model's scores of the demo's examples: a guard against drift.

The numbers were computed with the checkpoint in this repository, torch 2.13.0, transformers 5.23.0 and tokenizers
0.23.3 on an x86-64 CPU in float32. Other versions and machines may differ in the last digits: hence the tolerance.
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

SUMMARIES = [text for example in EXAMPLES for text in (example.faithful, example.unfaithful)]
SOURCES = [example.source for example in EXAMPLES for _ in range(2)]
TOLERANCE = 1e-4
GOLDEN = [  # score, pairs kept, the first question
    (-0.403744, 10, "who has a chink in his armour?"),
    (-0.583034, 14, "who has a chink in his armour?"),
    (-2.646379, 10, "what was found in the shaft?"),
    (-3.204095, 10, "what was found in the engine?"),
    (-1.245001, 10, "what has bellwood bought?"),
    (-1.850061, 12, "when did tarn farms purchase bellwood?"),
    (-1.745905, 12, "what did nurse who worked at night slept less than?"),
    (-2.485291, 16, "who found a study of 50 doctors?"),
]


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
    for summary, (score, count, question) in zip(result.summaries, GOLDEN, strict=True):
        assert summary.score == pytest.approx(score, abs=TOLERANCE)
        assert len(summary.pairs) == count
        assert summary.pairs[0].question == question


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
