"""A long text as overlapping windows of tokens, cut at sentence ends.

It knows no tokenizer and no model: a text, where its tokens lie in it, and how many tokens fit.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

_CLOSERS = r"[\"'”’»)\]}」』）】》〉]*+"  # noqa: RUF001
_SENTENCE_END = re.compile(
    rf"(?<![.!?…])[.!?…]++{_CLOSERS}(?=\s)"  # the lookbehind and the possessive runs keep "......" linear
    rf"|[。！？]++{_CLOSERS}"  # noqa: RUF001
    r"|\n"
)


def split(text: str, offsets: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Cut a text's tokens into windows of at most `size` tokens that overlap by about a quarter.

    A sentence that fits a window is whole in at least one: windows begin and end between sentences, and only a
    sentence longer than `size` is cut, at tokens. The overlap is the whole sentences nearest to `size // 4` tokens,
    at most `size // 2` and possibly none; inside a sentence longer than a window it is `size // 4` tokens.

    A sentence ends after `.`, `!`, `?` or `…` and any closing quotes and brackets, if white space follows; after
    `。`, `！` or `？` and any closing ones, whatever follows; and after a newline. Abbreviations ("U.S. ") count
    as ends: that only adds places where a window may be cut.

    Args:
        text: the characters.
        offsets: per token, its first character in `text` and the one after its last; special tokens left out.
        size: the most tokens a window may have, at least 1.

    Returns:
        Token slices `[start, end)`, both strictly increasing, that cover all tokens; one slice, `(0, len(offsets))`,
        if they fit one window (so `(0, 0)` for no token).

    Raises:
        ValueError: if `size` is less than 1.
    """  # noqa: RUF002
    if size < 1:
        raise ValueError(f"size is the most tokens a window may have and must be at least 1, got {size}")
    starts = _sentence_starts(text, offsets)
    windows = []
    start = 0
    while len(offsets) - start > size:
        end = _window_end(starts, start, size)
        windows.append((start, end))
        start = _next_start(starts, start, end, size)
    return [*windows, (start, len(offsets))]


def _sentence_starts(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The first token of each sentence, increasing, from 0; the number of tokens closes the list."""
    first_characters = list(accumulate((first for first, _ in offsets), max))  # some tokenizers step back
    found = {bisect_left(first_characters, match.end()) for match in _SENTENCE_END.finditer(text)}
    return sorted(found | {0, len(offsets)})


def _window_end(starts: list[int], start: int, size: int) -> int:
    """Where a window from `start` ends: before the last sentence that begins within reach.

    Not there if that leaves half of the window empty and the sentence is cut anyway, being longer than a window.
    """
    index = bisect_right(starts, start + size) - 1
    cut, following = starts[index], starts[index + 1]
    is_cut_anyway = following - cut > size
    if cut <= start or (is_cut_anyway and cut - start <= size // 2):
        return start + size
    return cut


def _next_start(starts: list[int], start: int, end: int, size: int) -> int:
    """Where the window after `[start, end)` starts: at the sentence nearest to an overlap of a quarter."""
    target = end - size // 4
    index = bisect_left(starts, end)
    if starts[index] != end:  # inside a sentence longer than a window
        return target
    earliest = max(start + 1, end - size // 2)
    if starts[index + 1] - end <= size:  # leave room for the sentence at `end`, so that it is whole in the next window
        earliest = max(earliest, starts[index + 1] - size)
    nearest = bisect_left(starts, max(target, earliest))
    candidates = [begin for begin in starts[nearest - 1 : nearest + 1] if begin >= earliest]
    return min(candidates, key=lambda begin: abs(begin - target))
