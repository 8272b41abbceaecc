"""Words of similar meaning: other forms, synonyms and derivations by WordNet, as a table over a vocabulary.

A model that also learns from these (`recipes.train_qagen --related`) gives some probability to "killed" where it would
write "murdered". To a name that is not in the text it gives none.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor

from recipes.annotated import FUNCTION_WORDS
from recipes.reword_contexts import NUMBERS, PARTS, SENSES, WordNet

MOST = 12  # related words of one, at most; its own forms come first
DERIVED = ("+", "\\")  # WordNet's pointers: derivationally related, pertainym (or derived from an adjective)


class RelatedWords(WordNet):
    """WordNet with the words that are derived from others."""

    def related(self, word: str) -> list[str]:
        """Words related to `word` in any part of speech, without it: its own forms, synonyms, derivations; `MOST`."""
        from lemminflect import getAllLemmas

        if word in NUMBERS:
            return [str(NUMBERS.index(word))]
        if word.isdecimal():
            return NUMBERS[int(word) :][:1]
        lemmas = [
            (lemma, part)
            for upos, lemmas_of_part in getAllLemmas(word).items()
            if (part := PARTS.get(upos))
            for lemma in lemmas_of_part
            if lemma in self._senses[part]
        ]
        forms = [form for lemma, part in lemmas for form in _forms(lemma, part)]
        others = [form for lemma, part in lemmas for near in self.synonyms(lemma, part) for form in _forms(near, part)]
        derived = [
            form for lemma, part in lemmas for near, kind in self._derived(lemma, part) for form in _forms(near, kind)
        ]
        return [near for near in dict.fromkeys(chain(forms, others, derived)) if near != word][:MOST]

    def _derived(self, lemma: str, part: str) -> Iterator[tuple[str, str]]:
        """Words derived from a lemma in its commonest senses, or that it is derived from, and their parts of speech."""
        for sense in self._senses[part].get(lemma, [])[:SENSES]:
            yield from self._derivations.get((part, sense, lemma), ())

    @cached_property
    def _derivations(self) -> dict[tuple[str, str, str], list[tuple[str, str]]]:
        """By part of speech, synset and word: the words it points to as derived, both ways."""
        letters = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
        derivations: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
        rows = ((part, *entry) for part, synsets in self._synsets.items() for entry in synsets.items())
        for part, synset, row in rows:
            count = int(row[3], 16)
            words = [word.partition("(")[0].lower() for word in row[4 : 4 + 2 * count : 2]]
            first = 5 + 2 * count
            for pointer in range(first, first + 4 * int(row[first - 1]), 4):
                symbol, target, letter, places = row[pointer : pointer + 4]
                if symbol in DERIVED and places != "0000":
                    kind = letters[letter]
                    name = self._synsets[kind][target][4 + 2 * (int(places[2:], 16) - 1)].partition("(")[0].lower()
                    here = words[int(places[:2], 16) - 1]
                    if name.isalpha() and here.isalpha():
                        derivations.setdefault((part, synset, here), []).append((name, kind))
                        derivations.setdefault((kind, target, name), []).append((here, part))
        return derivations


def _forms(lemma: str, part: str) -> list[str]:
    """A word and its inflections."""
    from lemminflect import getAllInflections

    upos = next(upos for upos, name in PARTS.items() if name == part)
    return [lemma, *(form for forms in getAllInflections(lemma, upos).values() for form in forms)]


def _is_number(word: str) -> bool:
    return word.isdecimal() or word in NUMBERS


def table(vocab: dict[str, int], words: RelatedWords) -> Tensor:
    """[V, `MOST`]: ids of the related words of each entry that are one entry too, -1 after the last.

    Function words, word parts and marks have none. `vocab` is an uncased BERT's, in the order of frequency.
    """
    first = vocab.get("the", 0) + FUNCTION_WORDS
    related_ids = torch.full((len(vocab), MOST), -1)
    for token, index in vocab.items():
        if _is_number(token) or (token.isalpha() and index >= first and len(token) > 2):
            ids = [vocab[near] for near in words.related(token) if vocab.get(near, 0) >= first or _is_number(near)]
            related_ids[index, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    return related_ids
