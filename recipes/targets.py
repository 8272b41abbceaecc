"""The training data of the QAGen: sources with the targets decoded from them, and their batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qa_inference.tokenization import pad_rows

BLOCKS = 3  # targets are decoded in this many parts of like length


@dataclass(frozen=True)
class Target:
    """Token ids to decode; those before `given` are known, not learned.

    A false one has the true one it is a `rival` of, and `given` are the tokens they begin with alike: none of it is
    learned, only the odds between the two (`recipes.rivals`).
    """

    ids: Sequence[int]
    given: int = 0
    rival: Target | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Example:
    """One encoder input as token ids, and the targets decoded from it."""

    source: list[int]
    targets: list[Target]


class TokenLosses(NamedTuple):
    """For a block's targets, [N, T]: losses in nats by smoothed labels, zero at padding; without smoothing; labels."""

    losses: Tensor
    nats: Tensor
    labels: Tensor


def pair_ids(question: Sequence[int], answer: Sequence[int], special: dict[str, int]) -> tuple[int, ...]:
    """A pair as the model writes it: question, separator, answer, end."""
    return (*question, special["sep"], *answer, special["eos"])


def pad(rows: Sequence[Sequence[int]], value: int, multiple: int = 1) -> torch.Tensor:
    """One tensor of rows, padded to the longest, rounded up (few shapes keep the CPU's kernels cached)."""
    return torch.from_numpy(pad_rows(rows, value, multiple=multiple))


def collate(batch: Sequence[Example], special: dict[str, int], filled: float = 0.8) -> dict[str, Any]:
    """`input_ids, attention_mask` [B, S] and `blocks`, the targets in parts of like length.

    A block is `decoder_input_ids, labels` [N, T], -100 where there is no loss, its rows' `targets`, and `rows` [N], the
    source of each row. If `rows` is None, every source has N / B adjacent rows, which share its keys and values. So it
    is where at least `filled` of these rows are targets; the others are empty.
    """
    source = pad([e.source for e in batch], special["pad"], multiple=32)
    most = max(len(e.targets) for e in batch)
    ranked = [sorted(e.targets, key=len) for e in batch]
    if sum(map(len, ranked)) >= filled * most * len(batch):
        ranked = [[Target([])] * (most - len(targets)) + targets for targets in ranked]
        cuts = sorted({round(most * i / BLOCKS) for i in range(BLOCKS + 1)})
        parts = [([t for ts in ranked for t in ts[i:j]], None) for i, j in itertools.pairwise(cuts)]
    else:
        rows = sorted(((i, target) for i, e in enumerate(batch) for target in e.targets), key=lambda row: len(row[1]))
        cuts = sorted({round(len(rows) * i / BLOCKS) for i in range(BLOCKS + 1)})
        parts = [([t for _, t in rows[i:j]], [k for k, _ in rows[i:j]]) for i, j in itertools.pairwise(cuts)]
    return {
        "input_ids": source,
        "attention_mask": (source != special["pad"]).long(),
        "blocks": [block(targets, rows, special) for targets, rows in parts if any(targets)],
    }


def block(targets: Sequence[Target], rows: Sequence[int] | None, special: dict[str, int]) -> dict[str, Any]:
    """Padded tensors of some targets."""
    ids = pad([target.ids for target in targets], special["pad"])
    labels = pad([[*[-100] * target.given, *target.ids[target.given :]] for target in targets], -100)
    start = torch.full((len(labels), 1), special["bos"])
    before = torch.cat([start, ids[:, :-1]], 1)
    rows = None if rows is None else torch.tensor(rows)
    return {"decoder_input_ids": before, "labels": labels, "rows": rows, "targets": targets}


def on_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on a device."""
    if device.type == "cpu":
        return batch
    moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    return (
        {**moved, "blocks": [on_device(part, device) for part in batch.get("blocks", ())]}
        if "blocks" in batch
        else moved
    )
