"""The sentences of a text, by its punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator

CLOSING_MARKS = r"""["'”’»)\]}」』）】》〉]*+"""  # noqa: RUF001
"""The closing quotes and brackets that belong to the sentence before them, as a part of a regular expression."""

# A full stop ends no sentence before a small letter, after a title or a month, or after a single letter ("J. Smith",
# "the U.S."); "I" is a word.
_TITLES = "".join(
    rf"(?<!\b{title})"
    for title in (
        *("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Gen", "Sen", "Gov", "Lt", "Col", "Capt", "Rev", "Hon", "vs"),
        *("Jan", "Feb", "Aug", "Sept", "Oct", "Nov", "Dec"),
    )
)
_END_OF_SENTENCE = re.compile(
    rf"(?:{_TITLES}(?<!\b[^\W\d_I])\.|[!?…]){CLOSING_MARKS}(?=\s++[^\sa-z]|\s*+\Z)"
    rf"|[。！？]{CLOSING_MARKS}|\n"  # noqa: RUF001
)


_ENDED = re.compile(rf"[.!?…。！？]{CLOSING_MARKS}\Z")  # noqa: RUF001
_UNSPACED = re.compile(r"[。！？]")  # of languages that write no spaces between words # noqa: RUF001
FEWEST_WORDS = 3  # of a sentence that is read alone


def stripped_span(text: str, start: int, end: int) -> tuple[int, int]:
    """The characters [start, end) of a text without the white space at their edges; (end, end) if there is no more."""
    piece = text[start:end]
    first = start + len(piece) - len(piece.lstrip())
    return first, first + len(piece.strip())


def sentence_bounds(text: str) -> Iterator[tuple[int, int]]:
    """The characters [start, end) of every sentence, without the white space around it."""
    start = 0
    for end in [*(match.end() for match in _END_OF_SENTENCE.finditer(text)), len(text)]:
        first, last = stripped_span(text, start, end)
        if first < last:
            yield first, last
        start = end


def whole_sentences(text: str) -> list[tuple[int, int]]:
    """The characters [start, end) of the sentences of a text that can be read alone; of one sentence, the whole text.

    Other than in `sentence_bounds`, a line break within a sentence does not end it, and what has fewer than
    `FEWEST_WORDS` words belongs to the sentence behind it, or at the end to the one before it.
    """
    sentences: list[tuple[int, int]] = []
    for start, end in sentence_bounds(text):
        if sentences and not _is_whole(text, *sentences[-1], start):
            sentences[-1] = sentences[-1][0], end
        else:
            sentences.append((start, end))
    if len(sentences) > 1 and not _is_whole(text, *sentences[-1], len(text)):
        *sentences, (start, _), (_, end) = sentences
        sentences.append((start, end))
    return sentences if len(sentences) > 1 else [(0, len(text))]


def _is_whole(text: str, start: int, end: int, next_start: int) -> bool:
    """Whether a sentence that ends before the next one has enough words, and an end mark or an empty line behind it."""
    has_end = _ENDED.search(text, start, end) or text.count("\n", end, next_start) != 1
    has_words = len(text[start:end].split()) >= FEWEST_WORDS or _UNSPACED.search(text, start, end)
    return bool(has_end and has_words)
