"""Does a metric agree with people? Correlations with human judgments of consistency, beside what counting gives.

    python benchmarks/agreement.py --data qags_cnndm_dev.jsonl.gz qags_xsum_dev.jsonl.gz --out agreement.json
    python benchmarks/agreement.py --metrics qags --data …
    python benchmarks/agreement.py --model FOLDER --prompt prompt.txt --half even --rows 60 --data …

Reads JSON lines (`.gz` or not) with `document, summary, consistency` (0 to 1). For every file and metric: Pearson and
Spearman correlation and ROC AUC (fully consistent against the rest), each with a 95 % bootstrap interval; the
difference in Pearson to the best copied-n-gram floor by paired bootstrap; and the same split by length of the source.
The floors are the shares of a summary's 1- to 4-grams that its source contains: a metric says something only where it
beats them. For QUALS, what the model finds of the pairs of fully consistent summaries given their sources, by length of
the source: that should be flat, or it is length that is measured.

QUALS and QAGS are looked at one after the other: what has no score by one is left out of its table alone, for the
floors too, and counted.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from qa_inference.formats import CausalFormat
from qags_metric import QagsConfig, QagsScorer
from quals_metric import QualsConfig, QualsResult, QualsScorer
from quals_metric.files.tables import records

Array = NDArray[np.float64]
Statistic = Callable[[Array, Array], float]
RESAMPLES, SEED = 1000, 12345
NGRAMS = (1, 2, 3, 4)
PERCENTILES = (5, 25, 50, 75, 95)


def read(path: str, rows: int | None = None, half: str | None = None) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, or every other one ("even": from the first, "odd": from the second), or the first.

    What is chosen on one half, a prompt say, is reported on the other.
    """
    every_other = islice(records(Path(path)), int(half == "odd"), None, 1 if half is None else 2)
    return [row for _, row in islice(every_other, rows)]


def copied_share(summary: str, source: str, n: int) -> float:
    """The share of the summary's word n-grams that the source contains; a summary shorter than n: of its only one."""
    words, text = (re.findall(r"\w+", part.lower()) for part in (summary, source))
    n = min(n, len(words))
    found = {tuple(text[i : i + n]) for i in range(len(text) - n + 1)}
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return sum(gram in found for gram in grams) / len(grams) if n else 0.0


def pearson(x: Array, y: Array) -> float:
    """Pearson's correlation; NaN where one side is constant."""
    return float(np.corrcoef(x, y)[0, 1]) if x.std() and y.std() else math.nan


def spearman(x: Array, y: Array) -> float:
    """Spearman's rank correlation."""
    return pearson(stats.rankdata(x), stats.rankdata(y))


def auc(x: Array, y: Array) -> float:
    """The chance that a fully consistent summary scores above another one."""
    good, bad = x[y >= 1.0], x[y < 1.0]
    if not len(good) or not len(bad):
        return math.nan
    return float(stats.mannwhitneyu(good, bad).statistic / (len(good) * len(bad)))


STATISTICS: dict[str, Statistic] = {"pearson": pearson, "spearman": spearman, "auc": auc}


def samples(count: int) -> NDArray[np.int64]:
    """The bootstrap's resamples of `count` rows, the same at every call: what makes differences paired."""
    return np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))


def interval(values: Sequence[float]) -> list[float]:
    """The 2.5th and 97.5th percentile of the defined values."""
    return [float(v) for v in np.nanpercentile(values, [2.5, 97.5])]


def agreement(scores: Array, labels: Array) -> dict[str, Any]:
    """Every statistic with its interval."""
    rows = samples(len(labels))
    return {
        name: {
            "value": statistic(scores, labels),
            "interval": interval([statistic(scores[row], labels[row]) for row in rows]),
        }
        for name, statistic in STATISTICS.items()
    }


def difference(scores: Array, floor: Array, labels: Array) -> dict[str, Any]:
    """Pearson of the metric minus Pearson of the floor, with its paired-bootstrap interval."""
    found = [pearson(scores[row], labels[row]) - pearson(floor[row], labels[row]) for row in samples(len(labels))]
    return {"value": pearson(scores, labels) - pearson(floor, labels), "interval": interval(found)}


def evidence_by_length(result: QualsResult, rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Of fully consistent summaries, by thirds of source length: words, mean log p(token | source)."""
    kept = [
        (len(row["document"].split()), np.mean([np.mean(pair.source_log_probs) for pair in summary.pairs]))
        for row, summary in zip(rows, result.summaries, strict=True)
        if row["consistency"] >= 1.0 and summary.pairs
    ]
    thirds = [part for part in np.array_split(np.array(sorted(kept)), 3) if len(part)]
    return [{"words": float(p[:, 0].mean()), "log_prob": float(p[:, 1].mean()), "summaries": len(p)} for p in thirds]


def pair_scores(result: QualsResult, rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """The `PERCENTILES` of the pairs' scores, of fully consistent summaries and of the others."""
    scored = [(row["consistency"] >= 1.0, [pair.score for pair in summary.pairs])
              for row, summary in zip(rows, result.summaries, strict=True)]  # fmt: skip
    found = {
        name: [score for good, scores in scored if good == wanted for score in scores]
        for name, wanted in (("consistent", True), ("others", False))
    }
    return {name: np.nanpercentile(scores, PERCENTILES).tolist() for name, scores in found.items() if scores}


def questions(summary: Any) -> Sequence[Any]:
    """What was asked about a summary, by either metric."""
    return summary.pairs if hasattr(summary, "pairs") else summary.questions


def evaluate(
    path: str,
    scorers: dict[str, QualsScorer] | dict[str, QagsScorer],
    count: int | None = None,
    half: str | None = None,
) -> dict[str, Any]:
    """Everything about one file, or about some of its rows."""
    rows = read(path, count, half)
    summaries, sources = [row["summary"] for row in rows], [row["document"] for row in rows]
    results = {name: scorer.score(summaries=summaries, sources=sources) for name, scorer in scorers.items()}
    columns = {name: np.array(result.scores) for name, result in results.items()}
    defined = np.all([~np.isnan(column) for column in columns.values()], axis=0)
    for n in NGRAMS:
        columns[f"copied {n}-grams"] = np.array(
            [copied_share(s, t, n) for s, t in zip(summaries, sources, strict=True)]
        )
    labels = np.array([row["consistency"] for row in rows])[defined]
    columns = {name: column[defined] for name, column in columns.items()}
    lengths = np.array([len(source.split()) for source in sources])[defined]
    floors = {name: pearson(column, labels) for name, column in columns.items() if name.startswith("copied")}
    floor = max(floors, key=lambda name: -math.inf if math.isnan(floors[name]) else floors[name])
    table = {name: agreement(column, labels) for name, column in columns.items()}
    for name in scorers:
        table[name]["to_floor"] = difference(columns[name], columns[floor], labels)
        short = lengths <= np.median(lengths)
        halves = {"shorter_sources": short, "longer_sources": ~short}
        table[name] |= {half: pearson(columns[name][rows_], labels[rows_]) for half, rows_ in halves.items()}
    first = next(iter(results.values()))
    asked = float(np.mean([len(questions(summary)) for summary in first.summaries]))
    about = {"summaries": len(rows), "undefined": int((~defined).sum()), "questions_per_summary": asked}
    about |= {"floor": floor, "windowed_sources": first.num_windowed_sources, "signature": first.signature}
    quals = {name: result for name, result in results.items() if isinstance(result, QualsResult)}
    by_length = {name: evidence_by_length(result, rows) for name, result in quals.items()}
    pairs = {name: pair_scores(result, rows) for name, result in quals.items()}
    return {
        "file": Path(path).name, **about, "agreement": table, "evidence_by_length": by_length, "pair_scores": pairs
    }  # fmt: skip


def show(report: dict[str, Any]) -> str:
    """A Markdown table of one file."""
    lines = [
        f"**{report['file']}**: {report['summaries']} summaries, {report['undefined']} undefined, "
        f"{report['questions_per_summary']:.1f} questions a summary, {report['windowed_sources']} sources windowed, "
        f"floor: {report['floor']}",
        "",
        "| metric | Pearson | Spearman | ROC AUC | Pearson − floor | shorter / longer sources |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in report["agreement"].items():
        cells = [cell(row[statistic]) for statistic in STATISTICS]
        split = f"{row['shorter_sources']:.3f} / {row['longer_sources']:.3f}" if "shorter_sources" in row else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {cell(row.get('to_floor'))} | {split} |")
    for name, thirds in report["evidence_by_length"].items():
        text = "; ".join(f"{t['words']:.0f} words: {t['log_prob']:.3f} ({t['summaries']})" for t in thirds)
        lines += ["", f"{name}: mean log p(token | source) of consistent summaries' pairs by source length: {text}"]
    for name, kinds in report["pair_scores"].items():
        text = "; ".join(f"{kind}: {', '.join(f'{v:.2f}' for v in values)}" for kind, values in kinds.items())
        lines += ["", f"{name}: pairs' scores at the percentiles {', '.join(map(str, PERCENTILES))}: {text}"]
    return "\n".join(lines)


def cell(value: dict[str, Any] | None) -> str:
    """A value with its interval."""
    return f"{value['value']:.3f} [{value['interval'][0]:.3f}, {value['interval'][1]:.3f}]" if value else ""


def make_scorers(metric: str, args: argparse.Namespace) -> Any:
    """The scorers of a metric, by their names in the table."""
    if metric == "qags":
        models = {"model": args.question_model, "reader": args.reader, "dtype": args.dtype}
        limits = {"QAGS" if most is None else f"QAGS, {most} an answer": most for most in args.per_answer}
        return {name: QagsScorer(QagsConfig(**models, max_per_answer=most)) for name, most in limits.items()}
    shared = {"dtype": args.dtype, "cache": args.cache, "groups": args.groups, "gguf": args.gguf}
    if args.prompt:
        shared["format"] = CausalFormat(Path(args.prompt).read_text(encoding="utf-8"))
    configs = {tokens: QualsConfig(args.model, tokens=tokens, **shared) for tokens in args.tokens}
    return {f"QUALS, {tokens} tokens": QualsScorer(config) for tokens, config in configs.items()}


def add_scorer_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `make_scorers` reads, and which metrics."""
    parser.add_argument("--metrics", nargs="+", default=["quals"], choices=["quals", "qags"])
    parser.add_argument("--model", default="embedded", help="of QUALS")
    parser.add_argument("--question-model", default="embedded", help="of QAGS")
    parser.add_argument("--reader", default="embedded", help="of QAGS")
    parser.add_argument(
        "--per-answer", nargs="+", default=[None], type=lambda text: None if text == "any" else int(text),
        help="of QAGS: how many questions may ask for the same answer; any: as published",
    )  # fmt: skip
    parser.add_argument("--tokens", nargs="+", default=["all", "answer"], choices=["all", "answer"])
    parser.add_argument("--groups", type=int, default=60, help="of QUALS")
    parser.add_argument("--gguf", help="of QUALS: a GGUF file in the model's folder")
    parser.add_argument(
        "--prompt", help="of QUALS: a file with the template of a decoder-only model, {text} in it once"
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--cache", help="a folder for what was generated and scored: both kinds of tokens then share it"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--rows", type=int, help="of each file, the first; default: all")
    parser.add_argument("--half", choices=["even", "odd"], help="of each file, every other row")
    add_scorer_arguments(parser)
    parser.add_argument("--out", help="also write everything as JSON")
    args = parser.parse_args(argv)
    reports = []
    for metric in args.metrics:
        scorers = make_scorers(metric, args)
        for path in args.data:
            reports.append({"metric": metric, **evaluate(path, scorers, args.rows, args.half)})
            print(f"{show(reports[-1])}\n\n{reports[-1]['signature']}", end="\n\n", flush=True)
    print(f"{RESAMPLES} resamples")
    if args.out:
        Path(args.out).write_text(json.dumps(reports, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
