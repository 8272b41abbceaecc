"""A decoder-only model over texts it reads once: prefixes, the rows that continue them, and what it says of a row.

Tokens that all inputs begin with, such as the worked examples of a prompt, are read once and remembered from batch to
batch; every text is read once for all its rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from qa_inference.models.decoder import ProjectedRows, new_cache, to_device
from qa_inference.models.prefix_attention import Prefix, reading
from qa_inference.models.projection import WHOLE, Projection
from qa_inference.rows import Array
from qa_inference.tokenization import Ids


@dataclass(frozen=True)
class CappedProjection(Projection):
    """A projection whose logits are bent to lie between -`cap` and `cap`, as those of Gemma 2 are."""

    cap: float = 30.0

    def logits(self, hidden: Tensor, out: Tensor | None = None, columns: slice = WHOLE) -> Tensor:
        """The logits of `columns` [N, V'] after each row of `hidden` [N, D]."""
        return super().logits(hidden, out, columns).div_(self.cap).tanh_().mul_(self.cap)


class PrefixDecoder:
    """A decoder-only model, with the matrix that makes logits of its hidden states, and the prefix read last."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.body = model.get_decoder()
        self._takes_positions = "position_ids" in inspect.signature(self.body.forward).parameters
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.device = next(model.parameters()).device
        self.projection = Projection()
        self.shared = False  # whether the rows of a source read one copy of it (qa_inference.models.prefix_attention)
        self.tokens_read = 0
        self.forget()

    def forget(self) -> None:
        """Let go of the prefix that was read last."""
        self._known: tuple[list[int], Prefix] = [], _nothing(self.device)

    def read(self, contexts: Sequence[Ids]) -> Prefix:
        """Read the token ids of every source, what they begin with in common once."""
        rows = [[int(i) for i in context] for context in contexts]
        common = _common(rows)
        head = self._head(rows[0][:common])
        rest = [row[common:] for row in rows]
        if not any(rest):
            return head.expanded(len(rows))
        lengths = to_device(np.array([len(row) for row in rows]), self.device)
        return Prefix(*self._extended(head, rest), lengths)

    def find_projection(self, ids: Tensor, tolerance: float) -> None:
        """Use the model's matrix where it gives the model's logits for `ids` [S, T], within `tolerance` of the largest.

        Raises what the model does.
        """
        expected = self.model(input_ids=ids, use_cache=False, return_dict=True).logits.float()
        for candidate in _projections(self.model, expected.shape[-1]):
            self.projection = candidate
            try:
                hidden = self._run(ids, use_cache=False)
                found = candidate.logits(hidden.flatten(0, 1)).view_as(expected)
            except Exception:  # an architecture's decoder may ask for anything, or give back anything else
                break
            if float((found.float() - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max())):
                return
        self.projection = Projection()

    def continue_rows(
        self, ids: Tensor, positions: Tensor, cache: Cache, *, prefix: Prefix | None, mask: Tensor | None, scored: bool
    ) -> Tensor:
        """What the projection takes for `ids` [N, T] at `positions` [N, T], after what `cache` holds: [N, T, D].

        The rows continue `prefix`, or `cache` holds all and `mask` [N, P + L] says what of it is no padding. Not
        `scored`: only the cache is wanted, and what is returned may be of the last token alone.
        """
        settings: dict[str, Any] = {"past_key_values": cache, "use_cache": True, "attention_mask": mask}
        if self._takes_positions:
            settings["position_ids"] = positions
        if not scored and self.projection.weight is None and self._keeps_logits:
            settings["logits_to_keep"] = 1
        if prefix is None:
            return self._run(ids, **settings)
        with reading(prefix):
            return self._run(ids, **settings)

    def _run(self, ids: Tensor, **settings: Any) -> Tensor:
        if self.projection.weight is None:
            return self.model(input_ids=ids, return_dict=True, **settings).logits  # type: ignore[no-any-return]
        output = self.body(input_ids=ids, return_dict=True, **settings)
        return output.last_hidden_state.to(self.projection.weight.device)  # type: ignore[no-any-return]  # untyped

    def _head(self, ids: list[int]) -> Prefix:
        """A single source of the tokens `ids`, from what is known of it."""
        known, prefix = self._known
        same = _common([known, ids])
        if same < len(ids):
            lengths = torch.tensor([len(ids)], device=self.device)
            prefix = Prefix(*self._extended(prefix.cropped(same), [ids[same:]]), lengths)
            self._known = ids, prefix
        return prefix.cropped(len(ids))

    def _extended(self, head: Prefix, rest: Sequence[Sequence[int]]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The keys and values of `head`, a single source, with each of `rest` behind it, padded on the right."""
        self.tokens_read += sum(map(len, rest))
        ids = padded(rest, 0, self.device)
        rows = PrefixRows(self, head)
        rows.append(ids, scored=False)
        copies = head.expanded(len(rest))
        whole = ([], []) if rows.prefix is None or not head.keys else (copies.keys, copies.values)
        parts = tuple(zip(*[(layer.keys, layer.values) for layer in rows.cache.layers], strict=True))
        keys, values = (
            tuple(torch.cat([old, new], 2) for old, new in zip(before, part, strict=True)) if before else part
            for before, part in zip(whole, parts, strict=True)
        )
        return keys, values


class PrefixRows(ProjectedRows):
    """The step function of a search (`qa_inference.decoding.StepFunction`): rows that continue prefixes."""

    def __init__(self, decoder: PrefixDecoder, prefix: Prefix) -> None:
        self.decoder, self.lengths, self.written, self.rows = decoder, prefix.lengths, 0, 1
        self.prefix: Prefix | None = None
        self.cache: Any = DynamicCache()  # Any: of layers that keep keys and values, which the library's may not
        self.visible: Tensor | None = None
        self.projection, self.last = decoder.projection, prefix.lengths
        if decoder.shared:
            self.prefix, self.cache = prefix, new_cache().self_attention_cache
        else:
            prefix, self.visible = prefix.left_padded()
            for number, part in enumerate(zip(prefix.keys, prefix.values, strict=True)):
                self.cache.update(*part, number)

    def append(self, ids: Tensor, *, scored: bool = True) -> Tensor:
        """Append `ids` [S * R, T], R rows for every source from the first call on: what the projection takes.

        Not `scored`: what is returned may be of the last token alone.
        """
        each = len(ids) // len(self.lengths)
        if self.visible is not None and each != self.rows:
            if self.cache.get_seq_length():
                self.cache.batch_repeat_interleave(each)
            self.visible = self.visible.repeat_interleave(each, 0)
        self.rows = each
        if self.visible is not None:
            self.visible = torch.cat([self.visible, self.visible.new_ones(ids.shape)], 1)
        positions = self.lengths[:, None] + self.written + torch.arange(ids.shape[1], device=ids.device)
        self.written += ids.shape[1]
        positions = positions.repeat_interleave(each, 0)
        return self.decoder.continue_rows(
            ids, positions, self.cache, prefix=self.prefix, mask=self.visible, scored=scored
        )

    def __call__(self, tokens: Array) -> None:
        """Append `tokens` [S, P, n] to the rows."""
        ids = to_device(tokens.reshape(-1, tokens.shape[-1]), self.lengths.device)
        self.last = self.append(ids)[:, -1]

    def select(self, sources: Array, rows: Array) -> None:
        """Keep some sources and make their rows copies of `rows` [S', P']."""
        flat = (sources[:, None] * self.rows + rows).ravel()
        if len(flat) == len(self.lengths) * self.rows and (flat == np.arange(len(flat))).all():
            return
        index, kept = to_device(flat, self.lengths.device), to_device(sources, self.lengths.device)
        for layer in self.cache.layers:
            layer.batch_select_indices(index.to(layer.keys.device))
        if self.visible is not None:
            self.visible = self.visible[index]
        if len(sources) < len(self.lengths):
            self.lengths = self.lengths[kept]
            self.prefix = None if self.prefix is None else self.prefix.selected(kept)
        self.rows = rows.shape[1]


def padded(rows: Sequence[Ids], value: int, device: torch.device) -> Tensor:
    """One tensor of `rows`, padded on the right to the longest."""
    array = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for row, ids in zip(array, rows, strict=True):
        row[: len(ids)] = ids
    return to_device(array, device)


def _nothing(device: torch.device) -> Prefix:
    """A single source of no tokens."""
    return Prefix((), (), torch.zeros(1, dtype=torch.long, device=device))


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with in common."""
    first, last = min(map(list, rows)), max(map(list, rows))  # what these two share, all do
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, rows)))


def _projections(model: Any, size: int) -> Iterator[Projection]:
    """The projections that a model with `size` logits may have; none if it keeps no plain matrix of that many rows.

    Cohere's family scales logits, Granite's divides them, Gemma 2 bends them.
    """
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    weight = getattr(head, "weight", None)
    if weight is None or weight.ndim != 2 or len(weight) != size or not weight.is_floating_point():
        return
    bias = getattr(head, "bias", None)
    divisor = getattr(config, "logits_scaling", None)
    scale = getattr(config, "logit_scale", None) or (1 / divisor if divisor else 1.0)
    if cap := getattr(config, "final_logit_softcapping", None):
        yield CappedProjection(weight, bias, scale, cap)
    yield Projection(weight, bias, scale)
