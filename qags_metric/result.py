"""What a scoring gives: questions with their answers, summaries, the corpus; read-only, with several readings."""

from __future__ import annotations

from dataclasses import dataclass

from qa_inference.metric_base import CorpusResult, ScoredSummary


@dataclass(frozen=True)
class FoundAnswer:
    """What the reader answered from a text: the text's own characters [start, end).

    Without an answer `text` is "" and both are -1. `confidence` is how far, in logits, the best span's score lies above
    that of no answer: negative without an answer; NaN if the text has no span at all.
    """

    text: str
    start: int
    end: int
    confidence: float


@dataclass(frozen=True)
class QuestionScore:
    """One kept question.

    `answer`, the summary's own characters [start, end), is what it was written to ask for; `summary_answer` and
    `source_answer` are what the reader answered, `f1` how far these two agree, between 0 and 1. `log_prob` is the mean
    log-probability of the question's tokens given the summary, in nats: what the questions are ranked by.
    """

    question: str
    answer: str
    start: int
    end: int
    summary_answer: FoundAnswer
    source_answer: FoundAnswer
    f1: float
    log_prob: float

    @property
    def score(self) -> float:
        """How far the two answers agree: `f1`."""
        return self.f1


@dataclass(frozen=True)
class SummaryScore(ScoredSummary):
    """QAGS of one summary, the mean F1 of its questions, likeliest first; NaN, with the reason in `note`, without any.

    The reasons are "blank summary", "blank source", "no answer candidate" (no name, no noun phrase) and "no question
    kept".
    """

    metric = "qags"
    items_field = "questions"

    score: float
    questions: tuple[QuestionScore, ...]
    note: str = ""

    @property
    def score_01(self) -> float:
        """The score, which is between 0 and 1 as it is; NaN if undefined."""
        return self.score


@dataclass(frozen=True)
class QagsResult(CorpusResult[SummaryScore]):
    """QAGS of a corpus, 0 to 1. Undefined summaries have NaN, are left out of the mean and counted.

    `signature` names all that could change a number. `num_windowed_summaries` counts the distinct summaries that were
    longer than a window of the question generator or of the reader, `num_windowed_sources` the distinct sources that
    were read in more than one window; a source of which nothing was asked is not read.
    """

    kind = SummaryScore

    @property
    def num_questions(self) -> list[int]:
        """How many questions each score is the mean of."""
        return [len(summary.questions) for summary in self.summaries]
