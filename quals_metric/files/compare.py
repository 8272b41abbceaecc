"""Compare two systems' scores on the same sources: is the difference more than chance?"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from qa_inference.metric_base import json_ready, mean_of_defined
from qa_inference.significance import (
    RESAMPLES,
    SEED,
    TRIALS,
    bootstrap_interval,
    paired_bootstrap,
    paired_randomization,
)
from quals_metric.files.shards import sidecar
from quals_metric.files.tables import records

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
class ScoreFile:
    """A file that `quals score` wrote: its scores (NaN: undefined), its sources if they were kept, its sidecar."""

    path: Path
    scores: tuple[float, ...]
    sources: tuple[str, ...] | None
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
    files = read_scores(a, source), read_scores(b, source)
    check_metric(*files, metric)
    check_same(*files, source)
    comparison = compare(files[0].scores, files[1].scores, **options)
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
        sources.append(columns.get(source))
    kept = [text for text in sources if isinstance(text, str)]
    about = _about(path, len(scores))
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


def _about(path: Path, rows: int) -> Mapping[str, Any]:
    """A file's sidecar; empty if there is none, or if it describes another number of rows."""
    try:
        about = json.loads(sidecar(path).read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{sidecar(path)}: must be JSON; {error}. Delete it, or score {path} again") from error
    return about if isinstance(about, dict) and about.get("rows") == rows else {}


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)
