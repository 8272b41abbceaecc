"""Train the QAGen on the score itself: QUALS of a true claim above that of a false one.

    python -m recipes.claims --contrast DATA/contrast --out runs/claims.jsonl.gz
    python -m recipes.edit_claims --onestop … --scitldr … --wikisplit … --claims runs/claims.jsonl.gz \
        --out runs/edits.jsonl.gz
    python -m recipes.claim_pairs --claims runs/*.jsonl.gz --out runs/pairs.jsonl
    python -m recipes.train_contrast --init runs/t5/checkpoint --claims runs/*.jsonl.gz --pairs-files runs/pairs.jsonl \
        --data DATA/qa/*.jsonl.gz --out runs/contrast --minutes 75

It continues from `--init`, a T5 of `recipes.train_t5`, on a CPU or on CUDA, and resumes after a kill
(`recipes.cpu_training`). With more `--minutes` a finished run goes on.

A claim y has pairs of question and answer, what QUALS asks of it (`recipes.claim_pairs`). With a source x, a pair has
the score s = mean log p(token | x) - mean log p(token | y), and the claim the mean S of its pairs' scores, which is
QUALS. The loss of a visit to a group; the claim's side is learned only where the claim is false, to rise:
- contrast: softplus(-beta (S+ - S-)) for two claims of which the source supports one, and for two sources of which one
  supports the claim; the second compares the very same tokens.
- label: the logistic loss of beta (S - t) with a learned threshold t, which makes scores of unlike sources comparable.
- pair: the same of single pairs where it is known which are false. An edited claim (`recipes.edit_claims`) has the
  pairs of the claim as it was, with the same exchange. Those that the exchange touches are false by a source that
  supports the claim as it was; the others stay true. The source edited alike supports the edited claim only.
- likelihood of a true claim's pairs by the source: generate from one wording, read from the other.
Beside it the usual likelihood, so that the model stays a generator: of the claims' own pairs by the claims, and in a
share of the steps of people's questions (`recipes.train_t5`).

With `--normalize`, the scores are those of the option `normalize`: divided by the information of the claim. So a claim
that tells little is not called true for that, nor one that tells much false. No gradient passes through the divisor.

Sources are encoded once for all their pairs; short ones stand between other groups' sources in a share of the visits.
Groups are held out by their keys, one in twenty; the figures of these are logged, by set: `pairs`: how often a
supported claim has a higher score than one that is not, by the same source; `auc`: the same over all the set.
"""

from __future__ import annotations

import argparse
import random
import shutil
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from quals_metric.scorer import LEAST_INFORMATION, UNRELATED_TEXT, USUAL_INFORMATION
from recipes import annotated, claims, t5_training, train_t5
from recipes.annotated import WINDOW
from recipes.claims import Row
from recipes.cpu_training import Run, make_optimizer
from recipes.edit_claims import exchange
from recipes.targets import Example, Target

ROOM = WINDOW - 2
WEIGHTS = {"fib": 2.0, "onestop": 4.0, "fever": 1.5, "symmetric": 1.5, "conjnli": 0.6, "breaking_nli": 0.4, "wice": 0.2,
           "scitldr": 0.7, "wikisplit": 2.0, "fib edited": 1.2, "wice edited": 0.3, "fever edited": 1.0}  # fmt: skip
LOCAL = ("onestop", "wice", "wice edited")  # sets whose claims are each about one place of their source
PACKED_TOKENS = 6000  # of sources and targets at once

Ids = tuple[int, ...]


# ---- claims and their pairs -----------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A pair's tokens, with separator and end, and whether an exchange in its claim touches it."""

    ids: Ids
    touched: bool = False


@dataclass
class Claim:
    """A text with its pairs, and for every source of its group 1, 0 or None; its edits."""

    text: str
    ids: list[int]
    pairs: list[Asked]
    labels: list[int | None]
    edits: list[Row] = field(default_factory=list)


@dataclass
class Group:
    """Sources and claims about them."""

    name: str
    key: str
    sources: list[str]
    claims: list[Claim]


@dataclass(frozen=True)
class Item:
    """One score: some pairs of a claim by a source, supported or not.

    `targets` are the pairs decoded from the source, `own` the same decoded from the claim. `truths` has for every
    pair 1, 0 or None: whether the source supports it.
    """

    source: int
    claim: int
    label: int
    targets: Sequence[Target]
    own: Sequence[Target]
    truths: Sequence[int | None]


@dataclass
class Visit:
    """What is computed of a group at once: its sources and claims with the pairs decoded from them, and the scores."""

    sources: list[Example]
    claims: list[Example]
    items: list[Item]


def load_pairs(paths: Sequence[str]) -> dict[str, list[Ids]]:
    """The pairs of every claim's text; those of a later file replace an earlier one's."""
    return {row["text"]: [tuple(ids) for ids in row["pairs"]] for path in paths for row in claims.read(Path(path))}


def load_groups(paths: Sequence[str], pairs: dict[str, list[Ids]], encode: annotated.Encode) -> list[Group]:
    """The groups whose claims have pairs; long sources cut to the part that a supported claim is about."""
    found = []
    for path in paths:
        for row in claims.read(Path(path)):
            made = [Claim(c["text"], encode(c["text"])[:ROOM], [Asked(ids) for ids in pairs[c["text"]]], c["labels"],
                          c.get("edits", [])) for c in row["claims"] if pairs.get(c["text"])]  # fmt: skip
            if made:
                about = max(made, key=lambda claim: claim.labels[0] or 0)
                sources = [claims.shortened(source, about.text) for source in row["sources"]]
                found.append(Group(row["set"], row["key"], sources, made))
    return found


def differing(old: str, new: str) -> tuple[str, str]:
    """Two texts without the words they begin and end with alike."""
    a, b = old.split(), new.split()
    while len(a) > 1 and len(b) > 1 and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while len(a) > 1 and len(b) > 1 and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    return " ".join(a), " ".join(b)


def exchanged_pair(ids: Ids, old: Sequence[int], new: Sequence[int], continuing: set[int]) -> Asked | None:
    """A pair with the run `old` as `new` wherever it stands as a whole; None if it has only a part of it."""
    width, old = len(old), list(old)
    found, place, touched = [], 0, False
    while place < len(ids):
        behind = ids[place + width] if place + width < len(ids) else -1
        if list(ids[place : place + width]) == old and behind not in continuing:
            found += new
            place, touched = place + width, True
        else:
            found.append(ids[place])
            place += 1
    if not touched and width > 1 and (set(old) - set(new)) & set(ids):
        return None
    return Asked(tuple(found), touched)


class Visits:
    """Draws visits to groups."""

    def __init__(
        self, groups: list[Group], encode: annotated.Encode, special: dict[str, int], continuing: set[int],
        args: argparse.Namespace, seed: int,
    ):  # fmt: skip
        self.encode, self.special, self.continuing, self.args = encode, special, continuing, args
        self.random = random.Random(seed)
        self.groups: dict[str, list[Group]] = defaultdict(list)
        for group in groups:
            self.groups[group.name].append(group)
        self.names = sorted(self.groups)
        weights = WEIGHTS | dict(args.set_weights)
        self.weights = [weights.get(name, 0.5) for name in self.names]

    def draw(self) -> Visit | None:
        """A visit to a group, edited where it has edits; None if there is nothing to compare."""
        (name,) = self.random.choices(self.names, self.weights)
        group = self.random.choice(self.groups[name])
        chosen = self._some(group)
        sources = [(i, self._cut(group.name, text, chosen)) for i, text in enumerate(group.sources)]
        if len(sources) > 2:
            known = [i for i, _ in sources if any(claim.labels[i] is not None for claim, _ in chosen)]
            sources = [sources[i] for i in self.random.sample(known, min(2, len(known)))]
        rows = []  # claim text, its pairs, labels by source, truths of a pair by source: None, all, or those untouched
        for claim, edit in chosen:
            labels = [claim.labels[i] for i, _ in sources]
            if edit is None:
                rows.append(
                    (claim.ids, self._limited(claim.pairs), labels, [1 if lab == 1 else None for lab in labels])
                )
                continue
            made = self._twins(claim, edit, sources[0][1])
            if made is None:
                rows.append(
                    (claim.ids, self._limited(claim.pairs), labels, [1 if lab == 1 else None for lab in labels])
                )
                continue
            texts, twins = made
            sources = [(i, text) for i, text in enumerate(texts)]
            rows = [row for row in rows if len(row[2]) == len(texts)] + twins
            break
        return self._visit([text for _, text in sources], rows)

    def _cut(self, name: str, source: str, chosen: Sequence[tuple[Claim, Row | None]]) -> str:
        """In a share of the visits, the part of a source that a claim of neighbouring sentences is about."""
        if name not in LOCAL or self.random.random() >= self.args.cut:
            return source
        return claims.window(source, chosen[-1][0].text, self.random.choice((70, 110)))

    def _some(self, group: Group) -> list[tuple[Claim, Row | None]]:
        """Some claims of a group, and an edit for one of them where there is any, which is then the last."""
        good = [claim for claim in group.claims if 1 in claim.labels]
        bad = [claim for claim in group.claims if 1 not in claim.labels]
        chosen = self.random.sample(good, min(2, len(good))) + self.random.sample(bad, min(2, len(bad)))
        edited = [claim for claim in chosen if claim.edits]
        if not edited:
            return [(claim, None) for claim in chosen]
        claim = self.random.choice(edited)
        others = [(other, None) for other in chosen if other is not claim]
        kinds = sorted({edit["kind"] for edit in claim.edits})
        others_kinds = [kind for kind in kinds if kind != "synonym"] or kinds
        same = "synonym" in kinds and self.random.random() < self.args.synonyms
        kind = "synonym" if same else self.random.choice(others_kinds)
        return [*others, (claim, self.random.choice([edit for edit in claim.edits if edit["kind"] == kind]))]

    def _limited(self, pairs: Sequence[Asked]) -> list[Asked]:
        return self.random.sample(pairs, min(len(pairs), self.args.pairs))

    def _twins(self, claim: Claim, edit: Row, source: str) -> tuple[list[str], list] | None:
        """The sources, and rows of the claim as it was and edited; None if the edit touches none of its pairs."""
        old, new = differing(edit["old"], edit["new"])
        text = exchange(claim.text, edit["old"], edit["new"])
        ids = [*map(self.encode, (old, new))]
        both = [(pair, exchanged_pair(pair.ids, *ids, self.continuing)) for pair in claim.pairs]
        both = [(Asked(pair.ids, other.touched), other) for pair, other in both if other is not None]
        touched = [pair for pair in both if pair[1].touched]
        if not touched or text == claim.text:
            return None
        rest = [pair for pair in both if not pair[1].touched]
        chosen = self.random.sample(touched, min(len(touched), 4))
        chosen += self.random.sample(rest, min(len(rest), max(1, self.args.pairs - len(chosen))))
        before, after = [pair for pair, _ in chosen], [other for _, other in chosen]
        edited_ids = self.encode(text)[:ROOM]
        if edit["supported"]:
            return [source], [(claim.ids, before, [1], [1]), (edited_ids, after, [1], [1])]
        same = self._same(claim, edit)
        changed = exchange(source, edit["old"], edit["new"])
        if changed == source or self.random.random() >= self.args.mirrored:
            other = [(*same, [1], [1])] if same else []
            return [source], [(claim.ids, before, [1], [1]), (edited_ids, after, [0], ["untouched"]), *other]
        return [source, changed], [
            (claim.ids, before, [1, 0], [1, "untouched"]),
            (edited_ids, after, [0, 1], ["untouched", 1]),
            *([(*same, [1, None], [1, None])] if same else []),
        ]

    def _same(self, claim: Claim, edit: Row) -> tuple[list[int], list[Asked]] | None:
        """In a share of the visits the claim with some synonyms, and pairs that have them; None if there are none."""
        fitting = [other for other in claim.edits if other["supported"] and other["old"] != edit["old"]]
        if not fitting or self.random.random() >= self.args.other_words:
            return None
        text, pairs = claim.text, [(pair, False) for pair in claim.pairs]
        for other in self.random.sample(fitting, min(len(fitting), self.random.randint(1, 4))):
            text = exchange(text, other["old"], other["new"])
            old, new = self.encode(other["old"]), self.encode(other["new"])
            made = [(exchanged_pair(pair.ids, old, new, self.continuing), touched) for pair, touched in pairs]
            pairs = [(Asked(pair.ids), touched or pair.touched) for pair, touched in made if pair is not None]
        touching = [pair for pair, touched in pairs if touched]
        if not touching:
            return None
        return self.encode(text)[:ROOM], self.random.sample(touching, min(len(touching), self.args.pairs))

    def _visit(self, sources: Sequence[str], rows: Sequence[tuple]) -> Visit | None:
        targets: list[dict[Ids, Target]] = [{} for _ in sources]
        own: list[dict[Ids, Target]] = [{} for _ in rows]
        items = []
        for place, (_, pairs, labels, truths) in enumerate(rows):
            for at, (label, truth) in enumerate(zip(labels, truths, strict=True)):
                if label is None:
                    continue
                known = [int(not pair.touched) if truth == "untouched" else truth for pair in pairs]
                items.append(Item(
                    at, place, label, [targets[at].setdefault(pair.ids, Target(pair.ids)) for pair in pairs],
                    [own[place].setdefault(pair.ids, Target(pair.ids)) for pair in pairs], known,
                ))  # fmt: skip
        if not items:
            return None
        around = self._around(max(len(self.encode(text)) for text in sources))
        examples = [
            Example(self._wrap(self._placed(text, *around)), [*found.values()])
            for text, found in zip(sources, targets, strict=True)
        ]
        claims_own = [Example(self._wrap(ids), [*found.values()]) for (ids, *_), found in zip(rows, own, strict=True)]
        return Visit(examples, claims_own, items)

    def _around(self, length: int) -> tuple[list[int], list[int]]:
        """What stands before and behind a source of so many tokens: parts of other groups' sources, or nothing."""
        if length > ROOM - 60 or self.random.random() >= self.args.distractors:
            return [], []
        room = self.random.randint(40, ROOM - length)
        found: list[list[int]] = []
        while room > 20:
            (name,) = self.random.choices(self.names, self.weights)
            ids = self.encode(self.random.choice(self.random.choice(self.groups[name]).sources))
            if len(ids) > 120:
                start = self.random.randrange(len(ids) - 100)
                ids = ids[start : start + self.random.randint(40, 100)]
            found.append(ids[:room])
            room -= len(found[-1])
        cut = self.random.randint(0, len(found))
        before, behind = ([token for ids in part for token in ids] for part in (found[:cut], found[cut:]))
        return before, behind

    def _placed(self, text: str, before: list[int], behind: list[int]) -> list[int]:
        return [*before, *self.encode(text), *behind]

    def _wrap(self, ids: Sequence[int]) -> list[int]:
        return [*ids[:ROOM], self.special["eos"]]

    def batches(self, tokens: int) -> Iterator[list[Visit]]:
        """Endless batches of visits with about `tokens` source tokens, of like lengths and numbers of targets."""
        while True:
            drawn = [visit for _ in range(256) if (visit := self.draw())]
            drawn.sort(key=lambda v: (max(len(e.source) for e in v.sources) // 64, most_targets(v)))
            batches: list[list[Visit]] = [[]]
            for visit in drawn:
                width = max(len(e.source) for v in (*batches[-1], visit) for e in v.sources)
                rows = sum(len(v.sources) for v in (*batches[-1], visit))
                if batches[-1] and (rows * width > tokens or rows * most_targets(visit) > self.args.rows):
                    batches.append([])
                batches[-1].append(visit)
            self.random.shuffle(batches)
            yield from batches


def most_targets(visit: Visit) -> int:
    """The most targets of a source of the visit."""
    return max(len(example.targets) for example in visit.sources)


# ---- scores and losses ----------------------------------------------------------------------------------------------


class Means(NamedTuple):
    """Mean log-probability of a target's tokens: of all, and of the answer's with the end."""

    all: Tensor
    answer: Tensor


def means(model, examples: Sequence[Example], special: dict[str, int]) -> dict[int, Means]:
    """The mean log-probabilities of every target of the examples, by the target's identity."""
    found = {}
    for batch in t5_training.batches_of(examples, PACKED_TOKENS):
        packed = t5_training.pack(batch, special["pad"], special["bos"])
        log_likelihoods, _ = t5_training.log_likelihoods(model, packed)
        targets = [target for example in batch for target in example.targets]
        for target, each in zip(targets, log_likelihoods.split([len(t) for t in targets]), strict=True):
            answer_start = target.ids.index(special["sep"]) + 1
            found[id(target)] = Means(each.mean(), each[answer_start:].mean())
    return found


@torch.no_grad()
def means_by_unrelated(
    model, visits: Sequence[Visit], unrelated: Sequence[int], special: dict[str, int]
) -> dict[int, Means]:
    """The mean log-probabilities of the claims' own targets given an unrelated text; of none if that is empty."""
    if not unrelated:
        return {}
    own = [Example([*unrelated], [target for e in visit.claims for target in e.targets]) for visit in visits]
    return means(model, own, special)


def item_scores(
    item: Item, by_source: dict[int, Means], by_claim: dict[int, Means], by_unrelated: dict[int, Means]
) -> tuple[Tensor, Tensor]:
    """The scores [N] of an item's pairs, over all tokens and over the answers'; normalized with `by_unrelated`."""
    found = []
    for kind in (0, 1):
        own = torch.stack([by_claim[id(t)][kind] for t in item.own])
        scores = torch.stack([by_source[id(t)][kind] for t in item.targets]) - own
        if by_unrelated:
            information = (own.detach() - torch.stack([by_unrelated[id(t)][kind] for t in item.own])).mean()
            scores = scores * USUAL_INFORMATION / information.clamp(min=LEAST_INFORMATION)
        found.append(scores)
    return found[0], found[1]


class Score(torch.nn.Module):
    """The thresholds between what is supported and what is not: of a claim's score and of a pair's."""

    def __init__(self) -> None:
        super().__init__()
        self.claim, self.pair = torch.nn.Parameter(torch.tensor(-1.5)), torch.nn.Parameter(torch.tensor(-1.5))


def contrast_losses(
    visits: Sequence[Visit],
    by_source: dict[int, Means],
    by_claim: dict[int, Means],
    by_unrelated: dict[int, Means],
    thresholds: Score,
    args: argparse.Namespace,
) -> dict[str, list[Tensor]]:
    """The terms of the loss, each a list over what it is a mean of.

    The claim's side of a score is learned only where the claim or the pair is false. There it may only rise.
    """
    terms: dict[str, list[Tensor]] = defaultdict(list)
    without_gradient = {key: Means(*(value.detach() for value in each)) for key, each in by_claim.items()}
    for visit in visits:
        scored = []
        for item in visit.items:
            live, fixed = (item_scores(item, by_source, side, by_unrelated) for side in (by_claim, without_gradient))
            every, answers = fixed if item.label else live
            scored.append((item, every.mean(), answers.mean()))
            sign = 1 if item.label else -1
            terms["label"].append(F.softplus(-sign * args.beta_label * (every.mean() - thresholds.claim)))
            known = [(both[bool(truth)], 1 if truth else -1)
                     for *both, truth in zip(live[0], fixed[0], item.truths, strict=True)
                     if truth is not None]  # fmt: skip
            if known:
                each = torch.stack([F.softplus(-sign * args.beta_pair * (s - thresholds.pair)) for s, sign in known])
                terms["pair"].append(each.mean())
            if item.label:
                terms["likelihood"].append(-torch.stack([by_source[id(t)].all for t in item.targets]).mean())
        for a, true, true_answer in scored:
            for b, false, false_answer in scored:
                if a.label > b.label and (a.source == b.source or a.claim == b.claim):
                    terms["contrast"].append(F.softplus(-args.beta * (true - false)))
                    terms["answer"].append(F.softplus(-args.beta_answer * (true_answer - false_answer)))
    return terms


def visit_loss(
    model, visits: Sequence[Visit], unrelated: Sequence[int], special: dict[str, int], thresholds: Score,
    args: argparse.Namespace,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """The loss of a batch of visits, and its terms; of normalized scores unless the unrelated text is empty."""
    by_source = means(model, [e for v in visits for e in v.sources], special)
    by_claim = means(model, [e for v in visits for e in v.claims], special)
    by_unrelated = means_by_unrelated(model, visits, unrelated, special)
    terms = {key: torch.stack(each).mean() for key, each in
             contrast_losses(visits, by_source, by_claim, by_unrelated, thresholds, args).items()}  # fmt: skip
    terms["anchor"] = -torch.stack([each.all for each in by_claim.values()]).mean()
    weights = {
        "contrast": args.contrast_weight, "answer": args.answer_weight, "label": args.label_weight,
        "pair": args.pair_weight, "likelihood": args.likelihood_weight, "anchor": args.anchor_weight,
    }  # fmt: skip
    total = sum((weights[key] * value for key, value in terms.items()), torch.zeros((), device=model.device))
    return total, {key: value.item() for key, value in terms.items()}


# ---- held-out figures -----------------------------------------------------------------------------------------------


def plain_visits(groups: Sequence[Group], visits: Visits) -> list[tuple[str, Visit]]:
    """One visit to every group, with all its claims and all their pairs, without edits and distractors."""
    found = []
    for group in groups:
        rows = [(c.ids, c.pairs, c.labels, [None] * len(c.labels)) for c in group.claims[:8]]
        visit = visits._visit(group.sources, rows)
        if visit:
            found.append((group.name, visit))
    return found


@torch.no_grad()
def evaluate(
    model, held: Sequence[tuple[str, Visit]], unrelated: Sequence[int], special: dict[str, int]
) -> dict[str, Any]:
    """By set: `pairs`, how often the supported claim is higher by the same source (or source by claim), and `auc`."""
    scores: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    wins: dict[str, list[tuple[float, float]]] = defaultdict(list)
    gaps: dict[str, list[float]] = defaultdict(list)
    for start in range(0, len(held), 8):
        batch = held[start : start + 8]
        by_source = means(model, [e for _, v in batch for e in v.sources], special)
        by_claim = means(model, [e for _, v in batch for e in v.claims], special)
        by_unrelated = means_by_unrelated(model, [v for _, v in batch], unrelated, special)
        for name, visit in batch:
            found = [
                (item, *(x.mean().item() for x in item_scores(item, by_source, by_claim, by_unrelated)))
                for item in visit.items
            ]
            scores[name] += [(item.label, s, a) for item, s, a in found]
            for a, true, true_answer in found:
                for b, false, false_answer in found:
                    if a.label > b.label and (a.source == b.source or a.claim == b.claim):
                        wins[name].append((float(true > false), float(true_answer > false_answer)))
                        gaps[name].append(true - false)
            gaps["own " + name] += [by_claim[id(t)].all.item() for item in visit.items for t in item.own]
    result: dict[str, Any] = {}
    for name, rows in sorted(scores.items()):
        good = torch.tensor([s for label, s, _ in rows if label])
        bad = torch.tensor([s for label, s, _ in rows if not label])
        result[name] = {
            "pairs": [round(100 * sum(x) / len(x), 1) for x in zip(*wins[name], strict=True)], "n": len(wins[name]),
            "auc": round((good[:, None] > bad[None]).float().mean().item(), 3) if len(good) and len(bad) else None,
            "means": [round(x.mean().item(), 2) if len(x) else None for x in (good, bad)],
            "own": round(sum(gaps["own " + name]) / len(gaps["own " + name]), 2),
        }  # fmt: skip
    return result


# ---- training -------------------------------------------------------------------------------------------------------


def mixed(visits: Iterator, likelihood: Iterator, args, draw: random.Random) -> Iterator:
    """Endless steps: `--visits` batches of visits, and at times (`--usual`) one of people's questions beside them."""
    while True:
        usual = [next(likelihood)[0]] if args.data and draw.random() < args.usual else []
        yield [next(visits) for _ in range(args.visits)], usual


class Recorder:
    """Sums what is logged of the loss's terms."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

    def add(self, found: dict[str, float]) -> None:
        """Count the terms of one batch."""
        for key, value in found.items():
            self.sums[key] += value
            self.counts[key] += 1

    def take(self) -> dict[str, float]:
        """The means since the last time."""
        found = {key: round(self.sums[key] / self.counts[key], 4) for key in sorted(self.sums)}
        self.sums.clear()
        self.counts.clear()
        return found


def train(model, tokenizer, special: dict[str, int], args: argparse.Namespace) -> None:
    """Train until `args.minutes` are used."""
    encode = annotated.encoder_of(tokenizer)
    known: dict[str, list[int]] = {}

    def cached(text: str) -> list[int]:
        if text not in known:
            known[text] = encode(text)
        return known[text]

    unrelated = [*cached(UNRELATED_TEXT)[:ROOM], special["eos"]] if args.normalize else []
    groups = load_groups(args.claims, load_pairs(args.pairs_files), cached)
    kept = [group for group in groups if not claims.is_held_out(group.key)]
    check_set_names(args.set_weights, kept)
    continuing = {i for token, i in tokenizer.get_vocab().items() if token[0].isalnum()}
    still = argparse.Namespace(**{**vars(args), "distractors": 0.0})
    held = [group for group in groups if claims.is_held_out(group.key)]
    random.Random(0).shuffle(held)
    counted: dict[str, int] = defaultdict(int)
    some = []
    for group in held:
        counted[group.name] += 1
        if counted[group.name] <= args.evaluated and not any(c.edits for c in group.claims):
            some.append(group)
    some.sort(key=lambda g: max(len(cached(s)) for s in g.sources))
    held_visits = plain_visits(some, Visits(some, cached, special, continuing, still, 0))
    thresholds = Score().to(model.device)
    optimizer = make_optimizer(model, lambda name: args.lr if "decoder." in name else args.encoder_lr)
    optimizer.add_param_group({"params": [*thresholds.parameters()], "lr": 3e-3, "peak": 3e-3, "weight_decay": 0.0})
    recorder, out = Recorder(), Path(args.out)

    def write(folder: Path) -> None:
        t5_training.save(model, tokenizer, folder)
        shutil.copytree(folder, out / f"checkpoint-{run.step}", dirs_exist_ok=True)
        torch.save(thresholds.state_dict(), out / "thresholds.pt")

    run = Run(
        model, optimizer, out, args.minutes, args.save_minutes, args.warmup, write,
        evaluate=lambda final: evaluate(model, held_visits, unrelated, special),
        max_steps=args.max_steps, every=args.log_steps,
    )  # fmt: skip
    run.resume()
    if (out / "thresholds.pt").exists():
        thresholds.load_state_dict(torch.load(out / "thresholds.pt", weights_only=True))
    run.log(settings=vars(args), groups=len(kept), held_out=len(some))
    if run.step == 0 and args.evaluated:
        model.eval()
        run.log(before=evaluate(model, held_visits, unrelated, special))
    draw = random.Random(args.seed + run.step)
    visits = Visits(kept, cached, special, continuing, args, args.seed + run.step).batches(args.tokens)
    usual = iter(())
    if args.data and args.usual:
        defaults = train_t5.parser().parse_args(["--init", "", "--data", "", "--out", "", *args.usual_options.split()])
        near_misses = [args.unanswerable] if args.unanswerable else []
        contexts = annotated.load_contexts(args.data, encode, encode, defaults.shortest)
        annotated.add_unanswerable(contexts, near_misses, encode)
        contexts = [context for context in contexts if context.pairs and not context.held_out]
        usual = train_t5.batches(train_t5.T5Examples(contexts, tokenizer, defaults, args.seed), args.usual_tokens)

    def losses(step: tuple[list[list[Visit]], list[list[Example]]]) -> tuple[Tensor, float, int]:
        total, count = torch.zeros((), device=model.device), 0
        for batch in step[0]:
            loss, terms = visit_loss(model, batch, unrelated, special, thresholds, args)
            total, count = total + loss / len(step[0]), count + sum(len(v.items) for v in batch)
            recorder.add(terms)
        if step[1]:
            nats, tokens, _ = train_t5.step_losses(model, step[1], special)
            total = total + args.usual_weight * nats / tokens
            recorder.add({"usual": nats.item() / tokens})
        if (run.step + 1) % args.log_steps == 0:
            run.log(**recorder.take(), thresholds=[round(p.item(), 3) for p in thresholds.parameters()])
        return total, 1.0, count

    run.train(mixed(visits, usual, args, draw), losses)


def set_weight(text: str) -> tuple[str, float]:
    """`fever=3` as a name and a number."""
    name, weight = text.split("=")
    return name, float(weight)


def check_set_names(weights: Sequence[tuple[str, float]], groups: Sequence[Group]) -> None:
    """Exit if a weight is for a set of which no group is trained on."""
    known = sorted({group.name for group in groups})
    unknown = sorted({name for name, _ in weights} - {*known})
    if unknown:
        raise SystemExit(
            f"--set-weights: no claims with pairs of {', '.join(unknown)}; the sets are {', '.join(known)}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", nargs="+", required=True, help="files of recipes.claims and recipes.edit_claims")
    parser.add_argument("--pairs-files", "--pairs-of", nargs="+", required=True, help="files of recipes.claim_pairs")
    parser.add_argument("--data", nargs="*", default=[], help="people's questions, as in recipes.train_t5")
    parser.add_argument("--unanswerable", help="people's questions that their text does not answer")
    parser.add_argument("--out", required=True)
    parser.add_argument("--init", required=True, help="continue from this checkpoint, a T5 of recipes.train_t5")
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--save-minutes", type=float, default=15)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--log-steps", type=int, default=50)
    parser.add_argument("--evaluated", type=int, default=40, help="held-out groups of each set")
    parser.add_argument("--tokens", type=int, default=4096, help="source tokens of a batch of visits")
    parser.add_argument("--rows", type=int, default=200, help="decoded targets of a batch of visits, at most")
    parser.add_argument("--visits", type=int, default=2, help="batches of visits in a step")
    parser.add_argument("--pairs", type=int, default=4, help="of a claim in a visit")
    parser.add_argument("--other-words", type=float, default=0.6, help="share of edits beside a claim with synonyms")
    parser.add_argument("--set-weights", type=set_weight, nargs="*", default=[], help="as fever=3: shares of visits")
    parser.add_argument("--cut", type=float, default=0.6, help="share of sources cut where claims are about one place")
    parser.add_argument("--synonyms", type=float, default=0.1, help="share of edits that leave the claim true")
    parser.add_argument("--mirrored", type=float, default=0.6, help="share of edits that edit the source too")
    parser.add_argument("--distractors", type=float, default=0.3, help="share of short sources between others")
    parser.add_argument("--normalize", action="store_true", help="train on normalized scores")
    parser.add_argument("--beta", type=float, default=5.0)
    parser.add_argument("--beta-answer", type=float, default=2.0)
    parser.add_argument("--beta-label", type=float, default=2.5)
    parser.add_argument("--beta-pair", type=float, default=2.0)
    parser.add_argument("--contrast-weight", type=float, default=1.0, help="of comparing two claims or two sources")
    parser.add_argument("--label-weight", type=float, default=0.5)
    parser.add_argument("--pair-weight", type=float, default=0.7)
    parser.add_argument("--answer-weight", type=float, default=0.3)
    parser.add_argument("--likelihood-weight", type=float, default=1.0)
    parser.add_argument("--anchor-weight", type=float, default=0.4)
    parser.add_argument("--usual", type=float, default=0.4, help="share of the steps with people's questions")
    parser.add_argument("--usual-weight", type=float, default=0.5)
    parser.add_argument("--usual-tokens", type=int, default=3072)
    parser.add_argument("--usual-options", default="", help="of recipes.train_t5")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--encoder-lr", type=float, default=1.5e-4)
    parser.add_argument("--warmup", type=float, default=0.03)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", message=".*fused.*")
    model, tokenizer = t5_training.load(Path(args.init))
    model.to(args.device)
    special = train_t5.special_ids(tokenizer)
    train(model, tokenizer, special, args)


if __name__ == "__main__":
    main()
