"""One measurement of a model's summaries, shared among the processes of a training run.

Every process generates and scores its share of the documents. Then the processes exchange their scores and failures.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from qa_inference.distributed import process_state, try_on_all

logger = logging.getLogger(__name__)

OnFailure = Literal["stale", "raise"]


class SummaryScorer(Protocol):
    """`QualsScorer`, `QagsScorer`, or an object of the same shape."""

    def score(self, *, summaries: Sequence[str], sources: Sequence[str]) -> Any:
        """A result with `score`, the mean over the defined summaries (NaN: none), `num_undefined` and `summaries`.

        `summaries[i].score` is the score of one summary. If `summaries[i]` has `items`, the questions behind its score
        with a `question`, an `answer` and a `score` each, and a `note`, the samples show them.
        """


@dataclass(frozen=True)
class Sample:
    """A document, its summary, the score (NaN: undefined; `note` says why) and the question with the lowest score."""

    source: str
    summary: str
    score: float
    worst_question: str = ""
    worst_answer: str = ""
    worst_score: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class Measurement:
    """Scores of a sample of documents, the same on every process; `seconds` is the time of the slowest process."""

    score: float
    num_undefined: int
    seconds: float
    samples: tuple[Sample, ...]

    def metrics(self, name: str) -> dict[str, float]:
        """The values for the training log, under keys that begin with `name`.

        All keys but the score's end in `_runtime`. The default objective of `Trainer.hyperparameter_search` is the sum
        of all metrics without that ending.
        """
        return {name: self.score, f"{name}_undefined_runtime": self.num_undefined, f"{name}_runtime": self.seconds}


class MeasuringError(RuntimeError):
    """Generating or scoring failed on a process; raised on all. `seconds` is the lost time, the same on all."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


def measure(
    scorer: SummaryScorer, sources: Sequence[str], summarize: Callable[[Sequence[int]], list[str]]
) -> Measurement:
    """Score a summary of every source. All processes must call, with the same sources.

    Args:
        scorer: a scorer on every process; it may use another device than the model.
        sources: the documents.
        summarize: takes indices of `sources`, this process's share, and returns their summaries.

    Raises:
        MeasuringError: on every process, if `summarize` or `scorer` raised on any; it names the rank and the cause.
    """
    state = process_state()
    share = range(state.process_index, len(sources), state.num_processes)
    outcomes, cause = try_on_all(lambda: _score_share(scorer, sources, share, summarize))
    seconds = max(outcome.seconds for outcome in outcomes)
    if failures := [outcome.failure for outcome in outcomes if outcome.failure]:
        raise MeasuringError(f"scoring the model's summaries failed: {'; '.join(failures)}", seconds) from cause
    return _merge_shares([outcome.value for outcome in outcomes if outcome.value is not None], seconds)


def stale_metrics(name: str, last: dict[str, float] | None, sources: Sequence[str], seconds: float) -> dict[str, float]:
    """The values that replace those of a failed measurement: the last good ones, or NaN if there are none."""
    score, undefined = (math.nan, len(sources)) if last is None else (last[name], last[f"{name}_undefined_runtime"])
    stale = Measurement(score, int(undefined), seconds, ())
    return stale.metrics(name) | {f"{name}_stale_runtime": 1}


def check_on_failure(on_failure: str) -> None:
    """Raise ValueError unless `on_failure` is "stale" or "raise"."""
    if on_failure not in ("stale", "raise"):
        raise ValueError(f"on_failure: must be 'stale' or 'raise'; got {on_failure!r}")


def log_failure(name: str, error: MeasuringError) -> None:
    """Log that the training continues with the last value, and why."""
    logger.warning("%s is not measured this time and the last value stands: %s", name, error, exc_info=error)


@dataclass(frozen=True)
class _ScoredShare:
    """One process's share: the mean score of its defined summaries, and its samples by document index."""

    score: float
    num_defined: int
    num_undefined: int
    samples: dict[int, Sample]


def _score_share(
    scorer: SummaryScorer, sources: Sequence[str], share: range, summarize: Callable[[Sequence[int]], list[str]]
) -> _ScoredShare:
    """Generate and score this process's share; it is empty if there are more processes than documents."""
    if not share:
        return _ScoredShare(math.nan, 0, 0, {})
    documents = [sources[index] for index in share]
    summaries = summarize(share)
    result = scorer.score(summaries=summaries, sources=documents)
    samples = [sample_of(*row) for row in zip(documents, summaries, result.summaries, strict=True)]
    undefined = int(result.num_undefined)
    by_index = dict(zip(share, samples, strict=True))
    return _ScoredShare(float(result.score), len(documents) - undefined, undefined, by_index)


def sample_of(source: str, summary: str, scored: Any) -> Sample:
    """A scored summary as a row of the table of samples."""
    sample = Sample(source, summary, float(scored.score), note=getattr(scored, "note", ""))
    defined = [item for item in getattr(scored, "items", ()) if not math.isnan(item.score)]
    if not defined:
        return sample
    worst = min(defined, key=lambda item: item.score)
    return replace(sample, worst_question=worst.question, worst_answer=worst.answer, worst_score=float(worst.score))


def _merge_shares(shares: Sequence[_ScoredShare], seconds: float) -> Measurement:
    """All shares together: the mean over all defined summaries, the samples in the order of the documents."""
    defined = [share for share in shares if share.num_defined]
    total = math.fsum(share.score * share.num_defined for share in defined)
    score = total / max(1, sum(share.num_defined for share in defined))
    if len(defined) < 2:
        score = defined[0].score if defined else math.nan  # the scorer's own number, to the last digit
    samples = {index: sample for share in shares for index, sample in share.samples.items()}
    in_order = tuple(samples[index] for index in sorted(samples))
    return Measurement(score, sum(share.num_undefined for share in shares), seconds, in_order)
