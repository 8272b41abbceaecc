"""Related words, with a toy WordNet in the layout of the real one, and labels that share with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from recipes import train_qagen
from recipes.annotated import FUNCTION_WORDS
from recipes.related_words import MOST, RelatedWords, table

pytest.importorskip("lemminflect")

INDEX = {
    "verb": "kill v 2 1 + 2 1 00000001 00000002\nslay v 1 0 1 1 00000001\n",
    "noun": "killer n 1 1 + 1 1 00000010\nboard n 1 0 1 1 00000020\nteacher n 1 0 1 1 00000020\n",
    "adj": "medical a 1 1 \\ 1 1 00000030\n",
    "adv": "",
}
DATA = {
    "verb": "00000001 35 v 02 kill 0 slay 0 001 + 00000010 n 0101 | put to death\n00000002 35 v 01 kill 0 000 | end\n",
    "noun": "00000010 18 n 02 killer 0 slayer 0 001 + 00000001 v 0101 | one that kills\n"
    "00000020 18 n 02 board 0 teacher 0 001 @ 00000010 n 0000 | an example\n"
    "00000021 18 n 01 medicine 0 000 | what doctors know\n",
    "adj": "00000030 01 a 01 medical 0 001 \\ 00000021 n 0101 | of medicine\n",
    "adv": "",
}


@pytest.fixture(scope="module")
def words(write_wordnet: Callable[[dict[str, str], dict[str, str]], Path]) -> RelatedWords:
    return RelatedWords(write_wordnet(INDEX, DATA))


def test_forms_come_first_then_synonyms_and_derivations(words: RelatedWords) -> None:
    found = words.related("killed")
    assert set(found[:3]) == {"kill", "kills", "killing"}
    assert found.index("slay") < found.index("killer") < found.index("killers")
    assert len(found) <= MOST
    assert "killed" not in found
    assert "kill" in words.related("killers")  # both ways
    assert words.related("medical") == ["medicine", "medicines"]
    assert words.related("boards") == ["board", "teacher", "teachers"]
    assert words.related("london") == []


@pytest.mark.parametrize(("word", "other"), [("two", ["2"]), ("2", ["two"]), ("12", ["twelve"]), ("13", [])])
def test_numbers(words: RelatedWords, word: str, other: list[str]) -> None:
    assert words.related(word) == other


def test_the_table_has_entries_of_the_vocabulary_only(words: RelatedWords) -> None:
    common = [f"w{i}" for i in range(FUNCTION_WORDS)]
    entries = ["two", "2", "the", *common, "killed", "kill", "##kill", "slay"]
    vocab = {entry: index for index, entry in enumerate(entries)}
    found = table(vocab, words)
    assert found.shape == (len(vocab), MOST)
    assert found[vocab["killed"]].tolist() == [vocab["kill"], vocab["slay"], *[-1] * (MOST - 2)]
    assert found[vocab["two"], 0] == vocab["2"]
    assert (found[[vocab["##kill"], vocab["the"], vocab["w3"]]] == -1).all()


def test_a_label_shares_with_its_related_words() -> None:
    entries = torch.tensor([[-1, -1], [2, 3], [1, -1], [-1, -1], [-1, -1]])
    continuing = torch.tensor([False, False, False, False, True])
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels, following = torch.tensor([1, 2, 0, 1]), torch.tensor([2, -100, 1, 4])  # the last begins a longer word
    smoothing = train_qagen.Smoothing(0.1, 0.3, entries, continuing)
    wanted = 0.1 / 5 + torch.zeros(4, 5)
    wanted[range(4), labels] += torch.tensor([0.6, 0.6, 0.9, 0.9])
    wanted[0, [2, 3]] += 0.15
    wanted[1, 1] += 0.3
    expected = F.cross_entropy(logits, wanted, reduction="none")
    found, plain = smoothing.losses(logits, labels, following)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(losses.sum(), logits, retain_graph=True)[0] for losses in (found, expected)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(plain, F.cross_entropy(logits, labels, reduction="none"))
    torch.testing.assert_close(train_qagen.Smoothing().losses(logits, labels, following), (plain, plain))
