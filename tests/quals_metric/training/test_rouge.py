"""ROUGE in the shape of a scorer."""

from __future__ import annotations

import sys

import pytest

from quals_metric.training.rouge import RougeScorer

# Counted by hand. Reference: "the cat sat on the mat" (6 tokens, 5 bigrams).
CASES = [
    ("the cat sat on the mat", (1.0, 1.0, 1.0)),
    ("the mat", (2 * 2 / 8, 2 * 1 / 6, 2 * 2 / 8)),  # 2 of 2 and 6; 1 of 1 and 5; in order
    ("mat the", (2 * 2 / 8, 0.0, 2 * 1 / 8)),
    ("a dog", (0.0, 0.0, 0.0)),
]


@pytest.mark.parametrize(("summary", "expected"), CASES)
def test_by_hand(summary: str, expected: tuple[float, float, float]) -> None:
    result = RougeScorer().score(summaries=[summary], sources=["The cat sat on the mat."])
    (found,) = result.summaries
    assert (found.rouge1, found.rouge2, found.rougeL) == pytest.approx(expected)
    assert found.score == pytest.approx(sum(expected) / 3) == pytest.approx(result.score)


def test_blank_texts_are_undefined() -> None:
    result = RougeScorer().score(summaries=["a", " ", "a"], sources=["a", "a", ""])
    assert result.num_undefined == 2 and result.mean("rouge1") == 1.0
    assert result.scores == pytest.approx([2 / 3, float("nan"), float("nan")], nan_ok=True)  # one token has no bigram
    assert "rouge_score:" in result.signature


def test_texts_that_can_be_read_once() -> None:
    texts = ["a b", "c d"]
    assert RougeScorer().score(summaries=iter(texts), sources=iter(texts)).scores == [1.0, 1.0]


def test_a_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "rouge_score"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    with pytest.raises(ImportError, match=r"pip install 'quals-metric\[train\]'") as caught:
        RougeScorer()
    assert caught.value.__cause__ is not None
