"""Compare the cost of QUALS and QAGS with the metrics and judges that people would use instead.

    python benchmarks/peers.py --data bump_dev.jsonl.gz [--rows 3] [--dtype float32] [--threads 1] [--svg peers.svg]
    python benchmarks/peers.py --data rows.jsonl --tiny     models of one narrow layer: to try the program
    python benchmarks/peers.py --data … --measured out.jsonl --svg peers.svg     what `--out` wrote, accuracies of today

A row holds `document` and `summary` (or `faithful`). Rows that share a document count once. All contenders score the
same texts with the same type and number of threads, each in a process of its own, which gives the peak of its memory.
The processor's time is counted, without loading.

QUALS, QAGS and copied n-grams are the real ones. All others are **exact shapes with random weights**: their checkpoints
cannot be had on every machine, and the time of a forward pass does not depend on the weights. So their scores mean
nothing. Each function below follows the published procedure of its name, and `SHAPES` has the published configurations.
Two things differ from the originals. All texts are tokenized by the embedded generator's tokenizer, whose counts differ
from those of the others by some percent. Sentences end at ".", "!" and "?" before white space.

The table takes its accuracies from the table of BUMP in RESULTS.md. The picture shows them against the seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from qa_inference.overlap import copied_share
from quals_metric.files.tables import records

# The parent process imports no torch: Linux counts what it holds into the peak memory of its children.

Texts = Sequence[str]
Score = Callable[[Texts, Texts], list[float]]
RESULTS = Path(__file__).with_name("RESULTS.md")
OURS = ("QUALS", "QAGS")
WARM_UP = "A dog ran home."
TINY_WIDTH = 64

_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
# The fields of each model's config.json on the Hub that fix its shape.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta-base": ("roberta", {
        **_ROBERTA, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    }),
    "roberta-large": ("roberta", {
        **_ROBERTA, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    }),
    "facebook/bart-large": ("bart", {
        "vocab_size": 50265, "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_ffn_dim": 4096,
        "decoder_ffn_dim": 4096, "encoder_attention_heads": 16, "decoder_attention_heads": 16,
        "max_position_embeddings": 1024, "forced_eos_token_id": None,
    }),
    "tals/albert-xlarge-vitaminc-mnli": ("albert", {
        "vocab_size": 30000, "embedding_size": 128, "hidden_size": 2048, "num_hidden_layers": 24,
        "num_attention_heads": 16, "intermediate_size": 8192, "max_position_embeddings": 512,
    }),
    "google/flan-t5-large": ("t5", {
        "vocab_size": 32128, "d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_decoder_layers": 24,
        "num_heads": 16, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0,
    }),
    "Qwen/Qwen2.5-1.5B-Instruct": ("qwen2", {
        "vocab_size": 151936, "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "intermediate_size": 8960, "tie_word_embeddings": True,
    }),
}  # fmt: skip

# Luo et al. 2023, "ChatGPT as a Factual Inconsistency Evaluator for Text Summarization" (arXiv 2303.15621).
PROMPT = (
    "Decide if the following summary is consistent with the corresponding article. Note that consistency means all "
    "information in the summary is supported by the article.\nArticle: {source}\nSummary: {summary}\n"
    "Answer (yes or no):"
)


class Bench:
    """The setting of a contender's process: its texts, its models with random weights, and one tokenizer for all."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch
        from transformers import AutoTokenizer

        from qa_inference.models.devices import choose_dtype
        from quals_metric import QualsConfig

        self.args = args
        self.dtype = choose_dtype(args.dtype, torch.device("cpu"))
        self.summaries, self.sources = read(args.data, args.rows)
        self.tokenizer = AutoTokenizer.from_pretrained(QualsConfig(args.model).model_preset().place)
        self.parameters = 0

    def model(self, name: str, task: str, **changes: Any) -> Any:
        """A model with random weights; `task` is the library's class for it, `changes` are fields of its shape."""
        import transformers

        kind, shape = SHAPES[name]
        shape = shape | changes
        shape = tiny(shape) if self.args.tiny else shape
        config = transformers.AutoConfig.for_model(kind, **shape)
        model = getattr(transformers, task).from_config(config, dtype=self.dtype).eval()
        self.parameters += sum(parameter.numel() for parameter in model.parameters())
        return model

    def ids(self, text: str) -> list[int]:
        """A text's tokens, without special ones."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def joined(self, first: list[int], second: list[int], special: int, window: int) -> list[int]:
        """Two texts and the special tokens around them, the first text cut to the window."""
        return [2] * special + first[: window - special - len(second)] + second

    def inputs(self, rows: Sequence[list[int]], width: int = 0) -> dict[str, Any]:
        """Ids and mask of some rows, padded to the longest or to `width`."""
        import torch

        from qa_inference.tokenization import pad_rows

        width = max(width, *map(len, rows))
        padded = pad_rows([*rows, [0] * width], 1)[:-1]
        mask = pad_rows([*([1] * len(row) for row in rows), [0] * width], 0)[:-1]
        return {"input_ids": torch.from_numpy(padded).long(), "attention_mask": torch.from_numpy(mask).long()}


def tiny(shape: dict[str, Any]) -> dict[str, Any]:
    """The shape with one narrow layer and four heads."""
    changed = dict(shape)
    for field, value in shape.items():
        if field.endswith(("_size", "_dim", "d_model", "d_ff")) and field not in ("vocab_size", "type_vocab_size"):
            changed[field] = TINY_WIDTH
        elif field.endswith("_layers"):
            changed[field] = 1
        elif field.endswith("_heads"):
            changed[field] = min(value, 4)
    return changed


def sentences(text: str) -> list[str]:
    """A text's sentences."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Parts of so many items."""
    return (items[start : start + size] for start in range(0, len(items), size))


# ---- contenders -----------------------------------------------------------------------------------------------------
# Each takes the bench and returns a function that scores summaries against sources.


def ours(metric: str, bench: Bench) -> Score:
    """QUALS or QAGS with its embedded models."""
    from speed import Ours

    contender = Ours(metric, bench.args)
    scorer = contender.scorer
    models = [scorer.model.model] if metric == "quals" else [scorer.generator.model, scorer.reader.model]
    bench.parameters = sum(parameter.numel() for model in models for parameter in model.parameters())
    return contender.score


def copied_words(bench: Bench) -> Score:
    """The share of a summary's pairs of words that its source has."""
    return lambda summaries, sources: [copied_share(*pair, 2) for pair in zip(summaries, sources, strict=True)]


def bert_score(bench: Bench) -> Score:
    """BERTScore 0.3.13: every distinct text through 17 layers of RoBERTa-large, then the best cosine of each token."""
    import torch

    model = bench.model("roberta-large", "AutoModel", num_hidden_layers=17)

    def score(summaries: Texts, sources: Texts) -> list[float]:
        states: dict[str, Any] = {}
        for batch in batches(sorted({*summaries, *sources}, key=len, reverse=True), 64):
            inputs = bench.inputs([[0, *bench.ids(text)[:510], 2] for text in batch])
            hidden = torch.nn.functional.normalize(model(**inputs).last_hidden_state, dim=-1)
            for text, row, mask in zip(batch, hidden, inputs["attention_mask"], strict=True):
                states[text] = row[mask.bool()]
        scores = []
        for summary, source in zip(summaries, sources, strict=True):
            cosines = states[summary] @ states[source].T
            precision, recall = cosines.amax(1).mean(), cosines.amax(0).mean()
            scores.append(float(2 * precision * recall / (precision + recall)))
        return scores

    return score


def bart_score(bench: Bench) -> Score:
    """BARTScore (bart_score.py): the mean log-probability of the summary given the source, in batches of four."""
    model = bench.model("facebook/bart-large", "AutoModelForSeq2SeqLM")

    def score(summaries: Texts, sources: Texts) -> list[float]:
        scores = []
        for batch in batches(list(zip(summaries, sources, strict=True)), 4):
            read_first = bench.inputs([[0, *bench.ids(source)[:1022], 2] for _, source in batch])
            targets = bench.inputs([[0, *bench.ids(summary)[:1022], 2] for summary, _ in batch])
            labels, mask = targets["input_ids"], targets["attention_mask"]
            log_probs = model(**read_first, labels=labels).logits.float().log_softmax(-1)
            chosen = log_probs.gather(2, labels[..., None])[..., 0] * mask
            scores += (chosen.sum(1) / mask.sum(1)).tolist()
        return scores

    return score


def align_score(size: str, bench: Bench) -> Score:
    """AlignScore, `nli_sp`: chunks of about 350 words of the source, each with each sentence; padded to 512 tokens.

    Its program also computes a masked-language head, which does not enter the score and is left out here.
    """
    import torch

    model = bench.model(f"roberta-{size}", "AutoModelForSequenceClassification", num_labels=3)

    def score(summaries: Texts, sources: Texts) -> list[float]:
        scores = []
        for summary, source in zip(summaries, sources, strict=True):
            of_source, of_summary = sentences(source), sentences(summary)
            per_chunk = max(len(of_source) // (len(source.split()) // 350 + 1), 1)
            chunks = [" ".join(part) for part in batches(of_source, per_chunk)]
            rows = [bench.joined(bench.ids(c), bench.ids(s), 4, 512) for c in chunks for s in of_summary]
            logits = torch.cat([model(**bench.inputs(batch, 512)).logits for batch in batches(rows, 32)])
            aligned = logits.float().softmax(-1)[:, 0].view(len(chunks), len(of_summary))
            scores.append(float(aligned.amax(0).mean()))
        return scores

    return score


def summac_zs(bench: Bench) -> Score:
    """SummaC-ZS, "vitc": entailment of each sentence by each sentence of the source, in batches of 20."""
    import torch

    model = bench.model("tals/albert-xlarge-vitaminc-mnli", "AutoModelForSequenceClassification", num_labels=3)

    def score(summaries: Texts, sources: Texts) -> list[float]:
        scores = []
        for summary, source in zip(summaries, sources, strict=True):
            of_source, of_summary = ([s for s in sentences(text) if len(s) > 10] for text in (source, summary))
            of_source = of_source[:100]
            rows = [bench.joined(bench.ids(a), bench.ids(b), 3, 500) for a in of_source for b in of_summary]
            logits = torch.cat([model(**bench.inputs(batch)).logits for batch in batches(rows, 20)])
            entailed, contradicted, _ = logits.float().softmax(-1).unbind(-1)
            image = (entailed - contradicted).view(len(of_source), len(of_summary))
            scores.append(float(image.amax(0).mean()))
        return scores

    return score


def mini_check(bench: Bench) -> Score:
    """MiniCheck-Flan-T5-large: chunks of up to 500 words with one sentence; two labels for the first token."""
    import torch

    model = bench.model("google/flan-t5-large", "AutoModelForSeq2SeqLM")

    def chunks(source: str) -> list[str]:
        made = [""]
        for sentence in sentences(source):
            if made[-1] and len(made[-1].split()) + len(sentence.split()) > 500:
                made.append("")
            made[-1] = f"{made[-1]} {sentence}".strip()
        return made

    def score(summaries: Texts, sources: Texts) -> list[float]:
        scores = []
        for summary, source in zip(summaries, sources, strict=True):
            of_source, supported = chunks(source), []
            for sentence in sentences(summary):
                rows = [bench.joined(bench.ids(f"predict: {c}"), bench.ids(sentence), 2, 2048) for c in of_source]
                for batch in batches(rows, 16):
                    start = torch.zeros((len(batch), 1), dtype=torch.long)
                    logits = model(**bench.inputs(batch), decoder_input_ids=start).logits[:, 0, [3, 209]]
                    supported.append(float(logits.float().softmax(-1)[:, 1].amax()))
            scores.append(sum(supported) / len(supported))
        return scores

    return score


def judge(bench: Bench) -> Score:
    """A language model of 1.5 billion weights: one prompt a summary, and the probability of one answer token."""
    model = bench.model("Qwen/Qwen2.5-1.5B-Instruct", "AutoModelForCausalLM")
    yes = bench.ids("yes")[0]

    def score(summaries: Texts, sources: Texts) -> list[float]:
        scores = []
        for summary, source in zip(summaries, sources, strict=True):
            prompt = bench.inputs([bench.ids(PROMPT.format(source=source, summary=summary))])
            logits = model(**prompt, logits_to_keep=1, use_cache=False).logits[0, -1]
            scores.append(float(logits.float().softmax(-1)[yes]))
        return scores

    return score


class _Recorder:
    """A step function that passes its calls on and keeps them."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.calls: list[tuple[str, Any]] = []

    def __call__(self, *args: Any) -> None:
        self.calls.append(("__call__", args))
        self.rows(*args)

    def top(self, *args: Any) -> Any:
        self.calls.append(("top", args))
        return self.rows.top(*args)

    def select(self, *args: Any) -> None:
        self.calls.append(("select", args))
        self.rows.select(*args)


def quals_large(bench: Bench) -> Score:
    """QUALS at the shape of the published generator, BART-large.

    Random weights end no hypothesis and write no question. So this contender repeats the steps of the embedded model's
    search, row by row, and scores the embedded model's pairs.
    """
    import torch

    from qa_inference.decoding import DiverseBeamSearch, run_search
    from qa_inference.models.encoder_decoder import EncoderDecoder, SourceRows
    from qa_inference.models.shared_rows import ScoringRequest
    from quals_metric import QualsConfig, QualsScorer

    embedded = QualsScorer(QualsConfig(bench.args.model, dtype=bench.args.dtype))
    small = embedded.model
    search = DiverseBeamSearch(embedded.config.groups)
    pairs = {text: kept for text, kept in embedded.generate_pairs([*bench.summaries, WARM_UP]).items() if kept}

    def inputs(texts: Texts) -> list[Any]:
        tokenized = embedded.tokenize(texts)
        return [tokenized[text].encoded.window(0, min(1000, len(tokenized[text].encoded.ids))) for text in texts]

    @torch.inference_mode()
    def steps(summaries: Texts) -> list[tuple[str, Any]]:
        recorder = _Recorder(SourceRows(small.decoder, *small.encode(inputs(summaries))))
        run_search(search, recorder, np.tile(np.array(small.prefix), (len(summaries), 1)), small.vocabulary)
        return recorder.calls

    recorded = {tuple(summaries): steps(summaries) for summaries in (bench.summaries, [WARM_UP])}
    config = small.model.config
    special = {name: getattr(config, name, None) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    start = {"decoder_start_token_id": config.decoder_start_token_id}
    model = bench.model("facebook/bart-large", "AutoModelForSeq2SeqLM", **special, **start)
    large = EncoderDecoder(model, bench.tokenizer)

    def score(summaries: Texts, sources: Texts) -> list[float]:
        rows = SourceRows(large.decoder, *large.encode(inputs(summaries)))
        for name, args in recorded[tuple(summaries)]:
            getattr(rows, name)(*args)
        requests = [
            ScoringRequest(window, [pair.tokens for pair in pairs.get(summary, [])] or [window[:8]])
            for summary, window in zip(summaries, inputs(sources), strict=True)
        ]
        return [float(np.mean([x.mean() for x in targets])) for targets in large.log_likelihood(requests)]

    return score


@dataclass(frozen=True)
class Contender:
    """How to make a contender, and the row of RESULTS.md that has its accuracy on BUMP; "": none has."""

    make: Callable[[Bench], Score]
    row: str = ""


CONTENDERS: dict[str, Contender] = {
    "copied 2-grams": Contender(copied_words, "copied 2-grams"),
    "QUALS": Contender(partial(ours, "quals"), "QUALS, all tokens"),
    "QAGS": Contender(partial(ours, "qags"), "QAGS"),
    "BERTScore": Contender(bert_score, "BERTScore"),
    "BARTScore": Contender(bart_score, "BARTScore"),
    "AlignScore-base": Contender(partial(align_score, "base")),
    "AlignScore-large": Contender(partial(align_score, "large")),
    "SummaC-ZS": Contender(summac_zs, "SummaC"),
    "MiniCheck-Flan-T5-large": Contender(mini_check),
    "LLM judge, 1.5B": Contender(judge),
    "QUALS, BART-large": Contender(quals_large),
}


# ---- measuring ------------------------------------------------------------------------------------------------------


def read(path: str, count: int) -> tuple[list[str], list[str]]:
    """The first summary of each of the first documents of a file, and the documents."""
    summaries = {}
    for _, row in records(Path(path)):
        summaries.setdefault(row["document"], row.get("summary") or row["faithful"])
    sources = list(islice(summaries, count))
    return [summaries[source] for source in sources], sources


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Make a contender in this process and let it score the texts."""
    import torch

    torch.set_num_threads(args.threads)
    bench = Bench(args)
    score = CONTENDERS[name].make(bench)
    with torch.inference_mode():
        score([WARM_UP], [WARM_UP])  # what is done once is done
        clock, processor = time.perf_counter(), time.process_time()
        scores = score(bench.summaries, bench.sources)
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
    rows = len(scores)
    return {
        "name": name, "seconds": processor / rows, "clock": clock / rows, "peak": _peak_megabytes(),
        "parameters": bench.parameters, "rows": rows, "undefined": sum(map(math.isnan, scores)),
    }  # fmt: skip


def _peak_megabytes() -> float:
    """The most memory that this program's process has had, in MB of 1e6 bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def measure_alone(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure a contender in a process of its own. Raises SystemExit if it fails."""
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    options = [f"--{field.replace('_', '-')}={getattr(args, field)}" for field in
               ("data", "rows", "dtype", "threads", "model", "question_model", "reader")]  # fmt: skip
    command = [sys.executable, __file__, *options, *["--tiny"] * args.tiny, f"--measure={name}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# ---- the table and the picture --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accuracy:
    """An accuracy on BUMP with its interval."""

    value: float
    low: float
    high: float


def accuracies(results: str) -> dict[str, Accuracy]:
    """The accuracies of the contenders in the table of BUMP that RESULTS.md has."""
    (table,) = re.findall(r"^\*\*BUMP\*\*.*?\n\n(\|.*?)\n\n", results, re.M | re.S)
    found = {}
    for name, contender in CONTENDERS.items():
        row = re.search(rf"^\| \**{re.escape(contender.row)}\** \| ([\d.]+) \[([\d.]+), ([\d.]+)\]", table, re.M)
        if contender.row and row:
            found[name] = Accuracy(*map(float, row.groups()))
    return found


def table(measured: Sequence[dict[str, Any]], agreement: dict[str, Accuracy]) -> str:
    """A Markdown table, the quickest first."""
    base = next((run["seconds"] for run in measured if run["name"] == "QUALS"), math.nan)
    lines = ["| | parameters, millions | seconds a summary | ÷ QUALS | peak memory, MB | BUMP accuracy |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for run in sorted(measured, key=lambda run: run["seconds"]):
        name, accuracy = run["name"], agreement.get(run["name"])
        shown = f"{accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]" if accuracy else ""
        lines.append(
            f"| {f'**{name}**' if name in OURS else name} | {run['parameters'] / 1e6:,.0f} | {run['seconds']:.3g} | "
            f"{run['seconds'] / base:.2g} | {run['peak']:,.0f} | {shown} |"
        )
    return "\n".join(lines)


STYLE = (
    "text{fill:#222;font:13px sans-serif}.axis{stroke:#888}.grid{stroke:#ddd}.dot{fill:#1f6feb}.ours{fill:#d1480b}"
    ".none{fill:#888}.bar{stroke:#1f6feb}.bar.ours{stroke:#d1480b}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}.dot{fill:#6ea8fe}.none{fill:#888}"
    ".ours{fill:#ff9a5c}.bar{stroke:#6ea8fe}.bar.ours{stroke:#ff9a5c}}"
)


def picture(measured: Sequence[dict[str, Any]], agreement: dict[str, Accuracy]) -> str:
    """Accuracy on BUMP against seconds a summary, as SVG; below it, the contenders without an accuracy."""
    runs = sorted(measured, key=lambda run: run["seconds"])
    unknown = [run for run in runs if run["name"] not in agreement]
    left, right, top, base = 60, 700, 20, 300
    decades = range(math.floor(math.log10(runs[0]["seconds"])), math.ceil(math.log10(runs[-1]["seconds"])) + 1)

    def across(seconds: float) -> float:
        return left + (right - left) * (math.log10(seconds) - decades[0]) / max(1, len(decades) - 1)

    def up(accuracy: float) -> float:
        return base - (base - top) * (accuracy - 0.5) / 0.5

    parts = []
    for decade in decades:
        x = across(10.0**decade)
        parts.append(f'<line class="grid" x1="{x:.0f}" x2="{x:.0f}" y1="{top}" y2="{base}"/>')
        parts.append(f'<text x="{x:.0f}" y="{base + 18}" text-anchor="middle">{10.0**decade:g}</text>')
    for tenth in range(5, 11):
        y = up(tenth / 10)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.0f}" y2="{y:.0f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{tenth / 10:.1f}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{base}" y2="{base}"/>')
    parts.append(f'<text x="{left}" y="{top - 6}">accuracy on BUMP (.5 is chance)</text>')
    parts.append(f'<text x="{right}" y="{base + 36}" text-anchor="end">processor seconds a summary</text>')
    for run in runs:
        x, name = across(run["seconds"]), run["name"]
        side = f'x="{x - 9:.1f}" text-anchor="end"' if x > (left + right) / 2 else f'x="{x + 9:.1f}"'
        kind = "dot ours" if name in OURS else "dot"
        if run in unknown:
            y = base + 58.0 + 20 * unknown.index(run)
            kind = "dot ours" if name in OURS else "dot none"
        else:
            accuracy = agreement[name]
            y, ends = up(accuracy.value), (up(accuracy.low), up(accuracy.high))
            bar = kind.replace("dot", "bar")
            parts.append(f'<line class="{bar}" x1="{x:.1f}" x2="{x:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>')
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        parts.append(f'<text {side} y="{y + 4:.1f}">{escape(name)}</text>')
    if unknown:
        parts.append(f'<text x="{left}" y="{base + 36}">no accuracy known:</text>')
    height = base + 60 + 20 * len(unknown)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" role="img">'
        f"<title>Accuracy on BUMP against processor seconds a summary</title><style>{STYLE}</style>"
        f"{''.join(parts)}</svg>\n"
    )


def about(args: argparse.Namespace, rows: int) -> str:
    """The setting of the measurements, in one line."""
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    trial = "; tiny shapes: a trial" if args.tiny else ""
    setting = f"{args.dtype}, {args.threads} thread(s), model {args.model}; {libraries}{trial}"
    return f"{rows} summaries of {Path(args.data).name}, {setting}"


def main(argv: Sequence[str] | None = None, measure_one: Callable[..., dict[str, Any]] = measure_alone) -> None:
    """Parse the command line, measure, print and write; `measure_one` says where a contender is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=3, help="documents, with one summary each")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="embedded", help="of QUALS")
    parser.add_argument("--question-model", default="embedded", help="of QAGS")
    parser.add_argument("--reader", default="embedded", help="of QAGS")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--tiny", action="store_true", help="models of one narrow layer, to try the program")
    parser.add_argument("--svg", type=Path, help="also write the picture")
    parser.add_argument("--out", type=Path, help="also write every measurement as a line of JSON")
    parser.add_argument("--measured", type=Path, help="show what --out wrote, and measure nothing")
    parser.add_argument("--measure", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure(args.measure, args)))
        return
    written = args.measured.read_text(encoding="utf-8").splitlines() if args.measured else []
    measured = [json.loads(line) for line in written]
    for name in () if measured else args.contenders:
        run = measure_one(name, args)
        print(f"{name}: {run['seconds']:.3g} s of processor ({run['clock']:.3g} s by the clock)", flush=True)
        measured.append(run)
        if args.out:
            with args.out.open("a", encoding="utf-8") as lines:
                print(json.dumps(run), file=lines)
    agreement = accuracies(RESULTS.read_text(encoding="utf-8"))
    print(f"\n{about(args, measured[0]['rows'])}\n\n{table(measured, agreement)}")
    if args.svg:
        args.svg.write_text(picture(measured, agreement), encoding="utf-8")


if __name__ == "__main__":
    main()
