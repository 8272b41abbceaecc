"""Where a text is divided into sentences."""

from __future__ import annotations

import pytest

from qa_inference.sentences import sentence_bounds


@pytest.mark.parametrize(
    "sentences",
    [
        ["Mr. Smith met Dr. Lee.", "He won."],
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
