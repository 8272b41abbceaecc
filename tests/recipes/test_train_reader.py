"""The recipe of the embedded reader, and the labels it gives, on toy data and a toy encoder."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import BertForQuestionAnswering

from recipes import annotated, label_answers
from recipes import train_reader as recipe
from recipes.annotated import Context, Pair
from recipes.train_reader import Example


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["without bfloat16", "with bfloat16"])
def run(
    request: pytest.FixtureRequest, base: Path, data: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A short run, resumed once, on processors of both kinds."""
    out = tmp_path_factory.mktemp("reader")
    command = ["--data", *data, "--base", str(base), "--out", str(out), "--tokens", "400", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.cpu_training.DTYPE", request.param)
        recipe.main([*command, "--max-steps", "3"])
        recipe.main([*command, "--max-steps", "5"])
        yield out


def test_it_trains_logs_resumes_and_leaves_a_checkpoint(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    first, last = (row for row in rows if "final" in row)
    assert (first["step"], last["step"]) == (3, 5)
    assert {"exact_alone", "f1_long", "no_answer_recall", "no_answer_precision"} <= last.keys()
    model = BertForQuestionAnswering.from_pretrained(run / "checkpoint")
    assert model.dtype == torch.bfloat16


def test_labels_are_the_texts_own_characters(run: Path, data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "labelled.jsonl.gz"
    common = ["--data", data[1], "--reader", str(run / "checkpoint"), "--out", str(out)]
    label_answers.main([*common, "--margin", "-1000"])
    with gzip.open(out, "rt") as lines:
        rows = list(map(json.loads, lines))
    assert len(rows) == 40 and all(row["context"].startswith("it was") for row in rows)
    labelled = [row for row in rows if "answer" in row]
    assert labelled
    for row in labelled:
        start = row["answer_start"]
        assert row["context"][start : start + len(row["answer"])] == row["answer"] != ""
    label_answers.main([*common, "--margin", "1000"])
    with gzip.open(out, "rt") as lines:
        assert not any("answer" in json.loads(line) for line in lines)


def test_questions_that_a_context_nearly_answers_have_no_answer(base: Path, data: list[str], tmp_path: Path) -> None:
    tokenizer, _ = annotated.smaller_tokenizer(base, special=())
    encode = annotated.encoder_of(tokenizer)
    contexts = annotated.load_contexts(data, encode)
    with open(data[0]) as lines:
        text = json.loads(next(lines))["context"]
    (tmp_path / "nearly.jsonl").write_text(json.dumps({"context": text, "question": "who was it not?"}))
    annotated.add_unanswerable(contexts, [str(tmp_path / "nearly.jsonl")], encode)
    args = argparse.Namespace(long=0.0, written=0.0, unanswerable=1.0, replaced=0.0, nearly=1.0)
    examples = recipe.Examples(contexts, annotated.Names(contexts, tokenizer), args, seed=0)
    (context,) = (each for each in contexts if each.unanswerable)
    drawn = examples.draw()
    assert (drawn.question, list(drawn.text)) == (encode("who was it not?"), list(context.ids))
    assert drawn.start == -1


def test_the_answer_stays_in_its_place_in_a_document_and_when_cut(base: Path, data: list[str]) -> None:
    tokenizer, _ = annotated.smaller_tokenizer(base, special=())
    contexts = annotated.load_contexts(data, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
    args = argparse.Namespace(long=0.7, written=0.5, unanswerable=0.0, replaced=0.3)
    examples = recipe.Examples(contexts, annotated.Names(contexts, tokenizer), args, seed=0)
    answers = {pair.answer for context in contexts for pair in context.answered}
    names = {run for runs in examples.names._runs.values() for run in runs}
    for _ in range(200):
        example = examples.draw()
        assert tuple(example.text[example.start : example.end]) in answers | names
    text = list(range(100, 1100))
    cut = recipe.fit(Example([1] * 10, text, 800, 803))
    assert len(cut) == recipe.WINDOW and list(cut.text[cut.start : cut.end]) == [900, 901, 902]
    assert recipe.fit(Example([1] * 10, text)).start == -1


def test_the_best_span_is_the_best_of_all_pairs() -> None:
    start, end = torch.randn(20, 50), torch.randn(20, 50)
    first, last, margin = recipe.best_spans(start, end)
    for row in range(20):
        spans = {
            (i, j): float(start[row, i] + end[row, j])
            for i in range(1, 50)
            for j in range(i, min(50, i + recipe.LONGEST_ANSWER))
        }
        best = max(spans, key=spans.__getitem__)
        assert (int(first[row]), int(last[row])) == best
        assert float(margin[row]) == pytest.approx(spans[best] - float(start[row, 0] + end[row, 0]), abs=1e-5)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 70, 130), (1.0, 200, 200)])
def test_the_share_of_written_questions_is_as_asked(base: Path, share: float, least: int, most: int) -> None:
    tokenizer, _ = annotated.smaller_tokenizer(base, special=())
    people, written = Pair((1, 2, 3), (11,), 1), Pair((4, 5, 6), (12,), 2, written=True)
    contexts = [Context([10, 11, 12, 13], [people, *[written] * 30])]
    args = argparse.Namespace(long=0.0, written=share, unanswerable=0.0, replaced=0.0)
    examples = recipe.Examples(contexts, annotated.Names(contexts, tokenizer), args, seed=0)
    asked = [examples.draw().question for _ in range(200)]
    assert least <= sum(question == written.question for question in asked) <= most
    contexts[0].pairs[:] = [people]
    examples = recipe.Examples(contexts, annotated.Names(contexts, tokenizer), args, seed=0)
    assert examples.draw().question == people.question  # there is but one kind
