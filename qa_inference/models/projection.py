"""From a decoder's hidden states to log-probabilities of tokens: finding the matrix, top tokens, teacher forcing.

Logits are as wide as the vocabulary and are needed for a moment only. So a few rows are projected at a time, where the
library allows it into memory that stays near the processor; they are reduced to the row's top tokens, or to the
log-probability of its target, and overwritten. Where only a few rows would fit, the vocabulary is taken in parts.
Otherwise the whole matrix, of up to 262,144 tokens, would be read again for every few rows, which takes longer than the
multiplication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qa_inference.models._float32_products import linear

BLOCKS = 16  # tokens per block in the search for the top tokens: about the root of vocabulary size over their number
CPU_LOGITS, GPU_LOGITS = 1 << 22, 1 << 28  # logits that exist at a time: 16 MB on a CPU, 1 GB on a GPU, in float32
FEW_ROWS = 64  # if fewer rows than this would fit, the vocabulary is taken in parts
MANY_ROWS = 1024  # the parts are so narrow that this many rows fit
WHOLE = slice(None)


@dataclass(frozen=True)
class Projection:
    """Turns hidden states into logits: `scale * hidden @ weight.T + bias`.

    `weight` [V, D] and `bias` [V] or None are the model's own tensors. Without `weight`, `hidden` holds logits already,
    and D is V.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None
    scale: float = 1.0

    @torch.inference_mode()
    def top(self, hidden: Tensor, count: int, banned: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """The `count` likeliest tokens after each row of `hidden` [N, D], best first.

        Returns log-probabilities in nats (float32) and ids, both [N, K]. The log-probabilities are those of the whole
        vocabulary: `banned` tokens are left out of the result but keep their share of the probability, as in
        transformers' logits processors. K is less than `count` where fewer tokens are left.
        """
        top_rows = []
        for rows, parts in self._parts(hidden):
            merged = [
                top_of_part(self.logits(hidden[rows], memory, columns), count, banned, columns.start)
                for columns, memory in parts
            ]
            top_rows.append(merge_tops(merged, count))
        return torch.cat([log_probs for log_probs, _ in top_rows]), torch.cat([ids for _, ids in top_rows])

    @torch.inference_mode()
    def log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The log-probability of the token `targets` [N] after each row of `hidden` [N, D]: [N], in nats, float32."""
        log_probs = []
        for rows, parts in self._parts(hidden):
            by_part = [
                targets_of_part(self.logits(hidden[rows], memory, columns), targets[rows], columns.start)
                for columns, memory in parts
            ]
            chosen, peaks, totals = (torch.cat(tensors, 1) for tensors in zip(*by_part, strict=True))
            log_probs.append(_normalized(chosen.amax(1, keepdim=True), peaks, totals)[:, 0])
        return torch.cat(log_probs)

    def logits(self, hidden: Tensor, memory: Tensor | None = None, columns: slice = WHOLE) -> Tensor:
        """The logits of `columns` [N, V'] after each row of `hidden` [N, D], in the model's dtype.

        `memory` is where they may be written, or None.
        """
        if self.weight is None:
            return hidden[:, columns]
        if self.scale != 1.0:
            hidden = hidden * self.scale
        logits = linear(hidden, self.weight[columns], memory=memory)
        return logits if self.bias is None else logits.add_(self.bias[columns])

    def _parts(self, hidden: Tensor) -> Iterator[tuple[slice, list[tuple[slice, Tensor | None]]]]:
        """Slices of rows and, for each, the slices of the vocabulary, each with memory for its logits.

        All slices get the same memory: a part in it is overwritten by the next.
        """
        width = hidden.shape[-1] if self.weight is None else len(self.weight)
        room = CPU_LOGITS if hidden.device.type == "cpu" else GPU_LOGITS
        # 1. The whole vocabulary if enough rows of it fit into `room`, else parts that leave room for many rows.
        whole = self.weight is None or room // width >= min(FEW_ROWS, len(hidden))
        columns = width if whole else max(1, room // min(MANY_ROWS, len(hidden)))
        # 2. As many rows at a time as fit beside that many columns.
        size = max(1, min(room // columns, len(hidden)))
        memory = None if self.weight is None else hidden.new_empty(size * min(columns, width))
        for start in range(0, len(hidden), size):
            rows = slice(start, min(start + size, len(hidden)))
            yield (
                rows,
                [
                    (part, None if memory is None else _shaped(memory, rows.stop - start, part.stop - part.start))
                    for part in (slice(first, min(first + columns, width)) for first in range(0, width, columns))
                ],
            )


@dataclass(frozen=True)
class CappedProjection(Projection):
    """A projection with soft-capped logits, between -`cap` and `cap`, as in Gemma 2."""

    cap: float = 30.0

    def logits(self, hidden: Tensor, memory: Tensor | None = None, columns: slice = WHOLE) -> Tensor:
        """The logits of `columns` [N, V'] after each row of `hidden` [N, D]."""
        return super().logits(hidden, memory, columns).div_(self.cap).tanh_().mul_(self.cap)


def find_projection(model: Any, logits: Tensor, hidden_states: Callable[[], Tensor], tolerance: float) -> Projection:
    """The projection that turns `hidden_states()` [S, T, D] into the model's own `logits` [S, T, V].

    The library's models project every row and position, and add a bias in a second copy of the result. A projection of
    this file is applied only where its result is needed. It must give the model's logits within `tolerance`, relative
    to the largest logit. If none does, this returns `Projection()`, and the caller uses the model's own logits. Raises
    FloatingPointError if one of the model's logits is NaN.
    """
    if logits.isnan().any():
        raise FloatingPointError("a logit is nan")
    largest = max(1.0, float(logits.abs().max()))
    try:
        for candidate in _candidates(model, logits.shape[-1]):
            hidden = hidden_states().flatten(0, 1).to(candidate.weight.device)  # type: ignore[union-attr]  # it has one
            own = candidate.logits(hidden).float().view_as(logits)
            if float((own.to(logits.device) - logits).abs().max()) <= tolerance * largest:
                return candidate
    except Exception:  # a decoder of another architecture may need other inputs, or return another result
        return Projection()
    return Projection()


def _candidates(model: Any, size: int) -> list[Projection]:
    """The projections that a model with `size` logits may have; none if it has no plain matrix of that many rows.

    T5's family may scale hidden states by the root of their width, Cohere's scales logits, Granite's divides them,
    Gemma 2 caps them.
    """
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    weight = getattr(head, "weight", None)
    if weight is None or weight.ndim != 2 or len(weight) != size or not weight.is_floating_point():
        return []
    named = (getattr(head, "bias", None), getattr(model, "final_logits_bias", None))
    # A bias that is zero and cannot change is left out: adding it would cost a pass over the logits.
    biases = [bias.flatten().to(weight) for bias in named if bias is not None and (bias.requires_grad or bias.any())]
    bias = sum(biases[1:], start=biases[0]) if biases else None
    divisor = getattr(config, "logits_scaling", None)
    scale = getattr(config, "logit_scale", None) or (1 / divisor if divisor else None)
    plain = [Projection(weight, bias, s) for s in ((1.0, weight.shape[1] ** -0.5) if scale is None else (scale,))]
    cap = getattr(config, "final_logit_softcapping", None)
    return [*(CappedProjection(weight, bias, p.scale, cap) for p in plain if cap), *plain]


# ---- a part of the vocabulary ---------------------------------------------------------------------------------------
# Every part gives its peak, the largest logit [N, 1], and its total, log(sum(exp(logits - peak))) [N, 1]. From those of
# all parts, logits become log-probabilities of the whole vocabulary.


def top_of_part(logits: Tensor, count: int, banned: Sequence[int], start: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best logits of the part that begins at token `start`, and their ids, both [N, K]; its peak and its total.

    `logits` [N, V'] are overwritten.
    """
    logits = logits.float()
    # 1. Save the logits of banned tokens [N, B], and replace them by minus infinity.
    banned_columns = [token - start for token in banned if 0 <= token - start < logits.shape[-1]]
    columns = torch.tensor(banned_columns, dtype=torch.long).to(logits.device, non_blocking=True)
    saved = logits.index_select(1, columns)
    # 2. Find the best of the others.
    masked = logits.index_fill_(1, columns, -torch.inf)
    best, ids = _best(masked, min(count, logits.shape[-1] - len(banned_columns)))
    # 3. Peak and total are those of all tokens, so the logits of the banned tokens are put back first.
    peak = torch.cat([best[:, :1], saved], 1).amax(-1, keepdim=True)
    return best, ids + start, peak, _log_total(logits.index_copy_(1, columns, saved), peak)


def merge_tops(parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], count: int) -> tuple[Tensor, Tensor]:
    """The best tokens of all parts, from what `top_of_part` returns: log-probabilities and ids [N, K], best first."""
    best, ids, peaks, totals = (torch.cat(tensors, 1) for tensors in zip(*parts, strict=True))
    if len(parts) > 1:
        best, order = (tensor[:, :count] for tensor in best.sort(dim=-1, descending=True, stable=True))
        ids = ids.gather(-1, order)
    return _normalized(best, peaks, totals), ids


def targets_of_part(logits: Tensor, targets: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """The targets' logits in the part that begins at token `start`, its peak and its total, each [N, 1].

    A target outside the part has minus infinity. `logits` [N, V'] are overwritten.
    """
    logits = logits.float()
    inside = (targets >= start) & (targets < start + logits.shape[-1])
    columns = torch.where(inside, targets - start, 0)[:, None]
    chosen = logits.gather(-1, columns).masked_fill(~inside[:, None], -torch.inf)
    peak = logits.amax(-1, keepdim=True)
    return chosen, peak, _log_total(logits, peak)


def _normalized(logits: Tensor, peaks: Tensor, totals: Tensor) -> Tensor:
    """Logits [N, K] as log-probabilities, by the peaks and the totals of the vocabulary's P parts, both [N, P]."""
    if peaks.shape[1] == 1:
        return logits - peaks - totals
    peak = peaks.amax(-1, keepdim=True)
    return logits - peak - (peaks - peak + totals).logsumexp(-1, keepdim=True)


def _shaped(memory: Tensor, rows: int, columns: int) -> Tensor:
    """The beginning of flat `memory` as a matrix."""
    return memory[: rows * columns].view(rows, columns)


def _log_total(logits: Tensor, peak: Tensor) -> Tensor:
    """`(logits - peak).logsumexp(-1)`, [..., 1]; overwrites `logits`, of which `peak` [..., 1] are the largest."""
    return logits.sub_(peak).exp_().sum(-1, keepdim=True).log_()


def _best(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of every row [N, V], the largest first, and their columns.

    The result is exact although no row is sorted: a row's best are in those blocks whose maximum is among the `count`
    largest maxima.
    """
    stride = logits.shape[-1] // BLOCKS
    if stride <= count:
        ids = _largest(logits, count)
    else:
        # 1. A block is every `stride`-th column, so that the maxima of neighbouring blocks are found side by side.
        blocks = logits[:, : BLOCKS * stride].unflatten(-1, (BLOCKS, stride))
        best_blocks = _largest(blocks.amax(-2), count)
        # 2. Candidates [N, BLOCKS * count + rest]: the columns of the best blocks, and those that fill no block.
        steps = stride * torch.arange(BLOCKS, device=logits.device)
        rest = torch.arange(BLOCKS * stride, logits.shape[-1], device=logits.device)
        ids = torch.cat([(best_blocks[:, None] + steps[:, None]).flatten(1), rest.expand(len(logits), -1)], 1)
        # 3. The best candidates are the best of the row.
        ids = ids.gather(-1, _largest(logits.gather(-1, ids), count))
    best, order = logits.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    return best, ids.gather(-1, order)


def _largest(values: Tensor, count: int) -> Tensor:
    """The columns of the `count` largest of every row [N, M], in any order."""
    if values.device.type != "cpu" or count == values.shape[-1]:
        return values.topk(count, sorted=False).indices
    # on a CPU numpy's vectorized selection takes a third of the time of topk
    return torch.from_numpy(np.argpartition(values.numpy(), -count, axis=-1)[:, -count:])
