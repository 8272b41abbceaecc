"""The sentences of a text, by its punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A full stop ends no sentence before a small letter, after a title, or after a single letter ("J. Smith", "the U.S.");
# "I" is a word.
_TITLES = "".join(rf"(?<!\b{title})" for title in ("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Gen", "Sen", "Gov", "Lt"))
_END_OF_SENTENCE = re.compile(
    rf"""(?:{_TITLES}(?<!\b[^\W\d_I])\.|[!?…])["'”’»)\]]*+(?=\s++[^\sa-z]|\s*+\Z)"""
    r"""|[。！？]["'”’»)\]]*+|\n"""  # noqa: RUF001
)


def sentence_bounds(text: str) -> Iterator[tuple[int, int]]:
    """The characters [start, end) of every sentence, without the white space around it."""
    start = 0
    for end in [*(match.end() for match in _END_OF_SENTENCE.finditer(text)), len(text)]:
        piece = text[start:end]
        if stripped := piece.strip():
            first = start + len(piece) - len(piece.lstrip())
            yield first, first + len(stripped)
        start = end
