from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from quals_metric.agreement.statistics import (
    DocumentSample,
    Estimate,
    best_threshold,
    called_consistent,
    pearson,
    roc_auc,
    spearman,
    wins,
)

LABELLED = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=12)


def test_correlations_on_a_known_case() -> None:
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.5, 1.0, 1.0])
    assert pearson(scores, labels) == pytest.approx(np.corrcoef(scores, labels)[0, 1])
    assert spearman(scores, labels) == pytest.approx(0.6324555)  # by hand: ranks 1 3 2 4 and 1 2 3.5 3.5
    assert roc_auc(scores, labels >= 1) == pytest.approx(3 / 4)
    assert roc_auc(np.array([1.0, 1.0, 0.0]), np.array([True, False, False])) == pytest.approx(3 / 4)  # a tie: half
    assert math.isnan(roc_auc(scores, np.ones(4, bool))) and math.isnan(pearson(np.ones(4), labels))
    assert wins(np.array([2.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0])).tolist() == [1, 0.5, 0]


@given(LABELLED)
def test_the_area_is_that_of_scikit_learn(labelled: list[tuple[int, bool]]) -> None:
    scores, good = np.array([score for score, _ in labelled], float), np.array([is_good for _, is_good in labelled])
    if 0 < good.sum() < len(good):
        assert roc_auc(scores, good) == pytest.approx(roc_auc_score(good, scores))


@given(LABELLED)
def test_no_threshold_is_better_than_the_best(labelled: list[tuple[int, bool]]) -> None:
    scores, good = np.array([score for score, _ in labelled], float), np.array([is_good for _, is_good in labelled])
    if 0 < good.sum() < len(good):

        def accuracy(threshold: float) -> float:
            called = scores >= threshold
            return float((called[good].mean() + (~called[~good]).mean()) / 2)

        best = best_threshold(scores, good)
        assert best in scores
        assert accuracy(best) == pytest.approx(max(map(accuracy, scores)))


def test_a_threshold_comes_from_the_other_documents() -> None:
    scores, good = np.array([1.0, 3.0, 2.0, 4.0]), np.array([False, True, False, True])
    assert best_threshold(scores, good) == 3.0
    # The second document's own threshold would be 4, the first's 3: each is used for the other.
    called = called_consistent(scores, good, np.array([0, 0, 1, 1]))
    assert called.tolist() == [False, False, False, True]
    sample = DocumentSample("aabb")
    assert sample.cross_validated_accuracy(scores, good).value == pytest.approx((1 / 2 + 2 / 2) / 2)
    assert math.isnan(DocumentSample("aaaa").cross_validated_accuracy(scores, good).value)


def test_resamples_draw_documents() -> None:
    sample = DocumentSample(["a", "a", "b"])
    values = np.array([1.0, 0.5, 0.0])
    mean = sample.mean(values)
    assert mean.value == pytest.approx(0.5)
    # Two documents are drawn: both, or one of them twice.
    assert {*mean.resampled} == {0.0, 0.5, 0.75}
    assert [values[rows].mean() for rows in sample.row_draws] == pytest.approx(mean.resampled)
    assert mean.interval == (0.0, 0.75)
    # Values of pairs: two of the first document, none of the second.
    pairs = sample.mean(np.array([1.0, 0.0]), rows=np.array([0, 1]))
    assert pairs.value == 0.5 and np.isnan(pairs.resampled).any()
    assert pairs.interval == (0.5, 0.5)
    nothing = sample.mean(np.array([]), rows=np.array([], int))
    assert math.isnan(nothing.value) and all(map(math.isnan, nothing.interval))


def test_differences_are_paired() -> None:
    one = Estimate(0.5, np.array([0.4, 0.6]))
    assert (one - one).value == 0 and (one - one).interval == (0.0, 0.0)
    assert (one - Estimate(0.25, np.array([0.3, 0.3]))).to_dict()["interval"] == pytest.approx([0.105, 0.295])
