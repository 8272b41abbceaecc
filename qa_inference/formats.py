"""Formats of checkpoints: the input that a model reads for a text, and the question that it writes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from qa_inference.decoding import Array
from qa_inference.tokenization import TEXT, EncodedText, Ids, TextTokenizer, split_into_windows

_LINE_BREAK = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True)
class ParsedPair:
    """Question and answer as the model wrote them; the answer's tokens begin at `answer_start`."""

    question: str
    answer: str
    answer_start: int


@dataclass(frozen=True)
class PairFormat:
    """Input and output of a question-answer generator.

    `template` is the input, with `{text}` once; it may name special tokens. The model writes
    `question_prefix question separator answer` and ends with end-of-sequence or, unless `end` is None, with the first
    token of `end`, whichever comes first. `separator` is an added token of the tokenizer, or plain text. `window` is
    the most tokens of an input; None: the limit of the checkpoint's configuration.
    """

    template: str = TEXT
    separator: str = "<sep>"
    question_prefix: str = ""
    end: str | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        _check_input(self.template, self.window)
        if not self.separator.strip():
            raise ValueError("format: `separator` must not be blank; name the text between question and answer")

    def end_ids(self, tokenizer: TextTokenizer) -> tuple[int, ...]:
        """The first token of `end`, as it follows an answer; it ends a pair, as end-of-sequence does."""
        if self.end is None:
            return ()
        alone, followed = tokenizer.encode("a").ids, tokenizer.encode("a" + self.end + "b").ids
        return (next(b for i, b in enumerate(followed) if i >= len(alone) or alone[i] != b),)

    def encode(self, tokenizer: TextTokenizer, text: str) -> EncodedText:
        """A text as the model reads it."""
        return tokenizer.encode(text, self.template)

    def parse(self, tokens: Ids, tokenizer: TextTokenizer) -> ParsedPair | None:
        """Read a pair from `tokens`, the end left out.

        None unless it is well formed: the separator exactly once, question and answer not blank.
        """
        ids = list(map(int, tokens))
        separator = tokenizer.special_id(self.separator.strip())
        if separator is not None:
            if ids.count(separator) != 1:
                return None
            start = ids.index(separator) + 1
            question = tokenizer.decode(ids[: start - 1])
        else:
            text = tokenizer.decode(ids)
            if text.count(self.separator.strip()) != 1:
                return None
            question = text.partition(self.separator.strip())[0]
            start = self._answer_start(ids, tokenizer)
        question = question.strip().removeprefix(self.question_prefix.strip()).strip()
        answer = tokenizer.decode(ids[start:]).strip()
        return ParsedPair(question, answer, start) if question and answer else None

    def _answer_start(self, ids: list[int], tokenizer: TextTokenizer) -> int:
        """The length of the shortest prefix of `ids` whose text contains the separator."""
        low, high = 0, len(ids)  # the text of ids[:high] contains it, that of ids[:low] does not
        while high - low > 1:
            middle = (low + high) // 2
            if self.separator.strip() in tokenizer.decode(ids[:middle]):
                high = middle
            else:
                low = middle
        return high


PROMPT = """\
Each text is followed by a question about it and the answer, in words of the text.

Text: The observatory on Mount Ardo closed its dome early on Friday, after smoke from a forest fire had reached the \
main telescope.
Question: Why did the observatory on Mount Ardo close its dome early? Answer: smoke from a forest fire

Text: Amara Okafor, who ran the clinic in Leeds for 22 years, will retire in June, its trustees said.
Question: How long did Amara Okafor run the clinic in Leeds? Answer: 22 years

Text: {text}
Question:"""


@dataclass(frozen=True)
class CausalFormat(PairFormat):
    """Input and output of a decoder-only model: a prompt that ends where the model writes a question.

    The model writes `question separator answer` on one line, ended by a line break or end-of-sequence; a pair with a
    line break inside is not well formed. With `chat`, the template without its last line is a user's message in the
    model's own chat template, and the last line begins the reply. A text's own line breaks are read as spaces, so that
    none of its lines looks like a line of the prompt. A pair is read from the model's output, never from the text.
    """

    template: str = PROMPT
    separator: str = "Answer:"
    end: str | None = "\n"
    chat: bool = False

    def encode(self, tokenizer: TextTokenizer, text: str) -> EncodedText:
        """A text as the model reads it, without the tokens that the tokenizer puts after a finished text.

        Raises ValueError if `chat` is set and the tokenizer has no chat template.
        """
        template = self._chat_template(tokenizer) if self.chat else self.template
        return encode_prompt(tokenizer, _LINE_BREAK.sub(" ", text), template)

    def end_ids(self, tokenizer: TextTokenizer) -> tuple[int, ...]:
        """The tokens that may stand for a line break after an answer, alone or merged with the line breaks after it."""
        if self.end is None:
            return ()
        ends = []
        for count in (1, 2, 3):
            alone, followed = (tokenizer.encode("a", "{text}" + part) for part in ("", self.end * count + "b"))
            before, after = alone.ids, (*followed.ids, *followed.tail)
            ends.append(next(b for i, b in enumerate(after) if i >= len(before) or before[i] != b))
        return tuple(dict.fromkeys(ends))

    def parse(self, tokens: Ids, tokenizer: TextTokenizer) -> ParsedPair | None:
        """Read a pair from `tokens`, the end left out; None unless it is well formed."""
        return None if _LINE_BREAK.search(tokenizer.decode(tokens)) else super().parse(tokens, tokenizer)

    def _chat_template(self, tokenizer: TextTokenizer) -> str:
        """The template as a conversation, without the start that the tokenizer puts before every text."""
        message, _, reply = self.template.rpartition("\n")
        inner: Any = tokenizer.tokenizer
        if not inner.chat_template:
            raise ValueError(
                "format: `chat` needs a tokenizer with a chat template; this one has none. Use chat=False, or a "
                "checkpoint tuned for conversation"
            )
        turns = [{"role": "user", "content": message}]
        template = str(inner.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)) + reply
        return template.removeprefix(inner.bos_token or "") if tokenizer.encode("a").head else template


@dataclass(frozen=True)
class QuestionFormat:
    """Input of a model that writes the question for a marked answer: a text with the answer between two marks.

    `template` is the input, with `{text}` once; it may name special tokens. `opening` and `closing` stand before and
    after the answer; each is an added token of the tokenizer, with the spaces the checkpoint was trained with. The
    model writes the question and ends with end-of-sequence. `window` is the most tokens of an input; None: the limit of
    the checkpoint's configuration.
    """

    template: str = TEXT
    opening: str = "<hl>"
    closing: str = "<hl>"
    window: int | None = None

    def __post_init__(self) -> None:
        _check_input(self.template, self.window)
        for name in ("opening", "closing"):
            if not getattr(self, name).strip():
                raise ValueError(f"format: `{name}` must not be blank; name the token that marks the answer")

    def mark_ids(self, tokenizer: TextTokenizer) -> tuple[int, int]:
        """The ids of the two marks.

        Raises ValueError if a mark is no added token: a text that contains its characters would look marked.
        """
        ids = []
        for name in ("opening", "closing"):
            mark = getattr(self, name).strip()
            mark_id = tokenizer.special_id(mark)
            if mark_id is None:
                raise ValueError(
                    f"format: `{name}` must be an added token of the tokenizer; {mark!r} is not one. Name the token "
                    f"that the checkpoint was trained with, or use a checkpoint that reads marked answers"
                )
            ids.append(mark_id)
        return ids[0], ids[1]

    def input(
        self, tokenizer: TextTokenizer, text: str, start: int, end: int, window: int
    ) -> tuple[Array, bool] | None:
        """The model's input for the answer at the characters [start, end) of a text: int32 ids, at most `window`.

        The second value is true if the model reads only a window of the text. Of the windows that hold the answer, it
        is the one with the most text on its shorter side. If `split_into_windows` cuts the answer in two, the window is
        centred on the answer. The result is None if the answer is too long for any window.
        """
        encoded = tokenizer.encode(text, self.template, ((start, self.opening), (end, self.closing)))
        opening, closing = self.mark_ids(tokenizer)
        first = encoded.ids.index(opening)
        last = encoded.ids.index(closing, first + 1)
        size = window - encoded.around
        if last - first >= size:
            return None
        chosen = _window_around(encoded, text, first, last, size)
        return encoded.window(*chosen), chosen != (0, len(encoded.ids))


def encode_prompt(tokenizer: TextTokenizer, text: str, template: str = TEXT) -> EncodedText:
    """Encode a text in a template that a decoder-only model continues; see `TextTokenizer.encode`.

    The tokens that some tokenizers put at the end of a text are left out.
    """
    encoded = tokenizer.encode(text, template)
    behind = len(tokenizer.encode("a").tail)
    return replace(encoded, tail=encoded.tail[: len(encoded.tail) - behind])


def _check_input(template: str, window: int | None) -> None:
    """Raise ValueError unless a format's template and window are usable."""
    if template.count(TEXT) != 1:
        raise ValueError(f"format: `template` must contain {TEXT} exactly once; got {template!r}")
    if window is not None and window < 8:
        raise ValueError(f"format: `window` must be at least 8 tokens; got {window}")


def _window_around(encoded: EncodedText, text: str, first: int, last: int, size: int) -> tuple[int, int]:
    """The window of `size` tokens in which the tokens [first, last] lie farthest from an edge that cuts the text."""
    count = len(encoded.ids)
    holding = [(a, b) for a, b in split_into_windows(text, encoded.offsets, size) if a <= first and last < b]
    if holding:
        # an edge of the text itself cuts nothing off
        return max(holding, key=lambda w: min(first - w[0] if w[0] else count, w[1] - last if w[1] < count else count))
    start = min(max(0, (first + last + 1 - size) // 2), max(0, count - size))
    return start, min(start + size, count)
