"""Annotated texts: reading, changes to them, the smaller vocabulary."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from recipes import annotated
from recipes.annotated import Context, Names, Pair
from tests import tiny


@pytest.mark.parametrize(
    ("tokenized", "text"),
    [
        ("`` I ca n't , '' he said .", '" I can\'t, " he said.'),
        ("-lrb- afc -rrb- 's $ 5", "(afc)'s $5"),
    ],
)
def test_detokenize(tokenized: str, text: str) -> None:
    assert annotated.detokenize(tokenized) == text


def test_an_answer_that_is_no_run_of_the_context_trains_its_question_only() -> None:
    assert annotated.make_pair([1, 2], [7, 8], [5, 7, 8]).answer_start == 1
    assert annotated.make_pair([1, 2], [7, 9], [5, 7, 8]).answer is None
    assert annotated.make_pair([1] * 70, [7], [7]).answer is None
    loose = annotated.make_pair([1, 2], [7, 9], [5, 7, 8], loose=True)
    assert (loose.answer, loose.answer_start) == ((7, 9), -1)
    assert Context([5, 7, 8], [loose]).answered == []
    assert annotated.make_pair([1] * 70, [7, 9], [7], loose=True).answer is None


def test_a_context_in_other_words_is_held_out_with_its_original(tmp_path: Path) -> None:
    tokenizer = tiny.wordpiece()
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731  (one line, used twice)
    texts = [f"{one} {number}" for number in range(60) for one in tiny.CORPUS]
    held_out = [text for text in texts if annotated.is_held_out(encode(annotated.detokenize(text)))]
    assert 0 < len(held_out) < len(texts) / 4
    path = tmp_path / "reworded.jsonl"
    rows = [
        {"context": f"so {text}", "original": text, "question": "who?", "answer": "elsewhere", "loose": True}
        for text in texts
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    contexts = annotated.load_contexts([str(path)], encode)
    assert sum(context.held_out for context in contexts) == len(held_out)
    assert all(context.pairs[0].answer and not context.answered for context in contexts)


def test_scattered_parts_keep_answers_and_words_whole() -> None:
    pair = Pair((1,), (13, 14, 15, 16), 3)
    document = [Context(list(range(10, 30)), [pair]), Context(list(range(40, 60)))]
    orders = set()
    for seed in range(50):
        found = annotated.scattered(document, [(document[0], pair)], (2, 4), {21, 45}, random.Random(seed))
        assert sorted(found) == [*range(10, 30), *range(40, 60)]
        for run in ([13, 14, 15, 16], [20, 21], [44, 45]):
            assert annotated.find_run(run, found) >= 0
        orders.add(tuple(found))
    assert len(orders) == 50


def test_names_are_capitals_and_numbers_that_the_context_has_too(data: list[str]) -> None:
    tokenizer = tiny.wordpiece()
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731  (one line, used twice)
    text, question = tiny.CORPUS[0], "Who beat Klitschko at Perth Stadium in 1997, on Saturday?"
    ids = tuple(encode(question))
    found = annotated.find_names(question, ids, encode(text), encode)
    assert [tokenizer.decode(ids[start:end]) for start, end in found] == ["klitschko", "saturday"]
    contexts = annotated.load_contexts(data, encode)
    assert any(pair.names for context in contexts for pair in context.pairs)


NUMBERS = Pair((1, 2, 50), (60,), 1, ((2, 3),))


@pytest.fixture
def names() -> Names:
    """Three names, 50, 60 and 70, all of one token."""
    pairs = [NUMBERS, Pair((1, 60), names=((1, 2),)), Pair((70, 3), names=((0, 1),))]
    return Names([Context([9, 60, 50, 9], pairs)], tiny.wordpiece())


def test_a_swapped_question_names_what_the_text_does_not_have(names: Names) -> None:
    found = {names.swapped(NUMBERS, [9, 60, 50, 9], random.Random(seed)) for seed in range(20)}
    assert found - {None} == {(1, 2, 70)}  # None: eight draws found no other
    assert names.swapped(Pair((1, 2)), [9], random.Random(0)) is None
    assert names.swapped(NUMBERS, [50, 60, 70], random.Random(0)) is None


def test_a_replaced_answer_is_in_the_text_and_in_the_pair(names: Names) -> None:
    context = Context([9, 60, 50, 9], [NUMBERS])
    changed = [names.replaced(context, NUMBERS, random.Random(seed)) for seed in range(20)]
    for found in filter(None, changed):
        text, pair = found
        assert text.ids == [9, pair.answer[0], 50, 9] and pair.answer[0] in (60, 70) and pair.question == (1, 2, 50)
    assert any(found and found[1].answer == (70,) for found in changed)
    assert names.replaced(Context([9, 60, 60]), NUMBERS, random.Random(0)) is None
    assert names.replaced(context, Pair((1,), (9,), 0), random.Random(0)) is None


def test_a_confused_question_names_what_another_context_has(names: Names) -> None:
    here, there = Context([9, 50, 9], [NUMBERS]), Context([60, 9], [Pair((1, 60), names=((1, 2),))])
    assert names.confused(NUMBERS, here, [here, there], random.Random(0)) == (1, 2, 60)
    assert names.confused(NUMBERS, here, [here], random.Random(0)) is None
    assert names.confused(NUMBERS, Context([50, 60]), [here, there], random.Random(0)) is None
    assert names.confused(Pair((1, 2)), here, [here, there], random.Random(0)) is None


def test_a_reworded_question_has_a_word_that_the_text_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotated, "FUNCTION_WORDS", 0)
    tokenizer = tiny.wordpiece()
    first, pieces = tokenizer.get_vocab()["the"], [i for t, i in tokenizer.get_vocab().items() if t.startswith("##")]
    a, b, c = (first + n for n in (1, 2, 3))
    pair, other = Pair((a, b, pieces[0])), Pair((a, c))
    words = Names([Context([a, b], [pair, other])], tokenizer)
    for seed in range(20):  # only `a` is a whole word of its own, and of the words only `c` is not in the text
        assert words.reworded(pair, [a, b], random.Random(seed)) in ((c, b, pieces[0]), None)
    assert words.reworded(pair, [a, b, c], random.Random(0)) is None
    assert words.reworded(Pair((0, b, pieces[0])), [a, b], random.Random(0)) is None


def test_a_renamed_context_says_the_same_of_another_name() -> None:
    tokenizer = tiny.wordpiece()
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731  (one line)
    text = "Joshua beat Klitschko . Klitschko lost ."
    question, answer = "Who beat Klitschko ?", "Joshua"
    made = annotated.make_pair(encode(question), encode(answer), encode(text))
    spans = annotated.find_names(question, made.question, encode(text), encode)
    lost = annotated.make_pair(encode("Who lost ?"), encode("Klitschko lost"), encode(text))
    context = Context(encode(text), [Pair(made.question, made.answer, made.answer_start, spans), lost])
    names = Names([context], tokenizer)
    for seed in range(20):
        found = names.renamed(context, random.Random(seed))
        asked, other = found.pairs
        name = asked.question[2:-1]
        assert found.ids == [*encode("Joshua beat"), *name, *encode("."), *name, *encode("lost .")]
        assert asked.answer == tuple(encode("Joshua")) and other.answer == (*name, *encode("lost"))
        for pair in found.pairs:
            assert tuple(found.ids[pair.answer_start :][: len(pair.answer)]) == pair.answer
    assert names.renamed(Context([9], [Pair((1, 2))]), random.Random(0)).pairs == [Pair((1, 2))]


def test_a_name_that_begins_a_longer_word_stays(names: Names) -> None:
    tokenizer = tiny.wordpiece()
    piece = next(i for token, i in tokenizer.get_vocab().items() if token.startswith("##"))
    assert names._exchanged([9, 50, piece, 50, 9], (50,), (60, 70)) == ([9, 50, piece, 60, 70, 9], 1)


def test_short_questions_are_left_out(data: list[str]) -> None:
    tokenizer = tiny.wordpiece()
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731  (one line)
    lengths = [len(p.question) for c in annotated.load_contexts(data, encode, shortest=5) for p in c.pairs]
    assert min(lengths) >= 5 > min(len(p.question) for c in annotated.load_contexts(data, encode) for p in c.pairs)


def test_a_document_has_its_context_unless_it_is_left_out() -> None:
    contexts = [Context([i] * 5) for i in range(30)]
    for seed in range(20):
        draw = random.Random(seed)
        document = annotated.document(contexts, 7, 40, draw)
        assert contexts[7] in document and sum(len(c.ids) for c in document) <= 40
        assert contexts[7] not in annotated.document(contexts, 7, 40, draw, without=True)
    assert annotated.document(contexts, 7, 0, random.Random(0)) == [contexts[7]]


def test_a_smaller_vocabulary_splits_rare_words_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotated, "COMMON_WORDS", 230)
    full = tiny.wordpiece()
    Tokenizer.from_str(full.backend_tokenizer.to_str()).save(str(tmp_path / "tokenizer.json"))
    smaller, origin = annotated.smaller_tokenizer(tmp_path)
    old, new = full.get_vocab(), smaller.get_vocab()
    assert len(new) == len(origin) < len(old)
    for token, index in new.items():
        assert origin[index] == (old["[MASK]"] if token == annotated.NO_ANSWER else old[token])
    rare = next(token for token, index in old.items() if index >= 230 and token not in new)
    assert smaller.convert_ids_to_tokens(smaller(rare, add_special_tokens=False)["input_ids"])[1].startswith("##")
    assert smaller.convert_ids_to_tokens(smaller("£ 1")["input_ids"]) == ["[CLS]", "£", "1", "[SEP]"]
