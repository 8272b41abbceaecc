"""The windows of a text: literal tables, then the promises of the docstring on random texts."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_inference.tokenization import split_into_windows


def words(text: str) -> list[tuple[int, int]]:
    """Offsets as a word tokenizer gives them: words with their punctuation."""
    return [match.span() for match in re.finditer(r"\S+", text)]


def characters(text: str) -> list[tuple[int, int]]:
    """Offsets as a tokenizer of Chinese gives them: one token per character."""
    return [(i, i + 1) for i, character in enumerate(text) if not character.isspace()]


FOUR = "a b c. d e f. g h i. j k l."  # four sentences of three tokens
LONG = "a b. " + "x " * 9 + "y. c d."  # a sentence of ten tokens between two of two


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        pytest.param("", 4, [(0, 0)], id="no token"),
        pytest.param("a b c", 3, [(0, 3)], id="fits exactly"),
        pytest.param("a b c", 1, [(0, 1), (1, 2), (2, 3)], id="one token each"),
        pytest.param("a b c d e f g h i j", 4, [(0, 4), (3, 7), (6, 10)], id="no sentence end: a quarter overlaps"),
        pytest.param(FOUR, 12, [(0, 12)], id="sentences that fit together"),
        pytest.param(FOUR, 8, [(0, 6), (3, 9), (6, 12)], id="a sentence overlaps"),
        pytest.param("a b. " * 10, 8, [(0, 8), (6, 14), (12, 20)], id="sentences that make a quarter"),
        pytest.param(FOUR, 5, [(0, 3), (3, 6), (6, 9), (9, 12)], id="no sentence small enough to overlap"),
        pytest.param(LONG, 8, [(0, 8), (6, 14)], id="a longer sentence is cut at tokens"),
        pytest.param(LONG, 10, [(0, 2), (2, 12), (12, 14)], id="a sentence as long as a window stays whole"),
        pytest.param("a b\nc d\ne f", 3, [(0, 2), (2, 4), (4, 6)], id="lines"),
        pytest.param("a 3.5 b c.d e f", 5, [(0, 5), (4, 6)], id="a point inside a word ends nothing"),
        pytest.param("a b.” (c d!) e… f", 4, [(0, 4), (2, 6)], id="closing quotes and brackets"),
    ],
)
def test_literal_windows(text: str, size: int, expected: list[tuple[int, int]]) -> None:
    assert split_into_windows(text, words(text), size) == expected


def test_chinese_sentences_need_no_white_space() -> None:
    text = "他来了。她说：“走吧！”我们走。"  # 4, 8 and 4 characters  # noqa: RUF001
    assert split_into_windows(text, characters(text), 8) == [(0, 4), (4, 12), (12, 16)]


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="size: must be an integer of at least 1; got 0"):
        split_into_windows("a", [(0, 1)], 0)


def test_tokens_that_keep_their_leading_space_or_share_a_character() -> None:
    text = "a b. c d."
    assert split_into_windows(text, [(0, 1), (1, 4), (4, 6), (6, 9)], 3) == [(0, 2), (2, 4)]
    assert split_into_windows("a. 語", [(0, 2), (3, 4), (3, 4), (3, 4)], 3) == [(0, 1), (1, 4)]


@pytest.mark.parametrize("text", ["." * 300_000, ".)" * 150_000, "a. " * 100_000, "a" * 300_000, "\n" * 300_000])
def test_21_0_three_hundred_thousand_tokens_take_linear_time(text: str) -> None:
    """The work for one text is that for ten of a tenth; it would be ten times as much if anything were quadratic."""
    tenths, whole = (_work(text[: len(text) // parts], parts) for parts in (10, 1))
    assert whole < 5 * tenths


def _work(text: str, times: int) -> float:
    """Processor time of this thread, which other processes do not take."""
    offsets = [(i, i + 1) for i in range(len(text))]
    begin = time.thread_time()
    for _ in range(times):
        split_into_windows(text, offsets, 7)
    return time.thread_time() - begin


sentence_lengths = st.lists(st.integers(1, 40), max_size=60)


@given(sentence_lengths, st.integers(1, 50))
def test_windows_cover_all_tokens_and_progress(lengths: list[int], size: int) -> None:
    text = " ".join("w " * (length - 1) + "w." for length in lengths)
    total = sum(lengths)
    windows = split_into_windows(text, words(text), size)
    assert windows[0][0] == 0
    assert windows[-1][1] == total
    assert all(end - start <= size for start, end in windows)
    for (start, end), (next_start, next_end) in pairwise(windows):
        assert start < next_start
        assert end < next_end
        assert 0 <= end - next_start <= size // 2
    assert len(windows) <= 1 + 4 * total / size


@given(sentence_lengths, st.integers(1, 50))
def test_a_sentence_that_fits_is_whole_in_a_window(lengths: list[int], size: int) -> None:
    text = " ".join("w " * (length - 1) + "w." for length in lengths)
    windows = split_into_windows(text, words(text), size)
    begin = 0
    for length in lengths:
        if length <= size:
            assert any(start <= begin and begin + length <= end for start, end in windows)
        begin += length


@given(st.text(alphabet="a .!?…\n。！”)語", max_size=80), st.integers(1, 20))  # noqa: RUF001
def test_any_text_is_covered(text: str, size: int) -> None:
    offsets = characters(text)
    windows = split_into_windows(text, offsets, size)
    assert {i for start, end in windows for i in range(start, end)} == set(range(len(offsets)))
    assert all(end - start <= size for start, end in windows)
