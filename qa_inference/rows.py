"""The rows of a running search: which group of which source each is, and what they have chosen so far. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

COMPACT_BELOW = 0.9  # rows leave the batch once this share of them, or less, is still needed


@dataclass(frozen=True)
class Hypothesis:
    """One generated sequence.

    `tokens` [L] holds the ids without start and padding, the end token included if `ended`; `log_probs` [L] their
    log-probabilities in nats given the input and the tokens before, without any penalty.
    """

    tokens: Array
    log_probs: Array
    ended: bool


class Layout:
    """Which group of which source every row of the running batch is: a rectangle of S sources by R rows.

    `sources` [S] and `groups` [S, R] are numbers in the whole search; rows keep the order of their groups. A row that
    has ended (`alive` false) stays as filling until `compact` drops it.
    """

    def __init__(self, sources: int, groups: int) -> None:
        self.sources = np.arange(sources)
        self.groups = np.tile(np.arange(groups), (sources, 1))
        self.alive = np.ones((sources, groups), bool)

    @property
    def width(self) -> int:
        """R, the rows per source."""
        return int(self.groups.shape[1])

    def ended_before(self) -> Array:
        """How many groups before each row's have ended at an earlier step, [S, R]."""
        return np.asarray(self.groups - (self.alive.cumsum(1) - self.alive))

    def compact(self) -> tuple[Array, Array]:
        """Let ended rows go where that makes the batch clearly smaller.

        Returns the kept sources [S'] and rows [S', R'], as numbers in the layout before.
        """
        sources = np.flatnonzero(self.alive.any(1))
        width = int(self.alive.sum(1).max())
        if len(sources) * width > COMPACT_BELOW * self.alive.size:
            sources, width = np.arange(len(self.sources)), self.width
        # living rows first, in their order; then, where a source has fewer than the widest, ended ones as filling
        rows = np.argsort(~self.alive[sources], axis=1, kind="stable")[:, :width]
        if width == self.width:
            rows = np.sort(rows, 1)
        self.sources = self.sources[sources]
        self.groups = np.take_along_axis(self.groups[sources], rows, 1)
        self.alive = np.take_along_axis(self.alive[sources], rows, 1)
        return sources, rows


class Record:
    """What every group of every source has chosen so far."""

    def __init__(self, sources: int, groups: int, length: int) -> None:
        self.tokens = np.zeros((sources, groups, length), np.int64)
        self.log_probs = np.zeros((sources, groups, length), np.float32)
        self.lengths = np.zeros((sources, groups), np.int64)
        self.ended = np.zeros((sources, groups), bool)

    def add(self, t: int, layout: Layout, chosen: Array, log_probs: Array, ended: Array) -> None:
        """Note the choices [S, R] of step `t` for the rows that are alive."""
        source, row = np.nonzero(layout.alive)
        where = layout.sources[source], layout.groups[source, row]
        self.tokens[(*where, t)] = chosen[source, row]
        self.log_probs[(*where, t)] = log_probs[source, row]
        self.lengths[where] = t + 1
        self.ended[where] = ended[source, row]

    def hypotheses(self) -> list[list[Hypothesis]]:
        """For each source the hypotheses of its groups, in order."""
        return [
            [
                Hypothesis(self.tokens[s, g, :n].copy(), self.log_probs[s, g, :n].copy(), bool(self.ended[s, g]))
                for g, n in enumerate(lengths)
            ]
            for s, lengths in enumerate(self.lengths)
        ]
