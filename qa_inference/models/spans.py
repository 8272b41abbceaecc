"""What a reader reads and finds, as plain arrays: a question beside a piece of a text, and the best spans in it.

It knows no model: token ids and logits come from `reader.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What a reader found in a text.

    `text` is the text's own characters [start, end); without an answer it is "" and both are -1. `score` is the best
    span's start plus end logit, be it the answer or not, NaN if the text has no span at all; `null_score` the smallest
    score of no answer over the `num_windows` windows.
    """

    text: str
    start: int
    end: int
    score: float
    null_score: float
    num_windows: int

    @property
    def is_null(self) -> bool:
        """Whether the text does not answer the question."""
        return self.start < 0


@dataclass(frozen=True)
class Window:
    """A question and some tokens of a text, as the model reads them.

    Attributes:
        ids: [T], the whole input.
        type_ids: [T], which part a token is of; None for a model that does not tell them apart.
        text_start: where in `ids` the text's tokens begin.
        offsets: [N, 2], the characters [start, end) in the whole text of each of the text's tokens, white space at
            their edges left out; start == end: white space only.
    """

    ids: NDArray[np.int32]
    type_ids: NDArray[np.int32] | None
    text_start: int
    offsets: NDArray[np.int32]

    @property
    def cost(self) -> int:
        """The number of tokens of the input."""
        return len(self.ids)


@dataclass(frozen=True)
class WindowSpans:
    """The best spans of a window, the best first, and the score of no answer.

    `starts` and `ends` [n] are the first and the last token of each span, counted from the window's first text token;
    `scores` [n] are start plus end logits. n is at most `n_best`, and may be 0.
    """

    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    scores: NDArray[np.float32]
    null_score: float


@dataclass(frozen=True)
class PairLayout:
    """The tokens that a checkpoint puts around and between two texts, and the types of all.

    BERT: `[CLS] question [SEP] text [SEP]`; RoBERTa: `<s> question </s></s> text </s>`. `types` are those of the head,
    of a question token, of the middle, of a text token, and of the tail.
    """

    head: tuple[int, ...]
    middle: tuple[int, ...]
    tail: tuple[int, ...]
    types: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tokenizer: Any) -> PairLayout:
        """Read it off the way a Hugging Face tokenizer joins two letters.

        Raises ValueError unless a classification token is the first: its place stands for no answer.
        """
        first, second = (tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "ab")
        pair = tokenizer("a", "b", return_token_type_ids=True)
        ids, types = pair["input_ids"], pair["token_type_ids"]
        if not ids or ids[0] != tokenizer.cls_token_id:
            raise ValueError(
                f"tokenizer {type(tokenizer).__name__}: must put its classification token, which stands for no answer, "
                f"in front of a pair of texts; got {tokenizer.convert_ids_to_tokens(ids)}. Use a reader of the BERT or "
                f"RoBERTa family"
            )
        a = _find(ids, first, 0)
        b = a + len(first)
        c = _find(ids, second, b)
        d = c + len(second)
        parts = (types[:a], types[a : a + 1], types[b:c], types[c : c + 1], types[d:])
        return cls(tuple(ids[:a]), tuple(ids[b:c]), tuple(ids[d:]), tuple(map(tuple, parts)))

    @property
    def around(self) -> int:
        """How many tokens stand around and between the two texts."""
        return len(self.head) + len(self.middle) + len(self.tail)

    def window(self, question: Sequence[int], ids: Ints, offsets: Ints, *, has_types: bool) -> Window:
        """The input of a question's tokens and some tokens of a text."""
        types = None
        if has_types:
            head, asked, middle, told, tail = self.types
            types = np.array([*head, *asked * len(question), *middle, *told * len(ids), *tail], np.int32)
        front = [*self.head, *question, *self.middle]
        return Window(np.array([*front, *ids, *self.tail], np.int32), types, len(front), offsets)


def _find(ids: list[int], part: list[int], start: int) -> int:
    """Where `part` is in `ids`, from `start` on."""
    return next(i for i in range(start, len(ids)) if ids[i : i + len(part)] == part)


def window_starts(tokens: int, room: int, stride: int) -> range:
    """Where the windows of `room` tokens begin that read a text of so many tokens.

    They begin `stride` tokens after one another, or `room` if that is less, and the last reaches the text's end.
    """
    step = min(room, stride)
    beyond = max(0, tokens - room)
    return range(0, -(-beyond // step) * step + 1, step)


def best_spans(start: Floats, end: Floats, n_best: int, longest: int) -> tuple[Ints, Ints, Floats]:
    """The best spans of a text's tokens, as SQuAD's reference programs choose them, the best first.

    The `n_best` likeliest starts meet the `n_best` likeliest ends; of the pairs that do not end before they start and
    have at most `longest` tokens, the `n_best` best are kept. (So a span is missed whose start or end is not among
    the likeliest, and there may be none.) Of equals the earlier goes first.

    Args:
        start: [N] start logits in float32; -inf where no span may start.
        end: [N] end logits, likewise.
        n_best: how many.
        longest: the most tokens of a span.

    Returns:
        First and last tokens and scores (start plus end logit), each [n], n at most `n_best`.
    """
    firsts, lasts = (np.argsort(-logits, kind="stable")[:n_best] for logits in (start, end))
    first, last = np.repeat(firsts, len(lasts)), np.tile(lasts, len(firsts))
    scores = start[first] + end[last]
    legal = (last >= first) & (last - first < longest) & np.isfinite(scores)
    first, last, scores = first[legal], last[legal], scores[legal]
    order = np.lexsort((last, first, -scores))[:n_best]
    return first[order].astype(np.int32), last[order].astype(np.int32), scores[order]
