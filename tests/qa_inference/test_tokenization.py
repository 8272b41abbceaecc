"""Texts as data on the three kinds of tokenizers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from qa_inference.tokenization import TextTokenizer, pad_rows
from tests import tiny

KINDS = {"wordpiece": tiny.wordpiece, "byte_bpe": tiny.byte_bpe, "unigram": tiny.unigram}
TOKENIZERS: dict[str, TextTokenizer] = {kind: TextTokenizer(make()) for kind, make in KINDS.items()}
HOSTILE = "<sep> </s> [SEP] <pad> [PAD] <s> [unused0] <unk> [CLS] <hl> <extra_id_0>"
every_kind = pytest.mark.parametrize("kind", KINDS)


def _special(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """The ids of all added tokens."""
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder} - {tokenizer.unk_token_id}


@every_kind
def test_special_tokens_in_a_text_are_text(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    assert tokenizer.tokenizer("<sep>", add_special_tokens=False)["input_ids"][-1] in _special(tokenizer.tokenizer)
    encoded = tokenizer.encode(HOSTILE)
    assert not _special(tokenizer.tokenizer) & set(encoded.ids)
    assert len(encoded.ids) > 20  # its characters are still there
    shown = tokenizer.decode(encoded.ids).replace(" ", "").lower()
    assert shown.startswith("<sep></s>[sep]<pad>[pad]<s>[unused0]")


@every_kind
def test_ordinary_text_is_encoded_as_by_the_checkpoints_own_tokenizer(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    for text in (*tiny.CORPUS[:4], "Beyoncé paid  £1,000\n in the U.S.", "", " ", "日本"):
        encoded = tokenizer.encode(text)
        assert encoded.window(0, len(encoded.ids)).tolist() == tokenizer.tokenizer(text)["input_ids"]


@every_kind
def test_template_and_text_are_told_apart(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    template, text = "generate question: {text} now <sep>", "The man's bridge"
    encoded = tokenizer.encode(text, template)
    whole = tokenizer.tokenizer(template.replace("{text}", text))["input_ids"]
    assert encoded.window(0, len(encoded.ids)).tolist() == whole
    assert "".join(text[a:b] for a, b in encoded.offsets).replace(" ", "") == text.replace(" ", "")
    assert tokenizer.special_id("<sep>") in encoded.tail
    assert encoded.around == len(whole) - len(encoded.ids)


@every_kind
def test_marks_in_a_text_are_ours_and_the_same_characters_of_the_text_are_not(kind: str) -> None:
    tokenizer, mark = TOKENIZERS[kind], "<sep>"
    text = "The man <sep> paid £1,000 in the U.S."
    start, end = text.index("£"), text.index(" in")
    encoded = tokenizer.encode(text, "question: {text}", ((start, f"{mark} "), (end, f" {mark}")))
    places = [i for i, token in enumerate(encoded.ids) if token == tokenizer.special_id(mark)]
    assert len(places) == 2 and [encoded.offsets[i] for i in places] == [(start, start), (end, end)]
    inside = encoded.offsets[places[0] + 1 : places[1]]
    assert text[inside[0][0] : inside[-1][1]] == "£1,000"
    covered = {place for a, b in encoded.offsets for place in range(a, b)}
    assert {place for place, character in enumerate(text) if character != " "} <= covered
    # Without such characters in the text it is what the checkpoint's own tokenizer makes of the marked text.
    plain = text.replace("<sep> ", "")
    marked = plain.replace("£1,000", f"{mark} £1,000 {mark}")
    places = [plain.index("£"), plain.index(" in")]
    encoded = tokenizer.encode(plain, marks=((places[0], f"{mark} "), (places[1], f" {mark}")))
    assert encoded.window(0, len(encoded.ids)).tolist() == tokenizer.tokenizer(marked)["input_ids"]


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60) | st.text("<sep>/[SEP]{t} \n", max_size=40), kind=st.sampled_from(sorted(KINDS)))
def test_any_text_has_ordered_offsets_inside_it(text: str, kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    encoded = tokenizer.encode(text, "about {text} ?")
    assert len(encoded.ids) == len(encoded.offsets)
    assert all(0 <= start < end <= len(text) for start, end in encoded.offsets)
    assert not _special(tokenizer.tokenizer) & set(encoded.ids)


def test_lone_surrogates_are_replaced() -> None:
    for tokenizer in TOKENIZERS.values():
        assert tokenizer.encode("a \ud800 b").ids == tokenizer.encode("a \ufffd b").ids


def test_fold_maps_back_to_the_text() -> None:
    folded, origins = TOKENIZERS["wordpiece"].fold("Beyoncé, ½ STRAẞE")
    assert folded.startswith("beyonce,") and "strasse" in folded
    assert [folded[i] for i, origin in enumerate(origins) if origin == 5] == ["c"]
    assert len(folded) == len(origins) and origins == sorted(origins)


class Slow(PreTrainedTokenizer):
    """A tokenizer written in Python, as Marian's is: pieces are words, `\u2581` before each, or single characters."""

    def __init__(self) -> None:
        words = [f"\u2581{word}" for word in ["joshua", "beat", "klitschko", "ask", ":", "about"]]
        self.words = ["<pad>", "</s>", "<unk>", "<sep>", *words, "\u2581", *map(chr, range(33, 127))]
        super().__init__(
            pad_token="<pad>", eos_token="</s>", unk_token="<unk>", additional_special_tokens=["<sep>"]
        )  # fmt: skip

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def _tokenize(self, text: str, **_: object) -> list[str]:
        pieces: list[str] = []
        for word in text.lower().split():
            whole = f"\u2581{word}"
            pieces += [whole] if whole in self.words[4:] else ["\u2581", *word]
        return pieces

    def _convert_token_to_id(self, token: str) -> int:
        return self.words.index(token) if token in self.words else 2

    def _convert_id_to_token(self, index: int) -> str:
        return self.words[index]

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: object = None) -> list[int]:
        return [*token_ids_0, 1]


def test_marks_by_a_tokenizer_written_in_python() -> None:
    tokenizer = TextTokenizer(Slow())
    text = "joshua <sep> beat klitschko"
    encoded = tokenizer.encode(text, "ask : {text}", ((13, "<sep> "), (17, " <sep>")))
    places = [i for i, token in enumerate(encoded.ids) if token == 3]
    assert [encoded.offsets[i] for i in places] == [(13, 13), (17, 17)]
    assert [text[slice(*encoded.offsets[i])] for i in range(places[0] + 1, places[1])] == ["beat"]


def test_a_tokenizer_written_in_python() -> None:
    tokenizer = TextTokenizer(Slow())
    text = "joshua <sep> beat </s> klitschko"
    encoded = tokenizer.encode(text, "ask : {text} <sep>")
    assert not {0, 1, 3} & set(encoded.ids)
    assert encoded.head == tuple(Slow()("ask :", add_special_tokens=False)["input_ids"])
    assert encoded.tail[-2:] == (3, 1) and tokenizer.special_id("<sep>") == 3
    shown = [text[start:end] for start, end in encoded.offsets]
    assert shown[0] == "joshua" and shown[-1] == "klitschko" and "".join(shown).count("beat") == 1
    assert all(0 <= start <= end <= len(text) for start, end in encoded.offsets)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [[4, 5, 6], [7, 0, 0], [0, 0, 0]]),
        ({"side": "left"}, [[4, 5, 6], [0, 0, 7], [0, 0, 0]]),
        ({"multiple": 4}, [[4, 5, 6, 0], [7, 0, 0, 0], [0, 0, 0, 0]]),
        ({"side": "left", "multiple": 2}, [[0, 4, 5, 6], [0, 0, 0, 7], [0, 0, 0, 0]]),
    ],
)
def test_rows_are_padded_on_one_side_to_a_common_width(settings: Any, expected: list[list[int]]) -> None:
    padded = pad_rows([[4, 5, 6], np.array([7]), ()], 0, **settings)
    assert padded.dtype == np.int64 and padded.tolist() == expected
