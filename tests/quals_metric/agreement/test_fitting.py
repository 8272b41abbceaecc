from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

from qa_inference.calibration import read_calibration
from quals_metric.agreement.fitting import Fit, ScoredSet, fit_calibration, measure_reliability, out_of_fold
from quals_metric.agreement.labelled import LabelledSet
from quals_metric.agreement.page import calibration_page
from quals_metric.agreement.statistics import DocumentSample, Floats
from quals_metric.agreement.tables import reliability_table

SETTINGS = {"model": "embedded@0123456789ab", "groups": 60, "tokens": "all"}


def a_set(name: str, size: int, shift: float, seed: int) -> ScoredSet:
    """Scores s of which the label is 1 with probability 1 / (1 + exp(-2 (s - shift))); three summaries a source."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=size)
    labels = (random.random(size) < 1 / (1 + np.exp(-2 * (scores - shift)))).astype(float)
    sources = [f"{name} {row // 3}" for row in range(size)]
    labelled = LabelledSet(name, "0" * 64, sources, ["x"] * size, labels, labels >= 1, np.empty((0, 2), int))
    return ScoredSet.of(labelled, scores)


def test_the_map_is_scikit_learns_and_a_file_holds_it(tmp_path: Path) -> None:
    one = a_set("one", 300, 0, 1)
    fit = fit_calibration([one], "quals", SETTINGS)
    path = tmp_path / "calibration.json"
    path.write_text(fit.calibration.to_json())
    read = read_calibration(path)
    assert read == fit.calibration and read.digest == fit.calibration.digest
    expected = IsotonicRegression(out_of_bounds="clip").fit(one.scores, one.good)
    points = np.linspace(-6, 6, 101)
    assert [read.probability(point) for point in points] == pytest.approx(expected.predict(points))
    assert math.isnan(read.probability(math.nan))
    assert read.settings == {"model": "embedded@0123456789ab", "groups": "60", "tokens": "all"}
    assert read.about["data"] == [
        {"name": "one", "sha256": "0" * 64, "summaries": 300, "undefined": 0, "sources": 100,
         "consistent": int(one.good.sum())}
    ]  # fmt: skip
    assert read.probability(fit.threshold) == pytest.approx(0.5, abs=1e-9) or read.probability(fit.threshold) > 0.5
    assert read.probability(fit.threshold - 1e-6) < 0.5


def test_reliable_where_the_sets_are_alike_and_not_where_they_differ() -> None:
    """A map fitted to sets in which a score means the same serves the third; one fitted to another set does not."""
    alike = fit_calibration([a_set(name, 600, 0, seed) for seed, name in enumerate("abc")], "quals", SETTINGS)
    assert alike.cross_validated.brier.value < alike.cross_validated.brier_of_share - 0.03
    for left_out in alike.left_out:
        assert left_out.brier.value < left_out.brier_of_share and left_out.calibration_error < 0.1
        assert abs(left_out.mean - left_out.share) < 0.08
    apart = fit_calibration([a_set("low", 600, -2, 1), a_set("high", 600, 2, 2)], "quals", SETTINGS)
    low, high = apart.left_out
    assert (low.name, high.name) == ("low", "high")
    assert low.mean < low.share - 0.4 and high.mean > high.share + 0.4
    assert low.brier.value > low.brier_of_share and high.calibration_error > 0.4


def test_every_set_has_the_same_weight() -> None:
    """Constant scores: the map is the mean of the shares, whatever the sizes."""

    def constant(name: str, size: int, consistent: int) -> ScoredSet:
        labels = np.array([1.0] * consistent + [0.0] * (size - consistent))
        sources = [f"{name} {row}" for row in range(size)]
        labelled = LabelledSet(name, "", sources, ["x"] * size, labels, labels >= 1, np.empty((0, 2), int))
        return ScoredSet.of(labelled, np.zeros(size))

    fit = fit_calibration([constant("a", 10, 5), constant("b", 1000, 100)], "quals", SETTINGS)
    assert fit.calibration.probability(0) == pytest.approx(0.3)
    assert math.isnan(fit.threshold)


def test_probabilities_are_of_summaries_that_the_map_has_not_seen() -> None:
    """Labels that are noise: a map that had seen them would know them; cross-validated, nothing is known."""
    random = np.random.default_rng(5)
    scores, good = random.normal(size=400), random.random(400) < 0.5
    documents = np.arange(400) // 2
    probabilities = out_of_fold(scores, good, np.ones(400), documents)
    reliability = measure_reliability("noise", probabilities, scores, good, DocumentSample(list(documents)))
    assert reliability.brier.value == pytest.approx(brier_score_loss(good, probabilities))
    assert reliability.brier.value > reliability.brier_of_share
    seen = IsotonicRegression().fit(scores, good).predict(scores)
    assert brier_score_loss(good, seen) < reliability.brier_of_share


def test_bins_hold_all_summaries() -> None:
    def bins(probabilities: Floats, good: Floats) -> list[tuple[int, float, float]]:
        sample = DocumentSample(range(len(good)))
        found = measure_reliability("x", probabilities, probabilities, good >= 1, sample).bins
        assert all(each.low <= each.share <= each.high for each in found)
        return [(each.count, round(each.probability, 3), round(each.share, 3)) for each in found]

    assert bins(np.full(4, 0.25), np.array([1.0, 0, 0, 0])) == [(4, 0.25, 0.25)]
    assert bins(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 1, 1, 1])) == [(2, 0.1, 0.5), (2, 0.9, 1.0)]
    random = np.random.default_rng(0)
    found = bins(random.random(1000), random.integers(0, 2, 1000).astype(float))
    assert len(found) == 10 and {count for count, *_ in found} == {100}


def test_undefined_scores_are_left_out_and_counted() -> None:
    whole = a_set("one", 90, 0, 1)
    scores = whole.scores.copy()
    scores[::9] = np.nan
    part = ScoredSet.of(whole.labelled, scores)
    assert len(part.scores) == len(part.sources) == len(part.good) == 80
    assert fit_calibration([part], "quals", SETTINGS).calibration.about["data"][0]["undefined"] == 10


def test_one_source_or_one_kind_is_too_little() -> None:
    labels = np.array([1.0, 0.0])
    pair = LabelledSet("pair", "", ["same", "same"], ["x", "y"], labels, labels >= 1, np.array([[0, 1]]))
    with pytest.raises(ValueError, match=r"two sources or more, .* got 2 of 1 sources, 1 of them consistent"):
        fit_calibration([ScoredSet.of(pair, np.array([1.0, 0.0]))], "quals", SETTINGS)
    with pytest.raises(ValueError, match="got 1 of 1 sources, 1 of them consistent"):
        fit_calibration([ScoredSet.of(pair, np.array([1.0, np.nan]))], "quals", SETTINGS)


def test_a_set_without_a_score_is_named() -> None:
    whole, other = a_set("one", 90, 0, 1), a_set("two", 90, 0, 2)
    empty = ScoredSet.of(other.labelled, np.full(len(other.scores), np.nan))
    with pytest.raises(ValueError, match=r"two: must have a summary with a score; none has\. Leave"):
        fit_calibration([whole, empty], "quals", SETTINGS)


def test_a_page_that_needs_nothing(tmp_path: Path) -> None:
    fit: Fit = fit_calibration([a_set("a<b", 90, 0, 1), a_set("c", 90, 0, 2)], "quals", SETTINGS)
    reliabilities = [fit.cross_validated, *fit.left_out]
    table = reliability_table(reliabilities)
    assert [row[0] for row in table.rows] == ["all, cross-validated", "a<b", "c"]
    page = calibration_page(fit, "x|y").decode()
    assert page.count("<svg") == 3 and page.count("</details>") == 3 and "a&lt;b" in page and "a<b" not in page
    assert not re.search(r"<script|<link|<img|@import|url\(", page)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page) and "Content-Security-Policy" in page
    circles = page.partition("</svg>")[0].count("<circle")
    assert circles == len(fit.cross_validated.bins) > 3
    json.dumps(fit.calibration.about, allow_nan=False)
