"""A scorer that needs no model: these tests are about what surrounds the arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest
import torch

import quals_metric.metric
import quals_metric.scorer
from qa_inference.evaluate_metric import loaded
from quals_metric.config import QualsConfig
from quals_metric.result import PairScore, QualsResult, SummaryScore


class FakeScorer:
    """Asks one question, about the first word; the score is 0 if the source or a passage has that word, else -1."""

    made: list[QualsConfig]
    loaded: list[QualsConfig]

    def __init__(self, config: QualsConfig | None = None, *, model: object = None, searcher: object = None) -> None:
        config = config or QualsConfig()
        FakeScorer.made.append(config)
        self.config = config.settings

    @classmethod
    def load(cls, config: QualsConfig) -> SimpleNamespace:
        """Something with a type, in place of a model."""
        cls.loaded.append(config)
        return SimpleNamespace(model=SimpleNamespace(dtype=getattr(torch, config.dtype or "float32")))

    def score(
        self, *, summaries: Sequence[str], sources: Sequence[str] = (), contexts: Sequence[Sequence[str]] | None = None
    ) -> QualsResult:
        scores = tuple(map(self._one, summaries, contexts or [[source] for source in sources]))
        return QualsResult(scores, f"fake:{self.config.tokens}")

    def _one(self, summary: str, passages: Sequence[str]) -> SummaryScore:
        if not summary.strip():
            return SummaryScore(math.nan, (), "blank summary", text=summary)
        word = summary.split()[0]
        having = [number for number, passage in enumerate(passages) if word in passage]
        score = 0.0 if having else -1.0
        pair = PairScore(
            question="What is the first word?",
            answer=word,
            start=summary.index(word),
            end=summary.index(word) + len(word),
            score=score,
            tokens=("?", word),
            summary_log_probs=(-1.0, -1.0),
            source_log_probs=(-1.0 + score, -1.0 + score),
            passage=having[0] if having else 0,
        )
        return SummaryScore(score, (pair,), text=summary)


@pytest.fixture
def fake_scorer(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeScorer]]:
    """Put the fake where the metric and the command find their scorer."""
    FakeScorer.made, FakeScorer.loaded = [], []
    loaded.cache_clear()
    monkeypatch.setattr(quals_metric.metric, "load_model", FakeScorer.load)
    monkeypatch.setattr(quals_metric.metric, "QualsScorer", FakeScorer)
    monkeypatch.setattr(quals_metric.scorer, "QualsScorer", FakeScorer)
    yield FakeScorer
    loaded.cache_clear()
