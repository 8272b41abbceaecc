"""Search over a step function: diverse beam search, beam search, seeded top-k sampling. Needs numpy only.

A search sees a model through a `StepFunction`; nothing here knows of models, caches, devices or texts. All searches
score a token with its plain log-probability in nats, whatever rule chose it, and return `Hypothesis` objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

COMPACT_BELOW = 0.9  # rows leave the batch when at most this share of them is still needed


@dataclass(frozen=True)
class Hypothesis:
    """One generated sequence.

    `tokens` [L] holds the ids without start and padding, the end token included if `ended`; `log_probs` [L] their
    log-probabilities in nats given the input and the tokens before, without any penalty.
    """

    tokens: Array
    log_probs: Array
    ended: bool


class StepFunction(Protocol):
    """The model's side of a search over S sources; a row is a sequence of tokens. At first each source has one row."""

    def __call__(self, tokens: Array) -> None:
        """Append `tokens` [S, P, n] to the rows."""

    def top(self, rows: Array, count: int, banned: Sequence[int]) -> tuple[Array, Array]:
        """The `count` likeliest tokens to follow some rows, best first: log-probabilities in nats and ids, [N, K].

        `rows` [N] are numbered through all sources. `banned` tokens are left out but keep their share of the
        probability. K is less than `count` where fewer tokens are left.
        """

    def select(self, sources: Array, rows: Array) -> None:
        """Keep the sources `sources` [S'] and make their rows copies of `rows` [S', P'] (numbers within its source)."""


@dataclass(frozen=True)
class Vocabulary:
    """The token ids a search has to know: `ends` finish a hypothesis; `pad` fills rows of groups that have ended."""

    ends: tuple[int, ...]
    pad: int


@dataclass(frozen=True)
class DiverseBeamSearch:
    """Group beam search with one beam per group (Vijayakumar et al. 2018, arXiv 1610.02424).

    At each step the groups choose in order; a group takes the token with the highest
    `log p(token) - strength * (number of earlier groups that chose it at this step)`. It agrees token for token with
    `generate(num_beams=groups, num_beam_groups=groups, diversity_penalty=strength, early_stopping=True)` of
    transformers 4.53: a group that ends at this step counts as having chosen its runner-up, and a group that ended
    earlier counts as having chosen the padding. Before `min_new_tokens` the end has probability zero; `max_new_tokens`
    includes the end.
    """

    groups: int = 60
    strength: float = 0.5
    min_new_tokens: int = 8
    max_new_tokens: int = 61

    def run(self, step: StepFunction, prefix: Array, vocabulary: Vocabulary) -> list[list[Hypothesis]]:
        """Search from `prefix` [S, P] (never scored): for each source its `groups` hypotheses, in group order."""
        layout = _Layout(len(prefix), self.groups)
        limits = (self.min_new_tokens, self.max_new_tokens)

        def choose(t: int, log_probs: Array, ids: Array) -> Array:
            return self.choose(log_probs, ids, layout, vocabulary)

        # At most R tokens carry a penalty (the choices of the R - 1 other groups, and the padding), so a choice and its
        # runner-up that is no end always lie in a group's best R + 1 + (number of ends).
        return _run(step, prefix, vocabulary, layout, limits, lambda: layout.width + 1 + len(vocabulary.ends), choose)

    def choose(self, log_probs: Array, ids: Array, layout: _Layout, vocabulary: Vocabulary) -> Array:
        """The index of every group's choice [S, R] among its best candidates (both [S, R, K]), groups in order."""
        sources = np.arange(len(ids))
        choices = np.zeros(ids.shape[:2], np.int64)
        times_chosen = np.zeros((len(ids), int(ids.max()) + 1), np.float32)  # [S, V'], at this step
        padding_penalty = self.strength * layout.ended_before()
        is_end = np.isin(ids, vocabulary.ends)
        for group in range(ids.shape[1]):
            tokens = ids[:, group]  # [S, K]
            # 1. A token's penalty grows with the number of earlier groups that chose it; those that have ended at an
            #    earlier step choose the padding.
            penalty = self.strength * times_chosen[sources[:, None], tokens]
            penalty = penalty + padding_penalty[:, group, None] * (tokens == vocabulary.pad)
            scores = log_probs[:, group] - penalty
            # 2. The group takes the best token.
            choices[:, group] = best = scores.argmax(1)
            # 3. It counts as having chosen that token or, if that ends it, its runner-up.
            counted = tokens[sources, best]
            is_ending = is_end[sources, group, best]
            if is_ending.any():
                runner_up = np.where(is_end[:, group], -np.inf, scores).argmax(1)
                counted = np.where(is_ending, tokens[sources, runner_up], counted)
            times_chosen[sources, counted] += layout.alive[:, group]
        return choices


@dataclass(frozen=True)
class BeamSearch:
    """Beam search of `width` beams that stops a source once `width` hypotheses have ended.

    Agrees with `generate(num_beams=width, num_return_sequences=width, early_stopping=True)` of transformers: hypotheses
    are ranked by mean log-probability per token (its length penalty 1.0), and those cut off at `max_new_tokens` fill
    the list where too few have ended.
    """

    width: int = 10
    min_new_tokens: int = 5
    max_new_tokens: int = 61

    def run(self, step: StepFunction, prefix: Array, vocabulary: Vocabulary) -> list[list[Hypothesis]]:
        """Search from `prefix` [S, P]: for each source its `width` best hypotheses, best first."""
        states = [_Beams(self.width) for _ in range(len(prefix))]
        live = np.arange(len(prefix))
        step(prefix[:, None])
        for t in range(self.max_new_tokens):
            banned = vocabulary.ends if t < self.min_new_tokens else ()
            rows = len(states[live[0]].running)
            top = step.top(np.arange(len(live) * rows), (1 + len(vocabulary.ends)) * self.width, banned)
            log_probs, ids = (x.reshape(len(live), rows, -1) for x in top)
            last = t + 1 == self.max_new_tokens
            # 1. Every live source chooses the beams to continue, and their tokens.
            moves = [
                states[s].advance(log_probs[i].astype(np.float64), ids[i], vocabulary.ends, last)
                for i, s in enumerate(live)
            ]
            # 2. Finished sources leave the batch.
            continuing = [i for i, move in enumerate(moves) if move is not None]
            if not continuing or last:
                break
            # 3. Beams and tokens, both [S', W], go to the model.
            beams, tokens = (np.stack([np.asarray(moves[i])[part] for i in continuing]) for part in (0, 1))
            step.select(np.array(continuing), beams)
            live = live[continuing]
            step(tokens[..., None])
        return [state.hypotheses() for state in states]


@dataclass(frozen=True)
class TopKSampling:
    """Independent samples among the `top_k` likeliest tokens.

    Every source draws from its own generator, seeded by `seed` and its own entry of `keys`, so that the samples of a
    text depend neither on its batch nor on the process.
    """

    samples: int = 6
    top_k: int = 50
    min_new_tokens: int = 0
    max_new_tokens: int = 64
    seed: int = 0

    def run(
        self, step: StepFunction, prefix: Array, vocabulary: Vocabulary, keys: Sequence[int]
    ) -> list[list[Hypothesis]]:
        """Sample from `prefix` [S, P]; `keys` [S] are non-negative integers that identify the sources."""
        layout = _Layout(len(prefix), self.samples)
        generators = [np.random.default_rng((self.seed, key)) for key in keys]
        draws = np.stack([generator.random((self.max_new_tokens, self.samples)) for generator in generators])

        def choose(t: int, log_probs: Array, ids: Array) -> Array:
            # A candidate has an interval as long as its probability [S, R, K]; the draw [S, R] falls into one interval.
            cumulative = np.exp(log_probs.astype(np.float64)).cumsum(-1)
            uniform = draws[layout.sources[:, None], t, layout.groups]
            below = cumulative <= (uniform * cumulative[..., -1])[..., None]
            choices: Array = np.minimum(below.sum(-1), ids.shape[-1] - 1)
            return choices

        limits = (self.min_new_tokens, self.max_new_tokens)
        return _run(step, prefix, vocabulary, layout, limits, lambda: self.top_k, choose)


def run_search(
    search: DiverseBeamSearch | BeamSearch | TopKSampling,
    step: StepFunction,
    prefix: Array,
    vocabulary: Vocabulary,
    keys: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Run any of the searches. Sampling needs `keys`, numbers that identify the sources; ValueError without them."""
    if isinstance(search, TopKSampling):
        if keys is None:
            raise ValueError("generate: sampling needs `keys`, a number for each input to seed its draws; got None")
        return search.run(step, prefix, vocabulary, keys)
    return search.run(step, prefix, vocabulary)


def _run(
    step: StepFunction,
    prefix: Array,
    vocabulary: Vocabulary,
    layout: _Layout,
    limits: tuple[int, int],
    candidates: Callable[[], int],
    choose: Callable[[int, Array, Array], Array],
) -> list[list[Hypothesis]]:
    """Extend every group by one token at a time until it ends: the loop of all searches that never reorder beams.

    `limits` are the least number of tokens before an end and the most with it. `candidates()` is K, the number of a
    group's best tokens that `choose(t, log_probs, ids)`, of two [S, R, K], has to see to return its choices [S, R].
    """
    record = _Record(len(prefix), layout.width, limits[1])
    step(prefix[:, None])
    for t in range(limits[1]):
        banned = vocabulary.ends if t < limits[0] else ()
        # 1. The best candidates of every row [N, K] become those of every group [S, R, K].
        rows, row_of_group = layout.rows_read()
        log_probs, ids = (x[row_of_group] for x in step.top(rows, candidates(), banned))
        # 2. Every group chooses a token.
        choices = choose(t, log_probs, ids)[..., None]
        chosen = np.take_along_axis(ids, choices, -1)[..., 0]
        ended = np.isin(chosen, vocabulary.ends)
        record.add(t, layout, chosen, np.take_along_axis(log_probs, choices, -1)[..., 0], ended)
        layout.alive &= ~ended
        if t + 1 == limits[1] or not layout.alive.any():
            break
        # 3. Groups that chose differently part, and the model reads the tokens.
        sources, continued, tokens = layout.advance(chosen, vocabulary.pad)
        step.select(sources, continued)
        step(tokens[..., None])
    return record.hypotheses()


class _Layout:
    """The groups that still search, for every source, and the row of the batch that holds a group's tokens so far.

    Groups of a source that have written the same share a row until they choose differently. The batch is a rectangle of
    S sources by P rows. `sources` [S] and `groups` [S, R] are numbers in the whole search, the groups of a source in
    ascending order while they live; `group_rows` [S, R] are their rows within their source. A group that has ended
    (`alive` false) stays as filling until `advance` drops it.
    """

    def __init__(self, sources: int, groups: int) -> None:
        self.sources = np.arange(sources)
        self.groups = np.tile(np.arange(groups), (sources, 1))
        self.alive = np.ones((sources, groups), bool)
        self.group_rows = np.zeros((sources, groups), np.int64)
        self.rows = 1  # P

    @property
    def width(self) -> int:
        """R, the groups per source."""
        return int(self.groups.shape[1])

    def ended_before(self) -> Array:
        """For each group, the number of groups before it that ended at an earlier step, [S, R]."""
        return np.asarray(self.groups - (self.alive.cumsum(1) - self.alive))

    def rows_read(self) -> tuple[Array, Array]:
        """The rows that living groups have written [N], numbered through the batch, and the index of each group's.

        The indices are [S, R]; that of a group that has ended has no meaning.
        """
        rows = self.group_rows + self.rows * np.arange(len(self.group_rows))[:, None]
        needed, index = np.unique(rows[self.alive], return_inverse=True)
        row_of_group = np.zeros(rows.shape, np.int64)
        row_of_group[self.alive] = index
        return needed, row_of_group

    def advance(self, chosen: Array, pad: int) -> tuple[Array, Array, Array]:
        """Part the groups of a row by the tokens [S, R] they chose; drop ended ones where that clearly saves rows.

        Returns the kept sources [S'], the old row that each new row continues [S', P'], both as numbers in the old
        layout, and the tokens to append to the new rows [S', P']: `pad` in rows that no living group has.
        """
        # 1. Number the distinct pairs of old row and chosen token within a source: the new rows.
        before = self.group_rows
        after = _numbered(before * (int(chosen.max()) + 1) + chosen, self.alive)
        sources, rows = np.flatnonzero(self.alive.any(1)), int(after.max()) + 1
        # 2. Keep the old rectangle if no groups part and few rows would be saved: a copy costs more than it saves.
        has_parted = (after != _numbered(before, self.alive)).any()
        if not has_parted and len(sources) * rows > COMPACT_BELOW * len(self.sources) * self.rows:
            sources, rows, after = np.arange(len(self.sources)), self.rows, before
        # 3. Fill in the old row and the token of every new row; rows without a group continue any row with `pad`.
        continued = np.tile(np.minimum(np.arange(rows), self.rows - 1), (len(self.sources), 1))
        tokens = np.full(continued.shape, pad)
        source, group = np.nonzero(self.alive)
        new_row = after[source, group]
        continued[source, new_row], tokens[source, new_row] = before[source, group], chosen[source, group]
        # 4. Move living groups to the front, in order, and cut off the columns in which none is left.
        living_first = np.argsort(~self.alive, axis=1, kind="stable")[sources, : self.alive.sum(1).max()]
        self.groups, self.alive, self.group_rows = (
            np.take_along_axis(x[sources], living_first, 1) for x in (self.groups, self.alive, after)
        )
        self.sources, self.rows = self.sources[sources], rows
        return sources, continued[sources], tokens[sources]


def _numbered(keys: Array, alive: Array) -> Array:
    """Each line's distinct keys [S, R] of living groups numbered from 0 in ascending order; 0 for ended groups."""
    keys = np.where(alive, keys, np.iinfo(np.int64).max)
    order = keys.argsort(1)
    ordered = np.take_along_axis(keys, order, 1)
    numbers = np.zeros(keys.shape, np.int64)
    np.put_along_axis(numbers, order[:, 1:], (ordered[:, 1:] != ordered[:, :-1]).cumsum(1), 1)
    return np.where(alive, numbers, 0)


class _Record:
    """All choices of every group of every source: `tokens` and `log_probs` [S, R, L], `lengths` and `ended` [S, R]."""

    def __init__(self, sources: int, groups: int, length: int) -> None:
        self.tokens = np.zeros((sources, groups, length), np.int64)
        self.log_probs = np.zeros((sources, groups, length), np.float32)
        self.lengths = np.zeros((sources, groups), np.int64)
        self.ended = np.zeros((sources, groups), bool)

    def add(self, t: int, layout: _Layout, chosen: Array, log_probs: Array, ended: Array) -> None:
        """Note the choices [S, R] of step `t` by living groups."""
        source, group = np.nonzero(layout.alive)
        index = layout.sources[source], layout.groups[source, group]
        self.tokens[(*index, t)] = chosen[source, group]
        self.log_probs[(*index, t)] = log_probs[source, group]
        self.lengths[index] = t + 1
        self.ended[index] = ended[source, group]

    def hypotheses(self) -> list[list[Hypothesis]]:
        """For each source the hypotheses of its groups, in order."""
        return [
            [
                Hypothesis(self.tokens[s, g, :n].copy(), self.log_probs[s, g, :n].copy(), bool(self.ended[s, g]))
                for g, n in enumerate(lengths)
            ]
            for s, lengths in enumerate(self.lengths)
        ]


@dataclass
class _Beams:
    """The running and the finished beams of one source of a beam search."""

    width: int
    sums: list[float] = field(default_factory=lambda: [0.0])
    running: list[tuple[list[int], list[float]]] = field(default_factory=lambda: [([], [])])
    finished: list[tuple[float, Hypothesis]] = field(default_factory=list)

    def advance(
        self, log_probs: Array, ids: Array, ends: Sequence[int], last: bool
    ) -> tuple[list[int], list[int]] | None:
        """Take one step from the candidates [R, K] of every beam.

        Returns the numbers of the W beams that continue and their tokens; None once `width` beams have ended.
        """
        # 1. The best continuations of all beams: as many as leave `width` running if the others end.
        count = (1 + len(ends)) * self.width
        totals = (np.asarray(self.sums)[:, None] + log_probs).ravel()
        order = np.argsort(-totals, kind="stable")[:count]
        # 2. An end among the best `width` finishes a beam; the best others continue.
        continuing: list[tuple[int, int, float, float]] = []
        for rank, flat in enumerate(order.tolist()):
            beam, column = divmod(flat, ids.shape[1])
            token, log_prob = int(ids[beam, column]), float(log_probs[beam, column])
            ended = token in ends
            if rank < self.width and (ended or last):
                self._finish(beam, token, log_prob, float(totals[flat]), ended)
            if not ended and len(continuing) < self.width:
                continuing.append((beam, token, log_prob, float(totals[flat])))
        if len(self.finished) >= self.width:
            return None
        self.sums = [total for *_, total in continuing]
        self.running = [([*self.running[b][0], t], [*self.running[b][1], p]) for b, t, p, _ in continuing]
        return [b for b, *_ in continuing], [t for _, t, *_ in continuing]

    def _finish(self, beam: int, token: int, log_prob: float, total: float, ended: bool) -> None:
        """Put a beam with its last token among the finished ones."""
        tokens, log_probs = [*self.running[beam][0], token], [*self.running[beam][1], log_prob]
        hypothesis = Hypothesis(np.array(tokens), np.array(log_probs, np.float32), ended)
        self.finished.append((total / len(tokens), hypothesis))

    def hypotheses(self) -> list[Hypothesis]:
        """The best `width` finished beams, best first."""
        return [h for _, h in sorted(self.finished, key=lambda pair: -pair[0])[: self.width]]
