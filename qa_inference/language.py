"""A cheap guess whether texts are English, for models that read only English."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from itertools import islice

# Two in five words of English prose are in this list, and few words of other languages.
_FUNCTION_WORD_LIST = """
a about after all also an and are as at be been before but by can could did do down for from had has have he her his how
if in into is it its more most no not of on one or other our out over said she so some such than that the their them
then there they this to two up us was we were what when where which who will with would year years you
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_WORD_LIST.split())
_LEAST_SHARE = 0.15
_LEAST_WORDS = 50  # fewer words show nothing, for example headlines, names and tables
_MOST_TEXTS = 200  # the number of texts that are read
_WORD = re.compile(r"\w+")


def looks_english(texts: Iterable[str]) -> bool:
    """Whether the first texts together look like English; True if they are too short to tell."""
    words = [word for text in islice(texts, _MOST_TEXTS) for word in _WORD.findall(text.lower())]
    if len(words) < _LEAST_WORDS:
        return True
    return sum(word in _FUNCTION_WORDS for word in words) >= _LEAST_SHARE * len(words)


def warn_unless_english(model: str, sources: Iterable[str]) -> None:
    """Warn if the sources do not look English, for a `model` that reads only English."""
    if not looks_english(sources):
        warnings.warn(
            f"model {model!r} reads only English, and the sources look like another language: the scores mean little. "
            f"Use a model of that language",
            stacklevel=3,
        )
