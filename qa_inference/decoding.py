"""Search over a step function: diverse beam search, beam search, seeded top-k sampling. numpy only.

What is searched is hidden behind a `StepFunction`; nothing here knows of models, caches, devices or texts. All searches
score a token with its plain log-probability in nats, whatever rule chose it, and give back `Hypothesis` objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from qa_inference.rows import Array, Hypothesis, Layout, Record


class StepFunction(Protocol):
    """The model's side of a search: S inputs, at first one row (what has been written so far) for each of them."""

    def __call__(self, tokens: Array) -> None:
        """Append `tokens` [S, P, n] to the rows."""

    def top(self, rows: Array, count: int, banned: Sequence[int]) -> tuple[Array, Array]:
        """The `count` likeliest tokens to follow some rows, best first: log-probabilities in nats and ids, [N, K].

        `rows` [N] are numbered through all sources. `banned` tokens are left out, but keep their share of the
        probability. K is less than `count` where fewer tokens are left.
        """

    def select(self, sources: Array, rows: Array) -> None:
        """Keep the sources `sources` [S'] and make their rows copies of `rows` [S', P'] (numbers within its source)."""


@dataclass(frozen=True)
class Vocabulary:
    """The token ids a search has to know: `ends` finish a hypothesis, `pad` stands where a group has ended."""

    ends: tuple[int, ...]
    pad: int


@dataclass(frozen=True)
class DiverseBeamSearch:
    """Group beam search with one beam per group (Vijayakumar et al. 2018, arXiv 1610.02424).

    At each step the groups choose in order; a group takes the token with the highest
    `log p(token) - strength * (number of earlier groups that chose it at this step)`. It agrees token for token with
    `generate(num_beams=groups, num_beam_groups=groups, diversity_penalty=strength, early_stopping=True)` of
    transformers 4.53: a group that ends now counts as having chosen its runner-up, one that ended earlier as choosing
    the padding. Before `min_new_tokens` the end has probability zero; `max_new_tokens` includes the end.
    """

    groups: int = 60
    strength: float = 0.5
    min_new_tokens: int = 8
    max_new_tokens: int = 61

    def run(self, step: StepFunction, prefix: Array, vocabulary: Vocabulary) -> list[list[Hypothesis]]:
        """Search from `prefix` [S, P] (never scored): for each source its `groups` hypotheses, in group order."""
        layout = Layout(len(prefix), self.groups)
        limits = (self.min_new_tokens, self.max_new_tokens)

        def choose(t: int, log_probs: Array, ids: Array) -> Array:
            return self._choose(log_probs, ids, layout, vocabulary)

        # At most R tokens carry a penalty (the choices of the R - 1 other rows, and the padding), so a choice and its
        # runner-up that is no end always lie in a row's best R + 1 + (number of ends).
        return _run(step, prefix, vocabulary, layout, limits, lambda: layout.width + 1 + len(vocabulary.ends), choose)

    def _choose(self, log_probs: Array, ids: Array, layout: Layout, vocabulary: Vocabulary) -> Array:
        """Every row's choice [S, R], groups in order, as its place among its best candidates (both [S, R, K])."""
        every = np.arange(len(ids))
        place = np.zeros(ids.shape[:2], np.int64)
        used = np.zeros((len(ids), int(ids.max()) + 1), np.float32)
        padding = self.strength * layout.ended_before()
        is_end = np.isin(ids, vocabulary.ends)
        for row in range(ids.shape[1]):
            tokens = ids[:, row]
            penalty = self.strength * used[every[:, None], tokens] + padding[:, row, None] * (tokens == vocabulary.pad)
            scores = log_probs[:, row] - penalty
            place[:, row] = best = scores.argmax(1)
            counted = tokens[every, best]
            ending = is_end[every, row, best]
            if ending.any():
                runner_up = np.where(is_end[:, row], -np.inf, scores).argmax(1)
                counted = np.where(ending, tokens[every, runner_up], counted)
            used[every, counted] += layout.alive[:, row]
        return place


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
            moves = [
                states[s].advance(log_probs[i].astype(np.float64), ids[i], vocabulary.ends, last)
                for i, s in enumerate(live)
            ]
            going = [i for i, move in enumerate(moves) if move is not None]
            if not going or last:
                break
            kept, tokens = (np.stack([np.asarray(moves[i])[part] for i in going]) for part in (0, 1))
            step.select(np.array(going), kept)
            live = live[going]
            step(tokens[..., None])
        return [state.hypotheses() for state in states]


@dataclass(frozen=True)
class TopKSampling:
    """Independent samples among the `top_k` likeliest tokens.

    Every source draws from its own generator, seeded by `seed` and its own entry of `keys`, so that what is drawn for
    a text depends neither on its batch nor on the process.
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
        layout = Layout(len(prefix), self.samples)
        generators = [np.random.default_rng((self.seed, key)) for key in keys]
        draws = np.stack([generator.random((self.max_new_tokens, self.samples)) for generator in generators])

        def choose(t: int, log_probs: Array, ids: Array) -> Array:
            cumulative = np.exp(log_probs.astype(np.float64)).cumsum(-1)
            uniform = draws[layout.sources[:, None], t, layout.groups]
            below = cumulative <= (uniform * cumulative[..., -1])[..., None]
            place: Array = np.minimum(below.sum(-1), ids.shape[-1] - 1)
            return place

        limits = (self.min_new_tokens, self.max_new_tokens)
        return _run(step, prefix, vocabulary, layout, limits, lambda: self.top_k, choose)


def run_search(
    search: DiverseBeamSearch | BeamSearch | TopKSampling,
    step: StepFunction,
    prefix: Array,
    vocabulary: Vocabulary,
    keys: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Any of the searches; `keys` are what sampling takes beside the rest. Raises ValueError if it has none."""
    if isinstance(search, TopKSampling):
        if keys is None:
            raise ValueError("generate: sampling needs `keys`, a number for each input to seed its draws; got None")
        return search.run(step, prefix, vocabulary, keys)
    return search.run(step, prefix, vocabulary)


def _run(
    step: StepFunction,
    prefix: Array,
    vocabulary: Vocabulary,
    layout: Layout,
    limits: tuple[int, int],
    candidates: Callable[[], int],
    choose: Callable[[int, Array, Array], Array],
) -> list[list[Hypothesis]]:
    """Extend every group by one token at a time until it ends: the loop that searches without reordering share.

    `limits` are the least number of tokens before an end and the most with it; `candidates()` says how many of its
    best tokens `choose(t, log_probs, ids)` (both [S, R, K]) has to see of a group to give the chosen places [S, R].
    """
    record = Record(len(prefix), layout.width, limits[1])
    step(prefix[:, None])
    for t in range(limits[1]):
        banned = vocabulary.ends if t < limits[0] else ()
        rows, which = layout.read()
        log_probs, ids = (x[which] for x in step.top(rows, candidates(), banned))
        place = choose(t, log_probs, ids)[..., None]
        chosen = np.take_along_axis(ids, place, -1)[..., 0]
        ended = np.isin(chosen, vocabulary.ends)
        record.add(t, layout, chosen, np.take_along_axis(log_probs, place, -1)[..., 0], ended)
        layout.alive &= ~ended
        if t + 1 == limits[1] or not layout.alive.any():
            break
        sources, continued, tokens = layout.advance(chosen, vocabulary.pad)
        step.select(sources, continued)
        step(tokens[..., None])
    return record.hypotheses()


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

        Returns which beams go on (their numbers, W of them) and with which tokens; None once `width` have ended.
        """
        count = (1 + len(ends)) * self.width
        totals = (np.asarray(self.sums)[:, None] + log_probs).ravel()
        order = np.argsort(-totals, kind="stable")[:count]
        going: list[tuple[int, int, float, float]] = []
        for rank, flat in enumerate(order.tolist()):
            beam, place = divmod(flat, ids.shape[1])
            token, log_prob = int(ids[beam, place]), float(log_probs[beam, place])
            ended = token in ends
            if rank < self.width and (ended or last):
                self._finish(beam, token, log_prob, float(totals[flat]), ended)
            if not ended and len(going) < self.width:
                going.append((beam, token, log_prob, float(totals[flat])))
        if len(self.finished) >= self.width:
            return None
        self.sums = [total for *_, total in going]
        self.running = [([*self.running[b][0], t], [*self.running[b][1], p]) for b, t, p, _ in going]
        return [b for b, *_ in going], [t for _, t, *_ in going]

    def _finish(self, beam: int, token: int, log_prob: float, total: float, ended: bool) -> None:
        """Put a beam with its last token among the finished ones."""
        tokens, log_probs = [*self.running[beam][0], token], [*self.running[beam][1], log_prob]
        hypothesis = Hypothesis(np.array(tokens), np.array(log_probs, np.float32), ended)
        self.finished.append((total / len(tokens), hypothesis))

    def hypotheses(self) -> list[Hypothesis]:
        """The best `width` finished beams, best first."""
        return [h for _, h in sorted(self.finished, key=lambda pair: -pair[0])[: self.width]]
