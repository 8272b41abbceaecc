"""Text as data: token ids and character offsets of a text inside a template, overlapping windows, padded rows of ids.

The characters `<sep>`, `</s>` or `[SEP]` of a text must not become a special token, and every token must map to
characters of the text. So texts are encoded by a copy of the checkpoint's tokenizer in which every special token has a
random name that no text contains. Templates, which do not come from users' texts, may use the real names. This file
needs neither torch nor transformers.
"""

from __future__ import annotations

import json
import re
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from qa_inference.checks import integer_from
from qa_inference.sentences import CLOSING_MARKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = "{text}"
LARGEST_ID = 2**31 - 1  # of a token

Ids = Sequence[int] | NDArray[Any]
"""Token ids, in a list or an array."""

Marks = Sequence[tuple[int, str]]
"""Strings to insert into a text, each with the offset of the character that follows it, in ascending order. They may
name special tokens; the same characters in the text do not."""


@dataclass(frozen=True)
class EncodedText:
    """One text as the model reads it.

    `ids` are the text's own tokens, and `offsets` the characters [start, end) of each token. A mark inserted at p has
    no character: its offsets are [p, p). `head` and `tail` are the tokens that the template and the model put around
    them.
    """

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    head: tuple[int, ...]
    tail: tuple[int, ...]

    def window(self, start: int, end: int) -> NDArray[np.int32]:
        """The model's input for the tokens [start, end) of the text."""
        return np.array([*self.head, *self.ids[start:end], *self.tail], np.int32)

    @property
    def around(self) -> int:
        """The number of tokens around the text."""
        return len(self.head) + len(self.tail)


class TextTokenizer:
    """Encodes texts as data and decodes a model's output.

    A tokenizer written in Python, for example Marian's, cannot be copied with other names. It is asked to split special
    tokens instead, and the offsets are those at which its pieces occur in the text, one after the other.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._special = {token.content: int(i) for i, token in tokenizer.added_tokens_decoder.items()}
        # Gemma's runs of line breaks and spaces are added tokens too, but have no special meaning
        marks = [content for content in self._special if content.replace("\u2581", " ").strip()]
        self._names = {content: f"s{secrets.token_hex(16)}" for content in marks}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._data = None if backend is None else _disguise(backend, self._names)
        self._normalizer = None if self._data is None else self._data.normalizer
        self._before, self._after = self._wrapping()

    def encode(self, text: str, template: str = TEXT, marks: Marks = ()) -> EncodedText:
        """Encode `text` in `template`, a string with `{text}` once, with `marks` put in.

        Lone surrogates are read as U+FFFD.
        """
        text = without_surrogates(text)
        before, _, after = template.partition(TEXT)
        if self._data is None:
            return self._encoded_in_pieces(before, text, after, marks)
        before, after = self._disguised(before), self._disguised(after)
        parts = [part if is_data else self._disguised(part) for part, _, is_data in _parts(text, marks)]
        encoding = _encode(self._data, before + "".join(parts) + after)
        first = len(before)
        last = first + sum(map(len, parts))
        # a token that begins before the text and reaches into it (a space merged with a word) is the text's
        inside = [i for i, (start, end) in enumerate(encoding.offsets) if end > first and start < last and end > start]
        a, b = (inside[0], inside[-1] + 1) if inside else (len(encoding.ids),) * 2
        origin = _origins(parts)
        offsets = tuple((origin(start - first), origin(end - first)) for start, end in encoding.offsets[a:b])
        ids = tuple(encoding.ids)
        return EncodedText(ids[a:b], offsets, (*self._before, *ids[:a]), (*ids[b:], *self._after))

    def _encoded_in_pieces(self, before: str, text: str, after: str, marks: Marks) -> EncodedText:
        """The result of `encode` for a tokenizer written in Python, part by part, because marks cannot be renamed."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for part, position, is_data in _parts(text, marks):
            part_ids, spans = self._pieces(part, is_data)
            ids += part_ids
            offsets += [(position + a, position + b) if is_data else (position, position) for a, b in spans]
        head, tail = (self._pieces(part, False)[0] for part in (before, after))
        return EncodedText(tuple(ids), tuple(offsets), (*self._before, *head), (*tail, *self._after))

    def _pieces(self, text: str, is_data: bool) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Ids and offsets by a tokenizer written in Python. A piece that is not in the text gets the next character.

        With `is_data`, the names of special tokens are plain text.
        """
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=is_data)["input_ids"]
        offsets, cursor = [], 0
        for token in self.tokenizer.convert_ids_to_tokens(ids):
            piece = token.replace("\u2581", " ").strip()
            start = text.find(piece, cursor)
            span = (start, start + len(piece)) if start >= 0 else (cursor, min(cursor + 1, len(text)))
            offsets.append(span)
            cursor = span[1] if start >= 0 else cursor
        return tuple(ids), tuple(offsets)

    def decode(self, ids: Ids) -> str:
        """The text of `ids`, special tokens left out."""
        return str(self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))

    def pieces(self, ids: Ids) -> tuple[str, ...]:
        """The text of every token, for the axis of a figure."""
        return tuple(str(self.tokenizer.convert_ids_to_tokens(int(i))) for i in ids)

    def special_id(self, token: str) -> int | None:
        """The id of a special or added token; None for any other string."""
        return self._special.get(token)

    def fold(self, text: str) -> tuple[str, list[int]]:
        """`text` normalized character by character, case-folded, without white space, and the origin of each part.

        The second value holds, for every character of the first, the offset in `text` that it came from.
        """
        folded, origins = [], []
        for offset, character in enumerate(text):
            for part in "".join(self._normalized(character).casefold().replace("\u2581", " ").split()):
                folded.append(part)
                origins.append(offset)
        return "".join(folded), origins

    def _normalized(self, character: str) -> str:
        """One character after the tokenizer's normalizer."""
        if self._normalizer is None or _SURROGATE.match(character):
            return character
        return str(self._normalizer.normalize_str(character))

    def _disguised(self, template: str) -> str:
        """A piece of a template in which every special token has its name in the data tokenizer."""
        for token in sorted(self._names, key=len, reverse=True):
            template = template.replace(token, self._names[token])
        return template

    def _wrapping(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens that the checkpoint's tokenizer puts before and after a text."""
        bare = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        full = self.tokenizer("a", add_special_tokens=True)["input_ids"]
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return tuple(full[:start]), tuple(full[start + len(bare) :])


_SURROGATE = re.compile("[\ud800-\udfff]")


def without_surrogates(text: str) -> str:
    """`text` of the same length with U+FFFD for every lone surrogate, which no encoding can represent."""
    return _SURROGATE.sub("\ufffd", text)


def _encode(tokenizer: Tokenizer, text: str) -> Any:
    """The library's encoding of `text`. Raises ValueError where a pattern of the tokenizer needs too many steps."""
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except BaseException as error:  # the library's own, which is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(
            f"tokenizer: must be able to split every text; it failed ({error}) on a text of {len(text)} characters. "
            f"Use another checkpoint, or leave out this text"
        ) from error


def _parts(text: str, marks: Marks) -> list[tuple[str, int, bool]]:
    """The text cut at its marks, with the marks between: text, mark, text, …, text.

    Each part comes with its position in the text, and whether it is data.
    """
    parts, start = [], 0
    for position, mark in marks:
        parts += [(text[start:position], start, True), (mark, position, False)]
        start = position
    return [*parts, (text[start:], start, True)]


def _origins(parts: Sequence[str]) -> Callable[[int], int]:
    """A function from offsets in the joined parts (text, mark, text, …) to offsets in the text.

    It maps the characters of a mark to the character of the text after it.
    """
    marks, start = [], 0
    for number, part in enumerate(parts):
        if number % 2:
            marks.append((start, len(part)))
        start += len(part)
    length = start - sum(size for _, size in marks)

    def origin(position: int) -> int:
        return min(max(position - sum(min(max(position - first, 0), size) for first, size in marks), 0), length)

    return origin


def _disguise(backend: Tokenizer, names: dict[str, str]) -> Tokenizer:
    """A copy of `backend` whose added tokens are called `names`, in the vocabulary too (Unigram would find them there).

    Ids stay. There is no truncation, padding or post-processing.
    """
    spec: dict[str, Any] = json.loads(backend.to_str())
    _check_largest_id(spec)
    for token in spec["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = spec["model"]
    if "merges" in model:  # no merge may lead to a renamed token
        pairs = [(merge, merge if isinstance(merge, list) else merge.split(" ")) for merge in model["merges"]]
        model["merges"] = [merge for merge, (a, b) in pairs if not {a, b, a + b} & names.keys()]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): index for token, index in model["vocab"].items()}
    else:
        for entry in model["vocab"]:  # in place: many new lists would set off the garbage collector
            entry[0] = names.get(entry[0], entry[0])
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    spec["post_processor"] = spec["truncation"] = spec["padding"] = None
    return Tokenizer.from_str(json.dumps(spec))


def _check_largest_id(spec: dict[str, Any]) -> None:
    """Raise ValueError if a token's id is larger than the arrays here can hold."""
    vocabulary = spec["model"]["vocab"]
    ids = [*(vocabulary.values() if isinstance(vocabulary, dict) else ()), *(t["id"] for t in spec["added_tokens"])]
    if max(ids, default=0) > LARGEST_ID:
        raise ValueError(
            f"tokenizer: token ids must be at most {LARGEST_ID}; got {max(ids)}. Correct its tokenizer.json, or use "
            f"another checkpoint"
        )


# ---- windows --------------------------------------------------------------------------------------------------------

_SENTENCE_END = re.compile(
    rf"(?<![.!?…])[.!?…]++{CLOSING_MARKS}(?=\s)"  # the lookbehind and the possessive runs keep "......" linear
    rf"|[。！？]++{CLOSING_MARKS}"  # noqa: RUF001
    r"|\n"
)


def split_into_windows(text: str, offsets: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
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
    integer_from(1)("size", size)
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
    begins = {bisect_left(first_characters, match.end()) for match in _SENTENCE_END.finditer(text)}
    return sorted(begins | {0, len(offsets)})


def _window_end(starts: list[int], start: int, size: int) -> int:
    """The end of a window from `start`: before the last sentence that begins within reach.

    The window is filled instead if that leaves half of it empty and the sentence, longer than a window, is cut anyway.
    """
    index = bisect_right(starts, start + size) - 1
    cut, following = starts[index], starts[index + 1]
    is_cut_anyway = following - cut > size
    if cut <= start or (is_cut_anyway and cut - start <= size // 2):
        return start + size
    return cut


def _next_start(starts: list[int], start: int, end: int, size: int) -> int:
    """The start of the window after `[start, end)`: the sentence nearest to an overlap of a quarter."""
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


# ---- rows of ids ----------------------------------------------------------------------------------------------------


def pad_rows(
    rows: Sequence[Ids], value: int, *, side: Literal["left", "right"] = "right", multiple: int = 1
) -> NDArray[np.int64]:
    """Rows of integers as one array [number of rows, longest row], filled with `value` on one side.

    The width is rounded up to a multiple of `multiple`. `torch.from_numpy` makes a tensor of the result without a copy.
    """
    width = -(-max(map(len, rows)) // multiple) * multiple
    padded = np.full((len(rows), width), value, np.int64)
    for line, row in zip(padded, rows, strict=True):
        start = width - len(row) if side == "left" else 0
        line[start : start + len(row)] = row
    return padded
