"""Extractive question answering: the span of a text that answers a question, or that none does.

A `Reader` cuts a text into overlapping windows, each with the question in front, and scores the spans of a batch of
windows in one pass; `Engine.map(reader.spans, windows, lambda window: window.cost)` makes the batches. Questions and
texts are data (`tokenization.py`); windows and found spans are plain arrays, which travel between processes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForQuestionAnswering, PreTrainedModel

from qa_inference.batching import Engine
from qa_inference.models.decoder import to_device
from qa_inference.models.loading import Loading, load_pretrained
from qa_inference.models.spans import Answer, Ints, PairLayout, Window, WindowSpans, best_spans, window_starts
from qa_inference.tokenization import TextTokenizer

__all__ = ["Answer", "Reader", "ReaderConfig", "Window", "WindowSpans"]

SHORTEST_WINDOW = 16
TEXTS_KEPT = 64  # texts whose tokens are remembered: all questions about one come in a row
READ_BUDGET = 12_288  # tokens of a batch of `Reader.read`: 32 windows of 384


@dataclass(frozen=True)
class ReaderConfig:
    """How a text is read; the defaults are those of QAGS and of the SQuAD programs that came with BERT.

    Attributes:
        window: the most tokens of an input: question, text and what stands around them; fewer if the checkpoint has
            fewer positions.
        stride: how many tokens after one another windows of a long text start.
        n_best: how many starts and ends are combined, and the most spans kept of a window.
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
        for name, least in (("window", SHORTEST_WINDOW), ("stride", 1), ("n_best", 1), ("max_answer_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"reader: `{name}` must be at least {least}; got {getattr(self, name)}")
        if np.isnan(self.null_threshold):
            raise ValueError("reader: `null_threshold` must be a number of logits; got NaN")


class Reader:
    """An extractive question-answering model in evaluation mode on one device, with its tokenizer.

    `window` is the most tokens of an input: `config.window`, or the checkpoint's positions if those are fewer. `text`
    encodes questions and texts; `model` is the network itself.

    Raises ValueError if the tokenizer does not put a classification token in front of a pair, or the checkpoint has
    fewer than 16 positions.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, *, config: ReaderConfig | None = None) -> None:
        self.model: Any = model.eval()  # Any: the library's models are callables of their own signatures
        self.text = TextTokenizer(tokenizer)
        self.config = config or ReaderConfig()
        self.device = next(model.parameters()).device
        self.window = _window_size(model, tokenizer, self.config.window)
        self._layout = PairLayout.of(tokenizer)
        self._has_types = (getattr(model.config, "type_vocab_size", None) or 0) > 1
        self._pad = _pad_id(model, tokenizer)
        self._tokens = functools.lru_cache(maxsize=TEXTS_KEPT)(self._encode)

    @classmethod
    def load(cls, name: str, *, config: ReaderConfig | None = None, **options: Unpack[Loading]) -> Reader:
        """Load a Hub name or a folder; see `pretrained.Loading` for what can be said of it.

        Raises OSError or ValueError, naming `name`, if there is no such checkpoint or it was not trained to answer
        questions (the library would give it a head of random weights).
        """
        kind = "an extractive question-answering model"
        model, tokenizer, missing = load_pretrained(AutoModelForQuestionAnswering, kind, name, **options)
        if missing:
            raise ValueError(
                f"model {name!r}: must have been trained to answer questions; its checkpoint lacks "
                f"{', '.join(missing[:3])}. Use one fine-tuned on SQuAD 2.0, say"
            )
        return cls(model, tokenizer, config=config)

    def windows(self, question: str, text: str) -> list[Window]:
        """The inputs that ask `question` of `text`: one at least, more if the text does not fit.

        They start every `config.stride` tokens of the text, and the last one reaches its end. A question is cut on the
        right if it would leave less than half of the window to the text. The tokens of the last texts are remembered.
        """
        ids, offsets = self._tokens(text)
        longest = self.window - self._layout.around - -(-self.window // 2)
        asked = self.text.encode(question.strip()).ids[:longest]
        room = self.window - self._layout.around - len(asked)
        return [
            self._layout.window(
                asked, ids[start : start + room], offsets[start : start + room], has_types=self._has_types
            )
            for start in window_starts(len(ids), room, self.config.stride)
        ]

    @torch.inference_mode()
    def spans(self, windows: Sequence[Window]) -> list[WindowSpans]:
        """The best spans of each window, in one forward pass of all.

        As in SQuAD's reference programs, the `n_best` likeliest starts meet the `n_best` likeliest ends; of these
        pairs the `n_best` best are kept that do not end before they start and have at most `max_answer_tokens` tokens.
        Only the text's tokens compete, those of white space neither start nor end a span, and ties go to the earlier.
        """
        if not windows:
            return []
        ids, mask = _padded([window.ids for window in windows], self._pad, self.device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._has_types:
            types = [window.type_ids for window in windows if window.type_ids is not None]
            inputs["token_type_ids"] = _padded(types, 0, self.device)[0]
        output = self.model(**inputs, return_dict=True)
        starts, ends = output.start_logits.float().cpu().numpy(), output.end_logits.float().cpu().numpy()
        return [self._best(window, start, end) for window, start, end in zip(windows, starts, ends, strict=True)]

    def answer(self, text: str, windows: Sequence[Window], found: Sequence[WindowSpans]) -> Answer:
        """The answer in `text` from all windows of one question: the best span of any, against the least null score.

        There is no answer if the null score exceeds the span's by more than `config.null_threshold`. Ties go to the
        earlier window. Raises ValueError unless there is a window, and as many found as windows.
        """
        if not windows or len(windows) != len(found):
            raise ValueError(
                f"answer: needs the spans of every window of a question; got {len(windows)} windows and {len(found)} "
                f"found. Pass what `windows` gave and what `spans` found in it"
            )
        null = min(spans.null_score for spans in found)
        filled = [i for i, spans in enumerate(found) if len(spans.scores)]
        if not filled:
            return Answer("", -1, -1, float("nan"), null, len(windows))
        best = max(filled, key=lambda i: float(found[i].scores[0]))
        score = float(found[best].scores[0])
        if null - score > self.config.null_threshold:
            return Answer("", -1, -1, score, null, len(windows))
        start = int(windows[best].offsets[found[best].starts[0], 0])
        end = int(windows[best].offsets[found[best].ends[0], 1])
        return Answer(text[start:end], start, end, score, null, len(windows))

    def read(self, questions: Sequence[str], texts: Sequence[str]) -> list[Answer]:
        """The answer of each question in the text of the same place, in batches; ValueError if they are not as many."""
        if len(questions) != len(texts):
            raise ValueError(
                f"questions and texts: must be of the same length; got {len(questions)} and {len(texts)}. Give each "
                f"question its own text, repeating a text that is asked several"
            )
        asked = [self.windows(question, text) for question, text in zip(questions, texts, strict=True)]
        flat = [window for windows in asked for window in windows]
        found = iter(Engine(token_budget=READ_BUDGET).map(self.spans, flat, lambda window: window.cost))
        return [
            self.answer(text, windows, [next(found) for _ in windows])
            for text, windows in zip(texts, asked, strict=True)
        ]

    def _encode(self, text: str) -> tuple[Ints, Ints]:
        """A text's token ids [N] and offsets [N, 2], without the white space at a token's edges."""
        encoded = self.text.encode(text)
        offsets = [_trimmed(text, start, end) for start, end in encoded.offsets]
        return np.array(encoded.ids, np.int32), np.array(offsets, np.int32).reshape(-1, 2)

    def _best(self, window: Window, start: NDArray[np.float32], end: NDArray[np.float32]) -> WindowSpans:
        """The best spans of one window from the logits [T] of its input and its padding."""
        told = slice(window.text_start, window.text_start + len(window.offsets))
        is_blank = window.offsets[:, 0] == window.offsets[:, 1]
        starts, ends = (np.where(is_blank, np.float32(-np.inf), logits[told]) for logits in (start, end))
        found = best_spans(starts, ends, self.config.n_best, self.config.max_answer_tokens)
        return WindowSpans(*found, float(start[0] + end[0]))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The characters [start, end) of `text` without white space at their edges."""
    piece = text[start:end]
    first = start + len(piece) - len(piece.lstrip())
    return first, first + len(piece.strip())


def _padded(rows: Sequence[Ints], value: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`rows`, padded on the right to the longest, and their attention mask, both [B, T]."""
    ids = np.full((len(rows), max(map(len, rows))), value, np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
    return to_device(ids, device), to_device(mask, device)


def _window_size(model: PreTrainedModel, tokenizer: Any, asked: int) -> int:
    """The most tokens of an input: what was asked for, or the positions of the model or its tokenizer if fewer."""
    positions = getattr(model.config, "max_position_embeddings", None) or asked
    for name, module in model.named_modules():
        # RoBERTa counts positions from behind the padding's, so the first of its 514 are never used
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= int(module.padding_idx) + 1
    size = int(min(asked, positions, tokenizer.model_max_length))
    if size < SHORTEST_WINDOW:
        raise ValueError(
            f"model {type(model).__name__}: must have positions for at least {SHORTEST_WINDOW} tokens; got {size}. "
            f"Use another checkpoint, or correct `model_max_length` in its tokenizer_config.json"
        )
    return size


def _pad_id(model: PreTrainedModel, tokenizer: Any) -> int:
    """The id that pads; any will do where a checkpoint has none, since padding is masked."""
    pad = getattr(model.config, "pad_token_id", None)
    pad = tokenizer.pad_token_id if pad is None else pad
    return int(pad) if pad is not None else 0
