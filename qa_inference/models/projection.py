"""From a decoder's hidden states to log-probabilities: the projection onto the vocabulary, and what is asked of it.

Logits are a vocabulary wide and needed for a moment only. So they are made some rows at a time, in memory that stays
near the processor, reduced to a row's best tokens or to the probability of its target, and overwritten. A vocabulary of
which only a few rows would fit is taken in parts: the matrix of 262,144 tokens is otherwise read anew for every few
rows, which takes longer than multiplying by it. torch and numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCKS = 16  # tokens per block when the best are looked for: about the root of a vocabulary over the number wanted
CPU_LOGITS, GPU_LOGITS = 1 << 22, 1 << 28  # logits that exist at a time: 16 MB on a CPU, 1 GB on a GPU, in float32
FEW_ROWS, MANY_ROWS = (
    64,
    1024,
)  # where fewer rows than FEW_ROWS would fit, the vocabulary is taken in parts for MANY_ROWS
WHOLE = slice(None)


@dataclass(frozen=True)
class Projection:
    """How hidden states become logits: `scale * hidden @ weight.T + bias`.

    `weight` [V, D] and `bias` [V] or None are the model's own tensors. No `weight`: what is called hidden are logits
    already, D is V.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None
    scale: float = 1.0

    @torch.inference_mode()
    def top(self, hidden: Tensor, count: int, banned: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """The likeliest tokens after each row of `hidden` [N, D]: see `top_log_probs`."""
        best = []
        for rows, parts in self._parts(hidden):
            found = [
                _best_of(self.logits(hidden[rows], part[1], part[0]), count, banned, part[0].start) for part in parts
            ]
            best.append(_merged(found, count))
        return torch.cat([values for values, _ in best]), torch.cat([ids for _, ids in best])

    @torch.inference_mode()
    def log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The log-probability of the token `targets` [N] after each row of `hidden` [N, D]: [N], in nats, float32."""
        found = []
        for rows, parts in self._parts(hidden):
            each = [
                _chosen(self.logits(hidden[rows], part[1], part[0]), targets[rows], part[0].start) for part in parts
            ]
            chosen, peaks, totals = (torch.cat(x, 1) for x in zip(*each, strict=True))
            found.append(_normalized(chosen.amax(1, keepdim=True), peaks, totals)[:, 0])
        return torch.cat(found)

    def logits(self, hidden: Tensor, out: Tensor | None = None, columns: slice = WHOLE) -> Tensor:
        """The logits of `columns` [N, V'] after each row of `hidden` [N, D], in the model's type.

        In the memory of `out` if given.
        """
        if self.weight is None:
            return hidden[:, columns]
        if self.scale != 1.0:
            hidden = hidden * self.scale
        logits = torch.mm(hidden, self.weight[columns].T, out=out)
        return logits if self.bias is None else logits.add_(self.bias[columns])

    def _parts(self, hidden: Tensor) -> Iterator[tuple[slice, list[tuple[slice, Tensor | None]]]]:
        """Some rows at a time; for them the parts of the vocabulary, each with memory for its logits.

        What is in the memory is overwritten by the next part.
        """
        width = hidden.shape[-1] if self.weight is None else len(self.weight)
        room = CPU_LOGITS if hidden.device.type == "cpu" else GPU_LOGITS
        whole = self.weight is None or room // width >= min(FEW_ROWS, len(hidden))
        columns = width if whole else max(1, room // min(MANY_ROWS, len(hidden)))
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


def top_log_probs(logits: Tensor, count: int, banned: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """The `count` likeliest tokens of every row, best first: log-probabilities in nats (float32) and ids, [N, count].

    `logits` [N, V] are overwritten; the log-probabilities are those of the whole vocabulary. `banned` tokens are never
    among the candidates, but keep their share of the probability (as transformers' processors have it). There are
    fewer candidates where fewer tokens are left.
    """
    return _merged([_best_of(logits, count, banned, 0)], count)


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each target token in nats, float32, [N].

    `logits` [N, V] are those of the step that predicts the token, in any floating type, and are overwritten; `targets`
    [N] are ids. Computed in float32.
    """
    logits = logits.float()
    chosen, peak = logits.gather(-1, targets[..., None]), logits.amax(-1, keepdim=True)
    return (chosen - peak - _log_total(logits, peak))[..., 0]


def shift_targets(prefix: Tensor, targets: Tensor) -> Tensor:
    """The decoder's input that predicts `targets` [N, T] after `prefix` [P]: the prefix and all but the last target."""
    return torch.cat([prefix.expand(len(targets), -1), targets[:, :-1]], 1)


def _best_of(logits: Tensor, count: int, banned: Sequence[int], start: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a part of the vocabulary from `start` on: the best logits and their ids [N, K], the peak and `_log_total`.

    `logits` [N, V'] are overwritten.
    """
    logits = logits.float()
    columns = [token - start for token in banned if 0 <= token - start < logits.shape[-1]]
    places = torch.tensor(columns, dtype=torch.long).to(logits.device, non_blocking=True)
    saved = logits.index_select(1, places)
    best, ids = _best(logits.index_fill_(1, places, -torch.inf), min(count, logits.shape[-1] - len(columns)))
    peak = torch.cat([best[:, :1], saved], 1).amax(-1, keepdim=True)
    return best, ids + start, peak, _log_total(logits.index_copy_(1, places, saved), peak)


def _merged(parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], count: int) -> tuple[Tensor, Tensor]:
    """The best tokens over all parts: log-probabilities and ids, best first."""
    best, ids, peaks, totals = (torch.cat(each, 1) for each in zip(*parts, strict=True))
    if len(parts) > 1:
        best, order = (x[:, :count] for x in best.sort(dim=-1, descending=True, stable=True))
        ids = ids.gather(-1, order)
    return _normalized(best, peaks, totals), ids


def _chosen(logits: Tensor, targets: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of a part of the vocabulary from `start` on: the targets' logits, minus infinity elsewhere, peak, `_log_total`.

    `logits` [N, V'] are overwritten.
    """
    logits = logits.float()
    inside = (targets >= start) & (targets < start + logits.shape[-1])
    places = torch.where(inside, targets - start, 0)[:, None]
    chosen = logits.gather(-1, places).masked_fill(~inside[:, None], -torch.inf)
    peak = logits.amax(-1, keepdim=True)
    return chosen, peak, _log_total(logits, peak)


def _normalized(values: Tensor, peaks: Tensor, totals: Tensor) -> Tensor:
    """Logits [N, K] as log-probabilities, by the peaks and `_log_total`s of the vocabulary's P parts, [N, P]."""
    if peaks.shape[1] == 1:
        return values - peaks - totals
    peak = peaks.amax(-1, keepdim=True)
    return values - peak - (peaks - peak + totals).logsumexp(-1, keepdim=True)


def _shaped(memory: Tensor, rows: int, columns: int) -> Tensor:
    """The beginning of flat `memory` as a matrix."""
    return memory[: rows * columns].view(rows, columns)


def _log_total(logits: Tensor, peak: Tensor) -> Tensor:
    """`(logits - peak).logsumexp(-1)`, [..., 1], which overwrites `logits`; `peak` [..., 1] are their largest."""
    return logits.sub_(peak).exp_().sum(-1, keepdim=True).log_()


def _best(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of every row [N, V], the largest first, and where they are.

    Exact without sorting a row: its best are in those blocks whose largest is among the `count` largest of blocks. A
    block is every `stride`-th column, so that the maxima of neighbouring blocks are found side by side.
    """
    stride = logits.shape[-1] // BLOCKS
    if stride <= count:
        ids = _largest(logits, count)
    else:
        blocks = logits[:, : BLOCKS * stride].unflatten(-1, (BLOCKS, stride))
        first = _largest(blocks.amax(-2), count)
        steps = stride * torch.arange(BLOCKS, device=logits.device)
        rest = torch.arange(BLOCKS * stride, logits.shape[-1], device=logits.device)
        ids = torch.cat([(first[:, None] + steps[:, None]).flatten(1), rest.expand(len(logits), -1)], 1)
        ids = ids.gather(-1, _largest(logits.gather(-1, ids), count))
    best, order = logits.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    return best, ids.gather(-1, order)


def _largest(values: Tensor, count: int) -> Tensor:
    """Where the `count` largest of every row [N, M] are, in any order."""
    if values.device.type != "cpu" or count == values.shape[-1]:
        return values.topk(count, sorted=False).indices
    # on a CPU numpy's vectorized selection takes a third of the time of topk
    return torch.from_numpy(np.argpartition(values.numpy(), -count, axis=-1)[:, -count:])
