"""A model's decoder over encoded sources: hidden states, their projection, and the running rows of a search.

The library's models project every row and position onto the vocabulary, and add a bias in a second copy of the result.
Where a probe shows that the decoder, a matrix and a bias give the model's own logits, they are used one by one, so that
only what is asked for is projected; elsewhere the model's logits are used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from qa_inference.models.projection import Projection
from qa_inference.rows import Array

ROOM = 8  # positions by which a full cache grows
SPARE = 1.5  # how much more memory a cache takes than it needs now


class Decoder:
    """The decoder of a model, with the matrix that makes logits of its hidden states."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.projection = Projection()
        self.shared = False  # whether the rows of a source read one copy of it (qa_inference.models.attention)

    def __call__(self, encoded: Tensor, mask: Tensor, ids: Tensor, cache: EncoderDecoderCache | None = None) -> Tensor:
        """What the projection takes, [S * R, T, D], for `ids` [S * R, T] over `encoded` [S, K, D], `mask` [S, K].

        `cache` holds what came before and is extended.
        """
        if not self.shared and len(ids) != len(encoded):
            each = len(ids) // len(encoded)
            encoded, mask = encoded.repeat_interleave(each, 0), mask.repeat_interleave(each, 0)
        settings = {"past_key_values": cache, "use_cache": cache is not None, "return_dict": True}
        if self.projection.weight is not None:
            decoder = self.model.get_decoder()
            output = decoder(input_ids=ids, encoder_hidden_states=encoded, encoder_attention_mask=mask, **settings)
            return output.last_hidden_state  # type: ignore[no-any-return]  # untyped in the library
        source = BaseModelOutput(last_hidden_state=encoded)
        output = self.model(encoder_outputs=source, attention_mask=mask, decoder_input_ids=ids, **settings)
        return output.logits  # type: ignore[no-any-return]  # untyped in the library

    def find_projection(self, encoded: Tensor, mask: Tensor, ids: Tensor, tolerance: float) -> None:
        """Use the model's matrix where it gives the model's logits for `ids` [S, T], within `tolerance` of the largest.

        Some models scale hidden states by the root of their width first.
        """
        self.projection = Projection()
        expected = self(encoded, mask, ids).float()
        largest = max(1.0, float(expected.abs().max()))
        for candidate in _projections(self.model, expected.shape[-1]):
            self.projection = candidate
            try:
                found = candidate.logits(self(encoded, mask, ids).flatten(0, 1)).float().view_as(expected)
            except Exception:  # an architecture's decoder may ask for anything, or give back anything else
                break
            if float((found - expected).abs().max()) <= tolerance * largest:
                return
        self.projection = Projection()


def _projections(model: Any, size: int) -> list[Projection]:
    """The projections that a model with `size` logits may have; none if it keeps no plain matrix of that many rows.

    T5's family may scale hidden states by the root of their width first.
    """
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if weight is None or weight.ndim != 2 or len(weight) != size:
        return []
    named = (getattr(head, "bias", None), getattr(model, "final_logits_bias", None))
    # a bias that is zero and will stay so is not worth a pass over the logits
    biases = [bias.flatten().to(weight) for bias in named if bias is not None and (bias.requires_grad or bias.any())]
    bias = sum(biases[1:], start=biases[0]) if biases else None
    return [Projection(weight, bias, scale) for scale in (1.0, weight.shape[1] ** -0.5)]


class ProjectedRows:
    """Rows of a search whose next tokens a projection of their last hidden states gives."""

    projection: Projection
    last: Tensor  # what the projection takes for the last token of every row, [S * P, D]

    def top(self, rows: Array, count: int, banned: Sequence[int]) -> tuple[Array, Array]:
        """The likeliest tokens to follow some rows, best first: log-probabilities in nats and ids, [N, K]."""
        asked = self.last if len(rows) == len(self.last) else self.last[to_device(rows, self.last.device)]
        log_probs, ids = self.projection.top(asked, count, banned)
        return log_probs.cpu().numpy(), ids.cpu().numpy()


class RunningRows(ProjectedRows):
    """The step function of a search (`qa_inference.decoding.StepFunction`): the decoder and its cache."""

    def __init__(self, decoder: Decoder, encoded: Tensor, mask: Tensor) -> None:
        self.decoder, self.encoded, self.mask = decoder, encoded, mask
        self.projection, self.last = decoder.projection, encoded
        self.cache = new_cache()
        self.rows = 1

    def __call__(self, tokens: Array) -> None:
        """Append `tokens` [S, P, n] to the rows."""
        ids = to_device(tokens.reshape(-1, tokens.shape[-1]), self.encoded.device)
        self.last = self.decoder(self.encoded, self.mask, ids, self.cache)[:, -1]

    def select(self, sources: Array, rows: Array) -> None:
        """Keep some sources and make their rows copies of `rows` [S', P']."""
        flat = (sources[:, None] * self.rows + rows).ravel()
        if len(flat) == len(self.encoded) * self.rows and (flat == np.arange(len(flat))).all():
            return
        index, kept = to_device(flat, self.encoded.device), to_device(sources, self.encoded.device)
        self.cache.self_attention_cache.batch_select_indices(index)
        if not self.decoder.shared:
            self.cache.cross_attention_cache.batch_select_indices(index)
        if len(sources) < len(self.encoded):
            if self.decoder.shared:
                self.cache.cross_attention_cache.batch_select_indices(kept)
            self.encoded, self.mask = self.encoded[kept], self.mask[kept]
        self.rows = rows.shape[1]


def new_cache() -> EncoderDecoderCache:
    """An empty cache of an encoder-decoder."""
    layer: Any = functools.partial(_RoomyLayer, _Blocks())  # Any: the library asks for a class and only calls it
    return EncoderDecoderCache(Cache(layer_class_to_replicate=layer), DynamicCache())


class _Blocks:
    """Memory that the layers of one cache hand on to each other as its rows part and end.

    At every step keys and values have another size. Taken from the system's heap anew each time, they leave gaps there
    that fit nothing: several times as much as is in use, and more with every batch.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """A tensor of any content, of the type and on the device of `like`."""
        size = math.prod(shape)
        alike = [i for i, block in enumerate(self._free) if block.dtype == like.dtype and block.device == like.device]
        place = next((i for i in alike if len(self._free[i]) >= size), None)
        if place is not None:
            return self._free.pop(place)[:size].view(*shape)
        self._free = [block for i, block in enumerate(self._free) if i not in alike]  # too small: they go first
        return like.new_empty(int(SPARE * size))[:size].view(*shape)

    def give_back(self, tensor: Tensor) -> None:
        """Let the next have the memory that `take` gave."""
        self._free.append(tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0))


class _RoomyLayer(DynamicLayer):
    """The keys and values of one layer, [N, H, T, D], in memory with room for more positions.

    The library's own layer copies all of them for every new one.
    """

    def __init__(self, blocks: _Blocks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in the library
        self._blocks = blocks
        self._memory: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append one or more positions; returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._memory = [states[:, :, :0] for states in (key_states, value_states)]
        length = self.get_seq_length()
        stop = length + key_states.shape[2]
        for i, new in enumerate((key_states, value_states)):
            if self._memory[i].shape[2] < stop:
                n, heads, _, width = new.shape
                larger = self._blocks.take((n, heads, stop + ROOM, width), new)
                larger[:, :, :length] = self._memory[i][:, :, :length]
                self._replace(i, larger)
            self._memory[i][:, :, length:stop] = new
        return self._show(stop)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Make the batch `indices` [N'] of what it was."""
        if self.get_seq_length():
            for i, memory in enumerate(self._memory):
                chosen = self._blocks.take((len(indices), *memory.shape[1:]), memory)
                self._replace(i, torch.index_select(memory, 0, indices, out=chosen))
            self._show(self.get_seq_length())

    def _replace(self, i: int, memory: Tensor) -> None:
        if self._memory[i].numel():
            self._blocks.give_back(self._memory[i])
        self._memory[i] = memory

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        """Let `keys` and `values` be the first `length` positions, and return them."""
        keys, values = (memory[:, :, :length] for memory in self._memory)
        self.keys, self.values = keys, values
        return keys, values


def real_places(lengths: Array, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows and columns [N] of all that is no padding in a matrix of that width, row by row; `lengths` [R].

    Worked out on the CPU: a GPU would have to say how many there are, and the CPU to wait for it.
    """
    rows, columns = to_device(np.stack(np.nonzero(np.arange(width) < lengths[:, None])), device)
    return rows, columns


def to_device(array: Array, device: torch.device) -> Tensor:
    """`array` as a tensor there; to a CUDA device through pinned memory, without waiting for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
