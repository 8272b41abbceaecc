"""One measurement of a model's summaries, shared out over the processes of a training run.

Every process generates and scores its share of the documents; then all learn all scores, and any failure.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from accelerate.utils import gather_object

from qa_inference.distributed import processes

logger = logging.getLogger(__name__)

OnFailure = Literal["stale", "raise"]


class Scorer(Protocol):
    """`QualsScorer`, `QagsScorer`, or anything of their shape."""

    def score(self, *, summaries: Sequence[str], sources: Sequence[str]) -> Any:
        """A result with `score`, the mean over the defined summaries (NaN: none), `num_undefined` and `summaries`.

        `summaries[i].score` is one summary's score; `pairs` and `note`, where it has them, are shown.
        """


@dataclass(frozen=True)
class Sample:
    """A document, its summary, the score (NaN: undefined, `note` says why) and the pair with the lowest score."""

    source: str
    summary: str
    score: float
    worst_question: str = ""
    worst_answer: str = ""
    worst_score: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class Measurement:
    """Scores of a sample of documents, the same on every process; `seconds` are those of the slowest."""

    score: float
    num_undefined: int
    seconds: float
    samples: tuple[Sample, ...]

    def metrics(self, name: str) -> dict[str, float]:
        """What a training log has of it, under keys that begin with `name`."""
        return {name: self.score, f"{name}_undefined": self.num_undefined, f"{name}_seconds": self.seconds}


class MeasuringError(RuntimeError):
    """Generating or scoring failed on some process; raised on all. `seconds` were lost, the same on all."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


def measure(scorer: Scorer, sources: Sequence[str], summarize: Callable[[Sequence[int]], list[str]]) -> Measurement:
    """Score a summary of every source. All processes must call, with the same sources.

    Args:
        scorer: on every process; it may be on another device than the model.
        sources: the documents.
        summarize: gives the summaries of the sources at some places, this process's share of them.

    Raises:
        MeasuringError: on every process, if `summarize` or `scorer` raised on any; it names the rank and the cause.
    """
    state = processes()
    begin = time.monotonic()
    part, cause = None, None
    try:
        part = _part(scorer, sources, range(state.process_index, len(sources), state.num_processes), summarize)
    except Exception as error:
        cause = error
    failure = "" if cause is None else f"{type(cause).__name__}: {cause}".removesuffix(": ")
    told = gather_object([(part, failure, time.monotonic() - begin)])
    seconds = max(lost for _, _, lost in told)
    failures = [f"rank {rank} raised {failure}" for rank, (_, failure, _) in enumerate(told) if failure]
    if failures:
        raise MeasuringError(f"scoring the model's summaries failed: {'; '.join(failures)}", seconds) from cause
    return _whole([part for part, _, _ in told], seconds)


def stale_metrics(name: str, last: dict[str, float] | None, sources: Sequence[str], seconds: float) -> dict[str, float]:
    """What stands in for a failed measurement: the last good one's values; NaN where there was none."""
    score, undefined = (math.nan, len(sources)) if last is None else (last[name], last[f"{name}_undefined"])
    return {name: score, f"{name}_undefined": undefined, f"{name}_seconds": seconds, f"{name}_stale": 1}


def check_on_failure(on_failure: str) -> None:
    """Raise ValueError unless it is one of the two ways."""
    if on_failure not in ("stale", "raise"):
        raise ValueError(f"on_failure: must be 'stale' or 'raise'; got {on_failure!r}")


def log_failure(name: str, error: MeasuringError) -> None:
    """Say that the training goes on without a new value, and why."""
    logger.warning("%s is not measured this time and the last value stands: %s", name, error, exc_info=error)


@dataclass(frozen=True)
class _Part:
    """One process's share: the score over its defined summaries, and its samples by their places."""

    score: float
    defined: int
    undefined: int
    samples: dict[int, Sample]


def _part(
    scorer: Scorer, sources: Sequence[str], places: range, summarize: Callable[[Sequence[int]], list[str]]
) -> _Part:
    """Generate and score this process's share; there is none if there are more processes than documents."""
    if not places:
        return _Part(math.nan, 0, 0, {})
    mine = [sources[place] for place in places]
    summaries = summarize(places)
    result = scorer.score(summaries=summaries, sources=mine)
    samples = [_sample(*row) for row in zip(mine, summaries, result.summaries, strict=True)]
    undefined = int(result.num_undefined)
    return _Part(float(result.score), len(mine) - undefined, undefined, dict(zip(places, samples, strict=True)))


def _sample(source: str, summary: str, scored: Any) -> Sample:
    """One row of the table of samples, from whatever the scorer tells of a summary."""
    pairs = [pair for pair in getattr(scored, "pairs", ()) if not math.isnan(getattr(pair, "score", math.nan))]
    worst = min(pairs, key=lambda pair: pair.score, default=None)
    sample = Sample(source, summary, float(scored.score), note=getattr(scored, "note", ""))
    if worst is None:
        return sample
    question, answer = (getattr(worst, name, "") for name in ("question", "answer"))
    return replace(sample, worst_question=question, worst_answer=answer, worst_score=float(worst.score))


def _whole(parts: Sequence[_Part], seconds: float) -> Measurement:
    """All shares as one: the mean over all defined summaries, the samples in the documents' order."""
    defined = [part for part in parts if part.defined]
    score = math.fsum(part.score * part.defined for part in defined) / max(1, sum(part.defined for part in defined))
    if len(defined) < 2:
        score = defined[0].score if defined else math.nan  # the scorer's own, to the last digit
    by_place = {place: sample for part in parts for place, sample in part.samples.items()}
    samples = tuple(by_place[place] for place in sorted(by_place))
    return Measurement(score, sum(part.undefined for part in parts), seconds, samples)
