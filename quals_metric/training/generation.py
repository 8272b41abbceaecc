"""Summaries of documents by a model that is being trained, with its own `generate`.

Encoder-decoders and decoder-only models; the latter get a prompt, padded on the left, and the prompt is cut off what
they return. Documents are text, encoded as data (`qa_inference/tokenization.py`), never the trainer's cut token ids.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from qa_inference.tokenization import TEXT, TextTokenizer
from quals_metric.training.examples import TextFormat
from quals_metric.training.state import left_as_found

DEFAULT_MAX_NEW_TOKENS = 128
_SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


@dataclass(frozen=True)
class GenerationSettings:
    """How summaries are generated; what is None is as the model's own generation config says.

    `max_new_tokens` None: 128, or what the model's positions leave. `max_source_tokens` is the most tokens of a prompt,
    template included, None: what the model and its tokenizer allow; a longer document loses its end, the template
    nothing. `template` has `{text}` once ("summarize: {text}" for T5, a prompt for a decoder-only model). `batch_size`
    counts documents. Without `do_sample` the search is deterministic. With it, every document draws from its own seed
    and is generated alone, its `num_return_sequences` in one batch over one reading of it: what is drawn depends
    neither on batches nor on processes. `more` goes to `generate` as it is.
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
        for name in ("max_new_tokens", "num_beams", "num_return_sequences", "top_k", "batch_size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}: must be a whole number of at least 1; got {value!r}")
        _ = self.text_format  # which checks what it is made of
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
    """Every document's summaries, `num_return_sequences` each, special tokens and surrounding blanks left out.

    The model generates where it is, in evaluation mode and without gradients; it, its tokenizer and all random
    generators are afterwards what they were, also after an error (`state.left_as_found`). Nothing distributed is
    called: each process may give other documents, or none.

    Args:
        model: the model itself, not what DDP or `torch.compile` wrapped it in.
        tokenizer: its tokenizer, fast or written in Python.
        documents: the texts.
        settings: None: the defaults.
        seeds: under `do_sample`, one per document, not negative, added to `settings.seed`; None: its place in the list.

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
        for batch in _batches([len(prompt) for prompt in prompts], 1 if settings.do_sample else settings.batch_size):
            if settings.do_sample:
                torch.manual_seed(settings.seed + seeds[batch[0]])
            texts = _generate(model, tokenizer, [prompts[i] for i in batch], config, settings.more)
            for row, text in enumerate(texts):
                summaries[batch[row // settings.num_return_sequences]].append(text)
    return summaries


def _batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of about equally long prompts together, the longest first, so that memory runs out at once or never."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + size] for start in range(0, len(order), size)]


def _prompts(model: Any, tokenizer: Any, documents: Sequence[str], settings: GenerationSettings) -> list[list[int]]:
    """The input ids of every document in its template; a document that is too long is cut at its end."""
    text, is_prompt = TextTokenizer(tokenizer), not model.config.is_encoder_decoder
    limit = settings.max_source_tokens or _source_limit(model, tokenizer, settings)
    return [settings.text_format.input(text, document, limit, is_prompt=is_prompt) for document in documents]


def _source_limit(model: Any, tokenizer: Any, settings: GenerationSettings) -> int | None:
    """The most tokens of an input; None: no limit known. A decoder-only model's positions hold the summary too."""
    config = getattr(model.config, "encoder", model.config)
    limits = [_positions(config, "encoder"), getattr(tokenizer, "model_max_length", None)]
    known = [int(limit) for limit in limits if limit and limit < 1_000_000]
    if not known:
        return None
    return min(known) - (0 if model.config.is_encoder_decoder else _max_new_tokens(model, settings))


def _max_new_tokens(model: Any, settings: GenerationSettings) -> int:
    """The most tokens of a summary: what is set, else 128 or what the positions leave."""
    positions = _positions(getattr(model.config, "decoder", model.config), "decoder")
    if positions is None:
        return settings.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    # An encoder-decoder's decoder begins with up to two tokens of its own, a decoder-only model with the document.
    room = positions - 2 if model.config.is_encoder_decoder else positions // 2
    asked = settings.max_new_tokens
    if asked is not None and asked > (room if model.config.is_encoder_decoder else positions - 1):
        raise ValueError(f"max_new_tokens: must fit in the decoder's {positions} positions; got {asked}")
    return asked or min(DEFAULT_MAX_NEW_TOKENS, room)


def _positions(config: Any, part: str) -> int | None:
    """How many positions the part ("encoder" or "decoder") of a model has; None: as many as are asked for."""
    for name in ("max_position_embeddings", f"max_{part}_position_embeddings"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _generation_config(model: Any, tokenizer: Any, settings: GenerationSettings) -> GenerationConfig:
    """A copy of the model's own generation config with the settings in place."""
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
        config.pad_token_id = _pad_id(model, tokenizer)
    return config


def _pad_id(model: Any, tokenizer: Any) -> int:
    """A token to pad with: it is masked, so the end or any other will do where none is named."""
    ends = model.generation_config.eos_token_id
    for value in (tokenizer.pad_token_id, tokenizer.eos_token_id, ends[0] if isinstance(ends, list) else ends):
        if value is not None:
            return int(value)
    return 0


def _generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], config: GenerationConfig, more: Mapping[str, Any]
) -> list[str]:
    """One batch's summaries, those of a document next to each other."""
    is_encoder_decoder = model.config.is_encoder_decoder
    ids, mask = _padded(prompts, int(config.pad_token_id), left=not is_encoder_decoder)
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    output = model.generate(**inputs, generation_config=config, **more)
    tokens = output if is_encoder_decoder else output[:, ids.shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(tokens.cpu(), skip_special_tokens=True)]


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and attention mask [rows, longest row]. Done here: a tokenizer would have to be told side and token first."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), pad), torch.zeros((len(rows), width), dtype=torch.long)
    for row, tokens in enumerate(rows):
        place = slice(width - len(tokens), width) if left else slice(0, len(tokens))
        ids[row, place], mask[row, place] = torch.tensor(tokens, dtype=torch.long), 1
    return ids, mask
