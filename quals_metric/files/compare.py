"""Compare the scores of two or more systems on the same sources: is a difference more than chance?"""

from __future__ import annotations

import math
import string
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from qa_inference.metric_base.results import json_ready, mean_of_defined
from qa_inference.significance import (
    RESAMPLES,
    SEED,
    TRIALS,
    bootstrap_interval,
    holm,
    paired_bootstrap,
    paired_randomization,
)
from quals_metric.files.scored_files import ScoreFile, read_comparable

# With fewer rows the paired bootstrap finds a difference (p < .05) where there is none in one case of five.
FEWEST_ROWS = 10


@dataclass(frozen=True)
class SystemScore:
    """A system's mean score and the bounds of its 95 % bootstrap interval; NaN if no row is defined."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two systems, `a` and `b`, over the rows where both have a score.

    `difference` is the mean of b minus that of a, with its 95 % interval [low, high]. `p_bootstrap` and
    `p_randomization` are two-sided p-values, by resampling the rows and by exchanging the systems in random rows.
    `num_rows` rows were compared. `num_undefined` rows were left out because a or b is undefined there.
    """

    a: SystemScore
    b: SystemScore
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_randomization: float
    num_rows: int
    num_undefined: int
    resamples: int
    trials: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict for JSON. An undefined number is None."""
        plain: dict[str, Any] = json_ready(asdict(self))
        return plain


@dataclass(frozen=True)
class PairOfSystems:
    """Two of several systems by their names, and their comparison.

    `p_holm` is the p-value of its randomization test after Holm's correction for the number of pairs.
    """

    a: str
    b: str
    comparison: Comparison
    p_holm: float


@dataclass(frozen=True)
class SystemsComparison:
    """Several systems over the rows where all have a score.

    `systems` has the mean of each, by the names a, b, c, … in the order given. `pairs` has every two of them.
    `undefined` has the number of rows where a system has no score. `num_rows` rows were compared. `num_undefined` rows
    were left out because a system is undefined there.
    """

    systems: Mapping[str, SystemScore]
    pairs: tuple[PairOfSystems, ...]
    undefined: Mapping[str, int]
    num_rows: int
    num_undefined: int
    resamples: int
    trials: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict for JSON. An undefined number is None."""
        of_pair = ("difference", "low", "high", "p_bootstrap", "p_randomization")
        of_all = ("num_rows", "num_undefined", "resamples", "trials", "seed")
        plain: dict[str, Any] = json_ready(
            {
                "systems": {
                    name: {**asdict(system), "num_undefined": self.undefined[name]}
                    for name, system in self.systems.items()
                },
                "pairs": [
                    {"a": pair.a, "b": pair.b, **{name: getattr(pair.comparison, name) for name in of_pair}}
                    | {"p_holm": pair.p_holm}
                    for pair in self.pairs
                ],
                **{name: getattr(self, name) for name in of_all},
            }
        )
        return plain


def compare(
    a: Sequence[float],
    b: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    seed: int = SEED,
) -> Comparison:
    """Compare two systems' scores of the same sources, row by row.

    Args:
        a: the score of the first system for every row; NaN where undefined.
        b: the scores of the second system, in the same order.
        resamples: number of resamples of the paired bootstrap (Koehn 2004) and of the intervals.
        trials: number of trials of the paired approximate randomization (Riezler and Maxwell 2005).
        seed: seed of the resamples and of the trials.

    Raises:
        ValueError: if the lengths differ, no row is defined for both, or a number of resamples or trials is below 1.
    """
    if len(a) != len(b):
        raise ValueError(
            f"a and b: must have a score for the same rows; got {len(a)} and {len(b)}. Score both systems on the same "
            f"sources"
        )
    both = [pair for pair in zip(a, b, strict=True) if not any(map(math.isnan, pair))]
    if not both:
        raise ValueError(f"a and b: must have a row where both are defined; of {len(a)} rows there is none")
    first, second = ([float(pair[side]) for pair in both] for side in (0, 1))
    systems = [
        SystemScore(mean_of_defined(scores), *bootstrap_interval(scores, resamples=resamples, seed=seed))
        for scores in (first, second)
    ]
    paired = paired_bootstrap(first, second, resamples=resamples, seed=seed)
    return Comparison(
        a=systems[0],
        b=systems[1],
        difference=paired.difference,
        low=paired.low,
        high=paired.high,
        p_bootstrap=paired.p_value,
        p_randomization=paired_randomization(first, second, trials=trials, seed=seed),
        num_rows=len(both),
        num_undefined=len(a) - len(both),
        resamples=resamples,
        trials=trials,
        seed=seed,
    )


def compare_systems(scores: Sequence[Sequence[float]], **options: int) -> SystemsComparison:
    """Compare the scores of several systems on the same sources, every two of them on the rows where all are defined.

    Args:
        scores: for each of 2 to 26 systems, the score of every row; NaN where undefined.
        **options: those of `compare`.

    Raises:
        ValueError: as `compare`, or if there are fewer or more systems.
    """
    if not 2 <= len(scores) <= len(string.ascii_lowercase):
        raise ValueError(f"systems: must be 2 to {len(string.ascii_lowercase)}; got {len(scores)}. Name their files")
    if len(lengths := {len(of_system) for of_system in scores}) > 1:
        raise ValueError(
            f"scores: must be of the same rows for all systems; got {', '.join(map(str, sorted(lengths)))}. Score all "
            f"systems on the same sources"
        )
    is_left_out = [any(map(math.isnan, row)) for row in zip(*scores, strict=True)]
    common = [
        [math.nan if out else float(score) for score, out in zip(of_system, is_left_out, strict=True)]
        for of_system in scores
    ]
    names = string.ascii_lowercase[: len(scores)]
    of_pairs = {
        (names[a], names[b]): compare(common[a], common[b], **options) for a, b in combinations(range(len(scores)), 2)
    }
    corrected = holm([comparison.p_randomization for comparison in of_pairs.values()])
    first = of_pairs["a", "b"]
    return SystemsComparison(
        systems={"a": first.a, **{name: of_pairs["a", name].b for name in names[1:]}},
        pairs=tuple(
            PairOfSystems(a, b, comparison, p_holm)
            for ((a, b), comparison), p_holm in zip(of_pairs.items(), corrected, strict=True)
        ),
        undefined={name: sum(map(math.isnan, of_system)) for name, of_system in zip(names, scores, strict=True)},
        num_rows=first.num_rows,
        num_undefined=first.num_undefined,
        resamples=first.resamples,
        trials=first.trials,
        seed=first.seed,
    )


def compare_files(
    a: str | Path, b: str | Path, *, metric: str | None = None, source: str = "source", **options: int
) -> Comparison:
    """Compare two files that `quals score` wrote; `options` are those of `compare`.

    `metric` is the metric that the scores must be of; None: any metric, the same in both files.

    The sources are compared by the column `source` if both files have it, else by the digests in their sidecars. A
    warning says if neither is possible.

    Raises:
        ValueError: if a file has no scores, or the files differ in their metric, sources or number of rows.
        OSError: if a file cannot be read.

    Warns:
        UserWarning: if the signatures differ or are unknown, the sources cannot be compared, or fewer than
            `FEWEST_ROWS` rows are compared.
    """
    return compare_score_files(read_comparable([a, b], metric=metric, source=source), **options).pairs[0].comparison


def compare_score_files(files: Sequence[ScoreFile], **options: int) -> SystemsComparison:
    """Compare files that `read_comparable` has read; `options` are those of `compare`.

    Warns:
        UserWarning: if fewer than `FEWEST_ROWS` rows are compared.
    """
    comparison = compare_systems([file.scores for file in files], **options)
    if comparison.num_rows < FEWEST_ROWS:
        warnings.warn(
            f"only {comparison.num_rows} rows are compared: below {FEWEST_ROWS} rows the tests and the intervals mean "
            f"little. With {comparison.num_rows} rows, randomization gives a p of at least "
            f"{min(1.0, 2 / 2**comparison.num_rows):.2g}, and the bootstrap's p is too small",
            UserWarning,
            stacklevel=3,
        )
    return comparison
