"""How a checkpoint writes questions, with their answers or to given ones."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from qa_inference.rows import Array
from qa_inference.tokenization import TEXT, EncodedText, Ids, TextTokenizer
from qa_inference.windows import split

_LINE_BREAK = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclass(frozen=True)
class ParsedPair:
    """Question and answer as the model wrote them; the answer's tokens begin at `answer_start`."""

    question: str
    answer: str
    answer_start: int


@dataclass(frozen=True)
class PairFormat:
    """What a question-answer generator reads and writes.

    `template` is the input, with `{text}` once; it may name special tokens. What the model writes is
    `question_prefix question separator answer`, ended by end-of-sequence or, if `end` is given, by the first token of
    `end`, whichever comes first. `separator` is an added token of the tokenizer, or plain text. `window` is the most
    tokens of an input, None: what the checkpoint's configuration says.
    """

    template: str = TEXT
    separator: str = "<sep>"
    question_prefix: str = ""
    end: str | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        _check_input(self.template, self.window)
        if not self.separator.strip():
            raise ValueError("format: `separator` must not be blank; name what stands between question and answer")

    def end_ids(self, tokenizer: TextTokenizer) -> tuple[int, ...]:
        """The first token of `end`, as it follows an answer: what ends a pair beside end-of-sequence."""
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
    """What a decoder-only model reads, and how it goes on: a prompt that ends where it writes a question.

    The model writes `question separator answer` on one line, ended by a line break or end-of-sequence; a pair with a
    line break inside is not well formed. `chat`: the template, its last line left out, is a user's message in the
    model's own chat template, and that line begins the reply. A text's own line breaks are read as spaces, so that none
    of its lines can pass for one of the prompt's; a pair is read from what the model wrote, never from the text.
    """

    template: str = PROMPT
    separator: str = "Answer:"
    end: str | None = "\n"
    chat: bool = False

    def encode(self, tokenizer: TextTokenizer, text: str) -> EncodedText:
        """A text as the model reads it, without what the tokenizer puts behind a finished one.

        Raises ValueError if `chat` is asked of a model without a chat template.
        """
        template = self._chat_template(tokenizer) if self.chat else self.template
        return encode_prompt(tokenizer, _LINE_BREAK.sub(" ", text), template)

    def end_ids(self, tokenizer: TextTokenizer) -> tuple[int, ...]:
        """The tokens that a line break after an answer may be: alone, or merged with those behind it."""
        if self.end is None:
            return ()
        found = []
        for count in (1, 2, 3):
            alone, followed = (tokenizer.encode("a", "{text}" + part) for part in ("", self.end * count + "b"))
            before, after = alone.ids, (*followed.ids, *followed.tail)
            found.append(next(b for i, b in enumerate(after) if i >= len(before) or before[i] != b))
        return tuple(dict.fromkeys(found))

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
    """What a generator of questions to given answers reads: a text with the answer between two marks.

    `template` is the input, with `{text}` once; it may name special tokens. `opening` and `closing` stand before and
    after the answer; each is an added token of the tokenizer, with the spaces the checkpoint was trained with. What the
    model writes is the question, ended by end-of-sequence. `window` is the most tokens of an input, None: what the
    checkpoint's configuration says.
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

        Raises ValueError if one is no added token: a text that contains its characters would be taken for marked.
        """
        ids = []
        for name in ("opening", "closing"):
            mark = getattr(self, name).strip()
            found = tokenizer.special_id(mark)
            if found is None:
                raise ValueError(
                    f"format: `{name}` must be an added token of the tokenizer; {mark!r} is none. Name the one the "
                    f"checkpoint was trained with, or choose a checkpoint that writes questions to marked answers"
                )
            ids.append(found)
        return ids[0], ids[1]

    def input(
        self, tokenizer: TextTokenizer, text: str, start: int, end: int, window: int
    ) -> tuple[Array, bool] | None:
        """The model's input for the answer at the characters [start, end) of a text: int32 ids, at most `window`.

        The second value says whether only a window of the text is read: the one that holds the answer with most text
        on its shorter side, one centred on it if `windows.split` cut it in two. None if the answer is too long for any.
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
    """A text in a template that a decoder-only model goes on from: some tokenizers end every text, and this one is not.

    See `TextTokenizer.encode`.
    """
    encoded = tokenizer.encode(text, template)
    behind = len(tokenizer.encode("a").tail)
    return replace(encoded, tail=encoded.tail[: len(encoded.tail) - behind])


def _check_input(template: str, window: int | None) -> None:
    """Raise ValueError unless a format's template and window can be meant."""
    if template.count(TEXT) != 1:
        raise ValueError(f"format: `template` must contain {TEXT} exactly once; got {template!r}")
    if window is not None and window < 8:
        raise ValueError(f"format: `window` must be at least 8 tokens; got {window}")


def _window_around(encoded: EncodedText, text: str, first: int, last: int, size: int) -> tuple[int, int]:
    """Of a text's windows of `size` tokens the one in which the tokens [first, last] lie farthest from an edge cut."""
    count = len(encoded.ids)
    holding = [(a, b) for a, b in split(text, encoded.offsets, size) if a <= first and last < b]
    if holding:
        # an edge of the text itself cuts nothing off
        return max(holding, key=lambda w: min(first - w[0] if w[0] else count, w[1] - last if w[1] < count else count))
    start = min(max(0, (first + last + 1 - size) // 2), max(0, count - size))
    return start, min(start + size, count)
