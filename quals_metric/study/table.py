"""The human study's table: how often people find one system better than the other, and whether that is chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qa_inference.metric_base import json_ready
from quals_metric.metrics import format_number
from quals_metric.study.answers import QUESTIONS, StudyAnswer, StudyAnswers
from quals_metric.study.pairs import Study

_WORDS = {-1: "worse", 0: "equal", 1: "better"}


@dataclass(frozen=True)
class QuestionResult:
    """What people say of system b against system a by one question.

    `better`, `worse` and `equal` are shares of all answers. `p_value` is of the two-sided exact sign test over pairs,
    each counted once: as b's if more answers call b better than worse, as a's the other way round, left out if as many;
    `pairs_better` and `pairs_worse` are these counts. `alpha` is Krippendorff's, for ordered values; NaN if no pair has
    two answers, or all answers are the same.
    """

    question: str
    better: float
    worse: float
    equal: float
    pairs_better: int
    pairs_worse: int
    p_value: float
    alpha: float


@dataclass(frozen=True)
class StudyTable:
    """The study's outcome; the systems are called as their score files are."""

    a: str
    b: str
    questions: tuple[QuestionResult, ...]
    num_answers: int
    num_pairs: int
    num_annotators: int
    num_torn: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; undefined: None."""
        plain: dict[str, Any] = json_ready(asdict(self))
        return plain


def tabulate(study: Study, answers: StudyAnswers) -> StudyTable:
    """The table of a study's answers; `num_pairs` are those with an answer.

    Raises:
        ValueError: if there is no answer.
        ImportError: if the extra `app` is not installed, which brings the agreement's library.
    """
    if not answers.answers:
        raise ValueError("answers: must not be empty; got 0. Have people answer first: quals study serve")
    left = {pair.number: pair.left_system for pair in study.pairs}
    rows = [_question(question, answers.answers, left) for question in QUESTIONS]
    return StudyTable(
        a=study.a,
        b=study.b,
        questions=tuple(rows),
        num_answers=len(answers.answers),
        num_pairs=len({answer.pair for answer in answers.answers}),
        num_annotators=len({answer.annotator for answer in answers.answers}),
        num_torn=answers.num_torn,
    )


def sign_test(first: int, second: int) -> float:
    """The two-sided p-value of a fair coin that falls `first` times on one side and `second` times on the other."""
    total = first + second
    tail = sum(math.comb(total, count) for count in range(min(first, second) + 1))
    return min(1.0, 2 * tail / (1 << total))


def agreement(units: Iterable[Sequence[int]]) -> float:
    """Krippendorff's alpha of ordered values.

    Args:
        units: the values that each pair was given, by any annotators; one with fewer than two says nothing.

    Returns:
        1 if all agree, 0 if no more than by chance; NaN if no two annotators judged the same, or all values are equal.

    Raises:
        ImportError: if the library is not installed.
    """
    shared = [values for values in units if len(values) > 1]
    domain = sorted({value for values in shared for value in values})
    if len(domain) < 2:
        return math.nan
    counts = [[values.count(value) for value in domain] for values in shared]
    alpha = _krippendorff().alpha
    return float(alpha(value_counts=counts, value_domain=domain, level_of_measurement="ordinal"))


def text(table: StudyTable) -> str:
    """The table as it is printed."""
    lines = [
        f"b: {table.b}, judged against a: {table.a}",
        "",
        f"{'':<16}{'b better':>10}{'b worse':>10}{'equal':>10}{'p':>10}{'alpha':>10}",
    ]
    for row in table.questions:
        shares = "".join(f"{share:>10.1%}" for share in (row.better, row.worse, row.equal))
        lines.append(f"{row.question:<16}{shares}{row.p_value:>10.4f}{format_number(row.alpha):>10}")
    lines += [
        "",
        f"{table.num_answers:,} answers by {table.num_annotators:,} annotators to {table.num_pairs:,} pairs",
        "better, worse, equal: shares of the answers",
        "p: exact sign test, two-sided; a pair counts once, for the system that most of its answers prefer",
        "alpha: Krippendorff's, ordinal; 1: the annotators agree, 0: no more than by chance",
    ]
    if table.num_torn:
        lines.append(f"{table.num_torn} torn lines passed over: what was being written when the server was killed")
    return "\n".join(lines)


def _question(question: str, answers: Sequence[StudyAnswer], left: dict[int, str]) -> QuestionResult:
    units: dict[int, list[int]] = defaultdict(list)
    for answer in answers:
        units[answer.pair].append(_value(getattr(answer, question), left[answer.pair]))
    values = [value for unit in units.values() for value in unit]
    shares = {word: values.count(value) / len(values) for value, word in _WORDS.items()}
    signs = [sum(unit) for unit in units.values()]
    better, worse = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
    return QuestionResult(
        question,
        **shares,
        pairs_better=better,
        pairs_worse=worse,
        p_value=sign_test(better, worse),
        alpha=agreement(units.values()),
    )


def _value(choice: str, left_system: str) -> int:
    """1: b is better; -1: a is; 0: equal."""
    if choice == "equal":
        return 0
    return 1 if (choice == "left") == (left_system == "b") else -1


def _krippendorff() -> Any:
    try:
        import krippendorff
    except ImportError as error:
        raise ImportError(
            "krippendorff: must be installed for `quals study report`. pip install 'quals-metric[app]'"
        ) from error
    return krippendorff
