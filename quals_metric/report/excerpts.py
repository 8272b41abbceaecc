"""Excerpts of a source: the sentences that share words with a question, or those around a reader's answer.

QUALS reads the source as a whole and points to no place in it. Its excerpts are found by shared words: they show
where the source treats the matter, not what moved the score.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qa_inference.sentences import sentence_bounds

EXCERPTS = 2  # the most sentences shown for a question
LENGTH = 500  # the most characters of an excerpt

_SOURCE_WORD = re.compile(r"\w+(?:[.,]\d+)*")
_ANSWER_WEIGHT = 2.0  # a word of the answer points to a sentence better than a word of the question

# Words of every question and of most sentences.
_COMMON_TEXT = """
a an and are as at be been but by can did do does for from had has have he her his how i in is it its many much of on or
s she t that the their there they this to was we were what when where which who whom whose why will with would you
"""
COMMON_WORDS = frozenset(_COMMON_TEXT.split())


@dataclass(frozen=True)
class Part:
    """A run of an excerpt's characters; `hit`: the excerpt was chosen for it."""

    text: str
    hit: bool


Excerpt = tuple[Part, ...]


class SourceExcerpts:
    """A source in sentences, split once for all its questions."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._spans = list(sentence_bounds(text))
        self._words = [
            {word.casefold() for word in _SOURCE_WORD.findall(text[a:b])} - COMMON_WORDS for a, b in self._spans
        ]
        self._counts = Counter(word for words in self._words for word in words)

    def about(self, question: str, answer: str) -> tuple[Excerpt, ...]:
        """The sentences that share most words with a question and its answer, in the order of the source.

        Rare words count more. At most `EXCERPTS` sentences, and none that shares less than half as much as the best;
        empty if no word is shared.
        """
        weights = self._weights(question, answer)
        totals = [math.fsum(weights[word] for word in weights.keys() & words) for words in self._words]
        best = max(totals, default=0.0)
        if best <= 0:
            return ()
        order = sorted(range(len(totals)), key=lambda index: -totals[index])[:EXCERPTS]
        chosen = sorted(index for index in order if totals[index] >= best / 2)
        return tuple(self._marked(*self._spans[index], self._hits(*self._spans[index], weights)) for index in chosen)

    def around(self, start: int, end: int) -> Excerpt:
        """The sentences that contain the characters [start, end), with those characters marked."""
        first = self._spans[max(0, bisect_right(self._spans, (start, len(self.text))) - 1)][0]
        last = next((b for a, b in self._spans if b >= end), len(self.text))
        return self._marked(min(first, start), last, [(start, end)])

    def _weights(self, question: str, answer: str) -> dict[str, float]:
        """The weight of every shared word: greater if few sentences have it, double if the answer has it."""
        weights: dict[str, float] = {}
        for text, factor in ((question, 1.0), (answer, _ANSWER_WEIGHT)):
            for word in {word.casefold() for word in _SOURCE_WORD.findall(text)} - COMMON_WORDS:
                if count := self._counts[word]:
                    weights[word] = factor * math.log1p(len(self._spans) / count)
        return weights

    def _hits(self, start: int, end: int, weights: dict[str, float]) -> list[tuple[int, int]]:
        """The characters of every weighted word, from the first on, within the length of an excerpt."""
        hits: list[tuple[int, int]] = []
        for match in _SOURCE_WORD.finditer(self.text, start, end):
            if hits and match.end() > hits[0][0] + LENGTH:
                break
            if match.group().casefold() in weights:
                hits.append(match.span())
        return hits

    def _marked(self, start: int, end: int, hits: Sequence[tuple[int, int]]) -> Excerpt:
        """The characters [start, end) with the hits marked; a long excerpt is cut to begin shortly before the first."""
        shown_from, shown_to = start, end
        if end - start > LENGTH:
            shown_from = max(start, min(hits[0][0] - LENGTH // 4, end - LENGTH))
            shown_to = min(end, max(shown_from + LENGTH, hits[0][1]))
        parts, done = [Part("… ", False)] if shown_from > start else [], shown_from
        for first, last in hits:
            if last <= shown_to:
                parts += [Part(self.text[done:first], False), Part(self.text[first:last], True)]
                done = last
        parts += [Part(self.text[done:shown_to] + (" …" if shown_to < end else ""), False)]
        return tuple(part for part in parts if part.text)
