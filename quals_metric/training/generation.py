"""Summaries of documents by a model in training, with its own `generate`.

The model is an encoder-decoder or a decoder-only model. A decoder-only model reads a prompt, padded on the left; the
prompt is removed from its output. Documents are text and are encoded as data (`qa_inference/tokenization.py`). The
trainer's own token ids are not used, because they may be cut.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import GenerationConfig

from qa_inference.checks import check_integers, integer_from
from qa_inference.models.loading import count_positions, input_limit
from qa_inference.tokenization import TEXT, TextTokenizer
from quals_metric.training.examples import TextFormat, padded_tensor, virtual_tokens
from quals_metric.training.state import left_as_found

DEFAULT_MAX_NEW_TOKENS = 128
_SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


@dataclass(frozen=True)
class GenerationSettings:
    """How summaries are generated. For a setting that is None, the model's generation config counts.

    Args:
        max_new_tokens: the most tokens of a summary; None: 128, or fewer if the model has no positions for them.
        num_beams: the width of the beam search.
        num_return_sequences: the number of summaries of a document.
        do_sample: whether to sample. A document then draws from its own seed and is generated alone, all its summaries
            in one batch, so that the draws depend neither on batches nor on processes. Otherwise the search is
            deterministic.
        top_k: the number of likeliest tokens to sample from.
        seed: the seed of the draws.
        batch_size: the number of documents in a batch.
        max_source_tokens: the most tokens of a prompt, template included; None: the limit of the model and its
            tokenizer. A longer document loses its end; the template is never cut.
        template: the text around a document, with `{text}` once ("summarize: {text}" for T5, a prompt for a
            decoder-only model).
        more: further arguments of `generate`.
    """

    max_new_tokens: int | None = None
    num_beams: int | None = None
    num_return_sequences: int = 1
    do_sample: bool = False
    top_k: int | None = None
    seed: int = 0
    batch_size: int = 8
    max_source_tokens: int | None = None
    template: str = TEXT
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_integers(self, num_return_sequences=1, batch_size=1)
        for name in ("max_new_tokens", "num_beams", "top_k"):
            integer_from(1, or_none=True)(name, getattr(self, name))
        _ = self.text_format  # checks the template and its limit
        if self.num_return_sequences > 1 and not self.do_sample and (self.num_beams or 1) < self.num_return_sequences:
            raise ValueError(
                f"num_return_sequences: needs do_sample=True or as many beams; got {self.num_return_sequences} with "
                f"num_beams={self.num_beams}"
            )

    @property
    def text_format(self) -> TextFormat:
        """How the model reads a document."""
        return TextFormat(self.template, self.max_source_tokens)


def generate_summaries(
    model: Any,
    tokenizer: Any,
    documents: Sequence[str],
    settings: GenerationSettings | None = None,
    *,
    seeds: Sequence[int] | None = None,
) -> list[list[str]]:
    """The summaries of every document, `num_return_sequences` each, without special tokens and surrounding blanks.

    The model generates on its own device, in evaluation mode and without gradients. Afterwards the model, its tokenizer
    and all random generators are as before, also after an error (`state.left_as_found`). The processes of a distributed
    run do not communicate here, so each may pass other documents, or none.

    Args:
        model: the model itself, without the wrapper of DDP or `torch.compile`.
        tokenizer: the model's tokenizer, a fast or a Python one.
        documents: the texts.
        settings: how to generate; None: the defaults.
        seeds: with `do_sample`, a number of at least 0 for each document, added to `settings.seed`; None: its index.

    Raises:
        ValueError: if the positions leave no room for a document, or `seeds` are not as many as the documents.
    """
    settings = settings or GenerationSettings()
    seeds = range(len(documents)) if seeds is None else seeds
    if len(seeds) != len(documents):
        raise ValueError(f"seeds: must be one per document; got {len(seeds)} for {len(documents)} documents")
    if not documents:
        return []
    summaries: list[list[str]] = [[] for _ in documents]
    with left_as_found(model, tokenizer):
        prompts = _prompts(model, tokenizer, documents, settings)
        config = _generation_config(model, tokenizer, settings)
        size = 1 if settings.do_sample else settings.batch_size
        for batch in _batches_by_length([len(prompt) for prompt in prompts], size):
            if settings.do_sample:
                torch.manual_seed(settings.seed + seeds[batch[0]])
            texts = _generate_batch(model, tokenizer, [prompts[i] for i in batch], config, settings.more)
            for row, text in enumerate(texts):
                summaries[batch[row // settings.num_return_sequences]].append(text)
    return summaries


def _batches_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of prompts of similar length, the longest first, so that memory runs out at the start or never."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + size] for start in range(0, len(order), size)]


def _prompts(model: Any, tokenizer: Any, documents: Sequence[str], settings: GenerationSettings) -> list[list[int]]:
    """The input ids of every document in the template; a document that is too long loses its end."""
    text, is_prompt = TextTokenizer(tokenizer), not model.config.is_encoder_decoder
    limit = settings.max_source_tokens or _source_limit(model, tokenizer, settings)
    return [settings.text_format.input(text, document, limit, is_prompt=is_prompt) for document in documents]


def _source_limit(model: Any, tokenizer: Any, settings: GenerationSettings) -> int | None:
    """The most tokens of an input; None: no limit is known. A decoder-only model's positions also hold the summary."""
    limit = input_limit(model, tokenizer)
    if limit is None:
        return None
    summary_tokens = 0 if model.config.is_encoder_decoder else _max_new_tokens(model, settings)
    return limit - virtual_tokens(model) - summary_tokens


def _max_new_tokens(model: Any, settings: GenerationSettings) -> int:
    """The most tokens of a summary: the setting, else 128, or fewer if the model has no positions for them."""
    positions = count_positions(model, "decoder")
    if positions is None:
        return settings.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    # An encoder-decoder's decoder begins with up to two tokens of its own, a decoder-only model with the document.
    room = positions - 2 if model.config.is_encoder_decoder else positions // 2
    requested = settings.max_new_tokens
    if requested is not None and requested > (room if model.config.is_encoder_decoder else positions - 1):
        raise ValueError(f"max_new_tokens: must fit in the decoder's {positions} positions; got {requested}")
    return requested or min(DEFAULT_MAX_NEW_TOKENS, room)


def _generation_config(model: Any, tokenizer: Any, settings: GenerationSettings) -> GenerationConfig:
    """A copy of the model's own generation config, changed as the settings ask."""
    config: GenerationConfig = copy.deepcopy(model.generation_config)
    config.max_length, config.max_new_tokens = None, _max_new_tokens(model, settings)
    config.use_cache = True  # the trainer switches it off in the model's config
    config.do_sample, config.num_return_sequences = settings.do_sample, settings.num_return_sequences
    if not settings.do_sample:
        for name in _SAMPLING_ONLY:
            setattr(config, name, None)
    for name in ("num_beams", "top_k"):
        if (value := getattr(settings, name)) is not None:
            setattr(config, name, value)
    if config.pad_token_id is None:
        config.pad_token_id = _filler_token(model, tokenizer)
    return config


def _filler_token(model: Any, tokenizer: Any) -> int:
    """The token that pads prompts and finished summaries: the padding token, or the end token if there is none."""
    ends = model.generation_config.eos_token_id
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, ends[0] if isinstance(ends, list) else ends):
        if token is not None:
            return int(token)
    return 0


def _generate_batch(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], config: GenerationConfig, more: Mapping[str, Any]
) -> list[str]:
    """The summaries of a batch of prompts, those of a document next to each other."""
    # 1. A decoder-only model continues its prompts, so they must end at the same column. The rows are padded here,
    #    because the tokenizer may have no padding token, or another padding side.
    is_encoder_decoder = model.config.is_encoder_decoder
    side: Literal["left", "right"] = "right" if is_encoder_decoder else "left"
    ids = padded_tensor(prompts, int(config.pad_token_id), side)  # [rows, longest prompt]
    mask = padded_tensor([[1] * len(prompt) for prompt in prompts], 0, side)
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    # 2. The output [rows * num_return_sequences, tokens]; a decoder-only model's begins with the prompt.
    output = model.generate(**inputs, generation_config=config, **more)
    tokens = output if is_encoder_decoder else output[:, ids.shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(tokens.cpu(), skip_special_tokens=True)]
