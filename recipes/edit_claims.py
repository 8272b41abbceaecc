"""True claims in other words than their source, and what may be exchanged in them: for `recipes.train_contrast`.

    apt-get install wordnet-base                       # or any folder with WordNet's index.* and data.* files
    python -m recipes.edit_claims --onestop DATA/texts/onestop_articles.jsonl.gz \
        --scitldr DATA/summarization/scitldr_train.jsonl.gz --wikisplit DATA/reworded/wikisplit.jsonl.gz \
        --claims runs/claims.jsonl.gz --out runs/edits.jsonl.gz

Writes groups as `recipes.claims` does. A true claim has `edits`, rows of `old, new, supported, kind`: with `old` as
`new` it says something else (supported 0) or the same in other words (1). Where the source has `old` too, the same
exchange there makes a source that supports the edited claim and not the claim as it was.

- Claims: one to three sentences of a news article at one reading level, about the article at another (`--onestop`);
  one-sentence summaries of abstracts; a sentence as two or two as one; what is supported in `--claims`.
- Exchanged: names, dates and numbers for others of their kind, of the source or from elsewhere; digits, months, days
  and units; a verb, noun or adjective for its opposite, for another kind of the same (WordNet) or for a word of the
  source; a word of a small table of opposites (before, after); pronouns. And synonyms, which leave the claim true.
- Beside them whole false claims: a negation added or taken out, subject and object exchanged, a part of another
  article's sentence added. They are claims of their own, with pairs of their own.
spaCy has to be installed, with an English model, and lemminflect.
"""

from __future__ import annotations

import argparse
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from qa_inference.answer_candidates import load_pipeline
from recipes import claims, reword_contexts
from recipes.annotated import article_text
from recipes.claims import Row

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
OPPOSITES = """before/after above/below over/under more/less more/fewer most/least first/last first/second all/some
all/no many/few every/no always/never often/rarely into/from to/from for/against with/without up/down inside/outside
increase/decrease increased/decreased increases/decreases increasing/decreasing rise/fall rose/fell
rising/falling win/lose won/lost winning/losing winner/loser older/younger old/young new/old high/low
higher/lower highest/lowest larger/smaller large/small big/small largest/smallest long/short longer/shorter
early/late earlier/later best/worst better/worse good/bad north/south east/west northern/southern
eastern/western left/right man/woman men/women boy/girl father/mother son/daughter brother/sister husband/wife
king/queen day/night morning/evening today/yesterday dead/alive killed/injured died/survived arrested/released
guilty/innocent accepted/rejected approved/rejected allowed/banned agreed/refused confirmed/denied opened/closed
start/end started/ended began/ended bought/sold buy/sell gained/lost joined/left arrived/left supported/opposed
succeeded/failed success/failure passed/failed remembered/forgot love/hate public/private safe/dangerous
easy/difficult cheap/expensive rich/poor hot/cold fast/slow strong/weak possible/impossible legal/illegal
likely/unlikely able/unable same/different happy/sad married/divorced found/lost accused/cleared will/may
can/cannot half/all twice/once thousands/hundreds million/billion thousand/million seconds/minutes minutes/hours
hours/days days/weeks weeks/months months/years years/decades miles/kilometres metres/feet pounds/dollars
inches/centimetres percent/million his/her he/she him/her himself/herself their/his they/he we/they our/their"""
CLOSED: dict[str, list[str]] = defaultdict(list)
for _pair in OPPOSITES.split():
    _a, _b = _pair.split("/")
    CLOSED[_a].append(_b)
    CLOSED[_b].append(_a)
KINDS = ("PERSON", "GPE", "ORG", "NORP", "LOC", "FAC", "EVENT", "WORK_OF_ART", "PRODUCT")
NUMBERS = ("DATE", "TIME", "CARDINAL", "ORDINAL", "MONEY", "PERCENT", "QUANTITY")
COVERED = 0.6  # share of a claim's telling words whose beginning its source has
SIZES = (100, 180, 260, 330)  # words of an article that are a source
MOST_EDITS, MOST_SYNONYMS = 10, 4  # of one claim


class Relations(reword_contexts.WordNet):
    """Besides synonyms, what WordNet has of words that mean something else."""

    def others(self, lemma: str, part: str) -> tuple[list[str], list[str]]:
        """Antonyms of a lemma's two commonest senses, and single words that are sisters of its first sense."""
        senses = self._senses[part].get(lemma, [])[:2]
        opposite = [w for s in senses for _, place, at in self._pointers(part, s, "!") for w in self._at(at, place)]
        parents = [(place, at) for s in senses[:1] for _, place, at in self._pointers(part, s, "@")]
        kinds = {w for place, at in parents for _, child, cat in self._pointers(at, place, "~")
                 for w in self._at(cat, child)[:1]}  # fmt: skip
        same = {w for sense in self._senses[part].get(lemma, []) for w in self._words[part].get(sense, ())}
        return [w for w in opposite if w not in same], sorted(kinds - same)

    def _at(self, part: str, place: str) -> list[str]:
        return self._words[part].get(place, [])

    def _pointers(self, part: str, place: str, mark: str) -> list[tuple[str, str, str]]:
        """(mark, place, part of speech) of a synset's pointers of one kind."""
        row = self._synsets[part].get(place)
        if row is None:
            return []
        start = 5 + 2 * int(row[3], 16)
        fields = row[start : start + 4 * int(row[start - 1])]
        every = zip(fields[::4], fields[1::4], fields[2::4], strict=True)
        return [(m, p, self._parts[at]) for m, p, at in every if m == mark]

    @cached_property
    def _parts(self) -> dict[str, str]:
        return {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}


class Editor:
    """Draws what may be exchanged in claims; `known` are the words of the vocabulary, `pool` names by their kind."""

    def __init__(self, relations: Relations, known: set[str], pool: dict[str, list[str]], words: dict[str, list[str]]):
        self.relations, self.known, self.pool, self.words = relations, known, pool, words

    def edits(self, claim: Any, source: Any, draw: random.Random) -> list[Row]:
        """The edits of a parsed claim about a parsed source (or None): some of each kind."""
        found = [*self._names(claim, source, draw), *self._closed(claim, draw), *self._exchanged(claim, source, draw)]
        draw.shuffle(found)
        chosen, seen = [], defaultdict(int)
        for old, new, kind in found:  # at most two of one place
            if seen[old] < 2 and len(chosen) < MOST_EDITS and old.lower() != new.lower():
                seen[old] += 1
                chosen.append({"old": old, "new": new, "supported": 0, "kind": kind})
        same = [{"old": old, "new": new, "supported": 1, "kind": "synonym"} for old, new in self._same(claim, draw)]
        return chosen + same[:MOST_SYNONYMS]

    def _names(self, claim: Any, source: Any, draw: random.Random) -> Iterator[tuple[str, str, str]]:
        for entity in claim.ents:
            old = re.sub(r"^the |'s$|’s$", "", entity.text)
            if entity.label_ in KINDS:
                there = [e.text for e in source.ents if e.label_ == entity.label_] if source is not None else []
                size = len(old.split())
                for origin, names in (("inside", there), ("outside", self.pool[entity.label_])):
                    names = [n for n in names if n not in claim.text and old not in n and n not in old]
                    fitting = [n for n in names if len(n.split()) == size] or names
                    if fitting:
                        yield old, re.sub(r"^the |'s$|’s$", "", draw.choice(fitting)), f"name {origin}"
            elif entity.label_ in NUMBERS:
                changed = self._number(old, draw)
                if changed:
                    yield old, changed, "number"
                there = [e.text for e in source.ents if e.label_ == entity.label_] if source is not None else []
                there = [n for n in there if n not in claim.text]
                if there:
                    yield old, draw.choice(there), "number inside"

    def _number(self, text: str, draw: random.Random) -> str | None:
        """A date or number with one thing in it changed."""
        places = [(m.start(), m.end()) for m in re.finditer(r"\d[\d,.]*\d|\d|[A-Za-z]+", text)]
        draw.shuffle(places)
        for start, end in places:
            word, other = text[start:end], None
            if word in MONTHS or word in DAYS:
                other = draw.choice([w for w in (MONTHS if word in MONTHS else DAYS) if w != word])
            elif word.lower() in reword_contexts.NUMBERS:
                other = draw.choice([w for w in reword_contexts.NUMBERS[1:] if w != word.lower()])
            elif word.isdigit() and len(word) == 4 and word[:2] in ("19", "20"):
                other = str(int(word) + draw.choice([-11, -10, -4, -3, -2, -1, 1, 2, 3, 4, 10]))
            elif word[0].isdigit():
                at = draw.choice([i for i, c in enumerate(word) if c.isdigit()])
                other = word[:at] + draw.choice([d for d in "123456789" if d != word[at]]) + word[at + 1 :]
            elif word in CLOSED:
                other = draw.choice(CLOSED[word])
            if other:
                return text[:start] + other + text[end:]
        return None

    def _closed(self, claim: Any, draw: random.Random) -> Iterator[tuple[str, str, str]]:
        for token in claim:
            if token.lower_ in CLOSED and not token.ent_type_:
                yield token.text, draw.choice(CLOSED[token.lower_]), "opposite"

    def _exchanged(self, claim: Any, source: Any, draw: random.Random) -> Iterator[tuple[str, str, str]]:
        for token in claim:
            part, lemma = reword_contexts.PARTS.get(token.pos_), token.lemma_.lower()
            if not part or token.ent_type_ or not token.text.isalpha() or not token.text.islower() or len(lemma) < 3:
                continue
            if lemma in ("be", "have", "do"):
                continue
            opposite, kinds = self.relations.others(lemma, part)
            kinds = [word for word in kinds if word in self.known]
            for name, others in (("antonym", opposite), ("sister", kinds)):
                if others and (made := self._inflected(draw.choice(others), token)):
                    yield token.text, made, name
            if source is not None:
                there = {t.text for t in source if t.tag_ == token.tag_ and t.text.isalpha() and not t.ent_type_}
                near = {lemma, *self.relations.synonyms(lemma, part)}
                there = sorted(w for w in there if w.lower() not in near and w not in claim.text and len(w) > 3)
                if there:
                    yield token.text, draw.choice(there), "word inside"
            if self.words[token.tag_]:
                yield token.text, draw.choice(self.words[token.tag_]), "word outside"

    def _same(self, claim: Any, draw: random.Random) -> list[tuple[str, str]]:
        found = []
        for token in claim:
            if not token.ent_type_ and token.text.isalpha() and token.text.islower():
                other = reword_contexts._synonym(token, self.relations, draw)
                other = reword_contexts._other_number(token) or other
                if other and other != token.text:
                    found.append((token.text, other))
        draw.shuffle(found)
        return found

    def _inflected(self, lemma: str, token: Any) -> str | None:
        from lemminflect import getInflection

        forms = getInflection(lemma, token.tag_) if token.tag_ in reword_contexts.INFLECTED else (lemma,)
        return forms[0] if forms and forms[0] in self.known else None


def exchange(text: str, old: str, new: str) -> str:
    """A text with one word or name as another wherever it stands as a whole."""
    pattern = rf"(?<![\w]){re.escape(old)}(?![\w])"
    return re.sub(pattern, lambda match: new, text)


def falsified(claim: Any, other: Any, draw: random.Random) -> str | None:
    """A parsed claim as a false one of another build: negated or not, turned round, or with a part of `other`."""
    way = draw.choice(("negated", "turned", "added"))
    if way == "negated":
        if any(t.dep_ == "neg" for t in claim):
            return re.sub(r"\b(not|never) |n't|n’t", "", claim.text, count=1).replace("ca ", "can ")
        place = next((t for t in claim if t.tag_ in ("MD",) or (t.pos_ == "AUX" and t.lemma_ == "be")), None)
        if place is None:
            return None
        end = place.idx + len(place.text)
        return f"{claim.text[:end]} not{claim.text[end:]}"
    if way == "turned":
        for verb in claim:
            subject = next((t for t in verb.children if t.dep_ == "nsubj"), None)
            thing = next((t for t in verb.children if t.dep_ in ("dobj", "attr")), None)
            if subject is None and thing is None:
                continue
            if subject is None or thing is None or subject.pos_ == "PRON" or thing.pos_ == "PRON":
                continue
            (a, b), (c, d) = [(t.left_edge.i, t.right_edge.i + 1) for t in (subject, thing)]
            if b <= c and d - c < 8 and b - a < 8:
                text = claim.text
                first, second = claim[a:b], claim[c:d]
                return (text[: first.start_char] + second.text + text[first.end_char : second.start_char] + first.text
                        + text[second.end_char :])  # fmt: skip
        return None
    part = next((t for t in other if t.dep_ == "prep" and 3 <= t.right_edge.i - t.left_edge.i <= 8), None)
    if part is None or claim.text[-1:] not in ".!":
        return None
    return f"{claim.text[:-1].rstrip()} {other[part.left_edge.i : part.right_edge.i + 1].text}{claim.text[-1]}"


# ---- claims ---------------------------------------------------------------------------------------------------------


def covered(claim: str, source: str) -> bool:
    """Whether a source has most of a claim's telling words, by their beginnings, and all its numbers."""
    there, wanted = {w[:5] for w in claims.words(source)}, claims.words(claim)
    numbers = {w for w in wanted if w.isdigit()}
    found = sum(w[:5] in there for w in wanted)
    return bool(wanted) and found >= COVERED * len(wanted) and all(w[:5] in there for w in numbers)


def onestop(
    path: Path, pipeline: Any, draw: random.Random, copied: float = 0.15
) -> Iterator[tuple[str, str, str, str]]:
    """(set, key, source, claim): some sentences of an article about a window of it at another reading level."""
    levels: dict[str, dict[str, str]] = defaultdict(dict)
    for row in claims.read(path):
        name = re.sub(r"[^a-z0-9]", "", row["article"].split("/")[-1].lower().replace("wnl", ""))
        levels[name][row["level"]] = article_text(row["text"])
    for name, texts in sorted(levels.items()):
        for low in texts:
            sentences = [s.text.strip() for s in pipeline(texts[low]).sents if len(s.text.split()) > 4]
            place = draw.randint(0, 2)
            while place < len(sentences):
                count = draw.choice((1, 1, 2, 2, 3))
                claim = " ".join(sentences[place : place + count])
                place += count + draw.randint(0, 3)
                highs = [level for level in texts if level != low or draw.random() < copied]
                if low == "int":
                    highs = [level for level in highs if level != "ele"]
                if not highs or len(claim.split()) > 75:
                    continue
                high = draw.choice(highs)
                source = claims.window(texts[high], claim, draw.choice(SIZES))
                if covered(claim, source):
                    yield "onestop", name, source, claim


def scitldr(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """One-sentence summaries of abstracts."""
    for row in claims.read(path):
        for summary in row["summaries"][:1]:
            yield "scitldr", row["id"], row["document"], summary


def wikisplit(path: Path, most: int, draw: random.Random) -> Iterator[tuple[str, str, str, str]]:
    """A long sentence and the same as two, either way."""
    rows = [*claims.read(path)]
    for row in draw.sample(rows, min(most, len(rows))):
        a, b = claims.clean(row["a"]), claims.clean(row["b"])
        source, claim = (a, b) if draw.random() < 0.5 else (b, a)
        yield "wikisplit", row["a"][:80], source, claim


def supported(groups: Iterable[Row], sets: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """The supported claims of groups with one source."""
    for group in groups:
        if group["set"] in sets and len(group["sources"]) == 1:
            for claim in group["claims"]:
                if claim["labels"] == [1]:
                    yield f"{group['set']} edited", group["key"], group["sources"][0], claim["text"]


def made(found: Sequence[tuple[str, str, str, str]], pipeline: Any, wordnet: Path, known: set[str]) -> Iterator[Row]:
    """The groups of (set, key, source, claim) rows, with edits, and beside a third of the claims a false one."""
    parsed = list(pipeline.pipe((claim for *_, claim in found), batch_size=64))
    texts = [*dict.fromkeys(source for *_, source, _ in found)]
    sources = dict(zip(texts, pipeline.pipe(texts, batch_size=32), strict=True))
    pool, words = defaultdict(list), defaultdict(list)
    for document in parsed:
        for entity in document.ents:
            pool[entity.label_].append(entity.text)
        for token in document:
            if (
                token.text.islower()
                and token.text.isalpha()
                and len(token.text) > 3
                and token.pos_ in reword_contexts.PARTS
            ):
                words[token.tag_].append(token.text)
    editor = Editor(Relations(wordnet), known, pool, words)
    for (name, key, source, claim), document in zip(found, parsed, strict=True):
        draw = random.Random(zlib.crc32((source[:200] + claim).encode()))
        edits = editor.edits(document, sources[source], draw)
        rows = [{"text": claim, "labels": [1], "edits": edits}]
        if draw.random() < 0.34:
            false = falsified(document, parsed[draw.randrange(len(parsed))], draw)
            if false and false != claim:
                rows.append({"text": false, "labels": [0]})
        group = {"set": name, "key": key, "sources": [source], "claims": rows}
        yield spelled_out(group, draw) if claims.is_held_out(key) else group


def spelled_out(group: Row, draw: random.Random) -> Row:
    """A group with one false edit of its first claim, and with all its synonyms, as claims of their own.

    What is held out is asked by its own search, as a summary is.
    """
    first, *rest = group["claims"]
    made = [{"text": first["text"], "labels": [1]}]
    for supported in (0, 1):
        fitting = [edit for edit in first["edits"] if edit["supported"] == supported]
        text = first["text"]
        for edit in fitting if supported else draw.sample(fitting, min(1, len(fitting))):
            text = exchange(text, edit["old"], edit["new"])
        if text != first["text"]:
            kind = {} if supported else {"kind": edit["kind"]}
            made.append({"text": text, "labels": [supported], **kind})
    return {**group, "claims": [*made, *rest]}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onestop", type=Path)
    parser.add_argument("--scitldr", type=Path)
    parser.add_argument("--wikisplit", type=Path)
    parser.add_argument("--claims", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=1500, help="claims of each kind, drawn at random")
    parser.add_argument("--vocabulary", default="qa_inference/checkpoints/qagen", help="folder of a tokenizer")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--spacy", help="the spaCy model; default: the first English one that is installed")
    args = parser.parse_args(argv)
    from transformers import PreTrainedTokenizerFast

    pieces = PreTrainedTokenizerFast.from_pretrained(args.vocabulary).get_vocab()
    known = {word for piece in pieces if piece.startswith("▁") and (word := piece[1:]).isalpha()}
    pipeline, draw = load_pipeline(args.spacy), random.Random(0)
    kinds = [
        [*onestop(args.onestop, pipeline, draw)] if args.onestop else [],
        [*scitldr(args.scitldr)] if args.scitldr else [],
        [*wikisplit(args.wikisplit, args.most, draw)] if args.wikisplit else [],
        [*supported(claims.read(args.claims), ("fib", "wice"))] if args.claims else [],
        [*supported(claims.read(args.claims), ("fever",))] if args.claims else [],
    ]
    print([len(kind) for kind in kinds])
    most = (2 * args.most, args.most, args.most, args.most, args.most)
    found = [row for kind, n in zip(kinds, most, strict=True) for row in draw.sample(kind, min(n, len(kind)))]
    print(claims.write(made(found, pipeline, args.wordnet, known), args.out), "groups")


if __name__ == "__main__":
    main()
