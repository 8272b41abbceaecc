"""The answers of a human study: one line each, on disk before the next pair is shown, never rewritten.

A server that is killed while it writes an answer loses that answer only: its line is incomplete, and is skipped and
counted.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from quals_metric.files import durable
from quals_metric.study.summary_pairs import Study, SummaryPair

QUESTIONS = {
    "consistency": "Which summary agrees better with the facts of the source?",
    "informativeness": "Which summary tells more of what matters in the source?",
    "grammar": "Which summary has better grammar?",
}
CHOICES = ("left", "equal", "right")

MAX_NAME_LENGTH = 40


@dataclass(frozen=True)
class Judgment:
    """An annotator's answer on one pair: for each question the better summary, "left", "right" or "equal"."""

    study: str
    pair: int
    annotator: str
    consistency: str
    informativeness: str
    grammar: str
    time: str


@dataclass(frozen=True)
class StudyJudgments:
    """The answers to a study: each annotator's last answer on each pair, and the number of incomplete lines."""

    answers: tuple[Judgment, ...]
    num_torn: int


class JudgmentFile:
    """A file of answers, one JSON object per line."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()

    def append(self, answer: Judgment) -> None:
        """Write an answer. It is on disk when this returns.

        Raises:
            OSError: if it cannot be written.
        """
        line = json.dumps(asdict(answer)).encode() + b"\n"
        with self._lock:
            try:
                is_new = not self.path.exists()
                with self.path.open("ab+", buffering=0) as file:
                    self._write(file.fileno(), (b"" if self._ends_with_newline(file.fileno()) else b"\n") + line)
                if is_new:
                    durable.sync_folder(self.path.parent)
            except OSError as error:
                raise durable.explained(error, f"{self.path}: the answer cannot be written") from error

    def read(self, study: Study) -> StudyJudgments:
        """The answers to `study`; none if the file does not exist yet.

        Raises:
            ValueError: if a line belongs to another study, or is no answer.
            OSError: if the file cannot be read.
        """
        answers: dict[tuple[str, int], Judgment] = {}
        num_torn = 0
        pair_numbers = {pair.number for pair in study.pairs}
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                num_torn += 1
                continue
            answer = _as_judgment(value, f"{self.path}, line {number}")
            if answer.study != study.key or answer.pair not in pair_numbers:
                raise ValueError(
                    f"{self.path}, line {number}: must be an answer to these pairs; it belongs to others. Use one file "
                    f"of answers per file of pairs, and do not change the pairs"
                )
            answers.pop((answer.annotator, answer.pair), None)
            answers[answer.annotator, answer.pair] = answer
        return StudyJudgments(tuple(answers.values()), num_torn)

    def _ends_with_newline(self, descriptor: int) -> bool:
        """Whether the file is empty or its last line is complete."""
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if not size:
            return True
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        return os.read(descriptor, 1) == b"\n"

    def _write(self, descriptor: int, data: bytes) -> None:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)


class AnnotationSession:
    """Hands out pairs and records answers. Every annotator has their own order of pairs and resumes where they stopped.

    Args:
        study: the pairs.
        file: the file of answers.
    """

    def __init__(self, study: Study, file: JudgmentFile) -> None:
        self.study, self._file = study, file
        self._pairs = {pair.number: pair for pair in study.pairs}
        self._judged: dict[str, set[int]] = {}
        for answer in file.read(study).answers:
            self._judged.setdefault(answer.annotator, set()).add(answer.pair)

    def next_pair(self, annotator: str) -> SummaryPair | None:
        """The next pair that the annotator has not judged; None if all are judged."""
        judged = self._judged.get(annotator, set())
        return next((self._pairs[number] for number in self._order(annotator) if number not in judged), None)

    def num_judged(self, annotator: str) -> int:
        """The number of pairs that the annotator has judged."""
        return len(self._judged.get(annotator, ()))

    def record(self, annotator: str, pair: int, choices: Mapping[str, str | None]) -> None:
        """Write an annotator's answer.

        Args:
            annotator: a name as `annotator_name` returns it.
            pair: the number of a pair.
            choices: "left", "equal" or "right" for every question.

        Raises:
            ValueError: if there is no such pair, or a question has no answer.
            OSError: if the answer cannot be written; it then does not count.
        """
        if pair not in self._pairs:
            raise ValueError(f"pair: must be one of the study; got {pair}")
        for question in QUESTIONS:
            if choices.get(question) not in CHOICES:
                raise ValueError(f"{question}: choose left, equal or right; got {choices.get(question) or 'nothing'}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        chosen = {question: str(choices[question]) for question in QUESTIONS}
        self._file.append(Judgment(self.study.key, pair, annotator, time=now, **chosen))
        self._judged.setdefault(annotator, set()).add(pair)

    def _order(self, annotator: str) -> Sequence[int]:
        return random.Random(f"{self.study.key} {annotator}").sample(list(self._pairs), len(self._pairs))


def annotator_name(text: str) -> str:
    """A name as it is recorded: white space joined, in lower case.

    Raises:
        ValueError: if it is empty or too long.
    """
    name = " ".join(text.split()).casefold()
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        raise ValueError(f"name: must have 1 to {MAX_NAME_LENGTH} characters; got {len(name)}")
    return name


def _as_judgment(value: object, location: str) -> Judgment:
    if isinstance(value, dict) and value.keys() == {field.name for field in fields(Judgment)}:
        answer = Judgment(**value)
        choices = [value[question] for question in QUESTIONS]
        if type(value["pair"]) is int and all(choice in CHOICES for choice in choices):
            return answer
    raise ValueError(f"{location}: must be an answer as `quals study serve` writes it. Correct or remove the line")
