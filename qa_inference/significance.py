"""How sure a score is: bootstrap intervals, and paired tests of two systems on the same inputs.

The paired bootstrap (Koehn 2004, "Statistical significance tests for machine translation evaluation") and the paired
approximate randomization (Riezler and Maxwell 2005, "On some pitfalls in automatic evaluation and significance testing
for MT") are computed as sacreBLEU's `--paired-bs` and `--paired-ar` compute them, from the same random numbers at the
same seed, so that the p-values agree; with one difference. A resample that differs exactly as much as the systems do
counts as chance here, as in Riezler and Maxwell, and not in sacreBLEU: there a system compared with itself gets the
smallest p-value that can be had, here it gets 1.

The module knows numbers only. Undefined values (NaN) are for the caller to leave out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Statistic = Callable[[Array], float]

SEED = 12345  # sacreBLEU's
RESAMPLES = 1_000
TRIALS = 10_000

_BLOCK = 1 << 22  # numbers held at once
_BITS = 32  # numpy draws booleans 32 at a time; blocks of as many trials draw what one call would
_ROUNDING = 1e-12  # of the sum of all absolute differences: what two ways of adding them up may differ by


@dataclass(frozen=True)
class PairedBootstrap:
    """How sure the difference of two statistics, the second's minus the first's, is.

    `difference` is the one observed, `low` and `high` bound its 95 % interval, `p_value` is two-sided.
    """

    difference: float
    low: float
    high: float
    p_value: float


def mean(values: Array) -> float:
    """The mean; the statistic that all functions here compute fast."""
    return float(np.mean(values))


def bootstrap_interval(
    values: Sequence[float] | Array, statistic: Statistic = mean, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """The 95 % interval of a statistic: its 1/40 and 39/40 quantiles over resamples, as sacreBLEU takes them.

    Args:
        values: one row per segment: numbers, or rows of numbers for a statistic of several, such as a correlation.
        statistic: takes as many rows as `values` has, gives a number; resamples where it is NaN are left out.
        resamples: how often rows are drawn, with replacement.
        seed: of the draws.

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
    statistic: Statistic = mean,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> PairedBootstrap:
    """Both systems' statistics on the same resampled segments, `resamples` times (Koehn 2004).

    The p-value is the share of resamples whose absolute difference lies above the mean absolute difference by the
    observed one or more, the observed one counted among them.

    Args:
        a: the first system, one row per segment, as in `bootstrap_interval`.
        b: the second, on the same segments in the same order.
        statistic: as in `bootstrap_interval`.
        resamples: how many.
        seed: of the draws.

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
    statistic: Statistic = mean,
    trials: int = TRIALS,
    seed: int = SEED,
) -> float:
    """The two-sided p-value of paired approximate randomization (Riezler and Maxwell 2005).

    In a trial every segment's two rows change places with probability 1/2. The p-value is the share of trials whose
    absolute difference is the observed one or more, the observed one counted among them.

    Args:
        a: the first system, one row per segment, as in `bootstrap_interval`.
        b: the second, on the same segments in the same order.
        statistic: as in `bootstrap_interval`.
        trials: how many.
        seed: of the draws.

    Raises:
        ValueError: if a value is NaN, the lengths differ, there are no values, or `trials` is less than 1.
    """
    first, second = _paired(a, b)
    flips = _flips(len(first), trials, seed)
    if statistic is mean and first.ndim == 1:
        # The means differ by the mean of the differences, each with its sign kept or turned.
        difference = (first - second) / len(first)
        total = float(difference.sum())
        sizes = np.concatenate([np.abs(2 * _products(block, difference) - total) for block in flips])
        return _p_value(sizes, abs(total), _ROUNDING * float(np.abs(difference).sum()))
    observed = abs(statistic(first) - statistic(second))
    trial = [_swapped(first, second, flip, statistic) for block in flips for flip in block]
    return _p_value(np.array(trial), observed, _ROUNDING * observed)


def _defined(name: str, values: Sequence[float] | Array) -> Floats:
    rows = np.asarray(values, dtype=np.float64)
    if np.isnan(rows).any():
        raise ValueError(
            f"{name}: must be defined numbers; got {int(np.isnan(rows).sum())} NaN. Leave out undefined values, and "
            f"say how many there were"
        )
    return rows


def _paired(a: Sequence[float] | Array, b: Sequence[float] | Array) -> tuple[Floats, Floats]:
    first, second = _defined("a", a), _defined("b", b)
    if len(first) != len(second):
        raise ValueError(
            f"a and b: must be of the same length, one row per segment; got {len(first)} and {len(second)}. A paired "
            f"test needs both systems on the same segments"
        )
    if not len(first):
        raise ValueError("a and b: must not be empty; got 0 segments. Give at least one that both systems have")
    return first, second


def _positive(name: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"{name}: must be at least 1; got {number}")


def _draws(count: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Blocks of resamples: arrays (some resamples, count) of row numbers."""
    _positive("resamples", resamples)
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // count)
    for start in range(0, resamples, size):
        yield rng.choice(count, size=(min(size, resamples - start), count), replace=True)


def _flips(count: int, trials: int, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Blocks of trials: arrays (some trials, count) of which segments stay."""
    _positive("trials", trials)
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // count // _BITS) * _BITS
    for start in range(0, trials, size):
        yield rng.integers(2, size=(min(size, trials - start), count), dtype=bool)


def _statistics(rows: Floats, statistic: Statistic, draw: npt.NDArray[np.int64]) -> Floats:
    """The statistic of every resample of a block."""
    if statistic is mean and rows.ndim == 1:
        return np.asarray(rows[draw].mean(axis=1))
    return np.array([statistic(rows[numbers]) for numbers in draw], dtype=np.float64)


def _resampled(rows: Floats, statistic: Statistic, draws: Iterator[npt.NDArray[np.int64]]) -> Floats:
    return np.concatenate([_statistics(rows, statistic, draw) for draw in draws])


def _products(block: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """`block @ weights`, a few rows at a time: as float64 a row takes eight times its room."""
    size = max(1, _BLOCK // len(weights))
    parts = [block[start : start + size].astype(np.float64) @ weights for start in range(0, len(block), size)]
    return np.concatenate(parts)


def _swapped(first: Floats, second: Floats, stays: npt.NDArray[np.bool_], statistic: Statistic) -> float:
    """The absolute difference after the rows that do not stay have changed places."""
    mask = stays.reshape(-1, *[1] * (first.ndim - 1))
    return abs(statistic(np.where(mask, first, second)) - statistic(np.where(mask, second, first)))


def _bounds(statistics: Floats) -> tuple[float, float]:
    """The 95 % interval: what is left after a fortieth is cut off at each end."""
    ordered = np.sort(statistics[~np.isnan(statistics)])
    if not len(ordered):
        return math.nan, math.nan
    cut = len(ordered) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def _p_value(sizes: Floats, observed: float, rounding: float) -> float:
    """The share of `sizes` that reach what was observed, itself included: never 0."""
    return (int(np.sum(sizes >= observed - rounding)) + 1) / (len(sizes) + 1)
