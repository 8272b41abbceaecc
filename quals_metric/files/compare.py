"""Compare the scores of two or more systems on the same sources: is a difference more than chance?"""

from __future__ import annotations

import math
import string
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, zip_longest
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
from quals_metric.files.shards import read_sidecar, sidecar
from quals_metric.files.tables import Source, as_source, records

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


@dataclass(frozen=True)
class ScoreFile:
    """A file that `quals score` wrote: its scores (NaN: undefined), its sources if they were kept, its sidecar."""

    path: Path
    scores: tuple[float, ...]
    sources: tuple[Source, ...] | None
    about: Mapping[str, Any]

    @property
    def metric(self) -> str | None:
        """The metric of the scores; None if it is unknown."""
        return self.about.get("metric")


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


def read_comparable(
    paths: Sequence[str | Path], *, metric: str | None = None, source: str = "source"
) -> list[ScoreFile]:
    """Read files that `quals score` wrote, if all can be compared; see `compare_files`."""
    files: list[ScoreFile] = []
    for path in paths:
        files.append(read_scores(path, source))
        if len(files) > 1:
            check_metric(files[0], files[-1], metric)
            check_same(files[0], files[-1], source)
    return files


def compare_score_files(files: Sequence[ScoreFile], **options: int) -> SystemsComparison:
    """Compare files that `read_comparable` has read; `options` are those of `compare`.

    Warns:
        UserWarning: if fewer than `FEWEST_ROWS` rows are compared.
    """
    comparison = compare_systems([file.scores for file in files], **options)
    if comparison.num_rows < FEWEST_ROWS:
        _warn(
            f"only {comparison.num_rows} rows are compared: below {FEWEST_ROWS} rows the tests and the intervals mean "
            f"little. With {comparison.num_rows} rows, randomization gives a p of at least "
            f"{min(1.0, 2 / 2**comparison.num_rows):.2g}, and the bootstrap's p is too small"
        )
    return comparison


def read_scores(path: str | Path, source: str = "source") -> ScoreFile:
    """Read the column `score` of a file, and the column `source` if the file has it.

    Raises:
        ValueError: if a row has no score, or one that is neither a number nor null.
        OSError: if the file cannot be read.
    """
    path = Path(path)
    scores, sources = [], []
    for location, columns in records(path):
        is_text = path.name.lower().endswith((".csv", ".csv.gz"))
        scores.append(number_in(columns, "score", location, is_text=is_text, remedy="Is it of `quals score`?"))
        sources.append(as_source(columns.get(source)))
    kept = [text for text in sources if text is not None]
    about = read_sidecar(path, len(scores))
    return ScoreFile(path, tuple(scores), tuple(kept) if kept and len(kept) == len(scores) else None, about)


def number_in(columns: Mapping[str, Any], name: str, location: str, *, is_text: bool, remedy: str) -> float:
    """The number in a column of a row; NaN for a null.

    `is_text`: all cells are text, as in CSV, and a null is an empty cell. Raises ValueError, with the remedy, if the
    row lacks the column or holds anything else in it.
    """
    value: Any = columns.get(name, "a row without it")
    try:
        if value is None or (is_text and value == ""):
            return math.nan
        number = float(value) if is_text or (isinstance(value, int | float) and not isinstance(value, bool)) else None
        if number is not None and math.isfinite(number):
            return number
    except (ValueError, OverflowError):
        pass
    got = f"{value!r:.40}" if name in columns else value
    raise ValueError(f"{location}: column {name!r} must be a number or null; got {got}. {remedy}")


def check_metric(a: ScoreFile, b: ScoreFile, metric: str | None = None) -> None:
    """Raise ValueError if two files are known to be of different metrics, or of a metric other than `metric`."""
    known = [file.metric for file in (a, b) if file.metric is not None]
    if len({*known, *([] if metric is None else [str(metric)])}) > 1:
        wanted = "the same metric" if metric is None else metric
        metrics = ", ".join(f"{file.path} has those of {file.metric or 'an unknown one'}" for file in (a, b))
        raise ValueError(f"{a.path} and {b.path}: must be scores of {wanted}; {metrics}. Score both systems by it")


def check_same(a: ScoreFile, b: ScoreFile, source: str = "source") -> None:
    """Raise ValueError unless two files are of the same sources; warn if that or the signatures cannot be compared."""
    if len(a.scores) != len(b.scores):
        raise ValueError(
            f"{a.path} and {b.path}: must have the same rows; they have {len(a.scores)} and {len(b.scores)}. Score "
            f"both systems on the same sources"
        )
    digests = a.about.get("sources"), b.about.get("sources")
    if a.sources is not None and b.sources is not None:
        pairs = enumerate(zip_longest(a.sources, b.sources), 1)
        different = next((f"; row {number} differs" for number, (first, second) in pairs if first != second), None)
    elif None not in digests:
        different = None if digests[0] == digests[1] else ""
    else:
        different = None
        _warn(f"{a.path} and {b.path}: it is unknown if they have the same sources. Keep the column {source!r}")
    if different is not None:
        raise ValueError(
            f"{a.path} and {b.path}: must be scores of the same sources in the same order{different}. Score both "
            f"systems on the same sources"
        )
    _check_signatures(a, b)


def _check_signatures(a: ScoreFile, b: ScoreFile) -> None:
    signatures = [file.about.get("signature") for file in (a, b)]
    unknown = [str(file.path) for file, signature in zip((a, b), signatures, strict=True) if signature is None]
    if unknown:
        _warn(
            f"{' and '.join(unknown)}: the signature is unknown, as there is no {sidecar(Path('NAME')).name} beside it"
        )
    elif signatures[0] != signatures[1]:
        _warn(
            f"the signatures differ, so the scores may not be comparable: {signatures[0]} of {a.path}, "
            f"{signatures[1]} of {b.path}"
        )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)
