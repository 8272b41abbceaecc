"""From texts to a batch: documents, their ground truths and, in contrastive retraining, a bad summary of each.

A set of documents is a `datasets.Dataset`, as `ConseqCollector` saves it, or anything else with a length, rows by index
that are dicts, and `column_names`.
The columns are:

- `document` and `ground_truth`;
- `negative`, the bad summary; None, or no such column: there is none;
- `selected`, whether to train on the row; None, or no such column: yes;
- `weight`, the factor of the row's losses; no such column: 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from qa_inference.checks import check_integers, integer_from
from qa_inference.formats import encode_prompt
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import count_positions
from qa_inference.tokenization import TEXT, Ids, TextTokenizer, pad_rows
from quals_metric.training.state import left_as_found

IGNORED = -100  # the label of a position without a target: a convention of the libraries


@dataclass(frozen=True)
class TextFormat:
    """The format of a summarizer's input and output. Longer texts lose their end.

    Args:
        template: the text around a document, with `{text}` once ("summarize: {text}" for T5).
        max_source_tokens: the most tokens of an input, template included; None: the checkpoint's limit.
        max_target_tokens: the most tokens of a summary, its end included.
    """

    template: str = TEXT
    max_source_tokens: int | None = None
    max_target_tokens: int = 128

    def __post_init__(self) -> None:
        if self.template.count(TEXT) != 1:
            raise ValueError(f"template: must contain {TEXT} exactly once; got {self.template!r}")
        check_integers(self, max_target_tokens=1)
        integer_from(1, or_none=True)("max_source_tokens", self.max_source_tokens)

    def input(
        self, tokenizer: TextTokenizer, document: str, limit: int | None, *, is_prompt: bool = False
    ) -> list[int]:
        """The ids of a document in the template, at most `limit` of them (None: all); a longer one loses its end.

        `is_prompt`: a decoder-only model continues the ids, so they have no end token. Raises ValueError if the
        template leaves no room for a document.
        """
        encoded = (encode_prompt if is_prompt else TextTokenizer.encode)(tokenizer, document, self.template)
        room = len(encoded.ids) if limit is None else limit - encoded.around
        if room < 1 and encoded.ids:
            raise ValueError(
                f"max_source_tokens: must leave room for a document beside the template's {encoded.around} tokens; got "
                f"{limit}. Shorten the template{' or set fewer max_new_tokens' if is_prompt else ''}"
            )
        return [int(token) for token in encoded.window(0, room)]


def virtual_tokens(model: Any) -> int:
    """The number of positions that the trained vectors of a prompt-tuned model (PEFT) take before its input."""
    config = getattr(model, "active_peft_config", None)
    is_in_decoder = getattr(config, "peft_type", None) == "PREFIX_TUNING" and model.config.is_encoder_decoder
    return 0 if is_in_decoder else getattr(config, "num_virtual_tokens", None) or 0


class TextEncoder:
    """The token ids of documents and summaries for one encoder-decoder.

    `prefix` holds the tokens that the decoder starts from, forced first tokens included. As in generation, they are
    input and never a target. `pad` is the padding token. Raises ValueError for a model with prompt or prefix tuning
    (PEFT), which adds vectors to the tokens.
    """

    def __init__(self, model: Any, tokenizer: Any, text_format: TextFormat | None = None) -> None:
        self.format = text_format or TextFormat()
        adapter: Any = getattr(model, "active_peft_config", None)
        if getattr(adapter, "num_virtual_tokens", None):
            raise ValueError(
                f"model: must not have prompt or prefix tuning for contrastive retraining; its adapter is of the type "
                f"{getattr(adapter.peft_type, 'value', adapter.peft_type)}. Use an adapter that changes weights, such "
                f"as LoRA"
            )
        with left_as_found(model):
            reader = EncoderDecoder(model, tokenizer, sharing="expanded")  # leaves the model's attention as it is
            self._text, self.prefix, window = reader.text, reader.prefix, reader.window
            self.pad, self._end = reader.vocabulary.pad, reader.vocabulary.ends[0]
        self._source_tokens = self.format.max_source_tokens or window
        positions = count_positions(model, "decoder") or self.format.max_target_tokens + len(self.prefix)
        self._target_tokens = min(self.format.max_target_tokens, positions - len(self.prefix))

    def source(self, document: str) -> list[int]:
        """The input ids of a document."""
        return self.format.input(self._text, document, self._source_tokens)

    def target(self, summary: str) -> list[int]:
        """The ids that the decoder must write for a summary, its end included."""
        return [*self._text.encode(summary).ids[: self._target_tokens - 1], self._end]


class Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """A set of documents whose rows are encoded when they are read.

    An example has `input_ids` and `labels`, and where the row has them `negative_labels` and `weight`.

    Args:
        rows: a set of documents, as this module describes it.
        encoder: encodes texts for the model to train.

    Raises:
        ValueError: if there is no row to train on.
    """

    def __init__(self, rows: Any, encoder: TextEncoder) -> None:
        self._rows, self._encoder = rows, encoder
        flags = rows["selected"] if "selected" in rows.column_names else [True] * len(rows)
        self._selected = [index for index, flag in enumerate(flags) if flag is None or flag]
        if not self._selected:
            raise ValueError(
                f"data: must have a row to train on; none of {len(rows)} is selected. Select with larger ratios "
                f"(`reselect`), or find out why scores are undefined"
            )

    def __len__(self) -> int:
        return len(self._selected)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: Mapping[str, Any] = self._rows[self._selected[index]]
        example = {
            "input_ids": self._encoder.source(row["document"]),
            "labels": self._encoder.target(row["ground_truth"]),
        }
        if row.get("negative") is not None:
            example["negative_labels"] = self._encoder.target(row["negative"])
        return example | ({} if row.get("weight") is None else {"weight": row["weight"]})


@dataclass(frozen=True)
class PairCollator:
    """Stacks examples into one batch: first every positive summary, then every negative one, each with its document.

    One forward pass then reads both, `labels` counts the target tokens of both, and all processes of a distributed run
    have the same graph. The batch has `input_ids` and `attention_mask` [rows, S], `decoder_input_ids` and `labels`
    [rows, T]. If an example has a negative, `negative` [rows] is true for the negative rows. If an example has a
    weight, `weight` [rows] has it for both its rows.

    Args:
        prefix: the tokens that the decoder starts from.
        pad: the padding token.
        unlearn_end: whether a negative's end token is unlearned like its words, as published. False: it is not, because
            a false summary also has to end where it is complete.
        positives_only: whether to leave out the negatives.
    """

    prefix: tuple[int, ...]
    pad: int
    unlearn_end: bool = True
    positives_only: bool = False

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of examples, or of rows tokenized elsewhere into `input_ids`, `labels` and `negative_labels`.

        Labels are the ids that the decoder must write, without the tokens it starts from. Raises ValueError if an
        example lacks them.
        """
        if any(not {"input_ids", "labels"} <= example.keys() for example in examples):
            raise ValueError(
                "rows: must have `input_ids` and `labels`; one lacks them. Give documents as a datasets.Dataset, and "
                "tokenize the rows of a stream yourself"
            )
        # 1. A row for every example, then one for every negative.
        negatives = [
            example for example in examples if example.get("negative_labels") is not None and not self.positives_only
        ]
        rows = [*examples, *negatives]
        targets = [list(row["labels"]) for row in examples] + [list(row["negative_labels"]) for row in negatives]
        sources = [list(row["input_ids"]) for row in rows]
        # 2. The decoder reads its prefix and the target but for its last token, and writes the target. The prefix's
        #    forced tokens are no target: the model does not choose them.
        labels = [[IGNORED] * (len(self.prefix) - 1) + target for target in targets]
        if not self.unlearn_end:
            for row in labels[len(examples) :]:
                row[-1] = IGNORED
        # 3. All rows, padded on the right: [rows, S] and [rows, T].
        batch = {
            "input_ids": padded_tensor(sources, self.pad),
            "attention_mask": padded_tensor([[1] * len(source) for source in sources], 0),
            "decoder_input_ids": padded_tensor([[*self.prefix, *target[:-1]] for target in targets], self.pad),
            "labels": padded_tensor(labels, IGNORED),
        }
        if negatives:
            batch["negative"] = torch.arange(len(rows)) >= len(examples)
        if any(example.get("weight") is not None for example in examples):
            weights = [1.0 if row.get("weight") is None else float(row["weight"]) for row in rows]
            batch["weight"] = torch.tensor(weights)
        return batch


def padded_tensor(rows: Sequence[Ids], value: int, side: Literal["left", "right"] = "right") -> Tensor:
    """Rows of ids as one tensor [rows, longest row], filled with `value` on one side."""
    return torch.from_numpy(pad_rows(rows, value, side=side))
