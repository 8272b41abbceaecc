"""The recipe of the embedded QAGen, on toy data and a toy encoder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertModel

from qa_inference.decoding import DiverseBeamSearch
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions
from recipes import annotated, cpu_training
from recipes import train_qagen as recipe
from recipes.targets import Example, Target, block, collate
from tests import tiny

SPECIAL = {"bos": 2, "eos": 3, "pad": 0, "sep": 5, "hl": 6, "none": 7}


def _log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_encoder_computes_what_bert_does(base: Path) -> None:
    bert = BertModel.from_pretrained(base, add_pooling_layer=False).eval()
    bart = recipe.bart_from_bert(bert, annotated.smaller_tokenizer(base)[0]).eval()
    ids = torch.tensor([[2, 9, 30, 41, 3]])
    with torch.no_grad():
        difference = bart.model.encoder(ids).last_hidden_state - bert(ids).last_hidden_state
    assert difference.abs().max() < 1e-2  # the layer norms' epsilons differ


@pytest.mark.usefixtures("processor")
def test_it_trains_logs_and_leaves_a_checkpoint_that_resumes(
    base: Path, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotated, "FUNCTION_WORDS", 10)  # the toy vocabulary is small
    out = tmp_path / "run"
    command = [
        "--data",
        *data,
        "--base",
        str(base),
        "--out",
        str(out),
        "--tokens",
        "400",
        "--pairs",
        "4",
        "--threads",
        "1",
    ]
    recipe.main([*command, "--max-steps", "3"])
    rows = _log(out)
    assert rows[0]["settings"]["tokens"] == 400 and rows[0]["held_out"] > 0 and rows[-1]["final"]
    assert {"loss_0", "loss_510", "answer_loss_0", "auc", "answer_auc"} <= rows[-1].keys()
    assert 0 <= rows[-1]["odds"] <= 1
    recipe.main([*command, "--max-steps", "5", "--rivals", "0.8"])
    assert (rows[-1]["step"], _log(out)[-1]["step"]) == (3, 5)
    model = EncoderDecoder.load(str(out / "checkpoint"), LoadingOptions(device="cpu"))
    assert model.shared and model.window == 512
    assert None not in map(model.text.special_id, ("<sep>", "<hl>", "<none>"))
    (found,) = model.generate([[2, 9, 30, 3]], DiverseBeamSearch(4, 0.5, 2, 8))
    assert len(found) == 4


@pytest.mark.usefixtures("processor")
def test_folded_targets_have_the_loss_of_single_ones(base: Path) -> None:
    tokenizer, _ = annotated.smaller_tokenizer(base)
    model = recipe.bart_from_bert(BertModel.from_pretrained(base, add_pooling_layer=False), tokenizer).eval()
    rows = [Target([9, 10, 5, 11, 3]), Target([12, 5, 7, 3], given=1), Target([14, 15, 16, 17, 5, 18, 3])]
    many = [Example([2, 20, 21, 22, 3], rows), Example([2, 30, 3], rows)]  # folded
    few = [Example([2, 20, 21, 22, 3], rows[:1]), Example([2, 30, 3], rows)]  # looked up
    cpu_training.prepare(model, model.model.encoder)
    for examples in (many, few):
        with torch.no_grad():
            together = sum(float(losses.sum()) for losses, *_ in recipe.token_losses(model, collate(examples, SPECIAL)))
            alone = 0.0
            for example in examples:
                for target in example.targets:
                    batch = collate([Example(example.source, [target])], SPECIAL)
                    alone += sum(float(losses.sum()) for losses, *_ in recipe.token_losses(model, batch))
        assert together == pytest.approx(alone, rel=5e-3)  # bfloat16


def test_what_is_given_is_not_learned() -> None:
    part = block([Target([9, 10, 5, 7, 3], given=2), Target([12, 5, 13, 3])], None, SPECIAL)
    assert part["labels"].tolist() == [[-100, -100, 5, 7, 3], [12, 5, 13, 3, -100]]
    assert part["decoder_input_ids"].tolist() == [[2, 9, 10, 5, 7], [2, 12, 5, 13, 3]]


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_tokens_of_answers_have_their_weight(base: Path, weight: float) -> None:
    tokenizer, _ = annotated.smaller_tokenizer(base)
    model = recipe.bart_from_bert(BertModel.from_pretrained(base, add_pooling_layer=False), tokenizer).eval()
    marked = Target([15, 16, 17, 3])
    targets = [Target([9, 10, 5, 11, 3]), Target([12, 14, 5, 7, 3], given=2), marked]
    batch = [Example([2, 20, 21, 22, 3], targets)]
    cpu_training.prepare(model, model.model.encoder)
    with torch.no_grad():
        total, count, examples = recipe.losses(model, [batch], SPECIAL, recipe.Smoothing(), weight)
        parts = list(recipe.pair_losses(model, batch, SPECIAL))
    everything, answers = (
        sum(float(losses.sum()) for key, losses, _ in parts if key == name) for name in ("loss", "answer_loss")
    )
    assert (count, examples) == (5 + 3 + 4 + (weight - 1) * 4, 3)  # two answers of a token each, and their ends
    assert float(total) == pytest.approx(everything + (weight - 1) * answers, rel=1e-5)


def test_an_unanswered_question_is_given_and_its_answer_is_none(base: Path, data: list[str]) -> None:
    tokenizer, _ = annotated.smaller_tokenizer(base)
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731  (used once)
    contexts = annotated.load_contexts(data, encode)
    args = argparse.Namespace(
        long=0.5, highlight=0.0, unanswerable=0.5, replaced=0.2, renamed=0.3, pairs=8, per_context=4, written=0.5,
        scattered=0.5,
    )  # fmt: skip
    examples = recipe.Examples(contexts, annotated.Names(contexts, tokenizer), SPECIAL, args, seed=0)
    ends = {True: 0, False: 0}
    for target in (target for _ in range(100) for example in examples.draw() for target in example.targets):
        unanswered = list(target.ids[-3:]) == [SPECIAL["sep"], SPECIAL["none"], SPECIAL["eos"]]
        assert target.given == (len(target.ids) - 3 if unanswered else 0)
        ends[unanswered] += 1
    assert 0.2 < ends[True] / sum(ends.values()) < 0.6


def test_marked_answers_of_a_text_come_together_each_with_its_question(base: Path, data: list[str]) -> None:
    tokenizer, _ = annotated.smaller_tokenizer(base)
    contexts = annotated.load_contexts(data[:1], lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
    args = argparse.Namespace(highlight=1.0, renamed=0.0, per_context=4, written=0.5)
    examples = recipe.Examples(contexts, annotated.Names(contexts, tokenizer), SPECIAL, args, seed=0)
    asked = {(pair.answer, pair.question) for context in contexts for pair in context.answered}
    together = 0
    for _ in range(100):
        visit = examples.draw()
        marked = set()
        for example in visit:
            start, end = (i for i, token in enumerate(example.source) if token == SPECIAL["hl"])
            answer = tuple(example.source[start + 1 : end])
            (target,) = example.targets
            assert (answer, tuple(target.ids[:-1])) in asked and target.ids[-1] == SPECIAL["eos"]
            assert len(example.source) <= recipe.MARKED_TOKENS + 4  # the marks, [CLS] and [SEP]
            marked.add((start, end))
        assert 1 <= len(marked) == len(visit) <= recipe.MARKED_ANSWERS
        together += len(visit) > 1
    assert together > 50


def test_nothing_is_marked_in_other_words(base: Path, data: list[str]) -> None:
    tokenizer, _ = annotated.smaller_tokenizer(base)
    contexts = annotated.load_contexts(data[:1], annotated.encoder_of(tokenizer))
    for place, context in enumerate(contexts):
        context.reworded = place % 2 == 0
    args = argparse.Namespace(
        long=0.0, highlight=1.0, unanswerable=0.0, replaced=0.0, renamed=0.0, pairs=8, per_context=4, written=0.5,
        scattered=0.0,
    )  # fmt: skip
    examples = recipe.Examples(contexts, annotated.Names(contexts, tokenizer), SPECIAL, args, seed=0)
    asked = {pair.question for context in contexts if not context.reworded for pair in context.answered}
    visits = [examples.draw() for _ in range(60)]
    marked = [example for visit in visits for example in visit if SPECIAL["hl"] in example.source]
    assert marked and any(SPECIAL["hl"] not in visit[0].source for visit in visits)
    assert {tuple(example.targets[0].ids[:-1]) for example in marked} <= asked
    assert examples.names.renamed(contexts[0], examples.random).reworded


def test_a_long_text_is_cut_around_the_marked_answer() -> None:
    examples = recipe.Examples([], annotated.Names([], tiny.wordpiece()), SPECIAL, argparse.Namespace(), seed=0)
    for start in (0, 100, 298):
        pair = annotated.Pair((8, 9), (1000 + start, 1001 + start), start)
        for _ in range(20):
            source = examples.highlighted(range(1000, 1300), start, pair).source[1:-1]
            first = source.index(SPECIAL["hl"])
            assert source[first : first + 4] == [6, 1000 + start, 1001 + start, 6]
            text = [token for token in source if token != SPECIAL["hl"]]
            assert text == list(range(text[0], text[0] + recipe.MARKED_TOKENS))


def test_a_smaller_vocabulary_leaves_the_kept_logits_as_they_were(base: Path) -> None:
    whole, origin_whole = annotated.smaller_tokenizer(base)
    model = recipe.bart_from_bert(BertModel.from_pretrained(base, add_pooling_layer=False), whole).eval()
    model = recipe.with_vocabulary(model, origin_whole).eval()
    kept = [i for i in range(len(origin_whole)) if i % 5 or i < 20]
    smaller = recipe.with_vocabulary(model, kept).eval()
    with torch.no_grad():
        ids = torch.tensor([[2, 9, 11, 3]])
        a = model(input_ids=ids, decoder_input_ids=ids).logits[..., kept]
        b = smaller(input_ids=ids, decoder_input_ids=ids).logits
    assert torch.allclose(a, b, atol=1e-5)


def test_a_share_of_a_context_s_pairs_is_written_where_there_are_both_kinds() -> None:
    person, written = (annotated.Pair((10 + kind,), written=bool(kind)) for kind in (0, 1))
    args = argparse.Namespace(written=0.25)
    examples = recipe.Examples([], annotated.Names([], tiny.wordpiece()), SPECIAL, args, seed=0)
    both = [pair for _ in range(400) for pair in examples.some_of([person] * 8 + [written] * 4, 3)]
    assert len(both) == 1200 and 0.2 < sum(pair.written for pair in both) / 1200 < 0.3
    assert examples.some_of([written] * 5, 3) == [written] * 3
    assert len(examples.some_of([person] * 2, 3)) == 2
