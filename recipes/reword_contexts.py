"""Write annotated contexts in other words, for training: synonyms in the context, the same questions.

    apt-get install wordnet-base                       # or any folder with WordNet's index.* and data.* files
    python -m recipes.reword_contexts --data DATA/qa/qamr.jsonl.gz runs/written.jsonl.gz --out runs/reworded.jsonl.gz

The input is as for `recipes.annotated`. The output has rows of `context, question, answer`, with the old context as
`original` (both are held out together), and `loose: true`: the answer need not occur in the context word for word.
spaCy must be installed, with an English model. These changes are made, drawn by a hash of the text:

- verbs, nouns, adjectives and adverbs of the context become synonyms, inflected alike, where WordNet has the two
  words' commonest senses in one synset ("purchased" for "bought"); numbers up to twelve change between word and digit;
- a person's name in a question or an answer becomes what the context calls the person by an apposition or a title
  ("the mayor" for "Ann Lee"), or "a man" or "a woman" where its pronouns tell.

The reason: a summary often says in other words what its source says. A model that has seen only questions in the words
of their texts treats every other word as an error.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from qa_inference.answer_candidates import load_pipeline
from recipes import annotated

PARTS = {"NOUN": "noun", "VERB": "verb", "ADJ": "adj", "ADV": "adv"}
SENSES = 2  # a synonym has the shared sense among so many of its commonest
LEFT_ALONE = frozenset(("be", "have", "do", "say", "get", "go", "make", "take", "come", "year", "day", "people"))
INFLECTED = frozenset(("VBD", "VBG", "VBN", "VBZ", "NNS", "JJR", "JJS", "RBR", "RBS"))
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
LONGEST_TITLE = 6  # words


class WordNet:
    """The synonyms of WordNet's database files: `index.noun`, `data.noun` and those of the other parts of speech."""

    def __init__(self, folder: Path):
        self.folder = folder
        if not (folder / "index.noun").exists():
            raise SystemExit(f"{folder} has no index.noun: name WordNet's folder by --wordnet (apt: wordnet-base)")

    def synonyms(self, lemma: str, part: str) -> list[str]:
        """Single words whose common senses have the commonest sense of `lemma`; most common first in its synset."""
        senses = self._senses[part].get(lemma, [])
        if not senses:
            return []
        words = self._words[part][senses[0]]
        return [word for word in words if word != lemma and senses[0] in self._senses[part].get(word, [])[:SENSES]]

    @cached_property
    def _senses(self) -> dict[str, dict[str, list[str]]]:
        """Each lemma's synsets by part of speech, the commonest first; only those that occur in WordNet's corpus."""
        senses: dict[str, dict[str, list[str]]] = {}
        for part in PARTS.values():
            rows = (line.split() for line in self._lines(f"index.{part}"))
            # lemma, part, number of senses, number of pointers, pointers, number again, how many occur, senses
            senses[part] = {row[0]: row[-int(row[2]) :][: int(row[5 + int(row[3])])] for row in rows}
        return senses

    @cached_property
    def _words(self) -> dict[str, dict[str, list[str]]]:
        """Each synset's single words in lower case."""
        return {
            part: {
                offset: [w for w in row[4 : 4 + 2 * int(row[3], 16) : 2] if w.isalpha()] for offset, row in rows.items()
            }
            for part, rows in self._synsets.items()
        }

    @cached_property
    def _synsets(self) -> dict[str, dict[str, list[str]]]:
        """The fields of each synset's line, without its gloss, by part of speech and place in the file."""
        synsets: dict[str, dict[str, list[str]]] = {}
        for part in PARTS.values():
            rows = (line.partition("|")[0].split() for line in self._lines(f"data.{part}"))
            synsets[part] = {row[0]: row for row in rows}
        return synsets

    def _lines(self, name: str) -> Iterator[str]:
        with (self.folder / name).open(encoding="utf-8") as lines:
            yield from (line for line in lines if not line.startswith("  "))  # the licence


# ---- contexts -------------------------------------------------------------------------------------------------------


def reworded(document: Any, wordnet: WordNet, share: float, draw: random.Random) -> str:
    """A parsed text with a `share` of the words that have synonyms replaced."""
    parts = []
    for token in document:
        word = None
        if draw.random() < share and not token.ent_type_ and token.text.isalpha() and token.text.islower():
            word = _synonym(token, wordnet, draw)
        if draw.random() < share:
            word = _other_number(token) or word
        parts.append((word or token.text) + token.whitespace_)
    return re.sub(r"\b([Aa])n? (?=(\w))", _article, "".join(parts))


def _synonym(token: Any, wordnet: WordNet, draw: random.Random) -> str | None:
    from lemminflect import getInflection

    part, lemma = PARTS.get(token.pos_), token.lemma_.lower()
    if part is None or lemma in LEFT_ALONE or len(lemma) < 3:
        return None
    synonyms = wordnet.synonyms(lemma, part)
    if not synonyms:
        return None
    synonym = draw.choice(synonyms)
    forms = getInflection(synonym, token.tag_) if token.tag_ in INFLECTED else (synonym,)
    return forms[0] if forms else None


def _other_number(token: Any) -> str | None:
    if token.lower_ in NUMBERS[2:] and token.ent_type_ == "CARDINAL":
        return str(NUMBERS.index(token.lower_))
    if token.text.isdecimal() and int(token.text) in range(2, 13) and token.ent_type_ == "CARDINAL":
        return NUMBERS[int(token.text)]
    return None


def _article(match: re.Match) -> str:
    """The indefinite article that suits the next letter."""
    return f"{match[1]}{'n' if match[2].lower() in 'aeiou' else ''} "


# ---- people ---------------------------------------------------------------------------------------------------------


def titles(document: Any) -> dict[str, str]:
    """The titles of a parsed text's people: "the mayor" for "Ann Lee"; "a man" or "a woman" if only pronouns tell."""
    genders = {"he": "a man", "his": "a man", "him": "a man", "she": "a woman", "her": "a woman"}
    pronoun_titles = {genders[token.lower_] for token in document if token.lower_ in genders}
    title_of_name = {}
    for entity in document.ents:
        if entity.label_ == "PERSON":
            title = (
                _apposition(entity)
                or _title_before(entity)
                or (next(iter(pronoun_titles)) if len(pronoun_titles) == 1 else None)
            )
            if title:
                title_of_name.setdefault(entity.text, title)
    return title_of_name


def _apposition(entity: Any) -> str | None:
    """The noun phrase behind a name, its first part: "the mayor of Dent" of ", the mayor of Dent, who resigned"."""
    root = entity.root
    noun = next((child for child in root.children if child.dep_ == "appos" and child.pos_ == "NOUN"), None)
    if noun is None or noun.i < root.i:
        return None
    words = [t for t in noun.subtree if t.i <= noun.i or t.head.dep_ == "prep" or t.dep_ == "prep"]
    words = [t for t in words if t.i - words[0].i == words.index(t)]  # up to the first gap
    return _called(words)


def _title_before(entity: Any) -> str | None:
    """The common nouns before a name: "actor" of "actor Tom Hanks", whichever of the two depends on the other."""
    head, words = entity.root.head, []
    if entity.root.dep_ == "appos" and head.pos_ == "NOUN" and head.i == entity.start - 1:
        return _called([t for t in head.subtree if t.i <= head.i])
    index = entity.start - 1
    while index >= 0 and entity.doc[index].dep_ in ("compound", "amod") and entity.doc[index].pos_ in ("NOUN", "ADJ"):
        words.insert(0, entity.doc[index])
        index -= 1
    return _called(words) if words and words[-1].pos_ == "NOUN" else None


def _called(words: Sequence[Any]) -> str | None:
    text = "".join(t.text_with_ws for t in words).strip(" ,")
    if not 1 <= len(text.split()) <= LONGEST_TITLE or any(t.is_punct and t.text != "-" for t in words):
        return None
    return text[0].lower() + text[1:] if words[0].tag_ in ("DT", "PRP$") else f"the {text}"


def called(text: str, names: dict[str, str]) -> str:
    """The text with each of the names, and its title before it, as the title."""
    for name, title in names.items():
        before = rf"(?:the )?(?:{re.escape(title.removeprefix('the '))} )?"
        text = re.sub(rf"(?<!\w){before}{re.escape(name)}(?!\w)", title, text, flags=re.IGNORECASE)
    return text


# ---- rows -----------------------------------------------------------------------------------------------------------


def changed(
    rows: Sequence[dict], text: str, document: Any, wordnet: WordNet, share: float, unnamed: float
) -> Iterator[dict]:
    """The rows of one context in other words; none if nothing changed."""
    draw = random.Random(zlib.crc32(text.encode()))
    context = reworded(document, wordnet, share, draw)
    people = titles(document)
    for row in rows:
        question, answer = annotated.detokenize(row["question"]), annotated.detokenize(row.get("answer") or "")
        if people and draw.random() < unnamed:
            question, answer = called(question, people), called(answer, people)
        elif context == text:
            continue
        kept = {key: row[key] for key in ("source",) if key in row}
        yield {
            "context": context,
            "original": text,
            "question": question,
            "answer": answer or None,
            "loose": True,
        } | kept


def rows_by_context(names: Iterable[str]) -> dict[str, list[dict]]:
    """All rows of the files by their detokenized context."""
    rows_of_context: dict[str, list[dict]] = defaultdict(list)
    for name in names:
        for row in annotated.read_rows(name):
            rows_of_context[annotated.detokenize(row.get("context") or row["sentence"])].append(row)
    return rows_of_context


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--share", type=float, default=0.6, help="of the words that have a synonym, those replaced")
    parser.add_argument("--unnamed", type=float, default=0.4, help="share of the rows whose people lose their names")
    parser.add_argument("--spacy", help="the spaCy model; default: the first English one that is installed")
    args = parser.parse_args(argv)
    pipeline, wordnet, rows_of_context = load_pipeline(args.spacy), WordNet(args.wordnet), rows_by_context(args.data)
    count = 0
    with gzip.open(args.out, "wt", encoding="utf-8") as lines:
        for (text, rows), document in zip(
            rows_of_context.items(), pipeline.pipe(rows_of_context, batch_size=64), strict=True
        ):
            for row in changed(rows, text, document, wordnet, args.share, args.unnamed):
                count += 1
                print(json.dumps(row, ensure_ascii=False), file=lines)
    print(f"{count:,} questions for {len(rows_of_context):,} texts")


if __name__ == "__main__":
    main()
