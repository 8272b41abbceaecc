"""ROUGE as the score of a collection: the paper's baseline for QUALS."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qa_inference.batching import map_batches
from qa_inference.metric_base.key import installed_version
from qa_inference.metric_base.results import CorpusScores, mean_of_defined
from qa_inference.metric_base.texts import check_texts

KINDS = ("rouge1", "rouge2", "rougeL")
CHARACTERS_PER_BATCH = 1 << 16  # batches are needed only to share the work among processes


@dataclass(frozen=True)
class RougeScore:
    """One text's scores: F1 of ROUGE-1, ROUGE-2 and ROUGE-L, 0 to 1, and `score`, their mean; NaN if undefined."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 RUF100  (the library's name)

    @property
    def score(self) -> float:
        """The mean of the three."""
        return (self.rouge1 + self.rouge2 + self.rougeL) / 3


@dataclass(frozen=True)
class RougeResult(CorpusScores):
    """ROUGE of a corpus. Undefined texts have NaN and are left out of the means."""

    summaries: tuple[RougeScore, ...]
    signature: str

    def mean(self, kind: str) -> float:
        """The mean of one kind: `rouge1`, `rouge2` or `rougeL`."""
        return mean_of_defined(getattr(summary, kind) for summary in self.summaries)


class RougeScorer:
    """The mean of ROUGE-1, ROUGE-2 and ROUGE-L (F1, no stemming), with the methods of `QualsScorer`.

    It uses the library `rouge_score`, from the extra `train`. evaluate's `rouge` wraps the same library with the same
    defaults but has to be loaded from the Hub; per text the two give the same numbers.

    ROUGE compares a summary with a reference, so the `sources` of `score` are ground truths. Collect with
    `CollectionSettings(against="ground_truth", positive_ratio=1.0)`. Every ground truth is its own reference and scores
    1, so S+ has to hold all documents, and only S- selects.

    Raises:
        ImportError: if the library is not installed.
    """

    def __init__(self) -> None:
        try:
            from rouge_score.rouge_scorer import RougeScorer as Library  # type: ignore[import-untyped]  # has no types
        except ImportError as error:
            raise ImportError("ROUGE needs the library rouge_score: pip install 'quals-metric[train]'") from error
        self._library: Any = Library(list(KINDS), use_stemmer=False)

    @cached_property
    def signature(self) -> str:
        """Everything a score depends on, in one line."""
        return f"rouge|kinds:{'+'.join(KINDS)}|stemmer:no|rouge_score:{installed_version('rouge_score')}"

    def score(self, *, summaries: Iterable[str], sources: Iterable[str], spread: bool = False) -> RougeResult:
        """ROUGE of every summary against the reference at the same index; NaN if either is blank.

        `spread` shares the work among processes, as in `QualsScorer.score`. Raises TypeError or ValueError unless both
        are collections of str of equal length.
        """
        pairs = list(zip(*check_texts(summaries, sources), strict=True))
        scores = map_batches(
            lambda batch: [self._score_text(*pair) for pair in batch],
            pairs,
            lambda pair: sum(map(len, pair)),
            token_budget=CHARACTERS_PER_BATCH,
            spread=spread,
        )
        return RougeResult(tuple(scores), self.signature)

    def _score_text(self, summary: str, reference: str) -> RougeScore:
        if not summary.strip() or not reference.strip():
            return RougeScore(math.nan, math.nan, math.nan)
        scores = self._library.score(reference, summary)
        return RougeScore(*(float(scores[kind].fmeasure) for kind in KINDS))
