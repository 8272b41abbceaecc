"""Word n-grams of a summary: the share that stands in its source word for word, and the share that repeats itself."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")

NGram = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def copied_share(summary: str, source: str, n: int) -> float:
    """The share of the summary's word n-grams that the source contains, from 0 to 1, letters of either case alike.

    A summary with fewer than `n` words counts as one n-gram of all its words; a summary without words has 0.
    """
    summary_words = words_of(summary)
    n = min(n, len(summary_words))
    if not n:
        return 0.0
    in_source, of_summary = set(_ngrams(words_of(source), n)), _ngrams(summary_words, n)
    return sum(gram in in_source for gram in of_summary) / len(of_summary)


def repeated_share(text: str, n: int) -> float:
    """The share of a text's word n-grams that occur earlier in it, from 0 to 1, letters of either case alike.

    A text with fewer than `n` words has 0.
    """
    of_text = _ngrams(words_of(text), n)
    return 1 - len(set(of_text)) / len(of_text) if of_text else 0.0


def _ngrams(words: list[str], n: int) -> list[NGram]:
    """The runs of `n` words, in order."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
