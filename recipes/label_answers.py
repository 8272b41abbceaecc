"""Find the answers of questions without answers: the reader marks them, and those that it is sure of are kept.

    python -m recipes.label_answers --data DATA/qa/squad_sentence_questions.jsonl.gz --reader runs/reader/checkpoint \
        --out runs/labelled.jsonl.gz

The output has rows of `context, question, answer`. A question with a doubtful answer is written without an answer, so
that `recipes.train_qagen` still learns the question. The best span's score must exceed that of no answer by `--margin`
logits. `--longest` is the most tokens of an answer.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence

import torch
from transformers import BertForQuestionAnswering, PreTrainedTokenizerFast

from recipes import annotated, train_reader
from recipes.cpu_training import prepare
from recipes.train_reader import Example


def read(model: BertForQuestionAnswering, tokenizer: PreTrainedTokenizerFast, rows: Sequence[tuple[str, str]]):
    """For (context, question) rows the best span's characters [start, end) in the context, its tokens and margin."""
    encoded = [tokenizer(text, add_special_tokens=False, return_offsets_mapping=True) for text, _ in rows]
    questions = [tokenizer(question, add_special_tokens=False).input_ids for _, question in rows]
    examples = [
        Example(question, text.input_ids[: train_reader.WINDOW - 3 - len(question)])
        for question, text in zip(questions, encoded, strict=True)
    ]
    with torch.no_grad():
        logits = train_reader.span_logits(model, train_reader.collate(examples, tokenizer))
    for example, text, *span in zip(examples, encoded, *train_reader.best_spans(*logits), strict=True):
        before = len(example.question) + 2
        first, last, margin = int(span[0]) - before, int(span[1]) - before, float(span[2])
        if first < 0:
            yield 0, 0, 0, -torch.inf
            continue
        yield text.offset_mapping[first][0], text.offset_mapping[last][1], last - first + 1, margin


def labelled(model, tokenizer, rows: Sequence[tuple[str, str]], args: argparse.Namespace) -> Iterator[dict]:
    """The rows in order of length, with the answers that are not doubtful."""
    ranked = sorted(rows, key=lambda row: len(row[0]) + len(row[1]))
    for start in range(0, len(ranked), args.batch):
        batch = ranked[start : start + args.batch]
        for (text, question), (first, end, tokens, margin) in zip(batch, read(model, tokenizer, batch), strict=True):
            row = {"context": text, "question": question}
            sure = margin >= args.margin and 0 < tokens <= args.longest
            yield row | {"answer": text[first:end], "answer_start": first} if sure else row


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--reader", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--margin", type=float, default=2.0)
    parser.add_argument("--longest", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args(argv)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.reader)
    model = BertForQuestionAnswering.from_pretrained(args.reader, dtype=torch.float32).eval()
    prepare(model, model.bert)
    rows = [
        (annotated.detokenize(row.get("context") or row["sentence"]), annotated.detokenize(row["question"]))
        for name in args.data
        for row in annotated.read_rows(name)
    ]
    num_answered = 0
    with gzip.open(args.out, "wt", encoding="utf-8") as lines:
        for row in labelled(model, tokenizer, rows, args):
            num_answered += "answer" in row
            print(json.dumps(row, ensure_ascii=False), file=lines)
    print(f"{num_answered:,} of {len(rows):,} questions got an answer")


if __name__ == "__main__":
    main()
