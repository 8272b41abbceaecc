"""Extractive question answering: the span of a text that answers a question, or the decision that no span does.

A `Reader` cuts a text into overlapping windows, each with the question in front, and scores the spans of a batch of
windows in one pass. Questions and texts are data (`tokenization.py`). Windows and their spans are plain arrays, which
travel between processes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModelForQuestionAnswering, PreTrainedModel

from qa_inference.batching import map_batches, plan_batches
from qa_inference.checks import check_integers
from qa_inference.models._cpu_modules import use_fast_modules
from qa_inference.models.inference import check_finite, count_embeddings, ids_to_device, inference_operation, to_device
from qa_inference.models.loading import DEFAULT_LOADING, LoadingOptions, find_pad_id, load_pretrained
from qa_inference.sentences import stripped_span
from qa_inference.tokenization import TextTokenizer, pad_rows

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

SHORTEST_WINDOW = 16
TEXTS_KEPT = 64  # texts whose tokens are remembered; questions about the same text come one after the other
READ_BUDGET = 12_288  # tokens of a batch of `Reader.read`: 32 windows of 384
CPU_TOKENS = 1536  # tokens that a CPU reads in one forward pass


@dataclass(frozen=True)
class ReaderConfig:
    """How a text is read; the defaults are those of the SQuAD programs that came with BERT.

    Attributes:
        window: the most tokens of an input: question, text and the special tokens around them; fewer if the checkpoint
            has fewer positions.
        stride: the number of tokens from the start of a window to the start of the next.
        n_best: the number of starts and of ends that are combined, and the most spans kept of a window.
        max_answer_tokens: the most tokens of an answer.
        null_threshold: in logits; there is no answer if the null score exceeds the best span's by more than this.

    Raises:
        ValueError: if `window` is less than 16, or another count less than 1, or `null_threshold` is NaN.
    """

    window: int = 384
    stride: int = 128
    n_best: int = 20
    max_answer_tokens: int = 30
    null_threshold: float = 0.0

    def __post_init__(self) -> None:
        check_integers(self, window=SHORTEST_WINDOW, stride=1, n_best=1, max_answer_tokens=1)
        if np.isnan(self.null_threshold):
            raise ValueError("null_threshold: must be a number of logits; got NaN")


@dataclass(frozen=True)
class ReaderAnswer:
    """The best span of a text for a question, or no answer.

    `text` is the text's own characters [start, end); without an answer it is "" and both are -1. `score` is the best
    span's start plus end logit, whether or not it is the answer, and NaN if the text has no span at all; `null_score`
    is the smallest score of no answer over the `num_windows` windows.
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
        type_ids: [T], the segment of every token; None for a model without segments.
        text_start: the index in `ids` of the text's first token.
        offsets: [N, 2], for each of the text's tokens its characters [start, end) in the whole text, without white
            space at their edges; start == end: white space only.
    """

    ids: Ints
    type_ids: Ints | None
    text_start: int
    offsets: Ints

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

    starts: Ints
    ends: Ints
    scores: Floats
    null_score: float


class Reader:
    """An extractive question-answering model in evaluation mode on one device, with its tokenizer.

    `window` is the most tokens of an input: `config.window`, or the checkpoint's positions if those are fewer. `text`
    encodes questions and texts; `model` is the network itself.

    Raises ValueError if the tokenizer does not put a classification token in front of a pair, or the checkpoint has
    fewer than 16 positions.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, *, config: ReaderConfig | None = None) -> None:
        self.model: Any = model.eval()  # Any: the library's models are callables of their own signatures
        self.config = config or ReaderConfig()
        self.text = TextTokenizer(tokenizer)
        self.device = next(model.parameters()).device
        self.window = _window_size(model, tokenizer, self.config.window)
        self._layout = _PairLayout.of(tokenizer)
        self._has_types = (getattr(model.config, "type_vocab_size", None) or 0) > 1
        self._pad, self._embeddings = find_pad_id(model, tokenizer), count_embeddings(model)
        self._tokens = functools.lru_cache(maxsize=TEXTS_KEPT)(self._encode)

    @classmethod
    def load(
        cls, name: str, options: LoadingOptions = DEFAULT_LOADING, *, config: ReaderConfig | None = None
    ) -> Reader:
        """Load a Hub name or a folder.

        Raises what `load_pretrained` does, if there is no such checkpoint or it was not trained to answer questions.
        """
        kind = "an extractive question-answering model"
        model, tokenizer = load_pretrained(AutoModelForQuestionAnswering, kind, name, options)
        use_fast_modules(model)
        return cls(model, tokenizer, config=config)

    def windows(self, question: str, text: str) -> list[Window]:
        """The inputs that ask `question` of `text`: at least one, more if the text does not fit.

        Windows start every `config.stride` tokens of the text, and the last one reaches its end. A question is cut on
        the right if it would leave less than half of the window to the text. The tokens of the last texts are
        remembered.
        """
        ids, offsets = self._tokens(text)
        longest_question = self.window - self._layout.around - -(-self.window // 2)
        question_ids = self.text.encode(question.strip()).ids[:longest_question]
        room = self.window - self._layout.around - len(question_ids)
        return [
            self._layout.window(
                question_ids, ids[start : start + room], offsets[start : start + room], has_types=self._has_types
            )
            for start in window_starts(len(ids), room, self.config.stride)
        ]

    @inference_operation
    def spans(self, windows: Sequence[Window]) -> list[WindowSpans]:
        """The best spans of each window.

        As in SQuAD's reference programs, the `n_best` likeliest starts are paired with the `n_best` likeliest ends; of
        the pairs that do not end before they start and have at most `max_answer_tokens` tokens, the `n_best` best are
        kept. Only the text's tokens compete, white space neither starts nor ends a span, and ties go to the earlier.
        A GPU reads all windows in one forward pass; a CPU reads about `CPU_TOKENS` tokens at a time, so that what
        passes from layer to layer stays in its cache. Raises ValueError if an id has no embedding, or the model
        computes NaN or infinity.
        """
        if self.device.type != "cpu":
            return self._read(windows) if windows else []
        spans: dict[int, WindowSpans] = {}
        for batch in plan_batches([window.cost for window in windows], CPU_TOKENS):
            spans.update(zip(batch, self._read([windows[i] for i in batch]), strict=True))
        return [spans[i] for i in range(len(windows))]

    def _read(self, windows: Sequence[Window]) -> list[WindowSpans]:
        """The best spans of each window, in one forward pass of all."""
        mask = [np.ones(window.cost, np.int64) for window in windows]
        inputs = {
            "input_ids": ids_to_device([window.ids for window in windows], self._pad, self._embeddings, self.device),
            "attention_mask": to_device(pad_rows(mask, 0), self.device),
        }
        if self._has_types:
            types = pad_rows([window.type_ids for window in windows if window.type_ids is not None], 0)
            inputs["token_type_ids"] = to_device(types, self.device)
        output = self.model(**inputs, return_dict=True)
        starts, ends = output.start_logits.float().cpu().numpy(), output.end_logits.float().cpu().numpy()
        return [self._best(window, start, end) for window, start, end in zip(windows, starts, ends, strict=True)]

    def answer(self, text: str, windows: Sequence[Window], spans: Sequence[WindowSpans]) -> ReaderAnswer:
        """The answer in `text` from all windows of one question: the best span of any, against the least null score.

        There is no answer if the null score exceeds the span's by more than `config.null_threshold`. Ties go to the
        earlier window. Raises ValueError unless there is a window, and as many `spans` as windows.
        """
        if not windows or len(windows) != len(spans):
            raise ValueError(
                f"answer: needs the spans of every window of a question; got {len(windows)} windows and spans of "
                f"{len(spans)}. Pass the result of `windows`, and the result of `spans` for them"
            )
        null = min(of_window.null_score for of_window in spans)
        non_empty = [i for i, of_window in enumerate(spans) if len(of_window.scores)]
        if not non_empty:
            return ReaderAnswer("", -1, -1, float("nan"), null, len(windows))
        best = max(non_empty, key=lambda i: float(spans[i].scores[0]))
        score = float(spans[best].scores[0])
        if null - score > self.config.null_threshold:
            return ReaderAnswer("", -1, -1, score, null, len(windows))
        start = int(windows[best].offsets[spans[best].starts[0], 0])
        end = int(windows[best].offsets[spans[best].ends[0], 1])
        return ReaderAnswer(text[start:end], start, end, score, null, len(windows))

    def read(self, questions: Sequence[str], texts: Sequence[str]) -> list[ReaderAnswer]:
        """The answer of each question in the text with the same index, in batches.

        Raises ValueError unless there are as many questions as texts.
        """
        if len(questions) != len(texts):
            raise ValueError(
                f"questions and texts: must be of the same length; got {len(questions)} and {len(texts)}. Give each "
                f"question its own text, and repeat a text with several questions"
            )
        windows = [self.windows(question, text) for question, text in zip(questions, texts, strict=True)]
        flat = [window for of_question in windows for window in of_question]
        spans = iter(map_batches(self.spans, flat, lambda window: window.cost, token_budget=READ_BUDGET))
        return [
            self.answer(text, of_question, [next(spans) for _ in of_question])
            for text, of_question in zip(texts, windows, strict=True)
        ]

    def _encode(self, text: str) -> tuple[Ints, Ints]:
        """A text's token ids [N] and offsets [N, 2], without the white space at a token's edges."""
        encoded = self.text.encode(text)
        offsets = [stripped_span(text, start, end) for start, end in encoded.offsets]
        return np.array(encoded.ids, np.int32), np.array(offsets, np.int32).reshape(-1, 2)

    def _best(self, window: Window, start: Floats, end: Floats) -> WindowSpans:
        """The best spans of one window from the logits [T] of its input and its padding."""
        check_finite(np.stack([start[: window.cost], end[: window.cost]]), "a logit")
        text_tokens = slice(window.text_start, window.text_start + len(window.offsets))
        is_blank = window.offsets[:, 0] == window.offsets[:, 1]
        starts, ends = (np.where(is_blank, np.float32(-np.inf), logits[text_tokens]) for logits in (start, end))
        best = best_spans(starts, ends, self.config.n_best, self.config.max_answer_tokens)
        return WindowSpans(*best, float(start[0] + end[0]))


# ---- windows and spans as plain arrays ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PairLayout:
    """The tokens that a checkpoint puts around and between two texts, and the segments of all.

    BERT: `[CLS] question [SEP] text [SEP]`; RoBERTa: `<s> question </s></s> text </s>`. `types` are the segments of the
    head, of a question token, of the middle, of a text token, and of the tail.
    """

    head: tuple[int, ...]
    middle: tuple[int, ...]
    tail: tuple[int, ...]
    types: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tokenizer: Any) -> _PairLayout:
        """Derive it from the way a Hugging Face tokenizer joins two letters.

        Raises ValueError unless a classification token comes first: its position stands for no answer.
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
        # the first text is ids[a:b], the second ids[c:d]
        a = _index_of(first, ids, 0)
        b = a + len(first)
        c = _index_of(second, ids, b)
        d = c + len(second)
        parts = (types[:a], types[a : a + 1], types[b:c], types[c : c + 1], types[d:])
        return cls(tuple(ids[:a]), tuple(ids[b:c]), tuple(ids[d:]), tuple(map(tuple, parts)))

    @property
    def around(self) -> int:
        """The number of tokens around and between the two texts."""
        return len(self.head) + len(self.middle) + len(self.tail)

    def window(self, question: Sequence[int], ids: Ints, offsets: Ints, *, has_types: bool) -> Window:
        """The input of a question's tokens and some tokens of a text."""
        types = None
        if has_types:
            head, of_question, middle, of_text, tail = self.types
            types = np.array([*head, *of_question * len(question), *middle, *of_text * len(ids), *tail], np.int32)
        front = [*self.head, *question, *self.middle]
        return Window(np.array([*front, *ids, *self.tail], np.int32), types, len(front), offsets)


def window_starts(tokens: int, room: int, stride: int) -> range:
    """The first tokens of the windows of `room` tokens that cover a text of `tokens` tokens.

    Windows start `stride` tokens after one another, or `room` if that is less, and the last reaches the text's end.
    """
    step = min(room, stride)
    beyond = max(0, tokens - room)
    return range(0, -(-beyond // step) * step + 1, step)


def best_spans(start: Floats, end: Floats, n_best: int, longest: int) -> tuple[Ints, Ints, Floats]:
    """The best spans of a text's tokens, as SQuAD's reference programs choose them, the best first.

    A span is missed if its start or end is not among the `n_best` likeliest, so there may be none. Ties go to the
    earlier span.

    Args:
        start: [N] start logits in float32; -inf where no span may start.
        end: [N] end logits, likewise.
        n_best: the number of starts and of ends to combine, and the most spans to return.
        longest: the most tokens of a span.

    Returns:
        First and last tokens and scores (start plus end logit), each [n], n at most `n_best`.
    """
    # 1. Every likely start with every likely end, [n_best * n_best] pairs.
    firsts, lasts = (np.argsort(-logits, kind="stable")[:n_best] for logits in (start, end))
    first, last = np.repeat(firsts, len(lasts)), np.tile(lasts, len(firsts))
    scores = start[first] + end[last]
    # 2. Those that can be spans.
    legal = (last >= first) & (last - first < longest) & np.isfinite(scores)
    first, last, scores = first[legal], last[legal], scores[legal]
    # 3. The best of them.
    order = np.lexsort((last, first, -scores))[:n_best]
    return first[order].astype(np.int32), last[order].astype(np.int32), scores[order]


def _index_of(part: list[int], ids: list[int], start: int) -> int:
    """The index in `ids`, from `start` on, at which `part` begins."""
    return next(i for i in range(start, len(ids)) if ids[i : i + len(part)] == part)


def _window_size(model: PreTrainedModel, tokenizer: Any, wanted: int) -> int:
    """The most tokens of an input: `wanted`, or the positions of the model or its tokenizer if fewer."""
    positions = getattr(model.config, "max_position_embeddings", None) or wanted
    positions = positions if positions > 0 else wanted  # XLNet, which has no such limit, gives -1
    for name, module in model.named_modules():
        # RoBERTa counts positions after that of the padding, so the first of its 514 positions are never used.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= int(module.padding_idx) + 1
    size = int(min(wanted, positions, tokenizer.model_max_length))
    if size < SHORTEST_WINDOW:
        raise ValueError(
            f"model {type(model).__name__}: must have positions for at least {SHORTEST_WINDOW} tokens; got {size}. "
            f"Use another checkpoint, or correct `model_max_length` in its tokenizer_config.json"
        )
    return size
