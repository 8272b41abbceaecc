"""The uncertainty of a score: bootstrap intervals, and paired tests of two systems on the same inputs.

The paired bootstrap (Koehn 2004, "Statistical significance tests for machine translation evaluation") and the paired
approximate randomization (Riezler and Maxwell 2005, "On some pitfalls in automatic evaluation and significance testing
for MT") are computed as by sacreBLEU's `--paired-bs` and `--paired-ar`, from the same random numbers at the same seed,
so that the p-values agree, with one difference. A resample whose difference equals that of the systems counts as chance
here, as in Riezler and Maxwell; in sacreBLEU it does not. There a system compared with itself gets the smallest
possible p-value; here it gets 1.

The module sees numbers only. The caller leaves out undefined values (NaN).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qa_inference.checks import integer_from

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Statistic = Callable[[Array], float]

SEED = 12345  # sacreBLEU's
RESAMPLES = 1_000
TRIALS = 10_000

_BLOCK = 1 << 22  # the most numbers in memory at once
_BITS = 32  # numpy draws booleans 32 at a time; blocks of so many trials draw the same as a single call
_ROUNDING = 1e-12  # the rounding error of a sum, relative to the sum of the absolute values


@dataclass(frozen=True)
class PairedBootstrap:
    """The difference of two statistics, the second minus the first, and its uncertainty.

    `difference` is the observed one, `low` and `high` bound its 95 % interval, `p_value` is two-sided.
    """

    difference: float
    low: float
    high: float
    p_value: float


def sample_mean(values: Array) -> float:
    """The mean, NaN if any value is NaN; all functions here have a fast path for this statistic."""
    return float(np.mean(values))


def bootstrap_interval(
    values: Sequence[float] | Array, statistic: Statistic = sample_mean, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """The 95 % interval of a statistic: its 1/40 and 39/40 quantiles over resamples, as in sacreBLEU.

    Args:
        values: one row per segment: a number, or several numbers for a statistic such as a correlation.
        statistic: takes as many rows as `values` has, returns a number; resamples where it is NaN are left out.
        resamples: the number of times that all rows are drawn, with replacement.
        seed: the seed of the draws.

    Returns:
        The lower and the upper bound; NaN if there are no values, or no defined statistic.

    Raises:
        ValueError: if a value is NaN, or `resamples` is less than 1.
    """
    rows = _defined("values", values)
    if not len(rows):
        return math.nan, math.nan
    return _bounds(_resampled(rows, statistic, _draws(len(rows), resamples, seed)))


def paired_bootstrap(
    a: Sequence[float] | Array,
    b: Sequence[float] | Array,
    statistic: Statistic = sample_mean,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> PairedBootstrap:
    """The paired bootstrap (Koehn 2004): the statistics of both systems on the same resampled segments.

    The p-value is the share of resamples whose absolute difference exceeds the mean absolute difference by at least the
    observed difference. The observed difference counts as one more resample.

    Args:
        a: the first system, one row per segment, as in `bootstrap_interval`.
        b: the second, on the same segments in the same order.
        statistic: as in `bootstrap_interval`.
        resamples: the number of resamples.
        seed: the seed of the draws.

    Raises:
        ValueError: if a value is NaN, the lengths differ, there are no values, or `resamples` is less than 1.
    """
    first, second = _paired(a, b)
    observed = statistic(second) - statistic(first)
    differences = np.concatenate(
        [
            _statistics(second, statistic, draw) - _statistics(first, statistic, draw)
            for draw in _draws(len(first), resamples, seed)
        ]
    )
    differences = differences[~np.isnan(differences)]
    sizes = np.abs(differences)
    excess = sizes - (sizes.mean() if len(sizes) else 0.0)
    low, high = _bounds(differences)
    return PairedBootstrap(observed, low, high, _p_value(excess, abs(observed), _ROUNDING * abs(observed)))


def paired_randomization(
    a: Sequence[float] | Array,
    b: Sequence[float] | Array,
    statistic: Statistic = sample_mean,
    trials: int = TRIALS,
    seed: int = SEED,
) -> float:
    """The two-sided p-value of paired approximate randomization (Riezler and Maxwell 2005).

    In a trial every segment's two rows are exchanged with probability 1/2. The p-value is the share of trials whose
    absolute difference is at least the observed one. The observed difference counts as one more trial.

    Args:
        a: the first system, one row per segment, as in `bootstrap_interval`.
        b: the second, on the same segments in the same order.
        statistic: as in `bootstrap_interval`.
        trials: the number of trials.
        seed: the seed of the draws.

    Raises:
        ValueError: if a value is NaN, the lengths differ, there are no values, or `trials` is less than 1.
    """
    first, second = _paired(a, b)
    flips = _flips(len(first), trials, seed)
    if statistic is sample_mean and first.ndim == 1:
        # The difference of the means is the mean of the differences, each with its sign kept or changed.
        difference = (first - second) / len(first)
        total = float(difference.sum())
        sizes = np.concatenate([np.abs(2 * _products(block, difference) - total) for block in flips])
        return _p_value(sizes, abs(total), _ROUNDING * float(np.abs(difference).sum()))
    observed = abs(statistic(first) - statistic(second))
    trial = [_swapped(first, second, flip, statistic) for block in flips for flip in block]
    return _p_value(np.array(trial), observed, _ROUNDING * observed)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for the number of tests (Holm 1979), in the order given.

    The smallest of n is multiplied by n, the next by n - 1, and so on. No corrected value is smaller than the one
    before it, or greater than 1. The probability of any false finding among the tests then stays below the chosen
    level.

    Args:
        p_values: the p-values of the tests.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _defined(name: str, values: Sequence[float] | Array) -> Floats:
    rows = np.asarray(values, dtype=np.float64)
    if np.isnan(rows).any():
        raise ValueError(
            f"{name}: must be defined numbers; got {int(np.isnan(rows).sum())} NaN. Leave out undefined values, and "
            f"report how many there were"
        )
    return rows


def _paired(a: Sequence[float] | Array, b: Sequence[float] | Array) -> tuple[Floats, Floats]:
    first, second = _defined("a", a), _defined("b", b)
    if len(first) != len(second):
        raise ValueError(
            f"a and b: must have the same length, one row per segment; got {len(first)} and {len(second)}. A paired "
            f"test needs both systems on the same segments"
        )
    if not len(first):
        raise ValueError("a and b: must not be empty; got 0 segments. Give at least one that both systems have")
    return first, second


def _draws(count: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Resamples in blocks [resamples, count] of row indices."""
    integer_from(1)("resamples", resamples)
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // count)
    for start in range(0, resamples, size):
        yield rng.choice(count, size=(min(size, resamples - start), count), replace=True)


def _flips(count: int, trials: int, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Trials in blocks [trials, count]: true where a segment's rows stay, false where they are exchanged."""
    integer_from(1)("trials", trials)
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // count // _BITS) * _BITS
    for start in range(0, trials, size):
        yield rng.integers(2, size=(min(size, trials - start), count), dtype=bool)


def _statistics(rows: Floats, statistic: Statistic, draw: npt.NDArray[np.int64]) -> Floats:
    """The statistic [resamples] of a block of resamples [resamples, count]."""
    if statistic is sample_mean and rows.ndim == 1:
        return np.asarray(rows[draw].mean(axis=1))
    return np.array([statistic(rows[numbers]) for numbers in draw], dtype=np.float64)


def _resampled(rows: Floats, statistic: Statistic, draws: Iterator[npt.NDArray[np.int64]]) -> Floats:
    return np.concatenate([_statistics(rows, statistic, draw) for draw in draws])


def _products(block: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """`block @ weights` a few rows at a time, because a row of float64 takes eight times its memory."""
    size = max(1, _BLOCK // len(weights))
    parts = [block[start : start + size].astype(np.float64) @ weights for start in range(0, len(block), size)]
    return np.concatenate(parts)


def _swapped(first: Floats, second: Floats, stays: npt.NDArray[np.bool_], statistic: Statistic) -> float:
    """The absolute difference after the rows that do not stay are exchanged."""
    mask = stays.reshape(-1, *[1] * (first.ndim - 1))
    return abs(statistic(np.where(mask, first, second)) - statistic(np.where(mask, second, first)))


def _bounds(statistics: Floats) -> tuple[float, float]:
    """The 95 % interval: the ends after a fortieth of the values is cut off on either side."""
    ordered = np.sort(statistics[~np.isnan(statistics)])
    if not len(ordered):
        return math.nan, math.nan
    cut = len(ordered) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def _p_value(sizes: Floats, observed: float, rounding: float) -> float:
    """The share of `sizes` that reach the observed size, which counts as one of them; it is never 0."""
    return (int(np.sum(sizes >= observed - rounding)) + 1) / (len(sizes) + 1)
