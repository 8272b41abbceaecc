"""Copied word n-grams: the share of a summary that stands in its source word for word."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")


def copied_share(summary: str, source: str, n: int) -> float:
    """The share of the summary's word n-grams that the source contains, from 0 to 1, letters of either case alike.

    A summary with fewer than `n` words counts as one n-gram of all its words; a summary without words has 0.
    """
    summary_words, source_words = (_WORD.findall(text.lower()) for text in (summary, source))
    n = min(n, len(summary_words))
    if not n:
        return 0.0
    in_source = {tuple(source_words[i : i + n]) for i in range(len(source_words) - n + 1)}
    of_summary = [tuple(summary_words[i : i + n]) for i in range(len(summary_words) - n + 1)]
    return sum(gram in in_source for gram in of_summary) / len(of_summary)
