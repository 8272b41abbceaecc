"""Many rows over one source: targets to score, rows of a search, and attention that keeps one copy of the source.

A *source* is an input that the model reads once; a *row* is a sequence of tokens that continues it. An encoder-decoder
and a decoder-only model attend to a source in different ways; the rest of handling rows is here.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    Cache,
    DynamicCache,
    DynamicLayer,
    EncoderDecoderCache,
    PreTrainedModel,
)

from qa_inference.decoding import Array
from qa_inference.models.inference import check_finite, ids_to_device, to_device
from qa_inference.models.loading import first_line
from qa_inference.models.projection import Projection
from qa_inference.tokenization import Ids

TARGETS_AT_ONCE = 8  # targets of one source decoded at a time
EXTRA_POSITIONS = 8  # positions by which a full cache grows
SPARE = 1.5  # the memory that a cache takes, relative to what it needs now
PROBE_TOLERANCE = 1e-4  # in float32
Sharing = Literal["auto", "shared", "expanded"]


# ---- scoring targets ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoringRequest:
    """A source and the targets to score on it, as token ids."""

    source: Ids
    targets: Sequence[Ids]


class TargetRounds:
    """The targets of a batch of requests in rounds, the longest first, so that a round needs little padding.

    Iterating gives the indices of the requests that have targets left, and up to `TARGETS_AT_ONCE` targets of each.
    """

    def __init__(self, requests: Sequence[ScoringRequest]) -> None:
        self._requests = requests
        self._orders = [np.argsort([-len(t) for t in request.targets], kind="stable") for request in requests]
        self._log_probs: list[list[Array]] = [[] for _ in requests]

    def __iter__(self) -> Iterator[tuple[list[int], list[list[Ids]]]]:
        for start in range(0, max(map(len, self._orders), default=0), TARGETS_AT_ONCE):
            unfinished = [i for i, order in enumerate(self._orders) if len(order) > start]
            yield (
                unfinished,
                [
                    [self._requests[i].targets[t] for t in self._orders[i][start : start + TARGETS_AT_ONCE]]
                    for i in unfinished
                ],
            )

    def add(self, unfinished: Sequence[int], log_probs: Sequence[list[Array]]) -> None:
        """Store the log-probabilities of the targets of the last round."""
        for i, arrays in zip(unfinished, log_probs, strict=True):
            self._log_probs[i] += arrays

    def results(self) -> list[list[Array]]:
        """All log-probabilities, in the order of the requests and their targets."""
        pairs = zip(self._log_probs, self._orders, strict=True)
        return [[arrays[rank] for rank in np.argsort(order)] for arrays, order in pairs]


@dataclass(frozen=True)
class TargetBatch:
    """Targets of S sources as a rectangle of labels [S * R, T]: R adjacent rows for each source.

    R is the largest number of targets of a source. A source with fewer targets repeats its first one. These repeated
    rows and padding are not scored.
    """

    targets: Sequence[Sequence[Ids]]
    labels: Tensor

    @classmethod
    def of(
        cls, targets: Sequence[Sequence[Ids]], pad: int, embeddings: int | None, device: torch.device
    ) -> TargetBatch:
        """Pad the targets of every source, at least one for each, on the right with `pad`; check their ids."""
        most = max(map(len, targets))
        rows = [row for of_source in targets for row in [*of_source, *[of_source[0]] * (most - len(of_source))]]
        return cls(targets, ids_to_device(rows, pad, embeddings, device))

    @property
    def rows_per_source(self) -> int:
        """R."""
        return len(self.labels) // len(self.targets)

    def log_probs(self, hidden: Tensor, projection: Projection) -> list[list[Array]]:
        """Token log-probabilities in nats: for every source, for every target an array [its length].

        `hidden` [S * R, T, D] is the projection's input for the positions that predict `labels`.
        """
        most, width = self.rows_per_source, self.labels.shape[1]
        lengths = [len(row) for of_source in self.targets for row in [*of_source, *[()] * (most - len(of_source))]]
        # 1. Rows and columns [N] of all tokens to score. The CPU computes them: otherwise it would have to wait until
        #    the GPU reports their number.
        is_scored = np.arange(width) < np.array(lengths)[:, None]
        rows, columns = to_device(np.stack(np.nonzero(is_scored)), self.labels.device)
        # 2. Only these are projected. With a device map, hidden states may lie on another device than the labels.
        chosen = hidden[rows.to(hidden.device), columns.to(hidden.device)]
        scores = projection.log_probs(chosen, self.labels[rows, columns].to(hidden.device)).cpu().numpy()
        check_finite(scores, "a target's log-probability")
        # 3. One array for every target.
        ends = np.cumsum([len(target) for of_source in self.targets for target in of_source])
        arrays = iter(np.split(scores, ends[:-1]))
        return [[next(arrays) for _ in of_source] for of_source in self.targets]


# ---- rows of a search -----------------------------------------------------------------------------------------------


class RunningRows(ABC):
    """The step function of a search (`qa_inference.decoding.StepFunction`) over S sources with P rows each.

    A subclass appends tokens to the rows and sets `last`.
    """

    last: Tensor  # the projection's input for the last token of every row, [S * P, D]

    def __init__(self, projection: Projection, sources: int, device: torch.device) -> None:
        self.projection, self.sources, self.device = projection, sources, device
        self.rows = 1  # P

    @abstractmethod
    def __call__(self, tokens: Array) -> None:
        """Append `tokens` [S, P, n] to the rows."""

    @abstractmethod
    def keep(self, rows: Tensor, sources: Tensor | None) -> None:
        """Make the batch a copy of `rows` [S' * P'], and keep `sources` [S'] only, or all of them for None."""

    def top(self, rows: Array, count: int, banned: Sequence[int]) -> tuple[Array, Array]:
        """The likeliest tokens to follow `rows` [N], best first: log-probabilities in nats and ids, both [N, K]."""
        hidden = self.last if len(rows) == len(self.last) else self.last[to_device(rows, self.last.device)]
        tensors = self.projection.top(hidden, count, banned)
        log_probs, ids = (tensor.cpu().numpy() for tensor in tensors)
        check_finite(log_probs[:, :1], "the best token's log-probability")
        return log_probs, ids

    def select(self, sources: Array, rows: Array) -> None:
        """Keep the sources `sources` [S'] and make their rows copies of `rows` [S', P'], numbered within the source."""
        flat = (sources[:, None] * self.rows + rows).ravel()
        if len(flat) == self.sources * self.rows and (flat == np.arange(len(flat))).all():
            return
        kept = to_device(sources, self.device) if len(sources) < self.sources else None
        self.keep(to_device(flat, self.device), kept)
        self.sources, self.rows = len(sources), rows.shape[1]


def new_cache() -> EncoderDecoderCache:
    """An empty cache of an encoder-decoder. Its self-attention reuses memory when rows part and end."""
    layer: Any = functools.partial(_GrowingLayer, _MemoryPool())  # Any: the library asks for a class and only calls it
    return EncoderDecoderCache(Cache(layer_class_to_replicate=layer), DynamicCache())


class _MemoryPool:
    """Memory that the layers of one cache reuse.

    Keys and values have another size at every step. If each came from the system's heap, unusable gaps would remain
    there: several times the memory in use, and more with every batch.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """An uninitialized tensor with the dtype and device of `like`."""
        size = math.prod(shape)
        alike = [i for i, block in enumerate(self._free) if block.dtype == like.dtype and block.device == like.device]
        fitting = next((i for i in alike if len(self._free[i]) >= size), None)
        if fitting is not None:
            return self._free.pop(fitting)[:size].view(*shape)
        # blocks that are too small go first, so that their memory is free for the larger one
        self._free = [block for i, block in enumerate(self._free) if i not in alike]
        return like.new_empty(int(SPARE * size))[:size].view(*shape)

    def give_back(self, tensor: Tensor) -> None:
        """Free the memory of a tensor that `take` returned."""
        self._free.append(tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0))


class _GrowingLayer(DynamicLayer):
    """The keys and values of one layer, [N, H, T, D], in memory with room for more positions.

    The library's own layer copies all of them for every new position.
    """

    def __init__(self, pool: _MemoryPool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in the library
        self._pool = pool
        self._memory: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append positions [N, H, n, D]; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._memory = [states[:, :, :0] for states in (key_states, value_states)]
        length = self.get_seq_length()
        stop = length + key_states.shape[2]
        for i, new in enumerate((key_states, value_states)):
            if self._memory[i].shape[2] < stop:
                rows, heads, _, width = new.shape
                larger = self._pool.take((rows, heads, stop + EXTRA_POSITIONS, width), new)
                larger[:, :, :length] = self._memory[i][:, :, :length]
                self._replace(i, larger)
            self._memory[i][:, :, length:stop] = new
        return self._show(stop)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Make the batch a copy of its rows `indices` [N']."""
        if self.get_seq_length():
            for i, memory in enumerate(self._memory):
                chosen = self._pool.take((len(indices), *memory.shape[1:]), memory)
                self._replace(i, torch.index_select(memory, 0, indices, out=chosen))
            self._show(self.get_seq_length())

    def _replace(self, i: int, memory: Tensor) -> None:
        if self._memory[i].numel():
            self._pool.give_back(self._memory[i])
        self._memory[i] = memory

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        """Let `keys` and `values` be the first `length` positions, and return them."""
        keys, values = (memory[:, :, :length] for memory in self._memory)
        self.keys, self.values = keys, values
        return keys, values


# ---- attention that shares a source ---------------------------------------------------------------------------------

_folded_calls = 0


def count_folded_call() -> None:
    """Note that an attention function folded the rows of a source into its queries."""
    global _folded_calls
    _folded_calls += 1


@contextmanager
def counting_folded_calls() -> Iterator[list[int]]:
    """Count the folded calls inside the block; the list's one number is right when the block has ended."""
    before, count = _folded_calls, [0]
    yield count
    count[0] = _folded_calls - before


def use_attention(model: PreTrainedModel, name: str, attention: Any, mask: Any) -> None:
    """Let a model compute attention and its mask by these functions, registered under `name`; for inference only.

    Only the library's public registration is used (`AttentionInterface`, `AttentionMaskInterface`).
    """
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, mask)
    model.set_attn_implementation(name)


def enable_sharing(model: Any, sharing: Sharing, probe: Callable[[], str]) -> str:
    """Let the rows of a source read one copy of it, if `sharing` allows it and no result changes.

    Args:
        model: the model, whose own attention is restored if rows cannot share.
        sharing: "expanded" leaves the model as it is; "shared" insists.
        probe: switches sharing on and compares results; returns the difference in words, or "".

    Returns:
        The reason why "auto" left sharing off, or "".

    Raises:
        ValueError: for "shared", if rows cannot share.
    """
    if sharing == "expanded":
        return ""
    before = getattr(model.config, "_attn_implementation", None)
    with counting_folded_calls() as folded:
        reason, failed = attempt(probe)
    if not failed and folded[0] == 0:
        reason = "the model's attention does not use the registered function"
    if reason and sharing == "shared":
        raise ValueError(
            f"model {type(model).__name__}: cannot share a source between rows ({reason}); "
            f'use sharing="auto" or "expanded"'
        )
    if reason and before is not None:
        model.set_attn_implementation(before)
    return reason


def attempt(probe: Callable[[], str]) -> tuple[str, bool]:
    """The result of a probe, or its error in one line, and whether it failed. A model may raise any error inside."""
    try:
        return probe(), False
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}", True


def probe_tolerance(model: Any) -> float:
    """The largest difference, relative to the largest number, between two ways to compute the same."""
    return PROBE_TOLERANCE * (1 if model.dtype == torch.float32 else 500)
