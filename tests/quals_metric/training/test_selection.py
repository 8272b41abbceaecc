"""The selection of CONSEQ against the published code's, and at its edges."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quals_metric.training.selection import select

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "conseq_selection.json").read_text())


def _floats(value: Any) -> Any:
    """Undefined as NaN."""
    if isinstance(value, list):
        return [_floats(item) for item in value]
    return math.nan if value is None else value


GROUND_TRUTHS, SAMPLES = _floats(GOLDEN["reference_quals"]), _floats(GOLDEN["candidate_quals"])


@pytest.mark.parametrize("ratios", GOLDEN["selected"])
def test_golden_selection(ratios: str) -> None:
    """Made with the published implementation (tests/golden/conseq_selection.json).

    One documented difference: none of document 9's samples is defined, and at ratio 1.0 the published code takes it.
    """
    negative, positive = map(float, ratios.split("-"))
    found = select(GROUND_TRUTHS, SAMPLES, negative_ratio=negative, positive_ratio=positive)
    expected = [(document, sample) for document, sample in GOLDEN["selected"][ratios] if document != 9]
    assert found.pairs == expected
    assert (len(GOLDEN["selected"][ratios]) - len(expected)) == (negative == 1.0)


def test_the_default_ratios_are_the_published_ones() -> None:
    assert select(GROUND_TRUTHS, SAMPLES).pairs == [tuple(pair) for pair in GOLDEN["selected"]["0.3-0.3"]]


@pytest.mark.parametrize(
    ("truths", "samples", "ratios", "negative", "positive", "pairs"),
    [
        # the size counts all documents, the undefined ones too: round(0.5 * 4) = 2
        ([0, math.nan, math.nan, -1], [[-1], [-2], [math.nan], [0]], (0.5, 0.5), [0, 1], [0, 3], [(0, 0)]),
        # of equal scores the earlier document, and the earlier sample
        ([0, 0, 0, 0], [[-1, -1], [-1, -1], [-1, -1], [-2, -3]], (0.5, 0.25), [0, 3], [0], [(0, 0)]),
        # a document without samples
        ([0, 0], [[], [-1, math.nan]], (1.0, 1.0), [1], [0, 1], [(1, 0)]),
        ([0, 0], [[-1], [-1]], (0.0, 1.0), [], [0, 1], []),
        ([], [], (0.3, 0.3), [], [], []),
    ],
)
def test_edges(
    truths: list[float],
    samples: list[list[float]],
    ratios: tuple[float, float],
    negative: list[int],
    positive: list[int],
    pairs: list[tuple[int, int]],
) -> None:
    found = select(truths, samples, negative_ratio=ratios[0], positive_ratio=ratios[1])
    assert found.negative.nonzero()[0].tolist() == negative
    assert found.positive.nonzero()[0].tolist() == positive
    assert found.pairs == pairs


SCORES = st.floats(-3, 1) | st.just(math.nan)


@given(st.lists(st.tuples(SCORES, st.lists(SCORES, max_size=4)), max_size=12), st.floats(0, 1), st.floats(0, 1))
def test_against_plain_sorting(documents: list[tuple[float, list[float]]], low: float, high: float) -> None:
    truths, samples = [truth for truth, _ in documents], [scores for _, scores in documents]
    found = select(truths, samples, negative_ratio=low, positive_ratio=high)
    defined = [(min(s for s in scores if s == s), i) for i, scores in enumerate(samples) if any(s == s for s in scores)]
    assert found.negative.nonzero()[0].tolist() == sorted(i for _, i in sorted(defined)[: round(low * len(documents))])
    best = sorted((-truth, i) for i, truth in enumerate(truths) if truth == truth)
    assert found.positive.nonzero()[0].tolist() == sorted(i for _, i in best[: round(high * len(documents))])
    assert all(samples[i][k] == samples[i][k] for i, k in found.pairs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"negative_ratio": 1.5}, "negative_ratio: must be between 0 and 1"),
        ({"positive_ratio": math.nan}, "positive_ratio: must be between 0 and 1"),
    ],
)
def test_a_ratio_is_a_share(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select([0.0], [[0.0]], **arguments)


def test_every_document_has_a_list_of_samples() -> None:
    with pytest.raises(ValueError, match="got 1 for 2 ground truths"):
        select([0.0, 0.0], [[0.0]])
