"""Does a metric see one wrong word? Summaries by people against the same summaries with one word changed.

    python benchmarks/corruptions.py --data scitldr_dev.jsonl.gz --rows 100
    python benchmarks/corruptions.py --data qags_xsum_dev.jsonl.gz --metrics quals qags

The input is JSON lines (`.gz` or not) with `document` and `summary` or `summaries` (the first is used). Rows with a
`consistency` below 1 are left out. Each summary is changed in up to three ways, by spaCy's tags:

    of the source     a noun, name, number, adjective or verb becomes another of its tag that the source has elsewhere
    from elsewhere    … one that the source does not have, of another row's source
    exchanged         two of the summary's own change places

The report has, for each way and metric, the share of pairs in which the original scores higher (ties count half), with
a 95 % bootstrap interval; chance is .5. The floor, the share of copied n-grams, sees a foreign word, but rarely a word
of the source. The labels are by construction: not every change makes a summary wrong, and people's summaries are not
all faithful.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from agreement import NGRAMS, add_scorer_arguments, cell, make_scorers

from qa_inference.answer_candidates import load_pipeline
from qa_inference.overlap import copied_share
from quals_metric.agreement.statistics import DocumentSample, wins
from quals_metric.files.tables import records

KINDS = ("NOUN", "PROPN", "NUM", "ADJ", "VERB")
WAYS = ("of the source", "from elsewhere", "exchanged")


def read(path: str, rows: int | None) -> list[tuple[str, str]]:
    """Summaries and their sources: of the first rows whose summary nobody called inconsistent."""
    pairs = []
    for _, row in records(Path(path)):
        if row.get("consistency", 1) >= 1 and len(pairs) < (rows or math.inf):
            pairs.append((row["summaries"][0] if "summaries" in row else row["summary"], row["document"]))
    return pairs


def words(document: Any) -> Iterator[Any]:
    """The tokens that may be changed."""
    return (token for token in document if token.pos_ in KINDS and token.text.isalnum() and not token.is_stop)


def by_tag(document: Any, without: Iterable[str]) -> dict[str, list[str]]:
    """Its words by spaCy's fine tag, without some, given in lower case."""
    words_of_tag: dict[str, dict[str, None]] = defaultdict(dict)
    for token in words(document):
        if token.lower_ not in without:
            words_of_tag[token.tag_][token.text] = None
    return {tag: list(tag_words) for tag, tag_words in words_of_tag.items()}


def replaced(document: Any, new: dict[int, str]) -> str:
    """The text with other words at some tokens; the first keeps its capital."""
    text = "".join(new.get(token.i, token.text) + token.whitespace_ for token in document)
    return text[0].upper() + text[1:] if document.text[0].isupper() else text


def changes(summary: Any, source: Any, foreign: Any, draw: random.Random) -> dict[str, str]:
    """A parsed summary in each of the `WAYS` that are possible."""
    own, there = {token.lower_ for token in summary}, {token.lower_ for token in source}
    changed = {}
    for way, choices in (("of the source", by_tag(source, own)), ("from elsewhere", by_tag(foreign, own | there))):
        places = [token for token in words(summary) if token.tag_ in choices]
        if places:
            token = draw.choice(places)
            changed[way] = replaced(summary, {token.i: draw.choice(choices[token.tag_])})
    pairs = [
        (first, second) for first in words(summary) for second in words(summary)
        if first.i < second.i and first.tag_ == second.tag_ and first.lower_ != second.lower_
    ]  # fmt: skip
    if pairs:
        first, second = draw.choice(pairs)
        first_text = first.text if first.i or first.pos_ == "PROPN" else first.lower_
        changed["exchanged"] = replaced(summary, {first.i: second.text, second.i: first_text})
    return changed


def accuracy(original: Sequence[float], changed: Sequence[float]) -> dict[str, Any]:
    """How often the original is higher, of the rows where both have a score; a tie counts half."""
    both = np.array([original, changed], dtype=float)
    both = both[:, ~np.isnan(both).any(0)]
    undefined = len(original) - both.shape[1]
    if not both.size:
        return {"value": math.nan, "interval": [math.nan, math.nan], "rows": 0, "undefined": undefined}
    mean = DocumentSample(range(both.shape[1])).mean(wins(*both))
    return {**mean.to_dict(), "rows": both.shape[1], "undefined": undefined}


def evaluate(pairs: Sequence[tuple[str, str]], scorers: dict[str, Any], model: str | None = None) -> dict[str, Any]:
    """For each metric and way the `accuracy`; `model` is spaCy's."""
    pipeline = load_pipeline(model)
    summaries, sources = ([*pipeline.pipe(column)] for column in zip(*pairs, strict=True))
    rows = []  # row number, way, summary
    for number, (summary, source) in enumerate(zip(summaries, sources, strict=True)):
        draw = random.Random(zlib.crc32(summary.text.encode()))
        foreign = sources[(number + 1 + draw.randrange(max(1, len(sources) - 1))) % len(sources)]
        rows.append((number, "", summary.text))
        rows += ((number, way, text) for way, text in changes(summary, source, foreign, draw).items())
    texts = {"summaries": [text for *_, text in rows], "sources": [pairs[number][1] for number, *_ in rows]}
    columns = {name: scorer.score(**texts).scores for name, scorer in scorers.items()}
    for n in NGRAMS:
        columns[f"copied {n}-grams"] = [copied_share(s, t, n) for s, t in zip(*texts.values(), strict=True)]
    results = {}
    for name, column in columns.items():
        scores = {(number, way): score for (number, way, _), score in zip(rows, column, strict=True)}
        results[name] = {
            way: accuracy(*zip(*((scores[n, ""], score) for (n, w), score in scores.items() if w == way), strict=True))
            for way in WAYS
            if any(w == way for _, w in scores)
        }
    return results


def show(name: str, results: dict[str, Any], count: int) -> str:
    """A Markdown table of one file."""
    lines = [f"**{name}**: {count} summaries", "", f"| metric | {' | '.join(WAYS)} |", f"|---|{'---|' * len(WAYS)}"]
    for metric, ways in results.items():
        lines.append(f"| {metric} | {' | '.join(_cell(ways.get(way)) for way in WAYS)} |")
    return "\n".join(lines)


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    undefined = f", {result['undefined']} undefined" if result["undefined"] else ""
    return f"{cell(result)} ({result['rows']}{undefined})"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--rows", type=int, help="of each file, the first that count; default: all")
    add_scorer_arguments(parser)
    parser.add_argument("--spacy", help="the spaCy model; default: the first English one that is installed")
    parser.add_argument("--out", help="also write everything as JSON")
    args = parser.parse_args(argv)
    scorers, reports = {k: v for metric in args.metrics for k, v in make_scorers(metric, args).items()}, {}
    for path in args.data:
        pairs = read(path, args.rows)
        reports[Path(path).name] = evaluate(pairs, scorers, args.spacy)
        print(show(Path(path).name, reports[Path(path).name], len(pairs)), end="\n\n", flush=True)
    if args.out:
        Path(args.out).write_text(json.dumps(reports, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
