r"""Contrastive retraining of a summarizer with QUALS (CONSEQ), beside its baselines: from a data set to a table.

    python recipes/conseq.py --train scitldr_train.jsonl.gz --dev scitldr_dev.jsonl.gz --test scitldr_test.jsonl.gz \
        --out runs/conseq --lrs 3e-6 1e-5 3e-5 --ratios 0.3 0.5 --updates 30 60
    python recipes/conseq.py --hub EdinburghNLP/xsum --columns document summary --init facebook/bart-large \
        --out runs/xsum --mle-epochs 10 --mle-lr 3e-5

A row of the JSON-lines files (`.gz` or not) has `document` and `summaries`, a list, or `summary`. `--init` is the
encoder-decoder that the summarizer starts from (default: the embedded QAGen, whose decoder already writes English).
Every seed has these stages, each in its own folder under `--out`:

1. `mle`: maximum likelihood on the (first) summaries. If less than `--least-defined` of its greedy summaries of the
   dev documents have a defined QUALS, the recipe stops and names the folder to look at: noise teaches nothing.
2. `set-quals`, `set-rouge`: six samples of every training document, scored by QUALS against the document or by ROUGE
   against the summary (the same samples: same seed, same model).
3. Retraining from `mle`: `rouge` and `conseq` on the documents that each selects, and `positives` on those of `conseq`
   without their negatives. Every method tries the same settings, `--lrs` x `--ratios` x `--updates`. The best setting
   is chosen on the dev documents by `--choose-by`, for each seed or, with `--search-once`, once for all seeds.
   With `--keep-ends` there is also `ends`: CONSEQ that unlearns the words of the negatives, but not their end. With
   `--published` there is also CONSEQ with the published 3e-6, 0.3 and 2 epochs. For `rouge`, every ground truth is
   compared with itself, so all have the same score, and the ratio selects only the negatives (S-).
4. `test`: each system's summaries of the test documents, and their scores: ROUGE-1, -2 and -L (against the best of
   several references), QUALS, QAGS, FactCC (share called CORRECT), length in words, and the share of 1- to 4-grams that
   the document has (contrastive training can win by copying). If the model of a metric cannot be loaded, its column is
   empty, and the reason is under the table. QUALS and QAGS are not independent of each other, and QUALS is not
   independent of the method that it trains.

`table.md` in `--out` has the means over seeds and a paired bootstrap of CONSEQ against each other system (per document,
the mean over seeds). `--results FILE` writes the same table into FILE between two marks. After a kill, the same command
continues. Another setting needs another `--out`.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Seq2SeqTrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from qa_inference.metric_base.results import json_ready, mean_of_defined
from qa_inference.models.loading import LoadingOptions, load_pretrained
from qa_inference.overlap import copied_share
from qa_inference.presets import PRESETS
from qa_inference.significance import paired_bootstrap
from quals_metric import QualsConfig, QualsScorer
from quals_metric.files import durable
from quals_metric.training.candidates import CollectionSettings
from quals_metric.training.collection import collect
from quals_metric.training.conseq import ConseqTrainer
from quals_metric.training.examples import TextFormat
from quals_metric.training.generation import GenerationSettings, generate_summaries
from quals_metric.training.rouge import RougeScorer
from quals_metric.training.selection import reselect

METHODS = ("rouge", "positives", "conseq", "ends")
NAMES = {
    "mle": "maximum likelihood", "rouge": "contrastive, ROUGE", "positives": "positives only", "conseq": "CONSEQ",
    "ends": "CONSEQ, ends kept", "published": "CONSEQ, published settings",
}  # fmt: skip
COLUMNS = (
    "rouge1", "rouge2", "rougeL", "quals", "qags", "factcc", "length",
    "copied1", "copied2", "copied3", "copied4",
)  # fmt: skip
TRAINED = {
    "documents": "documents trained on", "positive": "score of the ground truths", "negative": "of the negatives",
    "updates": "updates", "lr": "learning rate", "ratio": "ratio",
}  # fmt: skip
FACTCC = "manueldeprada/FactCC"
CORRECT = 0  # FactCC's label
Scores = dict[str, list[float]]


# ---- data -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Document:
    """A document and its summaries, the first of which is trained on."""

    text: str
    summaries: tuple[str, ...]


def read_documents(path: str) -> list[Document]:
    """The rows of a JSON-lines file."""
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return [Document(row["document"], tuple(row.get("summaries") or [row["summary"]])) for row in rows]


def read_hub(name: str, split: str, columns: Sequence[str]) -> list[Document]:
    """A split of a Hub data set, `owner/name` or `owner/name:config`."""
    path, _, config = name.partition(":")
    rows = load_dataset(path, config or None, split=split)
    pairs = zip(rows[columns[0]], rows[columns[1]], strict=True)
    return [
        Document(text, tuple([summaries] if isinstance(summaries, str) else summaries)) for text, summaries in pairs
    ]


def load_splits(args: argparse.Namespace) -> dict[str, list[Document]]:
    """The documents of `train`, `dev` and `test`, at most `--limit` of each; blank ones left out."""
    splits = {}
    for name, hub in (("train", "train"), ("dev", "validation"), ("test", "test")):
        documents = read_hub(args.hub, hub, args.columns) if args.hub else read_documents(getattr(args, name))
        kept = [
            document
            for document in documents
            if document.text.strip() and document.summaries and document.summaries[0].strip()
        ]
        splits[name] = kept[: args.limit]
    return splits


def training_rows(documents: Sequence[Document]) -> Dataset:
    """The rows that the trainer and the collection read."""
    return Dataset.from_list(
        [{"document": document.text, "ground_truth": document.summaries[0]} for document in documents]
    )


# ---- training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """One training of a seed: its folder under the seed's, the set it is trained on, and how."""

    name: str
    method: str
    lr: float
    ratio: float = 0.0
    updates: int = -1  # -1: by epochs
    epochs: float = 2.0


def load_summarizer(checkpoint: str | Path) -> tuple[Any, Any]:
    """An encoder-decoder in float32 on the CPU, and its tokenizer."""
    options = LoadingOptions(device="cpu", dtype="float32")
    return load_pretrained(AutoModelForSeq2SeqLM, "a summarizer", str(checkpoint), options)


def train(stage: Stage, start: str, rows: Dataset, folder: Path, seed: int, args: argparse.Namespace) -> Path:
    """Train from the checkpoint `start`; the folder of the new one, where `trained.json` says how it went."""
    done = folder / "trained.json"
    if done.exists():
        return folder
    set_seed(seed)
    model, tokenizer = load_summarizer(start)
    settings = Seq2SeqTrainingArguments(
        output_dir=str(folder / "state"), learning_rate=stage.lr, lr_scheduler_type="linear", weight_decay=0.01,
        max_steps=stage.updates, num_train_epochs=stage.epochs, label_smoothing_factor=0.1, max_grad_norm=args.clip,
        per_device_train_batch_size=args.batch, gradient_accumulation_steps=args.accumulate, bf16=args.bf16,
        use_cpu=args.cpu, seed=seed, logging_steps=10, save_steps=args.save_steps, save_total_limit=1,
        report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = ConseqTrainer(
        model, settings, train_dataset=rows, processing_class=tokenizer, text_format=text_format(args),
        positives_only=stage.method == "positives", unlearn_end=stage.method != "ends",
    )  # fmt: skip
    state = folder / "state"
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(state)) if state.is_dir() else None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    outcome = {
        "lr": stage.lr,
        "ratio": stage.ratio,
        "documents": len(trainer.train_dataset),
        **contrast(rows),
        "updates": trainer.state.global_step,
        "moved": moved(model, load_summarizer(start)[0]),
        "log": trainer.state.log_history,
    }
    write_json(done, outcome)
    shutil.rmtree(state, ignore_errors=True)
    return folder


def contrast(rows: Dataset) -> dict[str, float]:
    """The mean scores of the selected ground truths and of their negatives; NaN if none was scored."""
    chosen = [row for row in rows if row.get("selected")]
    return {
        "positive": mean_of_defined(row["ground_truth_score"] for row in chosen),
        "negative": mean_of_defined(row["sample_scores"][row["lowest"]] for row in chosen),
    }


def moved(model: Any, start: Any) -> float:
    """The distance of the weights from their start, relative to their norm."""
    before = start.state_dict()
    pairs = [(w.cpu().double(), before[name].cpu().double()) for name, w in model.state_dict().items()]
    square = sum(float(((new - old) ** 2).sum()) for new, old in pairs)
    return math.sqrt(square / sum(float((old**2).sum()) for _, old in pairs))


def text_format(args: argparse.Namespace) -> TextFormat:
    """How the summarizer reads and writes."""
    return TextFormat(args.template, args.max_source_tokens, args.max_target_tokens)


def collected(method: str, model: Path, rows: Dataset, folder: Path, seed: int, scorers: Scorers) -> Dataset:
    """The samples of the training documents with the method's scores."""
    args = scorers.args
    settings = CollectionSettings(
        samples=args.samples, max_new_tokens=args.max_target_tokens, seed=seed, text_format=text_format(args),
        against="ground_truth" if method == "rouge" else "document", shard_rows=args.shard_rows,
    )  # fmt: skip
    scorer = scorers.rouge if method == "rouge" else scorers.quals
    return collect(model, scorer, rows, folder, settings)


def selected(method: str, rows: Dataset, ratio: float) -> Dataset:
    """The rows with the selection of one ratio; every summary ties for S+ of ROUGE."""
    return reselect(rows, negative_ratio=ratio, positive_ratio=1.0 if method == "rouge" else ratio)


# ---- evaluation -----------------------------------------------------------------------------------------------------


def summarize(model: Path, documents: Sequence[Document], args: argparse.Namespace, beams: int) -> list[str]:
    """The summaries of documents by beam search; one beam: greedy."""
    loaded, tokenizer = load_summarizer(model)
    device = "cpu" if args.cpu or not torch.cuda.is_available() else "cuda"
    settings = GenerationSettings(
        max_new_tokens=args.max_target_tokens, num_beams=beams, batch_size=args.batch,
        max_source_tokens=args.max_source_tokens, template=args.template,
    )  # fmt: skip
    summaries_of = generate_summaries(loaded.to(device), tokenizer, [document.text for document in documents], settings)
    return [texts[0] for texts in summaries_of]


class FactCC:
    """FactCC (Kryściński et al. 2020): a classifier that reads a text and a summary. 1: it says CORRECT, 0: not."""

    def __init__(self, name: str = FACTCC, batch_size: int = 8) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self.model = AutoModelForSequenceClassification.from_pretrained(name).eval()
        self.batch_size = batch_size

    @torch.inference_mode()
    def scores(self, summaries: Sequence[str], sources: Sequence[str]) -> list[float]:
        """One number for each summary; the source loses its end if the two are too long together."""
        longest = min(512, self.model.config.max_position_embeddings, self.tokenizer.model_max_length)
        scores: list[float] = []
        for start in range(0, len(summaries), self.batch_size):
            part = slice(start, start + self.batch_size)
            batch = self.tokenizer(
                list(sources[part]), list(summaries[part]), truncation="only_first", max_length=longest, padding=True,
                return_tensors="pt",
            )  # fmt: skip
            scores += (self.model(**batch).logits.argmax(-1) == CORRECT).float().tolist()
        return scores


class Scorers:
    """The metrics, each loaded once, when it is first used; `missing` has the reason for one that cannot be loaded."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.missing = args, {}
        self.rouge = RougeScorer()
        self.quals = QualsScorer(QualsConfig(args.quals_model, groups=args.quals_groups))
        self._loaded: dict[str, Any] = {}

    def optional(self, name: str) -> Any:
        """QAGS or FactCC; None if it cannot be had."""
        if name not in self._loaded:
            try:
                if name in self.args.without:
                    raise ValueError("left out by --without")
                self._loaded[name] = load_qags() if name == "qags" else FactCC(self.args.factcc)
            except (ImportError, OSError, ValueError) as error:
                self._loaded[name] = None
                self.missing[name] = str(error).strip().splitlines()[0]
        return self._loaded[name]

    def of(self, summaries: list[str], documents: Sequence[Document]) -> Scores:
        """The scores that need no further model: ROUGE, QUALS, length, copied n-grams."""
        sources = [document.text for document in documents]
        scores = self._rouge(summaries, documents)
        scores["quals"] = self.quals.score(summaries=summaries, sources=sources).scores
        scores["length"] = [float(len(words(text))) for text in summaries]
        for n in range(1, 5):
            scores[f"copied{n}"] = [copied_share(*pair, n) for pair in zip(summaries, sources, strict=True)]
        return scores

    def by(self, name: str, summaries: list[str], documents: Sequence[Document]) -> list[float] | None:
        """The scores by QAGS or FactCC; None if it cannot be had."""
        scorer, sources = self.optional(name), [document.text for document in documents]
        if scorer is None:
            return None
        return (
            scorer.score(summaries=summaries, sources=sources).scores
            if name == "qags"
            else scorer.scores(summaries, sources)
        )

    def _rouge(self, summaries: Sequence[str], documents: Sequence[Document]) -> Scores:
        """ROUGE against that reference of each document whose mean of the three is highest; a blank summary: 0."""
        pairs = [
            (text, summary)
            for text, document in zip(summaries, documents, strict=True)
            for summary in document.summaries
        ]
        scores = iter(self.rouge.score(summaries=[a for a, _ in pairs], sources=[b for _, b in pairs]).summaries)
        best = [
            max((next(scores) for _ in document.summaries), key=lambda summary: defined(summary.score))
            for document in documents
        ]
        return {kind: [defined(getattr(summary, kind)) for summary in best] for kind in ("rouge1", "rouge2", "rougeL")}


def defined(score: float) -> float:
    """0 for a blank text, which ROUGE leaves undefined: a system must not gain by saying nothing."""
    return 0.0 if math.isnan(score) else score


def load_qags() -> Any:
    """The QAGS scorer with its default models. Raises ImportError or OSError if it cannot be had."""
    from qags_metric import QagsScorer

    return QagsScorer()


def words(text: str) -> list[str]:
    """Lower-case words."""
    return re.findall(r"\w+", text.lower())


def evaluated(
    model: Path, documents: Sequence[Document], path: Path, scorers: Scorers, beams: int, optional: Sequence[str] = ()
) -> tuple[list[str], Scores]:
    """The model's summaries and their scores, `optional` ones where they can be had; computed once, kept in `path`."""
    if not path.exists():
        summaries = summarize(model, documents, scorers.args, beams)
        write_json(path, {"summaries": summaries, "scores": scorers.of(summaries, documents)})
    kept = json.loads(path.read_text(encoding="utf-8"))
    for name in optional:
        scores = kept["scores"].get(name) or scorers.by(name, kept["summaries"], documents)
        if scores is not None and name not in kept["scores"]:
            kept["scores"][name] = json_ready(scores)
            write_json(path, kept)
    scores = {name: [math.nan if v is None else v for v in values] for name, values in kept["scores"].items()}
    return kept["summaries"], scores


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all. An undefined number is null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_file(path, json.dumps(json_ready(value), indent=1).encode())


# ---- one seed -------------------------------------------------------------------------------------------------------


Setting = tuple[float, float, int]  # learning rate, ratio, updates


def run_seed(
    seed: int,
    splits: dict[str, list[Document]],
    scorers: Scorers,
    settings: dict[str, list[Setting]],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """All stages of a seed: for every system its scores on the test documents and how it was trained.

    `settings` has what each method is to be trained with; with `--search-once` only the one that was chosen is left.
    """
    args, out = scorers.args, Path(scorers.args.out) / f"seed-{seed}"
    dev, rows = splits["dev"][: args.dev_size], training_rows(splits["train"])
    first = Stage("mle", "mle", args.mle_lr, epochs=args.mle_epochs, updates=args.mle_updates)
    mle = train(first, args.init, rows, out / "mle", seed, args)
    summaries, scores = evaluated(mle, dev, out / "mle" / "greedy.json", scorers, beams=1)
    check_summaries(summaries, scores, dev, out, args.least_defined)
    rows = training_rows(splits["train"][: args.collected])
    sets = {name: collected(name, mle, rows, out / f"set-{name}", seed, scorers) for name in ("quals", "rouge")}
    systems = {"mle": mle}
    for method, grid in settings.items():
        data = sets["rouge" if method == "rouge" else "quals"]
        trials: list[tuple[float, Path, Setting]] = []
        for lr, ratio, updates in grid:
            stage = Stage(f"{method}-lr{lr:g}-ratio{ratio:g}-updates{updates}", method, lr, ratio, updates)
            model = train(stage, str(mle), selected(method, data, ratio), out / stage.name, seed, args)
            _, dev_scores = evaluated(model, dev, model / "dev.json", scorers, args.beams)
            trials.append((criterion(dev_scores, args.choose_by), model, (lr, ratio, updates)))
            say(f"seed {seed}: {stage.name}: {args.choose_by} on dev {trials[-1][0]:.4f}")
        _, systems[method], chosen = max(trials, key=lambda trial: trial[0])
        if args.search_once:
            grid[:] = [chosen]
    if args.published:
        stage = Stage("published", "conseq", 3e-6, 0.3)
        data = selected("conseq", sets["quals"], 0.3)
        systems["published"] = train(stage, str(mle), data, out / stage.name, seed, args)
    return {name: report(model, splits["test"][: args.test_size], scorers) for name, model in systems.items()}


def criterion(scores: Scores, name: str) -> float:
    """The criterion of a trial: mean QUALS, or the mean of the three ROUGE; minus infinity if undefined."""
    kinds = ("quals",) if name == "quals" else ("rouge1", "rouge2", "rougeL")
    value = mean_of_defined(mean_of_defined(scores[kind]) for kind in kinds)
    return -math.inf if math.isnan(value) else value


def check_summaries(
    summaries: Sequence[str], scores: Scores, documents: Sequence[Document], out: Path, least: float
) -> None:
    """Stop if too few of the first model's summaries have a QUALS."""
    share = sum(not math.isnan(score) for score in scores["quals"]) / len(summaries)
    shown = [
        {"document": document.text, "summary": text, "quals": score}
        for document, text, score in zip(documents, summaries, scores["quals"], strict=True)
    ]
    write_json(out / "samples.json", shown[:20])
    if share < least:
        raise SystemExit(
            f"{share:.0%} of the summaries of the maximum likelihood model have a defined QUALS; at least {least:.0%} "
            f"must (--least-defined). Look at {out / 'samples.json'}, and train it longer"
        )


def report(model: Path, documents: Sequence[Document], scorers: Scorers) -> dict[str, Any]:
    """A system's scores on the test documents, and how it was trained."""
    _, scores = evaluated(
        model, documents, model / "test.json", scorers, scorers.args.beams, optional=("qags", "factcc")
    )
    about = json.loads((model / "trained.json").read_text(encoding="utf-8"))
    return {"scores": scores, **{key: about[key] for key in (*TRAINED, "moved")}}


# ---- the table ------------------------------------------------------------------------------------------------------


def make_table(seeds: list[dict[str, Any]], missing: dict[str, str], args: argparse.Namespace) -> str:
    """Means over seeds (from the least to the greatest seed's), and CONSEQ against each other system."""
    systems = list(seeds[0])
    columns = [*COLUMNS, "undefined"]
    lines = ["| system | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for name in systems:
        cells = [spread_cell([cell(seed[name]["scores"], column) for seed in seeds]) for column in columns]
        lines.append(f"| {NAMES[name]} | " + " | ".join(cells) + " |")
    lines += ["", "| system | " + " | ".join(TRAINED.values()) + " | weights moved |"]
    lines += ["| --- " * (len(TRAINED) + 2) + "|"]
    for name in systems:
        rows = [seed[name] for seed in seeds]
        parts = [", ".join(filter(None, (known(row[key]) for row in rows))) for key in TRAINED]
        lines.append(
            f"| {NAMES[name]} | " + " | ".join([*parts, ", ".join(f"{row['moved']:.2e}" for row in rows)]) + " |"
        )
    lines += ["", "CONSEQ minus the other, mean over seeds per document, 95 % interval, p (paired bootstrap):", ""]
    others = [name for name in systems if name != "conseq"]
    lines += ["| metric | " + " | ".join(NAMES[name] for name in others) + " |", "| --- " * (len(others) + 1) + "|"]
    for column in COLUMNS:
        cells = [difference(*(per_document(seeds, name, column) for name in (system, "conseq"))) for system in others]
        lines.append(f"| {column} | " + " | ".join(cells) + " |")
    lines += [""] + [f"{name}: empty, because it cannot be had: {reason}" for name, reason in sorted(missing.items())]
    counts = f"seeds {', '.join(map(str, args.seeds))}"
    head = f"{counts}; {len(per_document(seeds, 'mle', 'length'))} test documents; from `{Path(args.init).name}`."
    return "\n".join([head, "", *lines]).rstrip() + "\n"


def known(value: float | None) -> str:
    """A number of the second table; nothing where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def cell(scores: Scores, column: str) -> float | None:
    """A system's mean in a column; None if the metric is missing; `undefined`: how many summaries have no QUALS."""
    if column == "undefined":
        return float(sum(math.isnan(score) for score in scores["quals"]))
    return mean_of_defined(scores[column]) if column in scores else None


def spread_cell(values: Sequence[float | None]) -> str:
    """The mean over seeds with the seeds' range."""
    defined_values = [value for value in values if value is not None and not math.isnan(value)]
    if not defined_values:
        return ""
    middle = f"{sum(defined_values) / len(defined_values):.3f}"
    return middle if len(defined_values) == 1 else f"{middle} ({min(defined_values):.3f} to {max(defined_values):.3f})"


def per_document(seeds: Sequence[dict[str, Any]], name: str, column: str) -> list[float]:
    """A system's score of every document, the mean over the seeds where it is defined."""
    lists = [seed[name]["scores"].get(column) for seed in seeds]
    return [] if None in lists else [mean_of_defined(values) for values in zip(*lists, strict=True)]


def difference(baseline: Sequence[float], conseq: Sequence[float]) -> str:
    """A cell of the comparison; documents that one of the two leaves undefined are left out, and counted."""
    pairs = [pair for pair in zip(baseline, conseq, strict=True) if not any(map(math.isnan, pair))]
    if not pairs:
        return ""
    bootstrap = paired_bootstrap([a for a, _ in pairs], [b for _, b in pairs])
    left_out = len(baseline) - len(pairs)
    text = f"{bootstrap.difference:+.3f} [{bootstrap.low:+.3f}, {bootstrap.high:+.3f}] p {bootstrap.p_value:.3f}"
    return f"{text}, {left_out} left out" if left_out else text


def put_between_marks(path: Path, text: str) -> None:
    """Replace what is between the recipe's marks in a file, or add it with its marks at the end."""
    begin, end = "<!-- recipes/conseq.py -->", "<!-- end of recipes/conseq.py -->"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    section = f"{begin}\n\n{text}\n{end}"
    head, mark, rest = before.partition(begin)
    new = head + section + rest.partition(end)[2] if mark else f"{before.rstrip()}\n\n{section}\n".lstrip()
    durable.write_file(path, new.encode())


# ---- the program ----------------------------------------------------------------------------------------------------


def claim(args: argparse.Namespace, out: Path) -> None:
    """Note the settings in the folder; refuse one that was begun with others."""
    free = ("out", "results", "seeds", "without")  # change nothing that is kept, or are seen in the table
    wanted = {key: value for key, value in vars(args).items() if key not in free}
    path = out / "settings.json"
    if path.exists() and (begun := json.loads(path.read_text(encoding="utf-8"))) != wanted:
        changed = next(key for key in wanted if begun.get(key) != wanted[key])
        raise SystemExit(
            f"{out}: was begun with --{changed.replace('_', '-')} {begun.get(changed)!r}, not {wanted[changed]!r}. "
            f"Give that again, or another --out"
        )
    write_json(path, wanted)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "dev", "test"):
        parser.add_argument(f"--{name}", help="JSON-lines file")
    parser.add_argument("--hub", help="a Hub data set instead, owner/name or owner/name:config")
    parser.add_argument("--columns", nargs=2, default=["document", "summary"])
    parser.add_argument("--out", required=True)
    parser.add_argument("--results", help="a file to put the table into, between marks")
    parser.add_argument("--init", default=PRESETS["embedded"].model)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit", type=int, help="use this many documents of each split only")
    parser.add_argument("--template", default="{text}", help="say 'summarize: {text}' for T5")
    parser.add_argument("--max-source-tokens", type=int)
    parser.add_argument("--max-target-tokens", type=int, default=64)
    parser.add_argument("--mle-lr", type=float, default=3e-5)
    parser.add_argument("--mle-epochs", type=float, default=5)
    parser.add_argument("--mle-updates", type=int, default=-1, help="instead of epochs")
    parser.add_argument("--least-defined", type=float, default=0.8)
    parser.add_argument("--collected", type=int, help="sample and score only so many of the training documents")
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--shard-rows", type=int, default=64)
    parser.add_argument("--lrs", nargs="+", type=float, default=[3e-6])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.3])
    parser.add_argument("--updates", nargs="+", type=int, default=[50], help="of every retraining")
    parser.add_argument("--search-once", action="store_true", help="what the first seed chooses, the others take")
    parser.add_argument("--published", action="store_true", help="also CONSEQ by 3e-6, 0.3 and 2 epochs")
    parser.add_argument("--keep-ends", action="store_true", help="also CONSEQ that does not unlearn negatives' ends")
    parser.add_argument("--choose-by", choices=("quals", "rouge"), default="quals")
    parser.add_argument("--dev-size", type=int, default=200)
    parser.add_argument("--test-size", type=int, help="use only so many of the test documents")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8, help="documents per forward pass")
    parser.add_argument("--accumulate", type=int, default=4, help="forward passes per update")
    parser.add_argument("--clip", type=float, default=0.1)
    parser.add_argument("--save-steps", type=int, default=100)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16; slow on a CPU that has none of its own")
    parser.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    parser.add_argument("--quals-model", default="embedded")
    parser.add_argument("--quals-groups", type=int, default=60)
    parser.add_argument("--factcc", default=FACTCC)
    parser.add_argument("--without", nargs="*", default=[], choices=("qags", "factcc"))
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, do what is missing, and write the table."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if not args.hub and not (args.train and args.dev and args.test):
        parser.error("name --train, --dev and --test, or --hub")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    claim(args, out)
    splits, scorers = load_splits(args), Scorers(args)
    grid = list(itertools.product(args.lrs, args.ratios, args.updates))
    settings = {method: list(grid) for method in (METHODS if args.keep_ends else METHODS[:-1])}
    seeds = [run_seed(seed, splits, scorers, settings, lambda text: print(text, flush=True)) for seed in args.seeds]
    write_json(out / "results.json", dict(zip(map(str, args.seeds), seeds, strict=True)))
    table = make_table(seeds, scorers.missing, args)
    durable.write_file(out / "table.md", table.encode())
    if args.results:
        put_between_marks(Path(args.results), table)
    print(table)


if __name__ == "__main__":
    main()
