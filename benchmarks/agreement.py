"""Measure how well a metric agrees with people's judgments of consistency, and compare it with n-gram counts.

    python benchmarks/agreement.py --data bump_dev.jsonl.gz fib_dev.jsonl.gz qags_xsum_dev.jsonl.gz --save runs/today
    python benchmarks/agreement.py --metrics qags --documents 20 --data …
    python benchmarks/agreement.py --model FOLDER --prompt prompt.txt --half even --rows 60 --data …
    python benchmarks/agreement.py --model FOLDER --data … --save runs/new --baseline runs/today
    python benchmarks/agreement.py --saved runs/new --data … --worst 4

Reads JSON lines (`.gz` or not) of three kinds, and reports for each:

    document, summary, consistency     Pearson and Spearman correlation of scores and labels (0 to 1), ROC AUC (fully
                                       consistent against the rest)
    … several summaries a document     ROC AUC within a document, averaged over the documents that have both kinds;
                                       balanced accuracy, where a summary is called consistent from a score on that is
                                       chosen on all other documents; ROC AUC over all
    document, faithful, unfaithful     accuracy: how often the faithful summary scores higher, as is and averaged by
                                       document; a tie counts half

Every statistic has a 95 % bootstrap interval that resamples documents, not rows. The floors are the shares of a
summary's 1- to 4-grams that its source contains. A metric is useful only where it beats the best floor. The difference
to that floor, and to the scores under `--baseline`, is by paired bootstrap, with the same resamples. The table also has
the `metric_scores` of pairs (`NAME_reference`, `NAME_edited`), if there are any. Rows with different `origin` have
separate tables; `error_type` and `domain` have a table of the first statistic.

QUALS and QAGS have separate tables. A row with a summary that a scorer leaves undefined is left out of that metric's
table, also for the floors, and is counted. For QUALS, the report also has the mean log p(token | source) of the pairs
of true summaries, by length of the source. It should be flat; otherwise the score measures length.

`--save` keeps all scores with their questions, in a file for each metric and data file. `--saved` reads them instead of
scoring (all their rows that are among the chosen data). `--worst` prints the examples that disagree most with people,
at most one for each document. The disagreement is the difference between the rank of the score and that of the label
(in the file or, if a document has several summaries, in the document), or the lead of the unfaithful summary over the
faithful one.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qa_inference.formats import CausalFormat
from qa_inference.metric_base.results import json_ready
from qa_inference.overlap import copied_share
from qa_inference.significance import RESAMPLES
from qags_metric import QagsConfig, QagsScorer
from quals_metric import QualsConfig, QualsScorer
from quals_metric.agreement.labelled import NGRAMS
from quals_metric.agreement.statistics import (
    DocumentSample,
    Estimate,
    Flags,
    Floats,
    Places,
    pearson,
    ranks,
    roc_auc,
    spearman,
    wins,
)
from quals_metric.files.tables import records

Row = dict[str, Any]
PERCENTILES = (5, 25, 50, 75, 95)
PARTS = ("error_type", "domain")


# ---- Rows and scores ------------------------------------------------------------------------------------------------


def read(path: str, rows: int | None = None, half: str | None = None, documents: int | None = None) -> list[Row]:
    """The rows of a JSON-lines file, or every other one ("even": from the first, "odd": from the second), or the first.

    Choose on one half, for example a prompt, and report on the other. `documents`: all rows of so many documents,
    spread evenly over the file. Each row gets an `id` of its own.
    """
    found, seen = [], dict[str, int]()
    for where, row in records(Path(path)):
        name = str(row.get("id", where))
        seen[name] = seen.get(name, 0) + 1
        found.append({**row, "id": name if seen[name] == 1 else f"{name}/{seen[name]}"})
    found = found[int(half == "odd") :: 1 if half is None else 2][:rows]
    if documents is not None:
        distinct = list(dict.fromkeys(row["document"] for row in found))
        places = np.linspace(0, len(distinct), min(documents, len(distinct)), endpoint=False).astype(int)
        chosen = {distinct[place] for place in places}
        found = [row for row in found if row["document"] in chosen]
    return found


def texts(row: Row) -> list[str]:
    """The summaries of a row: the one with a label, or the faithful and the unfaithful one."""
    return [row["summary"]] if "summary" in row else [row["faithful"], row["unfaithful"]]


def are_true(row: Row) -> list[bool]:
    """For each summary of a row, whether people call all of it consistent."""
    return [row["consistency"] >= 1.0] if "summary" in row else [True, False]


def judge(rows: Sequence[Row], scorers: dict[str, Any]) -> list[Row]:
    """A header, and for every row the scores by each scorer and what was asked: what `--save` writes."""
    summaries = [text for row in rows for text in texts(row)]
    sources = [row["document"] for row in rows for _ in texts(row)]
    results = {name: scorer.score(summaries=summaries, sources=sources) for name, scorer in scorers.items()}
    signatures = {name: result.signature for name, result in results.items()}
    header = {"signatures": signatures, "windowed": next(iter(results.values())).num_windowed_sources}
    found: list[Row] = [{"id": row["id"], "scores": {}, "asked": {}} for row in rows]
    for name, result in results.items():
        each = iter(result.summaries)
        for row, entry in zip(rows, found, strict=True):
            scored = [next(each) for _ in texts(row)]
            entry["scores"][name] = [summary.score for summary in scored]
            entry["asked"][name] = [[asked(one) for one in summary.items] for summary in scored]
    return [json_ready(entry) for entry in (header, *found)]


def asked(one: Any) -> Row:
    """The saved parts of a question: of QUALS with the mean log p(token | source), of QAGS with the source's answer."""
    about = {"question": one.question, "answer": one.answer}
    if hasattr(one, "f1"):
        return {**about, "score": one.f1, "from_source": one.source_answer.text}
    return {**about, "score": one.score, "evidence": float(np.mean(one.source_log_probs))}


def saved_as(prefix: str, metric: str, path: str) -> Path:
    """Where the scores of a data file are kept."""
    return Path(f"{prefix}-{metric}-{Path(path).name.split('.')[0]}.jsonl")


def load(file: Path) -> list[Row]:
    """The result of `judge`."""
    return [row for _, row in records(file)]


def column(rows: Sequence[Row], scored: Sequence[Row], name: str) -> Floats:
    """The scores by one scorer of every row's summaries; NaN where undefined, or not scored."""
    by_id = {entry["id"]: entry["scores"].get(name) for entry in scored[1:]}
    return np.array([by_id.get(row["id"]) or [math.nan] * len(texts(row)) for row in rows], dtype=float)


def floors(rows: Sequence[Row]) -> dict[str, Floats]:
    """The shares of copied n-grams of every row's summaries."""
    return {
        f"copied {n}-grams": np.array([[copied_share(text, row["document"], n) for text in texts(row)] for row in rows])
        for n in NGRAMS
    }


def published(rows: Sequence[Row]) -> dict[str, Floats]:
    """The scores by other metrics that came with the pairs."""
    names = [key.removesuffix("_reference") for key in rows[0].get("metric_scores", ()) if key.endswith("_reference")]
    given = [row.get("metric_scores", {}) for row in rows]
    return {
        f"{name}, published": np.array([[each[f"{name}_reference"], each[f"{name}_edited"]] for each in given], float)
        for name in names
    }


# ---- Statistics -----------------------------------------------------------------------------------------------------


class RowSample(DocumentSample):
    """The rows of a data file, of which the documents are resampled."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__([row["document"] for row in rows])
        self.labels = np.array([row.get("consistency", math.nan) for row in rows])

    def estimates(self, scores: Floats) -> dict[str, Estimate]:
        """Every statistic of a column of scores [N, 1], or of pairs of scores [N, 2], the main one first."""
        if scores.shape[1] == 2:
            won = wins(*scores.T)
            return {
                "accuracy": self.mean(won),
                "accuracy by document": self.over_documents(lambda rows: float(won[rows].mean())),
            }
        scores, good = scores[:, 0], self.labels >= 1.0
        if len(self.of_document) == len(good):
            return {
                "Pearson": self.pooled(pearson, scores, self.labels),
                "Spearman": self.pooled(spearman, scores, self.labels),
                "ROC AUC": self.pooled(roc_auc, scores, good),
            }
        return {
            "ROC AUC within documents": self.over_documents(lambda rows: roc_auc(scores[rows], good[rows])),
            "balanced accuracy": self.cross_validated_accuracy(scores, good),
            "ROC AUC": self.pooled(roc_auc, scores, good),
        }

    def over_documents(self, statistic: Callable[[Places], float]) -> Estimate:
        """The mean over documents of a statistic of the rows of one, without documents where it is undefined."""
        values = np.array([statistic(rows) for rows in self.of_document])
        defined = ~np.isnan(values)
        values = np.where(defined, values, 0.0)
        with np.errstate(invalid="ignore"):
            resampled = values[self.draws].sum(1) / defined[self.draws].sum(1)
            return Estimate(float(values.sum() / np.int64(defined.sum())), resampled)

    def main(self, scores: Floats) -> Estimate:
        """The first of the `estimates`."""
        return next(iter(self.estimates(scores).values()))


# ---- Reports --------------------------------------------------------------------------------------------------------


def sections(name: str, rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The parts that have separate tables: a file, or its rows of each `origin`."""
    for origin in dict.fromkeys(row.get("origin", "") for row in rows):
        yield f"{name}, {origin}" if origin else name, [row for row in rows if row.get("origin", "") == origin]


def evidence_by_length(rows: Sequence[Row], found: Sequence[Row], name: str) -> list[dict[str, float]]:
    """For true summaries, by thirds of source length: words, mean log p(token | source)."""
    kept = [
        (len(row["document"].split()), np.mean([one["evidence"] for one in questions]))
        for row, entry in zip(rows, found, strict=True)
        for is_true, questions in zip(are_true(row), entry["asked"][name], strict=True)
        if is_true and questions
    ]
    thirds = [part for part in np.array_split(np.array(sorted(kept)), 3) if len(part)]
    return [{"words": float(p[:, 0].mean()), "log_prob": float(p[:, 1].mean()), "summaries": len(p)} for p in thirds]


def pair_scores(rows: Sequence[Row], found: Sequence[Row], name: str) -> dict[str, list[float]]:
    """The `PERCENTILES` of the pairs' scores, of true summaries and of the others."""
    scored = [
        (is_true, one["score"])
        for row, entry in zip(rows, found, strict=True)
        for is_true, questions in zip(are_true(row), entry["asked"][name], strict=True)
        for one in questions
    ]
    kinds = {
        kind: [score for is_true, score in scored if is_true == wanted]
        for kind, wanted in (("consistent", True), ("others", False))
    }
    return {kind: np.percentile(scores, PERCENTILES).tolist() for kind, scores in kinds.items() if scores}


def evaluate(rows: Sequence[Row], scored: Sequence[Row], before: Sequence[Row] | None = None) -> dict[str, Any]:
    """Everything about some rows that are scored; `before` are scores to compare with."""
    header, by_id = scored[0], {entry["id"]: entry for entry in scored[1:]}
    names, found = list(header["signatures"]), [by_id[row["id"]] for row in rows]
    columns = {name: column(rows, scored, name) for name in names}
    asked = [len(questions) for entry in found for questions in entry["asked"][names[0]]]
    defined = ~np.isnan(np.concatenate(list(columns.values()), axis=1)).any(axis=1)
    columns |= floors(rows) | published(rows)
    kept = [row for row, is_defined in zip(rows, defined, strict=True) if is_defined]
    about = {"rows": len(rows), "documents": len({row["document"] for row in rows}), "windowed": header["windowed"]}
    about |= {"undefined": len(rows) - len(kept), "questions_per_summary": float(np.mean(asked))}
    if not kept:
        return {**about, "agreement": {}, "parts": {}}
    sample, columns = RowSample(kept), {name: scores[defined] for name, scores in columns.items()}
    estimates = {name: sample.estimates(scores) for name, scores in columns.items()}
    main = next(iter(estimates[names[0]]))
    copied = {name: each[main].value for name, each in estimates.items() if name.startswith("copied")}
    floor = max(copied, key=lambda name: -math.inf if math.isnan(copied[name]) else copied[name])
    table: dict[str, Any] = {name: {k: one.to_dict() for k, one in each.items()} for name, each in estimates.items()}
    for name in names:
        table[name]["to_floor"] = (estimates[name][main] - estimates[floor][main]).to_dict()
        table[name] |= by_source_length(kept, columns[name])
        if before:
            table[name]["to_baseline"] = differences(kept, columns[name], column(kept, before, name))
    about |= {"main": main, "floor": floor, "agreement": table, "parts": parts(kept, columns)}
    quals = [name for name in names if "evidence" in next((q[0] for e in found for q in e["asked"][name] if q), {})]
    return about | {
        "evidence_by_length": {name: evidence_by_length(rows, found, name) for name in quals},
        "pair_scores": {name: pair_scores(rows, found, name) for name in quals},
    }


def by_source_length(rows: Sequence[Row], scores: Floats) -> dict[str, float]:
    """The main statistic of the rows with the shorter and with the longer sources."""
    lengths = np.array([len(row["document"].split()) for row in rows])
    short = lengths <= np.median(lengths)
    parts = {"shorter_sources": short, "longer_sources": ~short}
    return {name: of_part(rows, scores, part).value if part.any() else math.nan for name, part in parts.items()}


def of_part(rows: Sequence[Row], scores: Floats, part: Flags) -> Estimate:
    """The main statistic of some rows."""
    return RowSample([row for row, is_in in zip(rows, part, strict=True) if is_in]).main(scores[part])


def differences(rows: Sequence[Row], scores: Floats, before: Floats) -> dict[str, Any]:
    """The increase of each statistic over the scores `before`, over the rows that both define."""
    both = ~np.isnan(before).any(axis=1)
    if not both.any():
        return {}
    sample = RowSample([row for row, is_defined in zip(rows, both, strict=True) if is_defined])
    now, then = sample.estimates(scores[both]), sample.estimates(before[both])
    return {"rows": int(both.sum()), **{name: (now[name] - then[name]).to_dict() for name in now}}


def parts(rows: Sequence[Row], columns: dict[str, Floats]) -> dict[str, Any]:
    """The main statistic by the values of each of the `PARTS`."""
    found: dict[str, Any] = {}
    for field in PARTS:
        values = np.array([str(row.get(field, "")).removesuffix(" Error") for row in rows])
        for value in sorted({*values} - {""}):
            each = {name: of_part(rows, scores, values == value).to_dict() for name, scores in columns.items()}
            found.setdefault(field, {})[value] = {"rows": int((values == value).sum()), "agreement": each}
    return found


def cell(value: dict[str, Any] | None) -> str:
    """A value with its interval."""
    return f"{value['value']:.3f} [{value['interval'][0]:.3f}, {value['interval'][1]:.3f}]" if value else ""


def markdown(*rows: Sequence[str]) -> list[str]:
    """A table; its first row is the head."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return [lines[0], f"|{'---|' * len(rows[0])}", *lines[1:], ""]


def show(report: dict[str, Any]) -> str:
    """Markdown tables of one section."""
    about = (
        f"**{report['name']}**: {report['rows']} rows of {report['documents']} documents, {report['undefined']} "
        f"undefined, {report['questions_per_summary']:.1f} questions a summary"
    )
    if not report["agreement"]:
        return about
    table, main = report["agreement"], report["main"]
    names = [name for name, row in table.items() if "to_floor" in row]
    statistics = [key for key, value in table[names[0]].items() if key in table[report["floor"]]]
    body = [
        [name, *(cell(row[key]) for key in statistics), cell(row.get("to_floor")),
         f"{row['shorter_sources']:.3f} / {row['longer_sources']:.3f}" if "shorter_sources" in row else ""]
        for name, row in table.items()
    ]  # fmt: skip
    lines = [f"{about}, {report['windowed']} sources of the file windowed, floor: {report['floor']}", ""]
    lines += markdown(["metric", *statistics, f"{main} − floor", "shorter / longer sources"], *body)
    changed = {name: change for name in names if (change := table[name].get("to_baseline"))}
    if changed:
        body = [[name, *(cell(row[key]) for key in statistics), str(row["rows"])] for name, row in changed.items()]
        lines += markdown(["more than the baseline", *statistics, "rows"], *body)
    for field, values in report["parts"].items():
        body = [[name, *(cell(value["agreement"][name]) for value in values.values())] for name in table]
        head = [f"{value} ({about['rows']})" for value, about in values.items()]
        lines += markdown([f"{main} by {field}", *head], *body)
    for name, thirds in report["evidence_by_length"].items():
        text = "; ".join(f"{t['words']:.0f} words: {t['log_prob']:.3f} ({t['summaries']})" for t in thirds)
        lines += [f"{name}: mean log p(token | source) of consistent summaries' pairs by source length: {text}", ""]
    for name, kinds in report["pair_scores"].items():
        text = "; ".join(f"{kind}: {', '.join(f'{v:.2f}' for v in values)}" for kind, values in kinds.items())
        lines += [f"{name}: pairs' scores at the percentiles {', '.join(map(str, PERCENTILES))}: {text}", ""]
    return "\n".join(lines).rstrip()


# ---- The worst examples ---------------------------------------------------------------------------------------------


def wrongness(rows: Sequence[Row], scores: Floats) -> Floats:
    """How far each row's score is from what people say; NaN where undefined.

    Pairs: how far the unfaithful summary scores above the faithful one. Labels: the difference of the score's rank and
    the label's, both from 0 to 1, in the file or, where that has several summaries of a document, in the document.
    """
    if scores.shape[1] == 2:
        return scores[:, 1] - scores[:, 0]
    sample, found = RowSample(rows), np.full(len(rows), math.nan)
    is_repeated = len(sample.of_document) < len(rows)
    for places in sample.of_document if is_repeated else [np.arange(len(rows))]:
        places = places[~np.isnan(scores[places, 0])]
        order = [ranks(values[places]) / max(1, len(places)) for values in (scores[:, 0], sample.labels)]
        found[places] = np.abs(order[0] - order[1])
    return found


def worst(rows: Sequence[Row], scored: Sequence[Row], name: str, count: int) -> Iterator[str]:
    """The rows furthest from what people say, as Markdown, of each document one at most."""
    by_id, seen = {entry["id"]: entry for entry in scored[1:]}, set[str]()
    distances = wrongness(rows, column(rows, scored, name))
    for place in np.argsort(-distances, kind="stable"):
        row = rows[place]
        if len(seen) == count or math.isnan(distances[place]):
            return
        if row["document"] not in seen:
            seen.add(row["document"])
            yield example(row, by_id[row["id"]], name, float(distances[place]))


def example(row: Row, entry: Row, name: str, distance: float) -> str:
    """One row with its scores and what was asked."""
    lines = [f"**{row['id']}**, wrong by {distance:.2f}", "", f"source: {row['document'].strip()}", ""]
    kinds = ["faithful", "unfaithful"] if "faithful" in row else [f"summary, people: {row['consistency']:.2f}"]
    of_each = zip(kinds, texts(row), entry["scores"][name], entry["asked"][name], strict=True)
    for kind, text, score, questions in of_each:
        lines += [f"{kind}, {name}: {score:.3f}: {text.strip()}", ""]
        found = ["answer from the source"] if any("from_source" in one for one in questions) else []
        body = [
            [f"{one['score']:.2f}", one["question"], one["answer"], *([one["from_source"]] if found else [])]
            for one in sorted(questions, key=lambda one: float(one["score"]))
        ]
        lines += markdown(["score", "question", "answer", *found], *body)
    return "\n".join(lines)


# ---- The program ----------------------------------------------------------------------------------------------------


def make_scorers(metric: str, args: argparse.Namespace) -> Any:
    """The scorers of a metric, by their names in the table."""
    if metric == "qags":
        models = {"model": args.question_model, "reader": args.reader, "dtype": args.dtype}
        limits = {"QAGS" if most is None else f"QAGS, {most} an answer": most for most in args.per_answer}
        return {name: QagsScorer(QagsConfig(**models, max_per_answer=most)) for name, most in limits.items()}
    shared = {"dtype": args.dtype, "cache": args.cache, "groups": args.groups, "gguf": args.gguf}
    shared |= {"search_dtype": args.search_dtype, "by_sentence": args.by_sentence, "normalize": args.normalize}
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
    parser.add_argument("--tokens", nargs="+", default=["all", "answer"], choices=["all", "answer", "balanced"])
    parser.add_argument("--groups", type=int, default=60, help="of QUALS")
    parser.add_argument("--by-sentence", action="store_true", help="of QUALS: search every sentence by itself")
    parser.add_argument("--normalize", action="store_true", help="of QUALS: divide by the information of a summary")
    parser.add_argument("--gguf", help="of QUALS: a GGUF file in the model's folder")
    parser.add_argument(
        "--prompt", help="of QUALS: a file with the template of a decoder-only model, {text} in it once"
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--search-dtype", help="of QUALS: that of the search alone; default: --dtype")
    parser.add_argument("--cache", help="a folder for what was generated and scored: all kinds of tokens then share it")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--rows", type=int, help="of each file, the first; default: all")
    parser.add_argument("--half", choices=["even", "odd"], help="of each file, every other row")
    parser.add_argument("--documents", type=int, help="of each file, all rows of so many documents, spread evenly")
    add_scorer_arguments(parser)
    parser.add_argument("--save", metavar="PREFIX", help="keep all scores in PREFIX-METRIC-FILE.jsonl")
    parser.add_argument("--saved", metavar="PREFIX", help="score nothing: take what --save PREFIX kept")
    parser.add_argument("--baseline", metavar="PREFIX", help="compare with what --save PREFIX kept")
    parser.add_argument("--worst", type=int, default=0, help="print so many of the worst examples of each table")
    parser.add_argument("--out", help="also write everything as JSON")
    args = parser.parse_args(argv)
    reports = []
    for metric in args.metrics:
        scorers = {} if args.saved else make_scorers(metric, args)
        for path in args.data:
            rows = read(path, args.rows, args.half, args.documents)
            scored = load(saved_as(args.saved, metric, path)) if args.saved else judge(rows, scorers)
            if args.save:
                lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in scored)
                saved_as(args.save, metric, path).write_text("".join(lines), encoding="utf-8")
            before = load(saved_as(args.baseline, metric, path)) if args.baseline else None
            known = {entry["id"] for entry in scored[1:]}
            for name, part in sections(Path(path).name, [row for row in rows if row["id"] in known]):
                reports.append({"name": name, "metric": metric, **evaluate(part, scored, before)})
                print(show(reports[-1]), end="\n\n", flush=True)
                for text in worst(part, scored, next(iter(scored[0]["signatures"])), args.worst):
                    print(text, flush=True)
            reports[-1]["signatures"] = scored[0]["signatures"]
            print("\n".join(scored[0]["signatures"].values()), end="\n\n", flush=True)
    print(f"{RESAMPLES} resamples of documents")
    if args.out:
        Path(args.out).write_text(json.dumps(reports, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
