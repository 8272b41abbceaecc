"""False pairs beside true ones: which they are, and what they cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import BartForConditionalGeneration, BertModel

from recipes import annotated, cpu_training
from recipes import train_qagen as recipe
from recipes.annotated import Context, Names, Pair
from recipes.rivals import Rivals
from recipes.targets import Example, Target

pytestmark = pytest.mark.usefixtures("processor")  # with bfloat16 and without
SPECIAL = {"bos": 2, "eos": 3, "pad": 0, "sep": 5, "hl": 6, "none": 7}


@pytest.fixture
def model(base: Path) -> BartForConditionalGeneration:
    tokenizer, origin = annotated.smaller_tokenizer(base)
    model = recipe.bart_from_bert(BertModel.from_pretrained(base, add_pooling_layer=False), tokenizer)
    model = recipe.with_vocabulary(model, origin).eval()
    cpu_training.prepare(model, model.model.encoder)
    return model


@pytest.fixture
def words(base: Path) -> list[int]:
    """Entries of the toy vocabulary that are whole words."""
    tokenizer, _ = annotated.smaller_tokenizer(base)
    return sorted(entry for word, entry in tokenizer.get_vocab().items() if word.isalpha() and len(word) > 1)[:20]


@pytest.fixture
def document(words: Sequence[int]) -> list[Context]:
    """Two texts, a question with a name on each."""
    who, beat, lost, *others = words
    return [
        Context([*others[:4]], [Pair((who, beat, others[0]), (others[2], others[3]), 2, ((2, 3),))]),
        Context([*others[4:8]], [Pair((who, lost, others[4]), (others[7],), 3, ((2, 3),))]),
    ]


@pytest.fixture
def draw_rivals(
    base: Path, model: BartForConditionalGeneration, words: Sequence[int], document: list[Context]
) -> Callable[..., list[Target]]:
    names = Names(document, annotated.smaller_tokenizer(base)[0])
    names.tells = lambda word: word in words[3:]  # the toy vocabulary has few words
    draw = random.Random(0)
    pairs = [(context, pair) for context in document for pair in context.pairs]
    targets = [Target((*pair.question, SPECIAL["sep"], *(pair.answer or ()), SPECIAL["eos"])) for _, pair in pairs]
    text = [token for context in document for token in context.ids]

    def rivals(share: float = 1.0, **settings: Any) -> list[Target]:
        return Rivals(names, SPECIAL, model, share, **settings).beside(document, text, pairs, targets, draw)

    return rivals


def test_they_differ_in_a_word_a_name_or_the_answer(
    draw_rivals: Callable[..., list[Target]], document: list[Context], words: Sequence[int]
) -> None:
    text = {token for context in document for token in context.ids}
    assert draw_rivals(0.0) == []
    kinds = set()
    for false in (false for _ in range(60) for false in draw_rivals()):
        true = false.rival
        assert true is not None and true.rival is None
        assert false.ids[: false.given] == true.ids[: false.given] and false.ids[false.given] != true.ids[false.given]
        rest = slice(false.given + 1, None)
        (question, answer), (other, found) = (_halves(target.ids) for target in (true, false))
        if answer != found and not set(answer) & set(found):
            kinds.add("answer")
            assert question == other
        elif false.ids[false.given] in text and false.given == 2:
            kinds.add("word or name of the text")
        else:
            kinds.add("word of the text" if false.ids[false.given] in text else "other word")
            assert false.ids[false.given] in words and false.ids[rest] == true.ids[rest]
    assert kinds == {"answer", "word or name of the text", "word of the text", "other word"}


def test_a_name_is_one_that_another_text_has(
    draw_rivals: Callable[..., list[Target]], document: list[Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.rivals.WORDS", 0.0)
    first, second = (context.pairs[0] for context in document)
    found = {tuple(_halves(false.ids)[0]) for _ in range(20) for false in draw_rivals()}
    mistaken = {(*first.question[:2], second.question[2]), (*second.question[:2], first.question[2])}
    assert found == {first.question, second.question, *mistaken}  # where the question is the same the answer is not


def test_a_word_that_means_nearly_the_same_is_none(
    draw_rivals: Callable[..., list[Target]], words: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.rivals.WORDS", 1.0)
    kept = words[5]
    related = {word: [other for other in words if other not in (word, kept)] for word in words}
    drawn = {false.ids[false.given] for _ in range(20) for false in draw_rivals(related=related)}
    assert drawn == {kept}


def test_likely_words_are_drawn_more_often(
    draw_rivals: Callable[..., list[Target]],
    model: BartForConditionalGeneration,
    words: Sequence[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recipes.rivals.WORDS", 1.0)
    likely = words[-1]  # not of the text
    bias = torch.zeros(model.config.vocab_size)
    bias[likely] = 40.0
    monkeypatch.setattr(model.lm_head, "bias", torch.nn.Parameter(bias))
    monkeypatch.setattr("recipes.rivals.INSIDE", 0.0)
    assert {false.ids[false.given] for _ in range(20) for false in draw_rivals()} == {likely}


def test_21_0_a_false_pair_costs_its_odds_and_is_not_learned(model: BartForConditionalGeneration) -> None:
    true, alone = Target([9, 10, 5, 11, 12, 3]), Target([14, 5, 15, 3])
    false = Target([9, 10, 5, 13, 12, 3], 3, true)
    sources = [2, 20, 21, 22, 3], [2, 30, 3]
    with torch.no_grad():
        (total, count, _), (plain, tokens, _) = (
            recipe.losses(
                model, [[Example(sources[0], targets), Example(sources[1], [alone])]], SPECIAL, recipe.Smoothing(),
                rival_weight=3.0,
            )
            for targets in ([true, false], [true])
        )  # fmt: skip
        logits = model(
            input_ids=torch.tensor([sources[0]] * 2),
            decoder_input_ids=torch.tensor([[2, *target.ids[:-1]] for target in (true, false)]),
        ).logits.float()
    scores = logits.log_softmax(-1).gather(2, torch.tensor([true.ids, false.ids])[..., None])[:, 3:, 0].sum(1)
    assert count == tokens == 10
    assert float(total - plain) == pytest.approx(3 * float(F.softplus(scores[1] - scores[0])), rel=2e-2)  # bfloat16


def _halves(ids: Sequence[int]) -> tuple[list[int], list[int]]:
    place = list(ids).index(SPECIAL["sep"])
    return list(ids[:place]), list(ids[place + 1 : -1])
