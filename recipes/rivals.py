"""False pairs beside true ones, and the odds between the two: for `recipes.train_qagen --rivals`.

Likelihood alone teaches the statements of a text. Only a comparison teaches that a plausible but false statement must
cost more than a true one in other words.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from recipes.annotated import Context, Ids, Names, Pair
from recipes.cpu_training import autocast
from recipes.targets import Target, TokenLosses, pad, pair_ids

WORDS, TEMPERATURE = 0.75, 0.7  # share of the rivals that have another word, and how it is drawn
INSIDE = 0.5  # share of these words that are taken from the document


class Rivals:
    """Draws false pairs beside a `share` of some pairs.

    `prior` is the model whose likely words they have: what it writes without a source is what a summarizer makes up.
    `related` has entries of the vocabulary that mean nearly the same as one, and do not make a pair false.
    """

    def __init__(
        self,
        names: Names,
        special: dict[str, int],
        prior: Any,
        share: float,
        related: Mapping[int, Sequence[int]] | None = None,
    ):
        self.names, self.special, self.prior, self.share, self.related = names, special, prior, share, related or {}
        self._telling = torch.tensor([names.tells(entry) for entry in range(names.entries)])

    def beside(
        self,
        document: Sequence[Context],
        text: Sequence[int],
        pairs: Sequence[tuple[Context, Pair]],
        targets: Sequence[Target],
        draw: random.Random,
    ) -> list[Target]:
        """Rivals of some of a document's `pairs`, whose `targets` these are; `text` are the document's tokens.

        One word of the question or the answer is another, of the text or of all others; or a name in the question is
        one that only another context of the document has; or the answer is that to another question which begins with
        the same word.
        """
        found, slots = [], []
        for (context, pair), target in zip(pairs, targets, strict=True):
            if not pair.answer or draw.random() >= self.share:
                continue
            places = self.names.whole_words(target.ids)
            if places and draw.random() < WORDS:
                slots.append((target, draw.choice(places), draw.random() < INSIDE))
                continue
            question, answer = self._other_name_or_answer(context, pair, document, pairs, draw)
            if answer:
                ids = pair_ids(question, answer, self.special)
                alike = next(i for i, (a, b) in enumerate(zip(ids, target.ids, strict=False)) if a != b)
                found.append(Target(ids, alike, target))
        return [*found, *self._other_words(slots, text, draw)]

    def _other_words(
        self, slots: Sequence[tuple[Target, int, bool]], text: Sequence[int], draw: random.Random
    ) -> list[Target]:
        """For (target, place, inside) the target with another word at the place, of the text or of all others."""
        present = torch.zeros_like(self._telling)
        present[list(text)] = True
        found = []
        for (target, place, inside), logits in zip(slots, self._without_source(slots), strict=True):
            allowed = self._telling & (present if inside else ~present)
            allowed[[target.ids[place], *self.related.get(target.ids[place], ())]] = False
            if allowed.any():
                likely = (logits / TEMPERATURE).masked_fill(~allowed, -torch.inf).softmax(-1)
                (word,) = draw.choices(range(len(likely)), likely.tolist())
                found.append(Target((*target.ids[:place], word, *target.ids[place + 1 :]), place, target))
        return found

    def _without_source(self, slots: Sequence[tuple[Target, int, bool]]) -> Tensor:
        """The prior's logits [N, V] at each target's place, after what comes before it and no source."""
        if not slots:
            return torch.zeros(0, len(self._telling))
        before = pad([[self.special["bos"], *target.ids[:place]] for target, place, _ in slots], self.special["pad"])
        with torch.no_grad(), autocast():
            hidden = self.prior.model.decoder(
                before, encoder_hidden_states=self._no_source.expand(len(before), -1, -1), use_cache=False
            ).last_hidden_state
            return self.prior.lm_head(hidden[range(len(slots)), [place for _, place, _ in slots]]).float()

    @cached_property
    def _no_source(self) -> Tensor:
        """The output of the prior's encoder for an input without a text, [1, 2, d_model]."""
        empty = torch.tensor([[self.special["bos"], self.special["eos"]]])
        with torch.no_grad(), autocast():
            return self.prior.model.encoder(empty, attention_mask=torch.ones_like(empty)).last_hidden_state

    def _other_name_or_answer(
        self,
        context: Context,
        pair: Pair,
        document: Sequence[Context],
        pairs: Sequence[tuple[Context, Pair]],
        draw: random.Random,
    ) -> tuple[Ids, Ids | None]:
        """Question and answer, one of them another; no answer if there is neither."""
        answers = {
            other.answer
            for _, other in pairs
            if other.answer and other.question[0] == pair.question[0] and not set(other.answer) & set(pair.answer or ())
        }
        takes_answer = bool(answers) and draw.random() < 0.5
        changed = None if takes_answer else self.names.confused(pair, context, document, draw)
        if changed:
            return changed, pair.answer
        return pair.question, draw.choice(sorted(answers)) if answers else None


def advantages(blocks: Sequence[dict[str, Any]], found: Sequence[TokenLosses]) -> Tensor:
    """By how many nats each true target is likelier than its rival, [R], from the first token that differs.

    `blocks` are those of a batch (`recipes.targets.collate`), `found` their losses.
    """
    false = [target for part in blocks for target in part["targets"] if target.rival is not None]
    if not false:
        return found[0].nats.new_zeros(0) if found else torch.zeros(0)
    nats = {
        id(target): row
        for part, block in zip(blocks, found, strict=True)
        for target, row in zip(part["targets"], block.nats, strict=True)
    }
    return torch.stack([nats[id(t)][t.given :].sum() - nats[id(t.rival)][t.given :].sum() for t in false])
