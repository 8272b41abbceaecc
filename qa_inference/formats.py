"""How a checkpoint writes a question and its answer, and the named presets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qa_inference.tokenization import TEXT, Ids, TextTokenizer

CHECKPOINTS = Path(__file__).parent / "checkpoints"


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
        if self.template.count(TEXT) != 1:
            raise ValueError(f"format: `template` must contain {TEXT} exactly once; got {self.template!r}")
        if not self.separator.strip():
            raise ValueError("format: `separator` must not be blank; name what stands between question and answer")
        if self.window is not None and self.window < 8:
            raise ValueError(f"format: `window` must be at least 8 tokens; got {self.window}")

    def end_ids(self, tokenizer: TextTokenizer) -> tuple[int, ...]:
        """The first token of `end`, as it follows an answer: what ends a pair beside end-of-sequence."""
        if self.end is None:
            return ()
        alone, followed = tokenizer.encode("a").ids, tokenizer.encode("a" + self.end + "b").ids
        return (next(b for i, b in enumerate(followed) if i >= len(alone) or alone[i] != b),)

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


@dataclass(frozen=True)
class Preset:
    """A checkpoint that is known to write pairs, and how. `revision` pins a commit of a Hub repository."""

    name: str
    model: str
    format: PairFormat
    licence: str
    about: str
    revision: str | None = None


_LMQG = PairFormat(
    template="generate question and answer: {text}",
    separator=", answer: ",
    question_prefix="question: ",
    end=" | ",
    window=512,
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "embedded",
            str(CHECKPOINTS / "qagen"),
            PairFormat(separator="<sep>", window=512),
            "Apache-2.0",
            "30M parameters, English; ships with the package and needs no network",
        ),
        Preset(
            "t5-large-squad-qa",
            "potsawee/t5-large-generation-squad-QuestionAnswer",
            PairFormat(separator="<sep>", window=512),
            "Apache-2.0",
            "T5-large fine-tuned on SQuAD; closest to the paper's generator among the public ones",
            revision="08bd3086b3327b2f1b760a4e371e2b921202ef93",
        ),
        *(
            Preset(
                f"t5-{size}-squad-qag",
                f"lmqg/t5-{size}-squad-qag",
                _LMQG,
                "CC-BY-4.0",
                f"T5-{size} fine-tuned to write several pairs of a paragraph; the first one counts",
            )
            for size in ("small", "base", "large")
        ),
    )
}
