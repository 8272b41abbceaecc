"""Results of QAGS for a question, a summary and a corpus. All are read-only."""

from __future__ import annotations

from dataclasses import dataclass

from qa_inference.metric_base.results import CorpusResult, ScoredSummary


@dataclass(frozen=True)
class FoundAnswer:
    """The reader's answer from a text: the text's own characters [start, end).

    Without an answer, `text` is "" and both offsets are -1. `confidence` is the best span's score less the score of no
    answer, in logits. It is negative without an answer, and NaN if the text has no span at all.
    """

    text: str
    start: int
    end: int
    confidence: float


@dataclass(frozen=True)
class QuestionScore:
    """One kept question.

    The question was written to ask for `answer`, the summary's own characters [start, end). `summary_answer` and
    `source_answer` are the reader's answers. `f1` is their agreement, from 0 to 1. `log_prob` is the mean
    log-probability of the question's tokens given the summary, in nats; it ranks the questions. `passage` is the number
    of the passage that `source_answer` is from, counted from 0: that with the most confident answer.
    """

    question: str
    answer: str
    start: int
    end: int
    summary_answer: FoundAnswer
    source_answer: FoundAnswer
    f1: float
    log_prob: float
    passage: int = 0

    @property
    def score(self) -> float:
        """How far the two answers agree: `f1`."""
        return self.f1


@dataclass(frozen=True, repr=False)
class SummaryScore(ScoredSummary):
    """QAGS of one summary: the mean F1 of its questions, which are in order of likelihood.

    Without a question it is NaN, with the reason in `note`: "blank summary", "blank source", "no answer candidate" (no
    name and no noun phrase) or "no question kept". `probability` is that of the scorer's calibration; None without one.
    """

    metric = "qags"
    items_field = "questions"

    score: float
    questions: tuple[QuestionScore, ...]
    note: str = ""
    probability: float | None = None
    text: str = ""

    @property
    def score_01(self) -> float:
        """The score itself, which lies between 0 and 1; NaN if undefined."""
        return self.score


@dataclass(frozen=True, repr=False)
class QagsResult(CorpusResult[SummaryScore]):
    """QAGS of a corpus, from 0 to 1. Undefined summaries have NaN, are left out of the mean and are counted.

    `signature` names everything that could change a number. `num_windowed_summaries` counts the distinct summaries
    that were longer than a window of the question generator or of the reader. `num_windowed_sources` counts the
    distinct sources that were read in more than one window; a source of which nothing is asked is not read.
    """

    kind = SummaryScore

    @property
    def num_questions(self) -> list[int]:
        """How many questions each score is the mean of."""
        return [len(summary.questions) for summary in self.summaries]
