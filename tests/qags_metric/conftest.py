"""The toy models, taught once, and a scorer that needs none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import qags_metric.metric
import qags_metric.scorer
from qa_inference.evaluate_metric import loaded
from qags_metric.config import QagsConfig
from qags_metric.result import FoundAnswer, QagsResult, QuestionScore, SummaryScore
from qags_metric.scorer import QagsScorer
from tests.qags_metric import models


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The toy generator and the toy reader."""
    folder = tmp_path_factory.mktemp("models")
    return str(models.generator(folder / "generator")), str(models.reader(folder / "reader"))


@pytest.fixture(scope="session")
def make(folders: tuple[str, str]) -> Callable[..., QagsScorer]:
    """Makes scorers on the toy models."""

    def made(**settings: Any) -> QagsScorer:
        finder = settings.pop("finder", None) or models.Finder()
        settings = {"beam_width": 4, "hypotheses": 4, "max_question_tokens": 16, "device": "cpu", **settings}
        return QagsScorer(QagsConfig(folders[0], reader=folders[1], **settings), finder=finder)

    return made


class FakeScorer:
    """Asks one question, about the first word; it is answered the same if the source has that word."""

    made: list[QagsConfig]

    def __init__(self, config: QagsConfig | None = None, **loaded: object) -> None:
        self.config = config or QagsConfig()
        self.signature = f"fake:{self.config.max_questions}"
        FakeScorer.made.append(self.config)

    def score(self, *, summaries: Sequence[str], sources: Sequence[str]) -> QagsResult:
        return QagsResult(tuple(map(self._one, summaries, sources)), self.signature)

    def _one(self, summary: str, source: str) -> SummaryScore:
        if not summary.strip():
            return SummaryScore(math.nan, (), "blank summary", text=summary)
        word = summary.split()[0]
        start = summary.index(word)
        place = source.find(word)
        own = FoundAnswer(word, start, start + len(word), 2.0)
        found = FoundAnswer(word, place, place + len(word), 2.0) if place >= 0 else FoundAnswer("", -1, -1, math.nan)
        f1 = float(place >= 0)
        question = QuestionScore("What is the first word?", word, start, own.end, own, found, f1, -0.5)
        return SummaryScore(f1, (question,), text=summary)


@pytest.fixture
def fake_scorer(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeScorer]]:
    """Put the fake where the metric and the command find their scorer."""
    FakeScorer.made = []
    door = qags_metric.metric
    loaded.cache_clear()
    for name in ("load_generator", "load_reader"):
        monkeypatch.setattr(door, name, lambda config: config)
    monkeypatch.setattr(door.AnswerFinder, "load", lambda name: name)
    monkeypatch.setattr(door, "QagsScorer", FakeScorer)
    monkeypatch.setattr(qags_metric.scorer, "QagsScorer", FakeScorer)
    yield FakeScorer
    loaded.cache_clear()
