"""Results of QUALS for a pair, a summary and a corpus. All are read-only."""

from __future__ import annotations

from dataclasses import dataclass, field

from qa_inference.metric_base.results import CorpusResult, ScoredSummary


@dataclass(frozen=True)
class PairScore:
    """One kept question-answer pair.

    `answer` is the summary's own characters [start, end). `score` is in nats per token: 0 if the source supports the
    pair as well as the summary does. It is the mean difference of the log-probabilities of the tokens that count; with
    `normalize`, times 5 and divided by the information of the summary. `tokens` [L] are the pair's tokens: question,
    separator, answer, end. `summary_log_probs` [L] are the tokens' log-probabilities in nats given the summary, and
    `source_log_probs` [L] those given the source. `passage` is the number of the passage that supports the pair best,
    from 0.
    """

    question: str
    answer: str
    start: int
    end: int
    score: float
    tokens: tuple[str, ...] = field(repr=False)
    summary_log_probs: tuple[float, ...] = field(repr=False)
    source_log_probs: tuple[float, ...] = field(repr=False)
    passage: int = field(default=0, repr=False)


@dataclass(frozen=True, repr=False)
class SummaryScore(ScoredSummary):
    """QUALS of one summary: the mean over its pairs. An undefined score is NaN, with the reason in `note`.

    `probability` is that of the scorer's calibration; None without one.
    """

    metric = "quals"
    items_field = "pairs"

    score: float
    pairs: tuple[PairScore, ...]
    note: str = ""
    probability: float | None = None
    text: str = ""


@dataclass(frozen=True, repr=False)
class QualsResult(CorpusResult[SummaryScore]):
    """QUALS of a corpus, in nats per token. Undefined summaries have NaN, are left out of the means and are counted.

    `signature` names everything that could change a number. `num_windowed_summaries` and `num_windowed_sources` count
    the distinct texts that were longer than the model's window.
    """

    kind = SummaryScore
