"""The rows of a running search: which groups of which source read each, and what they have chosen. numpy only."""

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
    """Which groups of which sources still search, and which row of the batch holds what each has written so far.

    Groups of a source that have written the same share a row until they choose differently. The batch is a rectangle of
    S sources by P rows. `sources` [S] and `groups` [S, R] are numbers in the whole search, the groups of a source in
    ascending order while they live; `places` [S, R] are their rows within their source. A group that has ended (`alive`
    false) stays as filling until `advance` drops it.
    """

    def __init__(self, sources: int, groups: int) -> None:
        self.sources = np.arange(sources)
        self.groups = np.tile(np.arange(groups), (sources, 1))
        self.alive = np.ones((sources, groups), bool)
        self.places = np.zeros((sources, groups), np.int64)
        self.rows = 1

    @property
    def width(self) -> int:
        """R, the groups per source."""
        return int(self.groups.shape[1])

    def ended_before(self) -> Array:
        """How many groups before each have ended at an earlier step, [S, R]."""
        return np.asarray(self.groups - (self.alive.cumsum(1) - self.alive))

    def read(self) -> tuple[Array, Array]:
        """The rows that living groups read, [N], numbered through the batch, and which of them is whose, [S, R].

        A group that has ended is given any.
        """
        rows = self.places + self.rows * np.arange(len(self.places))[:, None]
        needed, which = np.unique(rows[self.alive], return_inverse=True)
        each = np.zeros(rows.shape, np.int64)
        each[self.alive] = which
        return needed, each

    def advance(self, chosen: Array, pad: int) -> tuple[Array, Array, Array]:
        """Part the groups of a row by the tokens [S, R] they chose; let ended ones go where that clearly saves rows.

        Returns the kept sources [S'], the row that each new one continues [S', P'], both as numbers in the layout
        before, and the tokens to append to the new rows [S', P']: `pad` where no living group reads one.
        """
        before = self.places
        after = _numbered(before * (int(chosen.max()) + 1) + chosen, self.alive)
        sources, rows = np.flatnonzero(self.alive.any(1)), int(after.max()) + 1
        parted = (after != _numbered(before, self.alive)).any()
        if not parted and len(sources) * rows > COMPACT_BELOW * len(self.sources) * self.rows:
            sources, rows, after = np.arange(len(self.sources)), self.rows, before
        continued = np.tile(np.minimum(np.arange(rows), self.rows - 1), (len(self.sources), 1))
        tokens = np.full(continued.shape, pad)
        source, group = np.nonzero(self.alive)
        place = after[source, group]
        continued[source, place], tokens[source, place] = before[source, group], chosen[source, group]
        living_first = np.argsort(~self.alive, axis=1, kind="stable")[sources, : self.alive.sum(1).max()]
        self.groups, self.alive, self.places = (
            np.take_along_axis(x[sources], living_first, 1) for x in (self.groups, self.alive, after)
        )
        self.sources, self.rows = self.sources[sources], rows
        return sources, continued[sources], tokens[sources]


def _numbered(keys: Array, alive: Array) -> Array:
    """Each line's distinct keys [S, R] of living groups numbered from 0 in ascending order; 0 for the others."""
    keys = np.where(alive, keys, np.iinfo(np.int64).max)
    order = keys.argsort(1)
    ordered = np.take_along_axis(keys, order, 1)
    numbers = np.zeros(keys.shape, np.int64)
    np.put_along_axis(numbers, order[:, 1:], (ordered[:, 1:] != ordered[:, :-1]).cumsum(1), 1)
    return np.where(alive, numbers, 0)


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
