"""Toy models that ask and answer about the toy corpus, taught for a few seconds, and a finder that needs no spaCy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from qa_inference.answer_candidates import AnswerCandidate
from tests import tiny, tiny_readers

# The corpus text, a question about it, and the answer as it stands in the text.
ASKED = [
    (0, "who beat wladimir klitschko?", "Anthony Joshua"),
    (0, "who was beat by joshua?", "Wladimir Klitschko"),
    (0, "where did joshua win it?", "Wembley Stadium"),
    (0, "when did joshua win?", "Saturday"),
    (3, "who approved the bridge?", "The council"),
    (3, "what was the bridge over?", "the River Tay"),
    (3, "where is the bridge?", "Perth"),
    (3, "when was it approved?", "Monday"),
]


class Finder:
    """Finds runs of capitalized words."""

    signature = "capitals"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find(self, texts: Sequence[str], limit: int | None = 10) -> list[list[AnswerCandidate]]:
        self.asked += texts
        runs = [re.finditer(r"[A-Z]\w+(?: [A-Z]\w+)*", text) for text in texts]
        return [[AnswerCandidate(run.group(), *run.span(), "RUN") for run in each][:limit] for each in runs]


def generator(folder: Path) -> Path:
    """A toy BART that writes the questions above to answers between `<hl>` marks."""
    model, tokenizer = tiny.checkpoint("bart")
    encode: Callable[[str], list[int]] = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    texts = [tiny.CORPUS[i].replace(answer, f"<hl> {answer} <hl>", 1) for i, _, answer in ASKED]
    targets = [[*encode(question), 3] for _, question, _ in ASKED]
    width = max(map(len, targets))
    labels = torch.tensor([target + [-100] * (width - len(target)) for target in targets])
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    tiny.train(model, inputs, 300, mode=False)  # without dropout it learns by heart sooner
    return _save(model, tokenizer, folder)


def reader(folder: Path) -> Path:
    """A toy BERT that answers them, and finds no answer in the other text."""
    model, tokenizer = tiny_readers.checkpoint("bert")
    rows = [(i, question, answer, answer) for i, question, answer in ASKED]
    rows += [(3 - i, question, answer, None) for i, question, answer in ASKED]
    batch = tokenizer(
        [question for _, question, _, _ in rows], [tiny.CORPUS[i] for i, *_ in rows], padding=True,
        return_token_type_ids=True, return_tensors="pt",
    )  # fmt: skip
    places = [(0, 0) if answer is None else _place(batch, row, tiny.CORPUS[i], answer)
              for row, (i, _, _, answer) in enumerate(rows)]  # fmt: skip
    starts, ends = (torch.tensor(column) for column in zip(*places, strict=True))
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: batch[name] for name in names} | {"start_positions": starts, "end_positions": ends}
    tiny.train(model, inputs, 50, mode=False)
    return _save(model, tokenizer, folder)


def _place(batch: object, row: int, text: str, answer: str) -> tuple[int, int]:
    """The first and last token of an answer."""
    first = text.index(answer)
    ends = (first, first + len(answer) - 1)
    found = [batch.char_to_token(row, place, sequence_index=1) for place in ends]  # type: ignore[attr-defined]
    return found[0], found[1]


def _save(model: torch.nn.Module, tokenizer: object, folder: Path) -> Path:
    for part in (model, tokenizer):
        part.save_pretrained(folder)  # type: ignore[attr-defined, operator]
    return folder
