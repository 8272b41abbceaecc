"""The outcome of a human study: how often people prefer one system to the other, and whether this may be chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qa_inference.metric_base.results import json_ready
from quals_metric.metrics import format_number
from quals_metric.study.judgments import QUESTIONS, Judgment, StudyJudgments
from quals_metric.study.summary_pairs import Study

_WORDS = {-1: "worse", 0: "equal", 1: "better"}


@dataclass(frozen=True)
class QuestionResult:
    """The answers to one question, as a judgment of system b against system a.

    `better`, `worse` and `equal` are shares of all answers. `p_value` is that of the two-sided exact sign test over
    pairs. A pair counts once: for the system that more of its answers prefer, for neither if they are even.
    `pairs_better` and `pairs_worse` are these counts. `alpha` is Krippendorff's alpha for ordered values; NaN if no
    pair has two answers, or all answers are the same.
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
    """The outcome of a study. The systems have the names of their score files."""

    a: str
    b: str
    questions: tuple[QuestionResult, ...]
    num_answers: int
    num_pairs: int
    num_annotators: int
    num_torn: int

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON values; an undefined number is None."""
        plain: dict[str, Any] = json_ready(asdict(self))
        return plain


def tabulate(study: Study, answers: StudyJudgments) -> StudyTable:
    """The table of a study's answers. `num_pairs` counts the pairs that have an answer.

    Raises:
        ValueError: if there is no answer.
        ImportError: if the extra `app` is not installed.
    """
    if not answers.answers:
        raise ValueError("answers: must not be empty; got 0. Collect answers first: quals study serve")
    left = {pair.number: pair.left_system for pair in study.pairs}
    rows = [_question_result(question, answers.answers, left) for question in QUESTIONS]
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
    """The two-sided exact p-value of `first` heads and `second` tails under a fair coin."""
    total = first + second
    tail = sum(math.comb(total, count) for count in range(min(first, second) + 1))
    return min(1.0, 2 * tail / (1 << total))


def agreement(units: Iterable[Sequence[int]]) -> float:
    """Krippendorff's alpha of ordered values.

    Args:
        units: the values of each pair, by any annotators; pairs with fewer than two values are left out.

    Returns:
        1 if all agree, 0 at the level of chance; NaN if no pair has two values, or all values are equal.

    Raises:
        ImportError: if the extra `app` is not installed.
    """
    shared = [values for values in units if len(values) > 1]
    domain = sorted({value for values in shared for value in values})
    if len(domain) < 2:
        return math.nan
    counts = [[values.count(value) for value in domain] for values in shared]
    alpha = _krippendorff().alpha
    return float(alpha(value_counts=counts, value_domain=domain, level_of_measurement="ordinal"))


def table_text(table: StudyTable) -> str:
    """The table as plain text."""
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
        "p: exact sign test, two-sided; a pair counts once, for the system that more of its answers prefer",
        "alpha: Krippendorff's alpha, ordinal; 1: the annotators agree, 0: agreement by chance",
    ]
    if table.num_torn:
        lines.append(f"{table.num_torn} incomplete lines skipped: the server was killed while it wrote them")
    return "\n".join(lines)


def _question_result(question: str, answers: Sequence[Judgment], left: dict[int, str]) -> QuestionResult:
    values_of_pair: dict[int, list[int]] = defaultdict(list)
    for answer in answers:
        values_of_pair[answer.pair].append(_preference(getattr(answer, question), left[answer.pair]))
    values = [value for of_pair in values_of_pair.values() for value in of_pair]
    shares = {word: values.count(value) / len(values) for value, word in _WORDS.items()}
    sums = [sum(of_pair) for of_pair in values_of_pair.values()]
    better, worse = sum(total > 0 for total in sums), sum(total < 0 for total in sums)
    return QuestionResult(
        question,
        **shares,
        pairs_better=better,
        pairs_worse=worse,
        p_value=sign_test(better, worse),
        alpha=agreement(values_of_pair.values()),
    )


def _preference(choice: str, left_system: str) -> int:
    """1 if b is better, -1 if a is, 0 if they are equal."""
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
