"""A T5 as the recipes train it: its forward pass with many targets of a source in one row, losses, checkpoints.

The targets that are decoded from one source are packed one behind the other into one row. A block-diagonal mask keeps
them apart, and relative positions are the same in a packed target as alone. So keys and values of a source are
computed once for all its targets, and nothing is padded but the ends of rows. Products are in the type that the device
multiplies fast, the residual stream, norms and softmax in float32.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast, T5ForConditionalGeneration

from qa_inference.models.loading import LoadingOptions, load_pretrained
from recipes.annotated import HIGHLIGHT, NO_ANSWER, SEPARATOR, WINDOW
from recipes.cpu_training import autocast
from recipes.targets import Example, pad

MARKS = (SEPARATOR, HIGHLIGHT, NO_ANSWER)


@dataclass(frozen=True)
class Packed:
    """A batch: sources [B, S] and the targets decoded from each, one behind the other, [B, L].

    `labels` are the tokens to predict, -100 where none is; `target_index` [B, L] numbers the targets of a row from 0;
    padding has -1.
    """

    source: Tensor
    inputs: Tensor
    labels: Tensor
    target_index: Tensor

    def to(self, device: torch.device) -> Packed:
        """The same on a device."""
        moved = (each.to(device) for each in (self.source, self.inputs, self.labels, self.target_index))
        return Packed(*moved)


def pack(batch: Sequence[Example], padding: int, start: int) -> Packed:
    """Pack the targets of each example behind one another; every target begins with the token `start`."""
    inputs = [[t for target in e.targets for t in (start, *target.ids[:-1])] for e in batch]
    labels = [[t for target in e.targets for t in (*[-100] * target.given, *target.ids[target.given :])] for e in batch]
    numbers = [[i for i, target in enumerate(e.targets) for _ in target.ids] for e in batch]
    return Packed(
        pad([e.source for e in batch], padding, multiple=16), pad(inputs, padding, multiple=16),
        pad(labels, -100, multiple=16), pad(numbers, -1, multiple=16),
    )  # fmt: skip


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attention without scaling, as T5 has it: [B, H, L, D] by [B, H, S, D] with bias [B or 1, H or 1, L or 1, S]."""
    weights = (torch.matmul(queries, keys.transpose(2, 3)).float() + bias).softmax(-1)
    return torch.matmul(weights.to(values.dtype), values)


def heads(projected: Tensor, count: int) -> Tensor:
    """[B, L, H * D] as [B, H, L, D]."""
    rows, length, _ = projected.shape
    return projected.view(rows, length, count, -1).transpose(1, 2)


def joined(attended: Tensor) -> Tensor:
    """[B, H, L, D] as [B, L, H * D]."""
    return attended.transpose(1, 2).flatten(2)


def position_bias(block, length: int) -> Tensor:
    """The relative bias [1, H, L, L] of a stack's first block, for all its blocks."""
    return block.layer[0].SelfAttention.compute_bias(length, length)


def encode(model: T5ForConditionalGeneration, source: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states [B, S, d] of sources [B, S], and the bias [B, 1, 1, S] that hides their padding."""
    hidden = model.shared(source)
    hides = (source == model.config.pad_token_id)[:, None, None].float() * -1e9
    bias = position_bias(model.encoder.block[0], source.shape[1]) + hides
    for block in model.encoder.block:
        hidden = hidden + self_attention(block.layer[0], hidden, bias)
        hidden = hidden + feed_forward(block.layer[-1], hidden)
    return model.encoder.final_layer_norm(hidden), hides


def self_attention(layer, hidden: Tensor, bias: Tensor) -> Tensor:
    """What a self-attention layer adds to the hidden states."""
    at, count = layer.SelfAttention, layer.SelfAttention.n_heads
    normed = layer.layer_norm(hidden)
    return at.o(joined(attend(*(heads(project(normed), count) for project in (at.q, at.k, at.v)), bias))).float()


def feed_forward(layer, hidden: Tensor) -> Tensor:
    """What a gated feed-forward layer adds to the hidden states."""
    inner, normed = layer.DenseReluDense, layer.layer_norm(hidden)
    return inner.wo(F.gelu(inner.wi_0(normed), approximate="tanh") * inner.wi_1(normed)).float()


def decode(model: T5ForConditionalGeneration, encoded: Tensor, hides: Tensor, packed: Packed) -> Tensor:
    """Hidden states [B, L, d] of the packed targets, before the projection to the vocabulary."""
    length, numbers = packed.inputs.shape[1], packed.target_index
    # 1. A token sees the tokens of its own target up to itself. Padding sees itself, so that no row is all hidden.
    same = (numbers[:, :, None] == numbers[:, None, :]) & torch.ones(
        length, length, dtype=torch.bool, device=numbers.device
    ).tril()
    bias = position_bias(model.decoder.block[0], length) + (~same)[:, None].float() * -1e9
    hidden = model.shared(packed.inputs)
    for block in model.decoder.block:
        hidden = hidden + self_attention(block.layer[0], hidden, bias)
        # 2. All targets of a row attend to its source.
        at, normed = block.layer[1].EncDecAttention, block.layer[1].layer_norm(hidden)
        count = at.n_heads
        attended = attend(heads(at.q(normed), count), heads(at.k(encoded), count), heads(at.v(encoded), count), hides)
        hidden = hidden + at.o(joined(attended)).float()
        hidden = hidden + feed_forward(block.layer[2], hidden)
    return model.decoder.final_layer_norm(hidden)


def log_likelihoods(model: T5ForConditionalGeneration, packed: Packed) -> tuple[Tensor, Tensor]:
    """The log-probabilities [M] of all labels, in nats, in the order of `packed.labels`, and their logits [M, V]."""
    packed = packed.to(model.device)
    with autocast(model.device.type):
        hidden = decode(model, *encode(model, packed.source), packed)
        logits = model.lm_head(hidden[packed.labels >= 0])
    logits = logits.float()
    labels = packed.labels[packed.labels >= 0]
    return -F.cross_entropy(logits, labels, reduction="none"), logits


def save(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the checkpoint in bfloat16 as a plain `from_pretrained` folder, with its two separate embeddings."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()
             if "embed_tokens" not in name}  # fmt: skip
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config = {**model.config.to_dict(), "tie_word_embeddings": False, "dtype": "bfloat16"}
    config.pop("_name_or_path", None)  # where it was trained from
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    generation = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)


def write_tokenizer(description: dict[str, Any], folder: Path) -> None:
    """Write a Unigram tokenizer whose vocabulary has `MARKS`, as special tokens, into a folder."""
    ids = {piece: index for index, (piece, _) in enumerate(description["model"]["vocab"])}
    flags = dict.fromkeys(("single_word", "rstrip", "normalized"), False)
    added = [
        {"id": ids[token], "content": token, "special": True, "lstrip": token in MARKS, **flags}
        for token in ("<pad>", "</s>", "<unk>", *MARKS)
    ]
    description = {**description, "added_tokens": added, "truncation": None, "padding": None}
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    PreTrainedTokenizerFast(
        tokenizer_file=str(file), eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=list(MARKS), model_max_length=WINDOW,
    ).save_pretrained(folder)  # fmt: skip


def load(folder: Path) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]:
    """A checkpoint in float32 on the CPU, and its tokenizer."""
    options = LoadingOptions(device="cpu", dtype="float32")
    return load_pretrained(AutoModelForSeq2SeqLM, "a T5", str(folder), options)


def keep_decoder_layers(model: T5ForConditionalGeneration, kept: Sequence[int]) -> None:
    """Make the decoder shallower: of its layers, counted from 0, only those `kept` stay.

    The first must stay: it has the relative positions of all.
    """
    layers = model.decoder.block
    if list(kept) != sorted(set(kept)) or kept[:1] != [0] or kept[-1] >= len(layers):
        raise SystemExit(f"decoder layers: must be rising, from 0 to at most {len(layers) - 1}; got {list(kept)}")
    model.decoder.block = torch.nn.ModuleList([layers[number] for number in kept])
    model.config.num_decoder_layers = model.decoder.config.num_layers = len(kept)


def batches_of(examples: Sequence[Example], tokens: int) -> list[list[Example]]:
    """Examples in batches of like size, of about `tokens` source and target tokens each."""
    ranked = sorted(examples, key=lambda e: (len(e.source), sum(map(len, e.targets))))
    batches: list[list[Example]] = [[]]
    for example in ranked:
        width = max(len(e.source) + 2 * sum(map(len, e.targets)) for e in (*batches[-1], example))
        if batches[-1] and (len(batches[-1]) + 1) * width > tokens:
            batches.append([])
        batches[-1].append(example)
    return batches
