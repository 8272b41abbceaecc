"""Train a T5 as the QAGen: it writes `question <sep> answer` from a text, or the question of a marked answer.

    python -m recipes.train_t5 --init FOLDER --data DATA/qa/*.jsonl.gz --out runs/t5 --minutes 60

`--init` is a checkpoint of `recipes.fetch_t5` or of this recipe. Data, tasks and documents are those of
`recipes.train_qagen`, without the changes of words, which know WordPiece only. `--unanswerable-files` has questions
by people that their context does not answer. From a text as short as a summary, a share of people's questions
(`--given`) is read and not learned: the model learns to answer them, and to ask like the written questions, which say
all that their clause says. From longer texts it learns both. The search spends most of its time in the
decoder, so a decoder with half of its layers (`--decoder-layers 0 2 5 7`) pays.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from recipes import annotated, t5_training
from recipes.annotated import HIGHLIGHT, NO_ANSWER, SEPARATOR, WINDOW, Context, Pair
from recipes.cpu_training import Run, make_optimizer
from recipes.targets import Example, Target
from recipes.train_qagen import Examples, some

SHORT = 160  # tokens of a text that a search may read: most summaries are shorter, most sources longer
PARTS = 3  # batches of a step
LENGTHS = (0, 256, 510)  # of the documents that held-out pairs are asked of; 0: the context alone


class T5Examples(Examples):
    """Examples for a T5: no mark before a text, no word exchanged in it."""

    def __init__(
        self, contexts: list[Context], tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace, seed: int
    ):
        super().__init__(contexts, None, special_ids(tokenizer), args, seed)
        self.word_starts = {index for piece, index in tokenizer.get_vocab().items() if piece.startswith("▁")}

    def wrap(self, ids: Sequence[int]) -> list[int]:
        """`ids </s>`, cut at the window."""
        return [*ids[: WINDOW - 1], self.special["eos"]]

    def highlighted(self, ids: Sequence[int], start: int, pair) -> Example:
        """As for a BERT vocabulary, with the lone spaces that a mark in a text leaves behind it."""
        source = super().highlighted(ids, start, pair).source
        behind = len(source) - source[::-1].index(self.special["hl"])
        if source[behind] not in self.word_starts and behind < len(source) - 1:
            source = [*source[:behind], self.special["space"], *source[behind:]]
        return Example(source, [Target([*pair.question, self.special["eos"]])])

    def targets(self, text: Sequence[int], pairs: Sequence[Pair]) -> list[Target]:
        """As for other models; of a text as short as a summary, the questions by people (`--given`) are not learned."""
        return [
            replace(target, given=len(pair.question))
            if pair.answer and not pair.written and len(text) < SHORT and self.random.random() < self.args.given
            else target
            for pair, target in zip(pairs, super().targets(text, pairs), strict=True)
        ]

    def unanswered(self, document, text, pairs) -> list[Target]:
        """Questions that the text does not answer: people's that it nearly answers, and those of other contexts."""
        near = [question for context in document for question in context.unanswerable]
        chosen = self.random.sample(near, min(len(near), 2))
        inside = {id(context) for context in document}
        if not chosen and self.random.random() < self.args.unanswerable:
            other = self.elsewhere(document[0], inside)
            chosen = [self.random.choice(other.pairs).question] if other else []
        none = self.special["none"]
        return [Target((*q, self.special["sep"], none, self.special["eos"]), len(q)) for q in chosen]


def batches(examples: Examples, tokens: int) -> Iterator[list[list[Example]]]:
    """Endless steps of `PARTS` batches of like size; a step has about `tokens` source and target tokens."""
    while True:
        drawn = [example for _ in range(384) for example in examples.draw() if example.targets]
        groups = t5_training.batches_of(drawn, tokens // PARTS)
        examples.random.shuffle(groups)
        yield from (groups[i : i + PARTS] for i in range(0, len(groups), PARTS))


def step_losses(model, step: Sequence[Sequence[Example]], special) -> tuple[Tensor, float, int]:
    """The summed loss of a step in nats, its tokens, and its targets."""
    total, count = torch.zeros((), device=model.device), 0
    for batch in step:
        found, _ = t5_training.log_likelihoods(model, t5_training.pack(batch, special["pad"], special["bos"]))
        total, count = total - found.sum(), count + len(found)
    return total, count, sum(len(e.targets) for batch in step for e in batch)


def evaluate(model, contexts: list[Context], examples: Examples, special) -> dict[str, float]:
    """Held-out nats per token, all and answers', of pairs by documents of several lengths."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    examples.random = random.Random(0)
    for place, context in enumerate(contexts):
        pairs = [pair for pair in context.answered if not pair.written][:6]
        for length in LENGTHS if pairs else ():
            document = annotated.document(contexts, place, length, examples.random)
            packed = t5_training.pack([examples.paired(document, pairs)], special["pad"], special["bos"])
            with torch.no_grad():
                found, _ = t5_training.log_likelihoods(model, packed)
            labels = packed.labels[packed.labels >= 0]
            parts = torch.zeros(len(labels), dtype=torch.bool)
            inside = False
            for i, label in enumerate(labels.tolist()):
                parts[i] = inside
                inside = label == special["sep"] or (inside and label != special["eos"])
            for key, mask in (("loss", torch.ones_like(parts)), ("answer", parts)):
                sums[f"{key}_{length}"][0] -= found[mask].sum().item()
                sums[f"{key}_{length}"][1] += int(mask.sum())
    return {key: round(total / max(1, count), 4) for key, (total, count) in sums.items()}


def special_ids(tokenizer) -> dict[str, int]:
    """The ids of start, padding, end, marks and a lone space."""
    ids = tokenizer.convert_tokens_to_ids([SEPARATOR, HIGHLIGHT, NO_ANSWER, "▁"])
    return {"bos": 0, "pad": 0, "eos": 1, **dict(zip(("sep", "hl", "none", "space"), ids, strict=True))}


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", required=True)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--unanswerable-files", nargs="*", default=[])
    parser.add_argument("--decoder-layers", type=int, nargs="+", help="keep only these layers of the decoder of --init")
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--save-minutes", type=float, default=10)
    parser.add_argument("--tokens", type=int, default=9000)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--warmup", type=float, default=0.03)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--evaluated", type=int, default=60)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    for name, value in (("long", 0.5), ("highlight", 0.2), ("unanswerable", 0.3), ("written", 0.2), ("renamed", 0.0),
                        ("replaced", 0.0), ("scattered", 0.0), ("given", 0.0)):  # fmt: skip
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--per-context", type=int, default=4)
    parser.add_argument("--shortest", type=int, default=6)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    args = parser().parse_args(argv)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model, tokenizer = t5_training.load(Path(args.init))
    if args.decoder_layers:
        t5_training.keep_decoder_layers(model, args.decoder_layers)
    special = special_ids(tokenizer)
    encode = annotated.encoder_of(tokenizer)
    contexts = annotated.load_contexts(args.data, encode, encode, args.shortest)
    annotated.add_unanswerable(contexts, args.unanswerable_files, encode)
    kept = [context for context in contexts if context.pairs and not context.held_out]
    test = [context for context in contexts if context.pairs and context.held_out]
    print(len(kept), len(test), sum(len(c.answered) for c in kept), sum(len(c.unanswerable) for c in kept), flush=True)
    examples = T5Examples(kept, tokenizer, args, seed=args.seed)
    tested = T5Examples(test, tokenizer, argparse.Namespace(**vars(args) | {"given": 0.0}), seed=0)
    run = Run(
        model, make_optimizer(model, lambda _: args.lr), Path(args.out), args.minutes, args.save_minutes, args.warmup,
        write=lambda folder: t5_training.save(model, tokenizer, folder),
        evaluate=lambda final: evaluate(model, some(test, args.evaluated, final), tested, special),
        max_steps=args.max_steps, every=20,
    )  # fmt: skip
    run.resume()
    run.log(settings=vars(args), contexts=len(kept), held_out=len(test))
    if run.step == 0:
        model.eval()
        run.log(before=evaluate(model, some(test, args.evaluated, False), tested, special))
    run.train(batches(examples, args.tokens), lambda step: step_losses(model, step, special))


if __name__ == "__main__":
    main()
