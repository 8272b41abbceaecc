"""Searches on transition matrices, against loops that state the rules plainly, and against transformers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from qa_inference.decoding import Array, BeamSearch, DiverseBeamSearch, TopKSampling, Vocabulary
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.projection import Projection
from qa_inference.models.shared_rows import Sharing
from tests import tiny

GOLDEN = Path(__file__).parents[1] / "golden" / "diverse_beam"
CASES = json.loads((GOLDEN / "cases.json").read_text())["cases"]
END, PAD = 1, 0
VOCABULARY = Vocabulary((END,), PAD)


class Chain:
    """A step function without a model: the next token depends on the source and the last two tokens of the row."""

    def __init__(self, sources: int, vocabulary: int = 12, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = 2 * torch.randn(sources, vocabulary, vocabulary, vocabulary, generator=generator)
        self.sources = torch.arange(sources)
        self.rows = torch.zeros(sources, 1, 0, dtype=torch.long)
        self.widths: list[tuple[int, int]] = []
        self.read: list[int] = []

    def logits(self, source: int, tokens: list[int]) -> Tensor:
        """What follows `tokens`, the prefix included."""
        before = tokens[-2] if len(tokens) > 1 else 0
        return self.table[source, before, tokens[-1]]

    def __call__(self, tokens: Array) -> None:
        self.rows = torch.cat([self.rows, torch.as_tensor(tokens)], -1)
        self.widths.append(tuple(self.rows.shape[:2]))

    def top(self, rows: Array, count: int, banned: Sequence[int]) -> tuple[Array, Array]:
        self.read.append(len(rows))
        each = self.rows.shape[1]
        logits = [
            self.logits(int(self.sources[row // each]), self.rows[row // each, row % each].tolist()) for row in rows
        ]
        log_probs, ids = Projection().top(torch.stack(logits), count, banned)
        return log_probs.numpy(), ids.numpy()

    def select(self, sources: Array, rows: Array) -> None:
        self.sources = self.sources[sources]
        self.rows = torch.stack([self.rows[s][r] for s, r in zip(sources, rows, strict=True)])


def plain_diverse_beam(chain: Chain, source: int, search: DiverseBeamSearch, ends: tuple[int, ...] = (END,)) -> list:
    """Diverse beam search of one source as its rules read: one group after the other."""
    groups: list[list[int]] = [[] for _ in range(search.groups)]
    ended = [False] * search.groups
    for t in range(search.max_new_tokens):
        chosen: Counter[int] = Counter()
        for g, tokens in enumerate(groups):
            if ended[g]:
                chosen[PAD] += 1
                continue
            scores = chain.logits(source, [2, *tokens]).log_softmax(-1)
            for token, count in chosen.items():
                scores[token] -= search.strength * count
            if t < search.min_new_tokens:
                scores[list(ends)] = -torch.inf
            order = scores.argsort(descending=True, stable=True).tolist()
            tokens.append(order[0])
            if order[0] in ends:
                ended[g] = True
            chosen[next(token for token in order if token not in ends)] += 1
        if all(ended):
            break
    return groups


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
@pytest.mark.parametrize(("groups", "least", "most"), [(1, 0, 5), (5, 0, 12), (11, 3, 9), (20, 2, 15)])
def test_diverse_beam_agrees_with_its_rules(groups: int, least: int, most: int, strength: float) -> None:
    search = DiverseBeamSearch(groups, strength, least, most)
    found = search.run(Chain(3), np.full((3, 1), 2), VOCABULARY)
    for source in range(3):
        assert [h.tokens.tolist() for h in found[source]] == plain_diverse_beam(Chain(3), source, search)


def test_diverse_beam_with_several_ends() -> None:
    search = DiverseBeamSearch(9, 0.7, 1, 10)
    found = search.run(Chain(2, seed=3), np.full((2, 1), 2), Vocabulary((END, 5), PAD))
    for source in range(2):
        expected = plain_diverse_beam(Chain(2, seed=3), source, search, (END, 5))
        assert [h.tokens.tolist() for h in found[source]] == expected
    assert {int(h.tokens[-1]) for h in found[0] + found[1] if h.ended} == {END, 5}


def test_log_probs_are_the_plain_ones() -> None:
    chain = Chain(2)
    for source, hypotheses in enumerate(DiverseBeamSearch(6, 1.0, 0, 8).run(chain, np.full((2, 1), 2), VOCABULARY)):
        for h in hypotheses:
            path = [2, *h.tokens.tolist()]
            expected = [
                chain.logits(source, path[: i + 1]).log_softmax(-1)[token].item() for i, token in enumerate(path[1:])
            ]
            np.testing.assert_allclose(h.log_probs, expected, atol=1e-5)
            assert h.ended == (h.tokens[-1] == END)


def test_ended_groups_leave_the_batch() -> None:
    chain = Chain(4, seed=1)
    found = DiverseBeamSearch(8, 0.5, 0, 12).run(chain, np.full((4, 1), 2), VOCABULARY)
    sizes = [sources * rows for sources, rows in chain.widths]
    assert sizes[0] == 4  # before the first token one row per source is enough
    assert sizes[-1] < max(sizes) <= 32
    # read is what some living group has written, once however many have
    for t, count in enumerate(chain.read):
        written = {(s, *h.tokens[:t].tolist()) for s, hs in enumerate(found) for h in hs if len(h.tokens) > t}
        assert count == len(written)


def test_groups_that_choose_alike_share_a_row() -> None:
    chain = Chain(2)
    (first, *others), _ = DiverseBeamSearch(5, 0.0, 0, 9).run(chain, np.full((2, 1), 2), VOCABULARY)
    assert all(other.tokens.tolist() == first.tokens.tolist() for other in others)  # nothing sets them apart
    assert set(chain.widths) <= {(2, 1), (1, 1)}


def _inputs(case: dict[str, Any]) -> list[list[int]]:
    """The inputs of a golden case without their padding."""
    pairs = zip(case["input_ids"], case["attention_mask"], strict=True)
    return [[token for token, real in zip(ids, mask, strict=True) if real] for ids, mask in pairs]


@pytest.mark.parametrize("sharing", ["shared", "expanded"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['model']}-{c['groups']}-{c['diversity_strength']}")
def test_golden_hypotheses(case: dict[str, Any], sharing: Sharing) -> None:
    """What transformers 4.53.3 gives (tests/golden/diverse_beam), batched and one by one."""
    network = AutoModelForSeq2SeqLM.from_pretrained(GOLDEN / case["model"])
    model = EncoderDecoder(network, tiny.byte_bpe(), sharing=sharing)
    search = DiverseBeamSearch(
        case["groups"], case["diversity_strength"], case["min_new_tokens"], case["max_new_tokens"]
    )
    inputs = _inputs(case)
    for found in (model.generate(inputs, search), [model.generate([one], search)[0] for one in inputs]):
        assert [sorted(h.tokens.tolist() for h in hypotheses) for hypotheses in found] == case["sequences"]


@pytest.mark.parametrize("name", ["bart", "t5", "encoder-decoder", "led"])
@pytest.mark.parametrize(("width", "least", "most"), [(1, 0, 12), (4, 5, 20), (10, 3, 7)])
def test_beam_search_agrees_with_generate(name: str, width: int, least: int, most: int) -> None:
    network, tokenizer = tiny.checkpoint(name)
    model = EncoderDecoder(network, tokenizer)
    inputs = [[5, 9, 30, 11, 3], [8, 21], list(range(10, 22))]
    found = model.generate(inputs, BeamSearch(width, least, most))
    for ids, hypotheses in zip(inputs, found, strict=True):
        expected = network.generate(
            torch.tensor([ids]), num_beams=width, num_return_sequences=width, early_stopping=True, do_sample=False,
            min_new_tokens=least, max_new_tokens=most, length_penalty=1.0,
        )  # fmt: skip
        start = len(model.prefix)
        pad = model.vocabulary.pad
        rows = [row[start:].tolist() for row in expected]
        rows = [row[: len(row) - next((i for i, t in enumerate(row[::-1]) if t != pad), 0)] for row in rows]
        assert [h.tokens.tolist() for h in hypotheses] == rows


def test_sampling_does_not_depend_on_the_batch() -> None:
    search = TopKSampling(samples=3, top_k=4, min_new_tokens=2, max_new_tokens=9, seed=5)
    together = search.run(Chain(3), np.full((3, 1), 2), VOCABULARY, keys=[7, 8, 9])
    for source in range(3):
        chain = Chain(3)
        chain.sources, chain.rows = chain.sources[source : source + 1], chain.rows[:1]
        (alone,) = search.run(chain, np.full((1, 1), 2), VOCABULARY, keys=[7 + source])
        assert [h.tokens.tolist() for h in alone] == [h.tokens.tolist() for h in together[source]]
    others = search.run(Chain(3), np.full((3, 1), 2), VOCABULARY, keys=[1, 2, 3])
    assert [h.tokens.tolist() for h in others[0]] != [h.tokens.tolist() for h in together[0]]
    assert all(END not in h.tokens[:2] for hypotheses in together for h in hypotheses)


def test_sampling_follows_the_distribution() -> None:
    chain = Chain(1, vocabulary=6, seed=2)
    (samples,) = TopKSampling(4000, top_k=3, max_new_tokens=1).run(chain, np.full((1, 1), 2), VOCABULARY, keys=[0])
    best = chain.logits(0, [2]).softmax(-1).topk(3)
    counts = Counter(int(h.tokens[0]) for h in samples)
    assert set(counts) == set(best.indices.tolist())
    for p, token in zip(best.values / best.values.sum(), best.indices, strict=True):
        assert counts[int(token)] / 4000 == pytest.approx(float(p), abs=0.03)
