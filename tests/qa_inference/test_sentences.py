"""Where a text is divided into sentences."""

from __future__ import annotations

import pytest

from qa_inference.sentences import sentence_bounds, stripped_span, whole_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["Mr. Smith met Dr. Lee.", "He won."],
        ["Capt. Ray and Hon. Lee met on Jan. 5.", "It was Lee vs. Ray."],
        ["J. K. Rowling wrote it.", "So did I.", "He left!"],
        ["The U.S. President spoke.", '"It is."', "She left"],
        ["It rose by 3.5 % in 1997.", "Why?", "Nobody knows …", "Or do they?!"],
        ["Er gewann (sagt man.)", "Nein.", "Ende"],
        ["a sentence of approx. five words"],
    ],
)
def test_sentences(sentences: list[str]) -> None:
    for between in (" ", "\n\n "):
        text = f" {between.join(sentences)} "
        assert [text[start:end] for start, end in sentence_bounds(text)] == sentences


def test_other_ends() -> None:
    text = "彼は勝った。彼女も！\nLast"  # noqa: RUF001
    assert [text[start:end] for start, end in sentence_bounds(text)] == ["彼は勝った。", "彼女も！", "Last"]  # noqa: RUF001
    assert not list(sentence_bounds(" \n")) and not list(sentence_bounds(""))


@pytest.mark.parametrize("marks", ["「」", "『』", "（）", "【】", "《》", "〈〉"])  # noqa: RUF001
def test_closing_marks_belong_to_the_sentence_before(marks: str) -> None:
    sentences = [f"{marks[0]}もう遅い。{marks[1]}", "彼は帰った。"]
    text = "".join(sentences)
    assert [text[start:end] for start, end in sentence_bounds(text)] == sentences
    assert [text[start:end] for start, end in whole_sentences(text)] == sentences


def test_the_span_of_white_space_is_empty() -> None:
    assert stripped_span("a  \n b", 1, 4) == (4, 4) and stripped_span("a  \n b", 0, 5) == (0, 1)


@pytest.mark.parametrize(
    "parts",
    [
        ["Ann Lee won the cup.", "Bo Ray lost it."],
        ["Ann Lee won\nthe cup.\n", "Bo Ray\r\nlost it."],
        ["Ann Lee won the cup\n\n", "Bo Ray lost it"],
        ["He won. Bo Ray lost it.", "Ann Lee won the cup. No."],
        ["It was Ann Lee who won.", "“Ann Lee won!”"],
        [" One sentence alone. "],
        ["Yes. No."],
        ["彼は勝った。", "彼女も！"],  # noqa: RUF001
        [""],
    ],
)
def test_whole_sentences(parts: list[str]) -> None:
    text = " ".join(parts)
    assert [text[start:end].strip() for start, end in whole_sentences(text)] == [part.strip() for part in parts]
