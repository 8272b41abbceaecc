"""The shares of copied and of repeated n-grams: literal tables."""

from __future__ import annotations

import pytest

from qa_inference.overlap import copied_share, repeated_share


@pytest.mark.parametrize(
    ("summary", "n", "share"),
    [
        ("the cat sat", 1, 1.0),
        ("The cat, sat!", 3, 1.0),
        ("the man sat", 1, 2 / 3),
        ("the man sat", 2, 0.0),
        ("cat sat on", 2, 1 / 2),
        ("cat", 4, 1.0),  # fewer words than n: one n-gram of all
        ("", 2, 0.0),
    ],
)
def test_copied_share(summary: str, n: int, share: float) -> None:
    assert copied_share(summary, "A dog saw that the cat sat.", n) == pytest.approx(share)


@pytest.mark.parametrize(
    ("summary", "shares"),
    [
        ("The council won", [2 / 3, 1 / 2, 0.0, 0.0]),
        ("a new bridge won", [3 / 4, 2 / 3, 1 / 2, 0.0]),
        ("", [0.0] * 4),
    ],
)
def test_copied_shares_of_n_grams_of_every_length(summary: str, shares: list[float]) -> None:
    source = "The council approved a new bridge. In Perth, a bridge in."
    assert [copied_share(summary, source, n) for n in range(1, 5)] == pytest.approx(shares)


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("the cat sat", 1, 0.0),
        ("The cat saw the cat.", 1, 2 / 5),
        ("The cat saw the cat.", 2, 1 / 4),
        ("no no no", 1, 2 / 3),
        ("no no", 3, 0.0),  # fewer words than n
        ("", 1, 0.0),
    ],
)
def test_repeated_share(text: str, n: int, share: float) -> None:
    assert repeated_share(text, n) == pytest.approx(share)
