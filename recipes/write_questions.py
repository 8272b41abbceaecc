"""Write questions for any English text by rules on its syntax: training data that needs no annotators.

    python -m recipes.write_questions --data DATA/qa/*.jsonl.gz --out runs/written.jsonl.gz
    python -m recipes.write_questions --data scitldr_train.jsonl.gz --rows 1200 --out runs/written_summaries.jsonl.gz

The input is as for `recipes.annotated`, or one of four others: rows with a `text` alone, which is cut into pieces of
two to four sentences; rows of `document, summaries`; pairs `a, b` of texts that say the same; groups of
`recipes.claims`, whose sources are documents of the claims that they support. The questions about a summary (`b`, a
claim) are also asked of the document (`a`, a source), so that a model learns to expect other words. The output has rows
of `context, question, answer` with `source: "written"`, and `loose` where the answer may be in other words. spaCy must
be installed, with an English model.

Each named entity and noun phrase of a sentence is an answer, as for QAGS. Its question contains the whole clause:

- a subject gives way to who or what: "who approved the new bridge on Monday?";
- of anything else in a short clause the question word comes first, with the auxiliary, or a form of do: "what did the
  council approve?", "how many bridges did it approve?", "whose plan failed?", "when was it approved?";
- in a longer clause, and where a phrase has no place of its own (an apposition, a later part of a list), the question
  word stands in the place of the answer: "Ann Lee, the mayor of what place, resigned?". A small model copies a long
  clause correctly, and makes many mistakes when it reorders one.

The reason: people who write questions for reading tests ask for one thing and leave out the rest. But summaries are
judged by whole statements, and a question that leaves out half of one ("who said?") has an answer in any text. Also, a
model can write these questions only if it reads which answer is marked. They are stiff, so mix them with those of
people. Only clauses of more than `LONGEST_CLAUSE` words lose subordinate parts.

Nothing is drawn: a clause has one question for each of its answers, whatever the rest of the text is (of an answer that
occurs twice, the first clause has it). So two summaries that differ in one sentence have nearly the same questions
about all others.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from qa_inference.answer_candidates import NOUN_CHUNK, AnswerCandidate, AnswerFinder, load_pipeline
from qa_inference.sentences import sentence_bounds
from recipes import annotated, claims

LONGEST_CLAUSE = 34  # a longer clause loses subordinate parts
LONGEST_QUESTION = 38  # words of a question
LONGEST_INVERTED = 12  # tokens of a clause at most whose questions begin with the question word
RELATIVE = frozenset(("WDT", "WP", "WP$", "WRB"))
SUBJECTS = frozenset(("nsubj", "nsubjpass"))
LOOSE = ("advcl", "relcl", "parataxis", "appos", "acl", "npadvmod", "prep", "conj")  # subtrees a clause can lose
PEOPLE = frozenset((
    "man", "woman", "boy", "girl", "child", "children", "people", "person", "police", "officer", "official", "king",
    "queen", "prince", "princess", "president", "mayor", "minister", "leader", "player", "manager", "coach",
    "driver", "doctor", "teacher", "student", "friend", "wife", "husband", "mother", "father", "son", "daughter",
    "council", "government", "court", "committee", "brother", "sister", "author", "researcher", "scientist",
    "voter", "fan", "victim", "suspect", "spokesman", "spokeswoman", "captain", "soldier", "family", "couple",
    "crew", "team", "winner", "champion", "actor", "singer", "artist", "judge", "lawyer", "member", "chief",
    "director", "head",
))  # fmt: skip
WORDS_OF_KIND = {
    "PERSON": "who", "NORP": "who", "DATE": "when", "TIME": "when", "MONEY": "how much", "PERCENT": "what percentage",
    "GPE": "what place", "LOC": "what place", "FAC": "what place", "ORG": "what organization",
    "LANGUAGE": "what language", "EVENT": "what event",
}  # fmt: skip
PLACES, TIMES = frozenset(("GPE", "LOC", "FAC")), frozenset(("DATE", "TIME"))
_GAPS = re.compile(r"\s+([,.;:?!%)’'])")
_EDGES = re.compile(r"^[\s,;:–—-]+|[\s,;:.!?–—-]+$")


def question_word(span: Any, kind: str) -> str:
    """The question word for a span of this kind of entity; a noun phrase is of the kind of its head."""
    if kind == NOUN_CHUNK and span.root.lemma_.lower() in PEOPLE:
        return "who"
    return WORDS_OF_KIND.get(span.root.ent_type_ if kind == NOUN_CHUNK else kind, "what")


def clause_of(token: Any) -> Any | None:
    """The nearest verb above `token` that has a subject other than who, which or that; None if there is none."""
    for verb in (token, *token.ancestors):
        subjects = [child for child in verb.children if child.dep_ in SUBJECTS]
        if verb.pos_ in ("VERB", "AUX") and subjects and subjects[0].tag_ not in RELATIVE:
            return verb
    return None


def kept_tokens(verb: Any, span: Any) -> list[Any]:
    """The tokens of the clause of `verb`, less subordinate parts without the span where it is long."""
    before = [t for t in verb.children if t.i < verb.i]
    openers = [t for t in before if t.dep_ in ("mark", "cc", "preconj", "intj") or t.tag_ in RELATIVE]
    gone = {t.i for opener in openers for t in opener.subtree}
    if verb.dep_ == "conj":
        gone |= {t.i for t in verb.subtree if t.i < min(s.left_edge.i for s in verb.children if s.dep_ in SUBJECTS)}
    tokens = [t for t in verb.subtree if t.i not in gone]
    protected = {t.i for t in span} | {verb.i}
    parts = [t for t in verb.subtree if t.dep_ in LOOSE and t != verb]
    parts = [t for t in parts if not protected & {below.i for below in t.subtree}]
    parts.sort(key=lambda t: (LOOSE.index(t.dep_), -len(list(t.subtree))))
    for part in parts:
        if len(tokens) <= LONGEST_CLAUSE:
            break
        inside = {t.i for t in part.subtree}
        tokens = [t for t in tokens if t.i not in inside]
    return tokens


def phrase(tokens: Iterable[Any]) -> str:
    """The tokens as running text, without a comma that is left alone between two removed parts."""
    text = "".join(f"{_cased(t)}{t.whitespace_ or chr(0)}" for t in tokens)
    text = re.sub(r"\0(?=[\w])", "", text).replace("\0", "")
    text = re.sub(r"\s*,(\s*,)+", ",", " ".join(text.split()))
    return _GAPS.sub(r"\1", _EDGES.sub("", text))


def _cased(token: Any) -> str:
    """The token's text; a sentence's first word in lower case unless it is a name, as it may stand elsewhere now."""
    return token.text.lower() if token.is_sent_start and token.pos_ != "PROPN" and token.text != "I" else token.text


def write(span: Any, kind: str) -> str | None:
    """A question whose answer is `span` [of a parsed text]; None where the rules find none."""
    verb = clause_of(span.root)
    if verb is None or _is_cut(span):
        return None
    tokens = kept_tokens(verb, span)
    subject = next(child for child in verb.children if child.dep_ in SUBJECTS)
    inside = {t.i for t in subject.subtree}
    answer = {t.i for t in span}
    is_short = len(tokens) <= LONGEST_INVERTED
    if is_short and span.root == subject:
        asked = _ask_subject(tokens, inside, "what" if kind in TIMES else question_word(span, kind), verb)
    elif is_short and not answer & inside and _has_a_place(span.root, verb):
        asked = _ask_first(tokens, span, kind, verb, inside)
    else:
        asked = [phrase(_put(tokens, span, _word_in_place(span, kind)))]
    text = " ".join(part for part in asked if part)
    text = _EDGES.sub("", " ".join(re.sub(r'["“”]|\(\s*\)', "", text).split()))
    words = len(text.split())
    return f"{text}?" if 4 <= words <= LONGEST_QUESTION else None


def _is_cut(span: Any) -> bool:
    """Whether the span ends or begins amid a word, a name or a phrase.

    For example "19" of "19-year-old", "May" of "May 29", "Sugar" of "Lord Sugar", "the instance" of "the instance of a
    shutdown", the first part of a list.
    """
    text, before = span.doc.text, span.doc[max(0, span.start - 1)]
    if any(re.match(r"[\w-]", text[place : place + 1]) for place in (span.start_char - 1, span.end_char) if place >= 0):
        return True
    if any(name.start <= span.start and span.end <= name.end and len(name) > len(span) for name in span.doc.ents):
        return True
    if before.i < span.start and before.pos_ == "PROPN" and before.head in span:
        return True
    behind = span.doc[span.end] if span.end < len(span.doc) else None
    if behind is None or (behind.head.i not in range(span.start, span.end) and span.root.head != behind):
        return False
    return (
        behind.lower_ == "of" or behind.dep_ == "cc" or (behind.pos_ in ("NOUN", "PROPN") and span.root.dep_ != "poss")
    )


def _word_in_place(span: Any, kind: str) -> str:
    """The question word that replaces a span within its clause; a noun may follow."""
    if span.root.dep_ in ("nummod", "poss"):
        return "how many" if span.root.dep_ == "nummod" else "whose"
    if kind in TIMES and span.root.dep_ == "pobj":
        return f"what {kind.lower()}"
    return "what" if span.root.dep_ in ("amod", "compound", "nmod") else question_word(span, kind)


class _Word:
    """A question word in the place of an answer's tokens."""

    is_sent_start = False

    def __init__(self, text: str, space: bool):
        self.text, self.whitespace_ = text, " " * space


def _put(tokens: Sequence[Any], span: Any, word: str) -> list[Any]:
    """The tokens with the span as one question word; "whose" has no possessive sign behind it."""
    first, last = span[0].i, span[len(span) - 1]
    if word == "whose" and last.i + 1 < len(last.doc) and last.nbor().tag_ == "POS":
        last = last.nbor()
    placed = [_Word(word, bool(last.whitespace_)) if t.i == first else t for t in tokens]
    return [t for t in placed if isinstance(t, _Word) or not first <= t.i <= last.i]


def _ask_subject(tokens: Sequence[Any], inside: set[int], word: str, verb: Any) -> list[str]:
    """Who or what, the clause behind its subject, and what stood before it: the verb first, as in "…, says Ann Lee"."""
    start = min(inside)
    before = [t for t in tokens if t.i < start and t != verb]
    after = [t for t in tokens if t.i > start and t.i not in inside]
    if verb.i < start:
        return [word, verb.text, phrase(before), phrase(after)]
    return [word, phrase(after), phrase(before)]


def _has_a_place(root: Any, verb: Any) -> bool:
    """Whether a verb or a preposition governs the span, or a noun that is its number or possession."""
    if root.dep_ in ("nummod", "poss"):
        return root.head.dep_ in ("dobj", "attr", "pobj", "nsubj", "nsubjpass") and clause_of(root.head) == verb
    return root.dep_ in ("dobj", "attr", "oprd", "dative", "pobj", "npadvmod", "acomp")


def _ask_first(tokens: Sequence[Any], span: Any, kind: str, verb: Any, inside: set[int]) -> list[str]:
    """The question word, the auxiliary, the subject and the rest, with the answer's place empty."""
    word, gone = question_word(span, kind), {t.i for t in span}
    root = span.root
    if root.dep_ in ("nummod", "poss"):
        noun = [t for t in root.head.subtree if span[len(span) - 1].i < t.i <= root.head.i]
        noun = [t for t in noun if t.tag_ != "POS"]
        word = f"{'how many' if root.dep_ == 'nummod' else 'whose'} {phrase(noun)}"
        gone |= set(range(span[0].i, root.head.i + 1))
    elif root.dep_ == "pobj" and root.head.lower_ in ("in", "at", "on", "during") and kind in PLACES | TIMES:
        word, gone = ("where" if kind in PLACES else "when"), gone | {root.head.i}
    elif root.dep_ == "pobj" and (kind in TIMES or root.head.i < min(inside)):
        word = "how long" if word == "when" and root.head.lower_ == "for" else word
        word, gone = f"{root.head.lower_} {word}", gone | {root.head.i}
    helpers = [t for t in verb.children if t.dep_ in ("aux", "auxpass") and t.i < verb.i]
    first = helpers[0] if helpers else verb
    left = [t for t in tokens if t.i not in gone | inside]
    before = [t for t in left if t.i < min(inside)]
    after = [t for t in left if t.i > min(inside)]
    subject = phrase([t for t in tokens if t.i in inside])
    if helpers or verb.pos_ == "AUX" or verb.lemma_ == "be":
        return [word, first.lower_, subject, phrase([t for t in after if t.i != first.i]), phrase(before)]
    form = {"VBD": "did", "VBZ": "does"}.get(verb.tag_, "do")
    rest = [_Word(verb.lemma_, True) if t.i == verb.i else t for t in after]
    return [word, form, subject, phrase(rest), phrase(before)]


# ---- texts ----------------------------------------------------------------------------------------------------------


def questions(text: str, document: Any, candidates: Sequence[AnswerCandidate]) -> Iterator[dict[str, Any]]:
    """Rows `question, answer` for a parsed text's candidates."""
    for candidate in candidates:
        span = document.char_span(candidate.start, candidate.end)
        if span is None or candidate.kind == "ORDINAL" or any(t.tag_ in RELATIVE for t in span):
            continue
        written = write(span, candidate.kind)
        if written:
            yield {"question": written, "answer": candidate.text}


def read_texts(names: Sequence[str], rows: int | None) -> dict[str, list[str]]:
    """The contexts of the files, each with other texts that are asked of it: a document's summaries."""
    texts: dict[str, list[str]] = {}
    for name in names:
        for index, row in enumerate(annotated.read_rows(name)):
            if rows is not None and index >= rows:
                break
            text = row.get("context") or row.get("sentence")
            if text:
                texts.setdefault(annotated.detokenize(text), [])
            elif "claims" in row:
                for source, supported in supported_claims(row):
                    texts.setdefault(source, []).extend(supported)
            elif "text" in row:
                text = annotated.article_text(row["text"]) if "level" in row else " ".join(row["text"].split())
                for piece in pieces(text):
                    texts.setdefault(piece, [])
            elif "a" in row:
                texts.setdefault(annotated.detokenize(row["a"]), []).append(annotated.detokenize(row["b"]))
            else:
                texts[row["document"]] = row.get("summaries") or [row["summary"]]
    return texts


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of two, three and four sentences by turns; the last piece may be shorter."""
    bounds = list(sentence_bounds(text))
    lengths = itertools.cycle((2, 3, 4))
    while bounds:
        length = next(lengths)
        yield text[bounds[0][0] : bounds[:length][-1][1]]
        bounds = bounds[length:]


def supported_claims(group: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The sources of a group of `recipes.claims`, long ones cut around a claim, with what they support.

    Nothing of a group that is held out.
    """
    for place, source in enumerate(group["sources"]):
        supported = [claim["text"] for claim in group["claims"] if claim["labels"][place] == 1]
        if supported and not claims.is_held_out(group["key"]):
            yield claims.shortened(source, supported[0]), supported


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rows", type=int, help="at most so many of each file")
    parser.add_argument("--spacy", help="the spaCy model; default: the first English one that is installed")
    args = parser.parse_args(argv)
    pipeline = load_pipeline(args.spacy)
    finder = AnswerFinder(pipeline)
    asked_of = read_texts(args.data, args.rows)
    texts = [(text, context) for context, others in asked_of.items() for text in (context, *others)]
    texts += [(text, text) for others in asked_of.values() for text in others]
    count = 0
    with gzip.open(args.out, "wt", encoding="utf-8") as lines:
        for (text, context), document in zip(texts, pipeline.pipe(text for text, _ in texts), strict=True):
            for row in questions(text, document, finder.find([text], None)[0]):
                count += 1
                row |= {"context": context, "source": "written", **({} if context == text else {"loose": True})}
                print(json.dumps(row, ensure_ascii=False), file=lines)
    print(f"{count:,} questions for {len(texts):,} texts")


if __name__ == "__main__":
    main()
