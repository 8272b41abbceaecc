from __future__ import annotations

import math
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from qa_inference import significance as resampling
from qa_inference.significance import bootstrap_interval, holm, paired_bootstrap, paired_randomization, sample_mean

GOLDEN = Path(__file__).parents[1] / "golden" / "sacrebleu_wmt17_en_de.npz"


def _two_systems(count: int, shift: float, seed: int) -> tuple[list[float], list[float]]:
    """Numbers like scores, the same on every machine."""
    a = [((seed * 7919 + i * 104729) % 1009) / 1009 - 2 for i in range(count)]
    b = [value + shift + (((seed * 31 + i * 7907) % 499) / 499 - 0.5) for i, value in enumerate(a)]
    return a, b


# What sacreBLEU 2.6.0 gives for these systems: _paired_bs_test (1,000 resamples) and _paired_ar_test (10,000 trials) of
# sacrebleu.significance, seed 12345, with a metric whose statistics per segment are (score, 1) and whose score is the
# quotient of their sums. Columns: the systems, the second's mean over resamples and half its interval, both p-values.
SACREBLEU = [
    ((50, 0.05, 1), -1.447295, 0.096540, 0.032967, 0.088791),
    ((50, 0.1, 2), -1.408006, 0.111456, 0.007992, 0.016898),
    ((237, 0.02, 3), -1.497792, 0.052005, 0.183816, 0.505149),
    ((237, -0.03, 4), -1.536822, 0.054249, 0.052947, 0.116688),
    ((1000, 0.02, 5), -1.481953, 0.024624, 0.017982, 0.042296),
    ((1000, -0.001, 6), -1.502765, 0.026126, 0.289710, 0.789421),
]


@pytest.mark.parametrize(("systems", "resampled", "half", "p_bootstrap", "p_randomization"), SACREBLEU)
def test_as_sacrebleu(
    systems: tuple[int, float, int], resampled: float, half: float, p_bootstrap: float, p_randomization: float
) -> None:
    a, b = _two_systems(*systems)
    low, high = bootstrap_interval(b)
    assert (high - low) / 2 == pytest.approx(half, abs=2e-6)  # sacreBLEU adds up in float32
    assert low < resampled < high
    paired = paired_bootstrap(a, b)
    assert paired.p_value == pytest.approx(p_bootstrap, abs=1e-6)
    assert paired.difference == pytest.approx(np.mean(b) - np.mean(a))
    # One of the 10,000 trials of the third case is as large as what was observed; see the module.
    tied = 1 if systems == (237, 0.02, 3) else 0
    assert paired_randomization(a, b) == pytest.approx(p_randomization + tied / 10_001, abs=1e-6)


def _bleu(counts: np.ndarray) -> float:
    """Corpus BLEU of rows (length, length of the reference, 4 x n-grams found, 4 x n-grams): no smoothing needed."""
    total = counts.sum(axis=0)
    precision = math.exp(float(np.log(total[2:6] / total[6:10]).mean()))
    return 100 * precision * math.exp(min(0.0, 1 - total[1] / total[0]))


# sacreBLEU's own cases (test/test_significance.py of its 2.6.0 source archive): systems of WMT 2017 English-German
# against LIUM-NMT, p-values within 0.01 of those of Moses (bootstrap, mean of 3 runs of 2,000) and of multeval
# (approximate randomization, 10,000). The golden file has BLEU's counts per sentence of the systems in that archive.
MOSES = {"FBK.4870": 0.01267, "LMU-nmt-reranked.4934": 0.04383, "online-B.0": 0.38100, "xmu.4910": 0.25483}
MULTEVAL = {"LMU-nmt-reranked.4934": 0.09029, "online-B.0": 0.94111}


@pytest.mark.parametrize("name", MOSES)
def test_published_cases_of_the_paired_bootstrap(name: str) -> None:
    counts = np.load(GOLDEN)
    found = paired_bootstrap(counts["LIUM-NMT.4900"], counts[name], _bleu, resamples=2000)
    assert found.p_value == pytest.approx(MOSES[name], abs=0.01)


@pytest.mark.parametrize("name", MULTEVAL)
def test_published_cases_of_approximate_randomization(name: str) -> None:
    counts = np.load(GOLDEN)
    found = paired_randomization(counts["LIUM-NMT.4900"], counts[name], _bleu)
    assert found == pytest.approx(MULTEVAL[name], abs=0.01)


def test_any_statistic_is_computed_as_the_mean_is() -> None:
    a, b = _two_systems(120, 0.05, 7)
    slow = lambda values: float(values.mean())  # noqa: E731  (three uses, one line)
    assert bootstrap_interval(a, slow) == pytest.approx(bootstrap_interval(a))
    one, other = paired_bootstrap(a, b, slow, resamples=200), paired_bootstrap(a, b, resamples=200)
    assert (one.difference, one.low, one.high, one.p_value) == pytest.approx(
        (other.difference, other.low, other.high, other.p_value)
    )
    assert paired_randomization(a, b, slow, trials=500) == paired_randomization(a, b, trials=500)


def test_a_statistic_of_two_columns() -> None:
    """A correlation of scores with labels: rows are resampled whole."""
    labels = [i % 4 / 3 for i in range(80)]
    good = [(label + noise, label) for label, noise in zip(labels, _two_systems(80, 0, 1)[0], strict=True)]
    bad = [(noise, label) for label, noise in zip(labels, _two_systems(80, 0, 2)[0], strict=True)]
    pearson = lambda rows: float(np.corrcoef(rows.T)[0, 1])  # noqa: E731  (two uses, one line)
    low, high = bootstrap_interval(good, pearson)
    assert 0 < low < pearson(np.array(good)) < high < 1
    found = paired_bootstrap(bad, good, pearson)
    assert found.low > 0 and found.p_value < 0.01
    assert paired_randomization(bad, good, pearson, trials=200) < 0.01


def test_small_samples_exactly() -> None:
    """Against all sign flips there are, of differences with and without ties."""
    for differences in ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1, 0.1], [0.5, -0.25, 0.3, 0.2, 0.05]):
        sums = [
            abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in product((1, -1), repeat=len(differences))
        ]
        exact = sum(value >= abs(sum(differences)) - 1e-12 for value in sums) / len(sums)
        found = paired_randomization(differences, [0.0] * len(differences), trials=20_000)
        assert found == pytest.approx(exact, abs=0.01)


def test_a_system_against_itself() -> None:
    a, _ = _two_systems(30, 0, 1)
    found = paired_bootstrap(a, a)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert paired_randomization(a, a) == 1


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Much data is drawn a block at a time, from the very numbers that one draw would give."""
    a, b = _two_systems(77, 0.02, 3)
    whole = bootstrap_interval(a), paired_bootstrap(a, b), paired_randomization(a, b)
    for block in (1, 100, 5000):
        monkeypatch.setattr(resampling, "_BLOCK", block)
        parts = bootstrap_interval(a), paired_bootstrap(a, b), paired_randomization(a, b)
        assert parts == whole


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.normal(size=60), resamples=400)
        hits += low <= 0 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_p_values_are_uniform_if_there_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    found = [paired_randomization(rng.normal(size=40), rng.normal(size=40), trials=400) for _ in range(300)]
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.09
    assert 0.4 <= np.mean(found) <= 0.6


def test_seeds() -> None:
    a, b = _two_systems(50, 0.05, 1)
    assert bootstrap_interval(a, seed=1) == bootstrap_interval(a, seed=1) != bootstrap_interval(a, seed=2)
    assert paired_randomization(a, b, seed=1) != paired_randomization(a, b, seed=2)


def test_no_values_and_one() -> None:
    assert all(math.isnan(bound) for bound in bootstrap_interval([]))
    assert bootstrap_interval([0.25]) == (0.25, 0.25)
    assert sample_mean(np.array([1.0, 2.0])) == 1.5
    undefined = lambda values: math.nan  # noqa: E731  (one use)
    assert all(math.isnan(bound) for bound in bootstrap_interval([1.0, 2.0], undefined, resamples=5))


def test_wrong_values() -> None:
    with pytest.raises(ValueError, match="values: must be defined numbers; got 1 NaN"):
        bootstrap_interval([1.0, math.nan])
    with pytest.raises(ValueError, match="same length, one row per segment; got 1 and 2"):
        paired_bootstrap([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="must not be empty"):
        paired_randomization([], [])
    with pytest.raises(ValueError, match="resamples: must be an integer of at least 1; got 0"):
        bootstrap_interval([1.0], resamples=0)
    with pytest.raises(ValueError, match="trials: must be an integer of at least 1; got 0"):
        paired_randomization([1.0], [2.0], trials=0)


def test_holm_as_a_closed_test() -> None:
    """The corrected value is the greatest Bonferroni value of all sets of tests that hold the test."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([]) == [] and holm([0.5]) == [0.5]
    for p_values in ([0.03, 0.001, 0.2, 0.03], [0.9, 0.6], [0.04, 0.01, 0.011, 0.3, 1.0]):
        indices = range(len(p_values))
        sets = [chosen for size in indices for chosen in combinations(indices, size + 1)]
        bonferroni = {chosen: min(1.0, len(chosen) * min(p_values[index] for index in chosen)) for chosen in sets}
        expected = [max(value for chosen, value in bonferroni.items() if index in chosen) for index in indices]
        assert holm(p_values) == pytest.approx(expected)
