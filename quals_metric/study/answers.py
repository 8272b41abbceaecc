"""The human study's answers: a line for each, on the disk before the next pair is shown, and never rewritten.

Who is killed while an answer is written loses that one: its line is left torn, and is counted and passed over.
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
from quals_metric.study.pairs import Study, StudyPair

QUESTIONS = {
    "consistency": "Which summary agrees better with the facts of the source?",
    "informativeness": "Which summary tells more of what matters in the source?",
    "grammar": "Which summary is better in grammar?",
}
CHOICES = ("left", "equal", "right")

LONGEST_NAME = 40


@dataclass(frozen=True)
class StudyAnswer:
    """What one annotator says of one pair: which summary is better, "left", "right" or "equal", by three questions."""

    study: str
    pair: int
    annotator: str
    consistency: str
    informativeness: str
    grammar: str
    time: str


@dataclass(frozen=True)
class StudyAnswers:
    """The answers to a study, of an annotator's answers to a pair the last; and how many lines were torn."""

    answers: tuple[StudyAnswer, ...]
    num_torn: int


class AnswerFile:
    """A file of answers, a JSON object a line."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()

    def append(self, answer: StudyAnswer) -> None:
        """Write an answer; when this returns, it is on the disk.

        Raises:
            OSError: if it cannot be written.
        """
        line = json.dumps(asdict(answer)).encode() + b"\n"
        with self._lock:
            try:
                is_new = not self.path.exists()
                with self.path.open("ab+", buffering=0) as file:
                    self._write(file.fileno(), (b"" if self._is_whole(file.fileno()) else b"\n") + line)
                if is_new:
                    durable.sync_folder(self.path.parent)
            except OSError as error:
                raise durable.explained(error, f"{self.path}: the answer cannot be written") from error

    def read(self, study: Study) -> StudyAnswers:
        """The answers to `study`; none if there is no file yet.

        Raises:
            ValueError: if a line is to another study, or is no answer.
            OSError: if the file cannot be read.
        """
        found: dict[tuple[str, int], StudyAnswer] = {}
        torn = 0
        numbers = {pair.number for pair in study.pairs}
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                torn += 1
                continue
            answer = _answer(value, f"{self.path}, line {number}")
            if answer.study != study.key or answer.pair not in numbers:
                raise ValueError(
                    f"{self.path}, line {number}: must be an answer to these pairs; it is to others. Give each file "
                    f"of pairs a file of answers, and leave the pairs as they were"
                )
            found.pop((answer.annotator, answer.pair), None)
            found[answer.annotator, answer.pair] = answer
        return StudyAnswers(tuple(found.values()), torn)

    def _is_whole(self, descriptor: int) -> bool:
        """Whether the file ends with a line's end, or is empty."""
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if not size:
            return True
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        return os.read(descriptor, 1) == b"\n"

    def _write(self, descriptor: int, data: bytes) -> None:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)


class Desk:
    """Hands out pairs and takes answers: each annotator has an order of their own and goes on where they were."""

    def __init__(self, study: Study, file: AnswerFile) -> None:
        self.study, self._file = study, file
        self._pairs = {pair.number: pair for pair in study.pairs}
        self._done: dict[str, set[int]] = {}
        for answer in file.read(study).answers:
            self._done.setdefault(answer.annotator, set()).add(answer.pair)

    def next(self, annotator: str) -> StudyPair | None:
        """The next pair that the annotator has not answered; None: there is none left."""
        done = self._done.get(annotator, set())
        return next((self._pairs[number] for number in self._order(annotator) if number not in done), None)

    def num_done(self, annotator: str) -> int:
        """How many pairs the annotator has answered."""
        return len(self._done.get(annotator, ()))

    def take(self, annotator: str, pair: int, choices: Mapping[str, str | None]) -> None:
        """Write down an annotator's answer.

        Args:
            annotator: a name as `annotator_name` gives it.
            pair: a pair's number.
            choices: "left", "equal" or "right" by question.

        Raises:
            ValueError: if there is no such pair, or a question without an answer.
            OSError: if it cannot be written; it then does not count.
        """
        if pair not in self._pairs:
            raise ValueError(f"pair: must be one of the study; got {pair}")
        for question in QUESTIONS:
            if choices.get(question) not in CHOICES:
                raise ValueError(f"{question}: choose left, equal or right; got {choices.get(question) or 'nothing'}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        chosen = {question: str(choices[question]) for question in QUESTIONS}
        self._file.append(StudyAnswer(self.study.key, pair, annotator, time=now, **chosen))
        self._done.setdefault(annotator, set()).add(pair)

    def _order(self, annotator: str) -> Sequence[int]:
        return random.Random(f"{self.study.key} {annotator}").sample(list(self._pairs), len(self._pairs))


def annotator_name(text: str) -> str:
    """A name as it is written down: white space joined, no difference between capitals and small letters.

    Raises:
        ValueError: if there is none, or it is too long.
    """
    name = " ".join(text.split()).casefold()
    if not 0 < len(name) <= LONGEST_NAME:
        raise ValueError(f"name: must have 1 to {LONGEST_NAME} characters; got {len(name)}")
    return name


def _answer(value: object, place: str) -> StudyAnswer:
    if isinstance(value, dict) and value.keys() == {field.name for field in fields(StudyAnswer)}:
        answer = StudyAnswer(**value)
        choices = [value[question] for question in QUESTIONS]
        if type(value["pair"]) is int and all(choice in CHOICES for choice in choices):
            return answer
    raise ValueError(f"{place}: must be an answer as `quals study serve` writes it. Correct the line or take it out")
