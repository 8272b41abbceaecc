"""Measure how well the scores of single sentences agree with people, and compare them with copied n-grams.

    quals score qags_cnndm_dev.jsonl.gz --source-column document --keep --pairs -o scores.jsonl
    python benchmarks/sentences.py scores.jsonl

Reads score files with the questions and with the columns of the QAGS data: `document`, `summary`, `sentences` (the
summary as people divided it) and `sentence_labels` (1: most people call it consistent, 0: the others). Prints for each:

    over summaries      ROC AUC over all sentences: how often a consistent one scores above another one
    within summaries    the same within a summary, averaged over the summaries that have both kinds
    spans               how many sentences of either kind have an unsupported answer at the metric's threshold

Intervals are 95 % bootstrap intervals that resample summaries. `lowest` is the lowest score of a sentence's questions
instead of their mean. `whole summary` gives every sentence the score of its summary. The copied n-grams are the share
of the sentence's n-grams that the document contains. A sentence without a question is left out of the table, also for
n-grams, and is counted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from qa_inference.overlap import copied_share
from quals_metric.files.tables import records
from quals_metric.metrics import MetricSpec, metric_of_row

Array = NDArray[np.float64]
RESAMPLES, SEED = 1000, 12345
NGRAMS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Sentence:
    """A sentence with a question: the number of its summary, people's label, its scores, whether it has a span."""

    summary: int
    label: int
    scores: dict[str, float]
    has_span: bool


def bounds(row: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """The characters [start, end) of every sentence of a row. Raises ValueError if one is not in the summary."""
    end = 0
    for sentence in row["sentences"]:
        start = row["summary"].index(sentence, end)
        end = start + len(sentence)
        yield start, end


def read(path: Path) -> tuple[MetricSpec, list[Sentence], int]:
    """The metric of a score file, its sentences that have a question, and the number of the others."""
    sentences, num_undefined, spec = [], 0, None
    for number, (location, row) in enumerate(records(path)):
        spec = spec or metric_of_row(row)
        if spec is None:
            raise ValueError(f"{location}: must have the questions behind its score. Score with --pairs --keep")
        scored = spec.summary_type().from_row(row, row["summary"])
        starts = [span["start"] for span in scored.spans(spec.threshold)]
        for part, label in zip(scored.parts(bounds(row)), row["sentence_labels"], strict=True):
            if math.isnan(part.score):
                num_undefined += 1
                continue
            scores = {
                spec.title: part.score,
                f"{spec.title}, lowest": min(item.score for item in part.items),
                f"{spec.title}, whole summary": scored.score,
                **{f"copied {n}-grams": copied_share(part.text, row["document"], n) for n in NGRAMS},
            }
            sentences.append(Sentence(number, label, scores, any(part.start <= start < part.end for start in starts)))
    if spec is None:
        raise ValueError(f"{path}: must hold at least one row; there is none")
    return spec, sentences, num_undefined


def auc(scores: Array, labels: Array) -> float:
    """The chance that a consistent sentence scores above another one; a tie counts half. NaN without both kinds."""
    good = labels == 1
    count = int(good.sum())
    if not 0 < count < len(labels):
        return math.nan
    ranks = stats.rankdata(scores)[good].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(labels) - count)))


def within(scores: Array, labels: Array, summaries: Array) -> float:
    """The mean over summaries of the `auc` of their sentences; summaries of one kind are left out."""
    values = [auc(scores[summaries == number], labels[summaries == number]) for number in np.unique(summaries)]
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def resampled(summaries: Array) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Resamples of the summaries: the rows of each, and the number of each row's summary in the resample."""
    generator = np.random.default_rng(SEED)
    rows_of = [np.flatnonzero(summaries == number) for number in np.unique(summaries)]
    for _ in range(RESAMPLES):
        drawn = [rows_of[index] for index in generator.integers(0, len(rows_of), len(rows_of))]
        yield np.concatenate(drawn), np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn]).astype(float)


def with_interval(statistic: Callable[..., float], scores: Array, labels: Array, summaries: Array) -> str:
    """A statistic with its interval."""
    value = statistic(scores, labels, summaries)
    values = [statistic(scores[rows], labels[rows], numbers) for rows, numbers in resampled(summaries)]
    if math.isnan(value):
        return ""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def report(path: Path) -> str:
    """The tables of a score file, in Markdown."""
    spec, sentences, num_undefined = read(path)
    summaries = np.array([sentence.summary for sentence in sentences], float)
    labels = np.array([sentence.label for sentence in sentences], float)
    mixed = sum(len(set(labels[summaries == number])) > 1 for number in np.unique(summaries))
    lines = [
        f"**{path.name}**: {len(sentences)} sentences of {len(np.unique(summaries))} summaries, {int(labels.sum())} "
        f"consistent; {mixed} summaries have both kinds. {num_undefined} sentences have no question.",
        "",
        "| score | over summaries | within summaries |",
        "| --- | --- | --- |",
    ]
    for name in sentences[0].scores:
        scores = np.array([sentence.scores[name] for sentence in sentences])
        over = with_interval(lambda values, marks, _: auc(values, marks), scores, labels, summaries)
        lines.append(f"| {name} | {over} | {with_interval(within, scores, labels, summaries)} |")
    flags = {label: [sentence.has_span for sentence in sentences if sentence.label == label] for label in (0, 1)}
    shares = [f"{sum(flags[label])} of {len(flags[label])}" for label in (0, 1)]
    spans = f"Spans below {spec.threshold:g}: in {shares[0]} inconsistent sentences, in {shares[1]} consistent ones."
    return "\n".join([*lines, "", spans])


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", nargs="+", type=Path, help="score files, written with --keep --pairs")
    for path in parser.parse_args(argv).scores:
        print(report(path), end="\n\n")


if __name__ == "__main__":
    main()
