"""Self-attention that keeps one copy of a prefix for all rows that continue it.

A decoder-only model reads the instruction, the text and all tokens written so far as one sequence. Here the part that
rows share is read once and kept once per source; a row adds only its own tokens. The attention function of this file
attends to both. Over the keys of a source, its rows are folded into one longer query; each row also sees its own keys.
Outside of `reading`, the functions of this file are the library's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from qa_inference.models.shared_rows import count_folded_call


@dataclass(frozen=True)
class Prefix:
    """The `keys` and `values` of S sources that a model has read, for every layer a tensor [S, H, P, D].

    `lengths` [S] are the sources' numbers of tokens; padding follows them. Without keys, nothing has been read.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    lengths: Tensor

    @property
    def width(self) -> int:
        """P, the number of tokens of the longest source, padding included."""
        return int(self.keys[0].shape[2]) if self.keys else 0

    def expanded(self, count: int) -> Prefix:
        """A single source `count` times, in the same memory."""
        keys, values = (tuple(x.expand(count, -1, -1, -1) for x in part) for part in (self.keys, self.values))
        return Prefix(keys, values, self.lengths.expand(count))

    def cropped(self, length: int) -> Prefix:
        """The first `length` tokens of a single source, in the same memory."""
        keys, values = (tuple(x[:, :, :length] for x in part) if length else () for part in (self.keys, self.values))
        return Prefix(keys, values, torch.full_like(self.lengths, length))

    def selected(self, sources: Tensor) -> Prefix:
        """The sources `sources` [S']."""
        keys, values = (tuple(x[sources.to(x.device)] for x in part) for part in (self.keys, self.values))
        return Prefix(keys, values, self.lengths[sources])

    def left_padded(self) -> tuple[Prefix, Tensor]:
        """The same with the padding on the left, as the library's models have it, and a mask of real tokens [S, P]."""
        slots = torch.arange(self.width, device=self.lengths.device) - (self.width - self.lengths)[:, None]
        index = slots.clamp(min=0)[:, None, :, None]

        def shift(x: Tensor) -> Tensor:
            return x.gather(2, index.to(x.device).expand(-1, x.shape[1], -1, x.shape[3]))

        return Prefix(tuple(map(shift, self.keys)), tuple(map(shift, self.values)), self.lengths), slots >= 0


_prefix: ContextVar[Prefix | None] = ContextVar("prefix", default=None)


@contextmanager
def reading(prefix: Prefix) -> Iterator[None]:
    """Let the model's input inside the block continue `prefix`: R adjacent rows of the batch for each source."""
    token = _prefix.set(prefix)
    try:
        yield
    finally:
        _prefix.reset(token)


def shared_prefix_mask(
    *,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any] = causal_mask_function,
    device: torch.device | str = "cpu",
    **settings: Any,
) -> Tensor | None:
    """The tokens of the prefix and of the rows that the rows of a source see, [S, 1, T, P + L]; True: visible.

    The model's own rule (causal, a sliding window, chunks) gets the tokens' true positions; padding between prefix and
    rows does not shift them. `kv_length` is L, the number of the rows' tokens, of which the last `q_length` are new.
    """
    prefix = _prefix.get()
    if prefix is None:
        settings |= {"mask_function": mask_function, "device": device}
        return sdpa_mask(q_length=q_length, kv_length=kv_length, **settings)
    lengths = prefix.lengths.to(device)[:, None, None, None]
    # 1. Positions of the rows' own tokens [S, 1, 1, L] follow the prefix; those of the prefix [S, 1, 1, P] are slots.
    own = lengths + torch.arange(kv_length, device=device)
    slots = torch.arange(prefix.width, device=device).expand(len(lengths), 1, 1, -1)
    positions, is_real = torch.cat([slots, own], -1), torch.cat([slots < lengths, own >= 0], -1)
    # 2. The rule, for queries at the positions of the last `q_length` own tokens.
    sources, head = (
        torch.arange(len(lengths), device=device)[:, None, None, None],
        torch.zeros((), dtype=torch.long, device=device),
    )
    visible: Tensor = mask_function(sources, head, own[..., kv_length - q_length :].mT, positions)
    return is_real & visible


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of `query` [S * R, H, T, D] over the prefix and the rows' own `key` and `value` [S * R, G, L, D].

    `attention_mask` is `shared_prefix_mask`'s. Returns [S * R, T, H, D].
    """
    prefix = _prefix.get()
    if prefix is None or attention_mask is None:
        settings = {"scaling": scaling, "softcap": softcap, **kwargs}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    sources, layer = len(prefix.lengths), int(module.layer_idx)  # type: ignore[arg-type]  # a number where it exists
    empty = key[:sources, :, :0], value[:sources, :, :0]
    of_prefix = (prefix.keys[layer], prefix.values[layer]) if prefix.keys else empty
    attention_mask = attention_mask.to(query.device)
    if softcap is None and query.shape[2] >= prefix.width:  # copying the prefix is cheaper than storing all scores
        rows_per_source = len(query) // sources
        key, value = (
            torch.cat([shared.repeat_interleave(rows_per_source, 0), own], 2)
            for shared, own in zip(of_prefix, (key, value), strict=True)
        )
        mask = attention_mask.repeat_interleave(rows_per_source, 0)
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, is_causal=False)
    count_folded_call()
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _attention_in_two_parts(query.float() * scaling, of_prefix, (key, value), attention_mask, softcap), None


def _attention_in_two_parts(
    query: Tensor, of_prefix: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], mask: Tensor, softcap: float | None
) -> Tensor:
    """One softmax over scores of two kinds: for the keys of a source's prefix, and for the rows' own keys.

    `query` [S * R, H, T, D] is scaled and of float32; `of_prefix` are keys and values [S, G, P, D], `own`
    [S * R, G, L, D]; a group of M = H / G heads shares keys. Returns [S * R, T, H, D].
    """
    sources, groups, width, _ = of_prefix[0].shape
    rows, heads, length, size = query.shape
    shape = (sources, rows // sources, groups, heads // groups, length)  # S, R, G, M, T
    # 1. Fold all queries that meet the same keys into one dimension: rows and heads of a group over the prefix
    #    [S, G, R * M * T, D], heads of a group over a row's own keys [S * R, G, M * T, D].
    folded = query.reshape(*shape, size).transpose(1, 2).reshape(sources, groups, -1, size)
    flat = query.reshape(rows, groups, -1, size)
    # 2. Scores of both kinds side by side, [S, G, R, M, T, P + L], in float32: Qwen2's keys have a bias so large that
    #    half precision would round the differences between its scores away.
    to_prefix = (folded @ of_prefix[0].float().mT).view(sources, groups, shape[1], shape[3], length, width)
    to_own = (flat @ own[0].float().mT).view(*shape, -1).transpose(1, 2)
    scores = torch.cat([to_prefix, to_own], -1)
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    scores = scores.masked_fill(~mask[:, :, None, None], -torch.inf)
    weights = scores.softmax(-1).to(own[1].dtype)
    # 3. The weighted values of both kinds, folded as the queries, then unfolded and added: [S, R, G, M, T, D].
    from_prefix = weights[..., :width].reshape(sources, groups, folded.shape[2], width) @ of_prefix[1]
    from_own = weights[..., width:].transpose(1, 2).reshape(rows, groups, flat.shape[2], -1) @ own[1]
    unfolded = from_prefix.view(sources, groups, *shape[1:2], *shape[3:], -1).transpose(1, 2)
    total = unfolded + from_own.view(*shape, -1)
    return total.reshape(rows, heads, length, -1).transpose(1, 2).contiguous()
