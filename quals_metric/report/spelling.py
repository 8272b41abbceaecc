"""Questions as people write them: the words of a model in the spelling of the texts that the question is about."""

from __future__ import annotations

import re
from itertools import pairwise

from quals_metric.report.excerpts import COMMON_WORDS

_MOST_PARTS = 9  # parts of one written word, such as "u . s . a ."
_JOINT = re.compile(r"^[^\w\s]+$")
_WITH_MARKS = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)  # a part: the word in it, and the marks before and after
_BEFORE = re.compile(r"\s+(?=[?!.,;:%)\]}’”])")
_AFTER = re.compile(r"(?<=[(\[{£$€‘“])\s+")
_APOSTROPHE = re.compile(r"(?<=\w)\s*(['’])\s*(?=(?:s|t|re|ve|ll|d|m)\b)", re.IGNORECASE)
_IN_NUMBER = re.compile(r"(?<=\d)\s*([.,:])\s+(?=\d)")


def natural_question(question: str, *texts: str) -> str:
    """A question with the spelling and the capital letters of the texts, without spaces around joining marks.

    1. Parts that a tokenizer took apart (`klitschko ' s`, `3 , 000`) are joined as a text writes them.
    2. A word that a text has is written as there. Common words stay as they are: a text may begin a sentence with one.
    3. Apostrophes, numbers and closing marks that no text has lose the spaces around them.

    Args:
        question: a question as the model wrote it.
        texts: the summary and, if it is known, the source; the first one that has a word gives its spelling.
    """
    parts, written = question.split(), []
    index = 0
    while index < len(parts):
        length, spelling = _spelling(parts, index, texts)
        written.append(spelling)
        index += length
    joined = _BEFORE.sub("", _AFTER.sub("", " ".join(written)))
    joined = _IN_NUMBER.sub(r"\1", _APOSTROPHE.sub(r"\1", joined))
    return joined[:1].upper() + joined[1:]


def _spelling(parts: list[str], start: int, texts: tuple[str, ...]) -> tuple[int, str]:
    """How many parts from `start` on are one word of a text, and that word."""
    for length in range(min(_MOST_PARTS, len(parts) - start), 1, -1):
        window = parts[start : start + length]
        # Parts are joined only by marks: two words in a row are two words.
        marks = [bool(_JOINT.match(part)) for part in window]
        if marks[0] or any(not (left or right) for left, right in pairwise(marks)):
            continue
        if word := _written(window, texts):
            return length, word
    before, word, after = _WITH_MARKS.fullmatch(parts[start]).groups()  # type: ignore[union-attr]  # it matches all
    if word.casefold() in COMMON_WORDS or not any(char.isalpha() for char in word):
        return 1, parts[start]
    return 1, before + (_written([word], texts) or word) + after


def _written(window: list[str], texts: tuple[str, ...]) -> str:
    """The parts as one of the texts writes them, without spaces; "" if none does."""
    pattern = re.compile(r"(?<!\w)" + "".join(map(re.escape, window)) + r"(?!\w)", re.IGNORECASE)
    return next((match.group() for text in texts if (match := pattern.search(text))), "")
