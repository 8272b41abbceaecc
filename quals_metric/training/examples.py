"""From texts to a batch: documents, their ground truths and, in contrastive retraining, a bad summary for each.

A set of documents is anything with a length whose rows are dicts of these columns, such as what `ConseqCollector`
saves: `document` and `ground_truth`; `negative`, the bad summary, None or no such column where there is none;
`selected`, whether to train on the row, no such column: on all; `weight`, what the row's losses are multiplied by, no
such column: 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qa_inference.formats import encode_prompt
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.tokenization import TEXT, Ids, TextTokenizer
from quals_metric.training.state import left_as_found

IGNORED = -100  # a label that is not a target: the libraries' convention


@dataclass(frozen=True)
class TextFormat:
    """How a summarizer reads a document and writes a summary.

    `template` has `{text}` once ("summarize: {text}" for T5). `max_source_tokens` is the most tokens of an input,
    template included, None: what the checkpoint allows; `max_target_tokens` the most of a summary, its end included.
    Longer texts lose their end.
    """

    template: str = TEXT
    max_source_tokens: int | None = None
    max_target_tokens: int = 128

    def __post_init__(self) -> None:
        if self.template.count(TEXT) != 1:
            raise ValueError(f"template: must contain {TEXT} exactly once; got {self.template!r}")
        for name, least in (("max_source_tokens", 1), ("max_target_tokens", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name}: must be a whole number of at least {least}; got {value!r}")

    def input(self, tokenizer: TextTokenizer, document: str, most: int | None, *, is_prompt: bool = False) -> list[int]:
        """The ids of a document in the template, at most `most` of them (None: all); a longer one loses its end.

        `is_prompt`: a decoder-only model goes on from them, so they are not ended. Raises ValueError if the template
        leaves no room for a document.
        """
        encoded = (encode_prompt if is_prompt else TextTokenizer.encode)(tokenizer, document, self.template)
        room = len(encoded.ids) if most is None else most - encoded.around
        if room < 1 and encoded.ids:
            raise ValueError(
                f"max_source_tokens: must leave room for a document beside the template's {encoded.around} tokens; got "
                f"{most}. Shorten the template{' or set fewer max_new_tokens' if is_prompt else ''}"
            )
        return [int(token) for token in encoded.window(0, room)]


class TextEncoder:
    """The token ids of documents and summaries for one encoder-decoder.

    `prefix` holds the tokens its decoder starts from, the forced first ones included: input, never a target, as in
    generating; `pad` fills rows up.
    """

    def __init__(self, model: Any, tokenizer: Any, text_format: TextFormat | None = None) -> None:
        self.format = text_format or TextFormat()
        with left_as_found(model):
            reader = EncoderDecoder(model, tokenizer, sharing="expanded")  # which leaves the model's attention alone
            self._text, self.prefix, window = reader.text, reader.prefix, reader.window
            self.pad, self._end = reader.vocabulary.pad, reader.vocabulary.ends[0]
        self._source_tokens = self.format.max_source_tokens or window
        config = getattr(model.config, "decoder", model.config)
        positions = getattr(config, "max_position_embeddings", None) or self.format.max_target_tokens + len(self.prefix)
        self._target_tokens = min(self.format.max_target_tokens, positions - len(self.prefix))

    def source(self, document: str) -> list[int]:
        """The input ids of a document."""
        return self.format.input(self._text, document, self._source_tokens)

    def target(self, summary: str) -> list[int]:
        """The ids a decoder has to write for a summary, its end included."""
        return [*self._text.encode(summary).ids[: self._target_tokens - 1], self._end]


class Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """A set of documents as token ids, made when they are asked for: `input_ids`, `labels`, and where the row has
    them `negative_labels` and `weight`.

    Args:
        rows: see the module.
        encoder: of the model to train.
        positives_only: whether the bad summaries are left out, the selection being the same.

    Raises:
        ValueError: if there is no row to train on.
    """

    def __init__(self, rows: Any, encoder: TextEncoder, *, positives_only: bool = False) -> None:
        self._rows, self._encoder, self._positives_only = rows, encoder, positives_only
        flags = rows["selected"] if "selected" in rows.column_names else [True] * len(rows)
        self._places = [place for place, flag in enumerate(flags) if flag]
        if not self._places:
            raise ValueError(
                f"data: must have a row to train on; none of {len(rows)} is selected. Select with larger ratios "
                f"(`reselect`), or look why scores are undefined"
            )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row: Mapping[str, Any] = self._rows[self._places[place]]
        example = {
            "input_ids": self._encoder.source(row["document"]),
            "labels": self._encoder.target(row["ground_truth"]),
        }
        if not self._positives_only and row.get("negative") is not None:
            example["negative_labels"] = self._encoder.target(row["negative"])
        return example | ({} if row.get("weight") is None else {"weight": row["weight"]})


@dataclass(frozen=True)
class PairCollator:
    """Stacks examples into one batch: first every positive summary, then every negative one, each with its document.

    So one forward pass reads both, `labels` counts the target tokens of both, and all processes of a distributed run
    have the same graph. The batch has `input_ids` and `attention_mask` [rows, S], `decoder_input_ids` and `labels`
    [rows, T]; if an example has a negative, `negative` [rows] says which rows are; if one has a weight, `weight`
    [rows] has it for both its rows.

    A negative's end is unlearned like its words, as published, unless `unlearn_end` is False: a summary ends where it
    is complete, whether what it says is true or not.
    """

    prefix: tuple[int, ...]
    pad: int
    unlearn_end: bool = True

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of some `Examples`, or of rows tokenized elsewhere into `input_ids`, `labels`, `negative_labels`.

        Their labels are what the decoder has to write, without the tokens it starts from.
        """
        negatives = [example for example in examples if example.get("negative_labels") is not None]
        rows = [*examples, *negatives]
        targets = [list(e["labels"]) for e in examples] + [list(e["negative_labels"]) for e in negatives]
        sources = [list(row["input_ids"]) for row in rows]
        # What is forced is no target: nothing is to be learned there, and nothing to be unlearned.
        labels = [[IGNORED] * (len(self.prefix) - 1) + target for target in targets]
        if not self.unlearn_end:
            for row in labels[len(examples) :]:
                row[-1] = IGNORED
        batch = {
            "input_ids": _pad(sources, self.pad),
            "attention_mask": _pad([[1] * len(source) for source in sources], 0),
            "decoder_input_ids": _pad([[*self.prefix, *target[:-1]] for target in targets], self.pad),
            "labels": _pad(labels, IGNORED),
        }
        if negatives:
            batch["negative"] = torch.arange(len(rows)) >= len(examples)
        if any(example.get("weight") is not None for example in examples):
            weights = [1.0 if row.get("weight") is None else float(row["weight"]) for row in rows]
            batch["weight"] = torch.tensor(weights)
        return batch


def _pad(rows: Sequence[Ids], value: int) -> Tensor:
    """Rows of ids as one tensor, filled on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
