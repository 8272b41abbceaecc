"""Toy readers of the two real layouts, made in code: models of random weights, and one that points where it is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import processors
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForQuestionAnswering,
)
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from tests import tiny

KINDS = ("bert", "roberta")
POSITIONS = 512


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """`[CLS] question [SEP] text [SEP]` in two types of WordPieces, or `<s> question </s></s> text </s>` in bytes."""
    if kind == "bert":
        made = tiny.wordpiece()
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        made.model_max_length = POSITIONS
        return made
    backend = tiny.byte_bpe().backend_tokenizer
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", model_max_length=POSITIONS,
    )  # fmt: skip


def checkpoint(kind: str) -> tuple[Any, PreTrainedTokenizerFast]:
    """A toy model and its tokenizer: the same weights at every call."""
    torch.manual_seed(7)
    made = tokenizer(kind)
    size = dict(
        vocab_size=len(made), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        initializer_range=0.3,
    )  # fmt: skip
    if kind == "bert":
        return BertForQuestionAnswering(BertConfig(**size, max_position_embeddings=POSITIONS)), made
    # as RoBERTa's own: positions are counted from behind the padding's
    config = RobertaConfig(**size, max_position_embeddings=POSITIONS + 2, type_vocab_size=1)
    return RobertaForQuestionAnswering(config), made


def save(kind: str, folder: Path) -> Path:
    """Write a toy checkpoint as a `from_pretrained` folder."""
    model, made = checkpoint(kind)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


class Pointer(nn.Module):
    """A model whose logits are looked up: a token's id says how well a span starts and ends there.

    `null` is the logit of the first token, for start and end alike; any token not named has -5.
    """

    def __init__(self, size: int, starts: Mapping[int, float], ends: Mapping[int, float], null: float = -9.0) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=POSITIONS, pad_token_id=0)
        self.tables = nn.Parameter(torch.full((2, size), -5.0), requires_grad=False)
        self.null = null
        for table, named in zip(self.tables, (starts, ends), strict=True):
            for index, logit in named.items():
                table[index] = logit

    def forward(self, input_ids: Tensor, attention_mask: Tensor, return_dict: bool) -> QuestionAnsweringModelOutput:
        logits = self.tables[:, input_ids]
        logits[:, :, 0] = self.null
        return QuestionAnsweringModelOutput(start_logits=logits[0], end_logits=logits[1])
