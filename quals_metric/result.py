"""What a scoring gives: pairs, summaries, the corpus; read-only, with several readings."""

from __future__ import annotations

from dataclasses import dataclass

from qa_inference.metric_base import CorpusResult, ScoredSummary


@dataclass(frozen=True)
class PairScore:
    """One kept question-answer pair.

    `answer` is the summary's own characters [start, end); `score` is in nats per token, 0 if the source supports the
    pair as well as the summary does. `tokens` are the pair's tokens (question, separator, answer, end) and the two
    lists their log-probabilities in nats given the summary and given the source.
    """

    question: str
    answer: str
    start: int
    end: int
    score: float
    tokens: tuple[str, ...]
    summary_log_probs: tuple[float, ...]
    source_log_probs: tuple[float, ...]


@dataclass(frozen=True)
class SummaryScore(ScoredSummary):
    """QUALS of one summary, the mean over its pairs; NaN, with the reason in `note`, if it has none."""

    metric = "quals"
    items_field = "pairs"

    score: float
    pairs: tuple[PairScore, ...]
    note: str = ""


@dataclass(frozen=True)
class QualsResult(CorpusResult[SummaryScore]):
    """QUALS of a corpus, in nats per token. Undefined summaries have NaN, are left out of the means and counted.

    `signature` names all that could change a number; `num_windowed_summaries` and `num_windowed_sources` count the
    inputs that were longer than the model's window.
    """

    kind = SummaryScore
