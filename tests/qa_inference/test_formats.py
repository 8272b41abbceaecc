"""How pairs are written and read, for the presets' formats and a user's own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from qa_inference.formats import PairFormat, ParsedPair, QuestionFormat
from qa_inference.presets import PRESETS, QUESTION_PRESETS
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
    for presets in (PRESETS, QUESTION_PRESETS):
        assert all(name == preset.name and preset.licence and preset.about for name, preset in presets.items())
    assert PairFormat(separator="→").parse([], UNIGRAM) is None
    assert ParsedPair("q", "a", 1).answer_start == 1


TEXT = "The council <hl> approved a new bridge over the River Tay in Perth."
PERTH = (TEXT.index("Perth"), TEXT.index("Perth") + 5)


def test_a_marked_answer() -> None:
    """As the embedded checkpoint was trained: the text's own tokens with the mark's id before and after the answer."""
    marked = QuestionFormat().input(WORDPIECE, TEXT, *PERTH, 64)
    assert marked is not None
    ids, windowed = list(map(int, marked[0])), marked[1]
    whole = WORDPIECE.encode(TEXT)
    first = whole.offsets.index(PERTH)
    mark = WORDPIECE.special_id("<hl>")
    assert ids == [*whole.head, *whole.ids[:first], mark, whole.ids[first], mark, *whole.ids[first + 1 :], *whole.tail]
    assert not windowed


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        # as the checkpoints' own programs write them: lmqg without, valhalla with spaces outside
        ("t5-small-squad-qg", "generate question: The man lived in <sep> Perth <sep>."),
        ("t5-base-qg-hl", "generate question: The man lived in  <sep> Perth <sep> ."),
        ("bart-base-squad-qg", "The man lived in <sep> Perth <sep>."),
    ],
)
def test_the_presets_marks(name: str, marked: str) -> None:
    form = QUESTION_PRESETS[name].format  # the toy tokenizers' added token is <sep>
    form = replace(form, opening=form.opening.replace("hl", "sep"), closing=form.closing.replace("hl", "sep"))
    text = "The man lived in Perth."
    for tokenizer in (UNIGRAM, BPE):
        found = form.input(tokenizer, text, 17, 22, 64)
        assert found is not None and found[0].tolist() == tokenizer.tokenizer(marked)["input_ids"]


@pytest.mark.parametrize("place", [0, 1, 5, 9])
def test_an_answer_in_a_long_text_is_marked_in_its_window(place: str | int) -> None:
    sentences = [f"The man number {i} lived in the old house in Perth." for i in range(10)]
    text = " ".join(sentences)
    start = text.index(f"number {place} ")
    found = QuestionFormat().input(WORDPIECE, text, start, start + len(f"number {place}"), 40)
    assert found is not None and found[1] and len(found[0]) <= 40
    ids = list(map(int, found[0]))
    mark = WORDPIECE.special_id("<hl>")
    assert ids.count(mark) == 2
    first = ids.index(mark)
    shown = WORDPIECE.decode(ids[first : ids.index(mark, first + 1)])
    assert shown.replace(" ", "") == f"number{place}"
    assert f"theman{shown}".replace(" ", "") in WORDPIECE.decode(ids).replace(" ", "")  # its sentence is whole


def test_an_answer_that_windows_cut_or_no_window_holds() -> None:
    text = " ".join(["Perth"] * 100)
    words = 6 * 50
    for start, length in ((words, 29), (0, 29), (len(text) - 29, 29)):  # five words; without any sentence's end
        found = QuestionFormat().input(WORDPIECE, text, start, start + length, 10)
        assert found is not None and len(found[0]) <= 10 and list(found[0]).count(WORDPIECE.special_id("<hl>")) == 2
    assert QuestionFormat().input(WORDPIECE, text, 0, 6 * 8 - 1, 10) is None


def test_question_formats_that_cannot_be_meant() -> None:
    for settings in ({"template": "no text"}, {"window": 3}, {"opening": " "}, {"closing": ""}):
        with pytest.raises(ValueError, match="format: `"):
            QuestionFormat(**settings)
    refusal = "format: `closing` must be an added token of the tokenizer; '<hl>' is not one"
    with pytest.raises(ValueError, match=refusal):
        QuestionFormat(opening="<sep>").mark_ids(UNIGRAM)


def test_presets_need_neither_torch_nor_transformers() -> None:
    program = "import sys, qa_inference.presets; print(*{'torch', 'transformers'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"
