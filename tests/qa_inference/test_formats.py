"""How pairs are written and read, for the presets' formats and a user's own."""

from __future__ import annotations

import pytest

from qa_inference.formats import PRESETS, PairFormat, ParsedPair
from qa_inference.tokenization import TextTokenizer
from tests import tiny

WORDPIECE, UNIGRAM, BPE = (TextTokenizer(make()) for make in (tiny.wordpiece, tiny.unigram, tiny.byte_bpe))
LMQG = PRESETS["t5-small-squad-qag"].format


def _ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    """Ids of a text in which special tokens are special, as a model writes them."""
    return list(tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("tokenizer", [WORDPIECE, UNIGRAM, BPE], ids=["wordpiece", "unigram", "bpe"])
@pytest.mark.parametrize(
    ("written", "question", "answer"),
    [
        ("who beat klitschko?<sep>anthony joshua", "who beat klitschko?", "anthony joshua"),
        ("who? <sep> klitschko", "who?", "klitschko"),
        ("who beat klitschko?", None, None),
        ("who?<sep>klitschko<sep>klitschko", None, None),
        ("<sep>klitschko", None, None),
        ("who?<sep>", None, None),
        ("who?<sep> ", None, None),
    ],
)
def test_a_special_separator(tokenizer: TextTokenizer, written: str, question: str | None, answer: str | None) -> None:
    ids = _ids(tokenizer, written)
    parsed = PairFormat().parse(ids, tokenizer)
    if question is None:
        assert parsed is None
        return
    assert parsed is not None
    assert parsed.question.replace(" ", "") == question.replace(" ", "")
    assert parsed.answer == answer
    assert tokenizer.decode(ids[parsed.answer_start :]).strip() == answer


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("question: Where did the man live?, answer: the old house", ("Where did the man live?", "the old house")),
        ("question: When was it?, answer: 1997", ("When was it?", "1997")),
        ("question: When was it?", None),
        ("question: When was it?, answer: 1997, answer: 1998", None),
        ("question: , answer: 1997", None),
        ("question: When was it?, answer:", None),
    ],
)
def test_a_separator_of_plain_text(written: str, expected: tuple[str, str] | None) -> None:
    ids = _ids(UNIGRAM, written)
    parsed = LMQG.parse(ids, UNIGRAM)
    assert (parsed and (parsed.question, parsed.answer)) == expected
    if parsed is not None and expected is not None:
        assert UNIGRAM.decode(ids[parsed.answer_start :]).strip() == expected[1]


def test_the_first_token_of_the_end_ends_a_pair() -> None:
    (end,) = LMQG.end_ids(UNIGRAM)
    alone, followed = _ids(UNIGRAM, "answer: 1997"), _ids(UNIGRAM, "answer: 1997 | question")
    assert followed[len(alone)] == end
    assert PairFormat().end_ids(UNIGRAM) == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "no text"}, "`template` must contain {text} exactly once; got 'no text'"),
        ({"template": "{text}{text}"}, "exactly once"),
        ({"separator": " "}, "`separator` must not be blank"),
        ({"window": 3}, "`window` must be at least 8 tokens; got 3"),
    ],
)
def test_a_format_that_cannot_be_meant(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairFormat(**settings)


def test_presets_are_named_as_they_are_keyed() -> None:
    assert all(name == preset.name and preset.licence and preset.about for name, preset in PRESETS.items())
    assert PairFormat(separator="→").parse([], UNIGRAM) is None
    assert ParsedPair("q", "a", 1).answer_start == 1
