"""What a report shows of a score, whichever metric it is of: a summary with the questions about it, in one form.

A scored summary is read from the result in memory or from a row of a score file, which holds the same fields.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qa_inference.metric_base import ScoredSummary

BANDS = ("hardly supported", "weakly supported", "partly supported", "supported")
"""Names of the bands of scores, from the lowest. They are for showing and mean no more than that."""

LIMITS = {"quals": (-2.6, -1.4, -0.8), "qags": (0.25, 0.5, 0.75)}
"""The scores that part the bands.

Of the embedded model's pairs on CNN/DailyMail summaries that people call consistent three in four score above -0.8 and
nineteen in twenty above -1.4; of those on the others one in twenty scores below -2.65 (`benchmarks/agreement.py`). A
summary in words of its own scores lower throughout: on XSum half of the pairs lie below -2.4, consistent or not.
"""


@dataclass(frozen=True)
class Answer:
    """What QAGS's reader answered: the characters [start, end) of the text it read; without an answer "" and -1."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Evidence:
    """One question about a summary.

    `answer` is the summary's characters [start, end). `score` is the pair's (QUALS, nats per token) or the question's
    (QAGS, F1), NaN if undefined. `tokens` and the two lists of log-probabilities in nats are a QUALS pair's, else
    empty; the two answers are a QAGS question's, else None.
    """

    metric: str
    question: str
    answer: str
    start: int
    end: int
    score: float
    tokens: tuple[str, ...] = ()
    summary_log_probs: tuple[float, ...] = ()
    source_log_probs: tuple[float, ...] = ()
    from_summary: Answer | None = None
    from_source: Answer | None = None

    @property
    def band(self) -> int:
        """The number of the score's band, 1 to 4; 0 if undefined."""
        return 0 if math.isnan(self.score) else bisect_right(LIMITS[self.metric], self.score) + 1

    @property
    def word(self) -> str:
        """The band's name."""
        return BANDS[self.band - 1] if self.band else "undefined"


@dataclass(frozen=True)
class Scored:
    """A summary's score, NaN if undefined with the reason in `note`, and the questions behind it."""

    score: float
    score_01: float
    note: str
    evidence: tuple[Evidence, ...]


def of_score(score: ScoredSummary) -> Scored:
    """A summary's part of a result."""
    return of_row(score.row())


def of_row(row: Mapping[str, Any]) -> Scored:
    """A row of a score file that was written with its pairs (QUALS) or questions (QAGS)."""
    found = map(_of_question, row["questions"]) if metric_of(row) == "qags" else map(_of_pair, row["pairs"])
    return Scored(_number(row["score"]), _number(row["score_01"]), row["note"], tuple(found))


def metric_of(row: Mapping[str, Any]) -> str | None:
    """Which metric a row is of, "quals" or "qags"; None if it has neither pairs nor questions."""
    return next((metric for metric, name in (("quals", "pairs"), ("qags", "questions")) if name in row), None)


def _of_pair(pair: Mapping[str, Any]) -> Evidence:
    return Evidence(
        metric="quals",
        question=pair["question"],
        answer=pair["answer"],
        start=pair["start"],
        end=pair["end"],
        score=_number(pair["score"]),
        tokens=tuple(pair["tokens"]),
        summary_log_probs=tuple(map(_number, pair["summary_log_probs"])),
        source_log_probs=tuple(map(_number, pair["source_log_probs"])),
    )


def _of_question(question: Mapping[str, Any]) -> Evidence:
    found = [
        Answer(answer["text"], answer["start"], answer["end"])
        for answer in (question["summary_answer"], question["source_answer"])
    ]
    return Evidence(
        metric="qags",
        question=question["question"],
        answer=question["answer"],
        start=question["start"],
        end=question["end"],
        score=_number(question["f1"]),
        from_summary=found[0],
        from_source=found[1],
    )


def _number(value: float | None) -> float:
    """A number as a file has it: null is NaN."""
    return math.nan if value is None else float(value)
