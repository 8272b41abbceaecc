"""Measure how often the reader gives the intended answer to a generated question.

    python benchmarks/round_trip.py --data scitldr_dev.jsonl.gz --column document --rows 40

The texts are a column of JSON lines (`.gz` or not). The best of ten beams is the question for each of the first ten
names and noun phrases of a text, and the reader answers it from the same text. The report has the share of candidates
that have a question. Of these questions, it has the shares that the reader answers with the intended answer (after
SQuAD's normalization), with another answer, and not at all; and the mean token F1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from qa_inference.batching import map_batches
from qa_inference.decoding import BeamSearch
from qags_metric import QagsConfig, QagsScorer
from qags_metric.selection import exact_match, parse_questions, token_f1
from quals_metric.files.tables import records


def read(path: str, column: str, rows: int) -> list[str]:
    """The texts of the first rows."""
    return [row[column] for _, row in islice(records(Path(path)), rows)]


def measure(scorer: QagsScorer, texts: Sequence[str]) -> dict[str, float]:
    """The shares, over all questions to all candidates of `texts`."""
    config, generator = scorer.config, scorer.generator
    inputs, owners = [], []
    for text, candidates in zip(texts, scorer.finder.find(texts, config.num_candidates), strict=True):
        for candidate in candidates:
            marked = scorer.format.input(generator.text, text, candidate.start, candidate.end, 512)
            if marked is not None:
                inputs.append(marked[0])
                owners.append((text, candidate))
    search = BeamSearch(config.beam_width, config.min_question_tokens, config.max_question_tokens)
    hypotheses_of_input = map_batches(lambda batch: generator.generate(batch, search), inputs, len)
    asked = [
        (text, question)
        for (text, candidate), hypotheses in zip(owners, hypotheses_of_input, strict=True)
        for question in parse_questions(hypotheses[:1], candidate, generator.text)
    ]
    answers = scorer.reader.read([question.question for _, question in asked], [text for text, _ in asked])
    pairs = [(answer, question.answer.text) for answer, (_, question) in zip(answers, asked, strict=True)]
    intended = sum(exact_match(answer.text, meant) for answer, meant in pairs)
    nothing = sum(answer.is_null for answer, _ in pairs)
    return {
        "candidates": len(owners),
        "asked": len(pairs) / len(owners),
        "as intended": intended / len(pairs),
        "another answer": 1 - (intended + nothing) / len(pairs),
        "no answer": nothing / len(pairs),
        "F1": sum(token_f1(answer.text, meant) for answer, meant in pairs) / len(pairs),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--column", default="document")
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--question-model", default="embedded")
    parser.add_argument("--reader", default="embedded")
    args = parser.parse_args(argv)
    scorer = QagsScorer(QagsConfig(args.question_model, reader=args.reader))
    texts = read(args.data, args.column, args.rows)
    figures = measure(scorer, texts)
    print(f"{len(texts)} texts; " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
