"""What a scoring gives: pairs, summaries, the corpus; read-only, with several readings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qa_inference import results

if TYPE_CHECKING:
    import pandas as pd


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
class SummaryScore:
    """QUALS of one summary, the mean over its pairs; NaN, with the reason in `note`, if it has none."""

    score: float
    pairs: tuple[PairScore, ...]
    note: str = ""

    @property
    def score_01(self) -> float:
        """A monotone view between 0 and 1: `exp(min(score, 0))`; NaN if undefined."""
        return math.exp(min(self.score, 0.0)) if not math.isnan(self.score) else math.nan


@dataclass(frozen=True)
class QualsResult:
    """QUALS of a corpus. Undefined summaries have NaN, are left out of the means and counted.

    `signature` names all that could change a number; `num_windowed_summaries` and `num_windowed_sources` count the
    inputs that were longer than the model's window.
    """

    summaries: tuple[SummaryScore, ...]
    signature: str
    num_windowed_summaries: int = 0
    num_windowed_sources: int = 0

    @property
    def short_signature(self) -> str:
        """`signature` with abbreviated keys, for a table's footnote."""
        return results.short_signature(self.signature)

    @property
    def scores(self) -> list[float]:
        """QUALS per summary, in nats per token; NaN: undefined."""
        return [summary.score for summary in self.summaries]

    @property
    def score(self) -> float:
        """The mean over the defined summaries; NaN if there is none."""
        return results.mean(self.scores)

    @property
    def score_01(self) -> float:
        """The mean of the summaries' 0-to-1 views."""
        return results.mean(summary.score_01 for summary in self.summaries)

    @property
    def num_undefined(self) -> int:
        """How many summaries have no score."""
        return sum(math.isnan(score) for score in self.scores)

    def to_dict(self, pairs: bool = True) -> dict[str, Any]:
        """The result as JSON has it (undefined: None), with or without the pairs."""
        fields = ("score", "score_01", "num_undefined", "num_windowed_summaries", "num_windowed_sources", "signature")
        rows = []
        for summary in self.summaries:
            row: dict[str, Any] = {
                "score": summary.score,
                "score_01": summary.score_01,
                "num_pairs": len(summary.pairs),
            }
            row |= {"note": summary.note} | ({"pairs": [asdict(pair) for pair in summary.pairs]} if pairs else {})
            rows.append(row)
        plain: dict[str, Any] = results.plain({**{name: getattr(self, name) for name in fields}, "summaries": rows})
        return plain

    def to_pandas(self) -> pd.DataFrame:
        """One row per summary: score, score_01, num_pairs, note, pairs. Needs pandas."""
        import pandas as pd

        columns = ["score", "score_01", "num_pairs", "note", "pairs"]
        rows = [(s.score, s.score_01, len(s.pairs), s.note, [asdict(p) for p in s.pairs]) for s in self.summaries]
        return pd.DataFrame(rows, columns=columns)
