"""Selection of question-answer pairs: parse the hypotheses, find their answers in the summary, keep the best pairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from qa_inference.decoding import Array, Hypothesis
from qa_inference.formats import PairFormat, ParsedPair
from qa_inference.sentences import stripped_span
from qa_inference.tokenization import EncodedText, Ids, TextTokenizer


@dataclass(frozen=True)
class Candidate:
    """A well-formed pair whose answer occurs in the summary.

    `answer` is the summary's own characters [start, end). `tokens` [L] are the ids that the search produced, and
    `log_probs` [L] their log-probabilities in nats given the summary. The answer's tokens begin at `answer_start`.
    """

    question: str
    answer: str
    start: int
    end: int
    tokens: Array
    log_probs: Array
    answer_start: int

    @property
    def total(self) -> float:
        """The log-probability of the whole pair, in nats."""
        return float(self.log_probs.sum(dtype=np.float64))


class SummaryText:
    """A summary in which answers are looked up, by its token ids and by its folded characters."""

    def __init__(self, text: str, encoded: EncodedText, tokenizer: TextTokenizer) -> None:
        self.text, self.encoded, self.tokenizer = text, encoded, tokenizer
        self._folded, self._origins = tokenizer.fold(text)

    def find(self, answer_ids: Ids, answer: str) -> tuple[int, int] | None:
        """The character offsets [start, end) where the answer first occurs; None if it does not occur.

        It occurs if its ids are a contiguous run of the summary's ids. Failing that, it occurs if it is a substring
        once both are normalized, case-folded and freed of white space (WordPiece decodes `£1,000` to `£1, 000`). Some
        tokenizers count the white space beside a word as part of it; the offsets leave it out.
        """
        # 1. As a run of token ids.
        ids, offsets, answer_run = self.encoded.ids, self.encoded.offsets, tuple(map(int, answer_ids))
        length = len(answer_run)
        for first in range(len(ids) - length + 1 if length else 0):
            if ids[first : first + length] == answer_run:
                return stripped_span(self.text, offsets[first][0], offsets[first + length - 1][1])
        # 2. As folded characters, each of which knows the character that it came from.
        folded, _ = self.tokenizer.fold(answer)
        first = self._folded.find(folded) if folded else -1
        if first < 0:
            return None
        return stripped_span(self.text, self._origins[first], self._origins[first + len(folded) - 1] + 1)


def parse_pairs(
    hypotheses: Iterable[Hypothesis], pair_format: PairFormat, tokenizer: TextTokenizer
) -> list[tuple[Hypothesis, ParsedPair]]:
    """The hypotheses that ended and are well-formed pairs, each with its question and answer, in their order."""
    ended = (hypothesis for hypothesis in hypotheses if hypothesis.ended)
    parsed = ((hypothesis, pair_format.parse(hypothesis.tokens[:-1], tokenizer)) for hypothesis in ended)
    return [(hypothesis, pair) for hypothesis, pair in parsed if pair is not None]


def locate_answers(
    parsed: Iterable[tuple[Hypothesis, ParsedPair]], summary: SummaryText, *, whole_only: bool = False
) -> list[Candidate]:
    """The pairs whose answer occurs in the summary, in their order; if `whole_only`, as whole words."""
    candidates = []
    for hypothesis, pair in parsed:
        span = summary.find(hypothesis.tokens[pair.answer_start : -1], pair.answer)
        if span is not None and (not whole_only or is_whole(summary.text, *span)):
            answer, tokens, log_probs = summary.text[slice(*span)], hypothesis.tokens, hypothesis.log_probs
            candidates.append(Candidate(pair.question, answer, *span, tokens, log_probs, pair.answer_start))
    return candidates


def is_whole(text: str, start: int, end: int) -> bool:
    """Whether the characters [start, end) hold a letter or digit, and neither end cuts a word or number in two."""
    inside, before, after = text[start:end], text[:start][-1:], text[end:][:1]
    cuts_first = before.isalnum() and inside[:1].isalnum()
    cuts_last = after.isalnum() and inside[-1:].isalnum()
    return any(map(str.isalnum, inside)) and not cuts_first and not cuts_last


def select_pairs(candidates: Iterable[Candidate], max_pairs: int = 10) -> list[Candidate]:
    """Keep about `max_pairs` pairs, spread over the answers: the published selection.

    The candidates are sorted by total log-probability and grouped by case-folded answer, in the order of each answer's
    best pair. Each round considers the next candidate of every answer. The candidate is kept unless the same
    case-folded question was kept for that answer before; then the answer keeps nothing in this round. The selection
    stops after the round that reaches `max_pairs`, or after a round that keeps nothing, even if candidates remain.
    """
    by_answer: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: -c.total):
        by_answer.setdefault(candidate.answer.casefold(), []).append(candidate)
    asked: set[tuple[str, str]] = set()
    kept: list[Candidate] = []
    for turn in range(max(map(len, by_answer.values()), default=0)):
        num_before = len(kept)
        for answer, queue in by_answer.items():
            if turn < len(queue) and (key := (answer, queue[turn].question.casefold())) not in asked:
                asked.add(key)
                kept.append(queue[turn])
        if len(kept) >= max_pairs or len(kept) == num_before:
            break
    return kept
