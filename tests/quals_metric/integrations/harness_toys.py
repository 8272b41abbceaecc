"""Documents for harnesses, and the scores that the fake scorer gives."""

from __future__ import annotations

from tests.quals_metric.conftest import FakeScorer

DOCUMENTS = [
    "Ann Lee won the cup in Perth in 1998. Bo Ray came last.",
    "The council approved the new bridge on Monday. Work begins in spring.",
    "The library in Riverton opens again. It was closed for two years.",
]


def fake_scores(summaries: list[str]) -> list[float]:
    """The fake scorer's scores of summaries of the documents."""
    return FakeScorer().score(summaries=summaries, sources=DOCUMENTS).scores
