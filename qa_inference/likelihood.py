"""From a decoder's hidden states to log-probabilities: the projection onto the vocabulary, and what is asked of it.

Logits are a vocabulary wide and needed for a moment only. So they are made some rows at a time, in memory that stays
near the processor, reduced to a row's best tokens or to the probability of its target, and overwritten. torch and
numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCKS = 16  # tokens per block when the best are looked for: about the root of a vocabulary over the number wanted
CPU_LOGITS, GPU_LOGITS = 1 << 22, 1 << 28  # logits that exist at a time: 16 MB on a CPU, 1 GB on a GPU, in float32


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
        best = [top_log_probs(logits, count, banned) for _, logits in self._chunks(hidden)]
        return torch.cat([values for values, _ in best]), torch.cat([ids for _, ids in best])

    @torch.inference_mode()
    def log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The log-probability of the token `targets` [N] after each row of `hidden` [N, D]: [N], in nats, float32."""
        return torch.cat([token_log_probs(logits, targets[part]) for part, logits in self._chunks(hidden)])

    def logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """The logits [N, V] after each row of `hidden` [N, D], in the model's type, in the memory of `out` if given."""
        if self.weight is None:
            return hidden
        if self.scale != 1.0:
            hidden = hidden * self.scale
        logits = torch.mm(hidden, self.weight.T, out=out)
        return logits if self.bias is None else logits.add_(self.bias)

    def _chunks(self, hidden: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Which rows, and their logits [n, V]: valid, and free to be overwritten, until the next."""
        width = hidden.shape[-1] if self.weight is None else len(self.weight)
        size = max(1, (CPU_LOGITS if hidden.device.type == "cpu" else GPU_LOGITS) // width)
        memory = None if self.weight is None else hidden.new_empty(min(size, len(hidden)), width)
        for start in range(0, len(hidden), size):
            part = slice(start, min(start + size, len(hidden)))
            yield part, self.logits(hidden[part], None if memory is None else memory[: part.stop - start])


def top_log_probs(logits: Tensor, count: int, banned: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """The `count` likeliest tokens of every row, best first: log-probabilities in nats (float32) and ids, [N, count].

    `logits` [N, V] are overwritten; the log-probabilities are those of the whole vocabulary. `banned` tokens are never
    among the candidates, but keep their share of the probability (as transformers' processors have it). There are
    fewer candidates where fewer tokens are left.
    """
    logits = logits.float()
    count = min(count, logits.shape[-1] - len(banned))
    columns = list(banned)
    saved = logits[:, columns]
    logits[:, columns] = -torch.inf
    best, ids = _best(logits, count)
    logits[:, columns] = saved
    peak = torch.cat([best[:, :1], saved], 1).amax(-1, keepdim=True)
    return best - peak - _log_total(logits, peak), ids


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
