"""The scores of all rows of a file, and of groups of them, such as those of each model or domain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from qa_inference.metric_base.results import mean_of_defined
from qa_inference.significance import bootstrap_interval

MOST_GROUPS = 100
NO_VALUE = "(none)"


@dataclass(frozen=True)
class GroupScores:
    """The mean score of the rows that have the same value in a column, with its 95 % interval [low, high].

    `undefined_rate` is the share of the rows without a score. `unsupported_rate` is the share of the other rows that
    have an unsupported answer.
    """

    name: str
    rows: int
    score: float
    low: float
    high: float
    undefined_rate: float
    unsupported_rate: float


class ScoreFacts(TypedDict):
    """The facts of all rows of a score file, under the names that they have in `FileScores`."""

    score: float
    low: float
    high: float
    score_01: float
    unsupported_rate: float
    by: str
    groups: tuple[GroupScores, ...]


def facts_of_scores(
    scores: Sequence[float], scores_01: Sequence[float], unsupported: Sequence[bool], names: Sequence[str], by: str
) -> ScoreFacts:
    """The means, the interval and the groups of the rows of a score file.

    Args:
        scores: the score of every row; NaN: undefined.
        scores_01: its view between 0 and 1.
        unsupported: whether a row has an unsupported answer.
        names: the group of every row.
        by: the column that rows are grouped by; "": they are not.
    """
    whole = _scores_of("", range(len(scores)), scores, unsupported)
    rows_of: dict[str, list[int]] = {}  # in the order in which the groups appear
    if by:
        for row, name in enumerate(names):
            rows_of.setdefault(name, []).append(row)
    return {
        "score": whole.score,
        "low": whole.low,
        "high": whole.high,
        "score_01": mean_of_defined(scores_01),
        "unsupported_rate": whole.unsupported_rate,
        "by": by,
        "groups": tuple(_scores_of(name, rows, scores, unsupported) for name, rows in rows_of.items()),
    }


def _scores_of(name: str, rows: Sequence[int], scores: Sequence[float], unsupported: Sequence[bool]) -> GroupScores:
    """The scores of one or more rows, given by their indices."""
    defined = [row for row in rows if not math.isnan(scores[row])]
    values = [scores[row] for row in defined]
    undefined_rate = 1 - len(defined) / len(rows)
    unsupported_rate = mean_of_defined(float(unsupported[row]) for row in defined)
    low, high = bootstrap_interval(values)
    return GroupScores(name, len(rows), mean_of_defined(values), low, high, undefined_rate, unsupported_rate)


def group_of(value: Any, location: str, column: str) -> str:
    """The group of a row by its value in a column. Raises TypeError for a list or an object."""
    if value is None or value == "":
        return NO_VALUE
    if not isinstance(value, str | int | float):
        raise TypeError(
            f"{location}: column {column!r} must be a text, a number or a truth value to group by; got "
            f"{type(value).__name__} ({value!r:.40}). Choose another column for --by"
        )
    return str(value)


def check_groups(names: set[str], column: str) -> None:
    """Raise ValueError if there are more groups than a table can show."""
    if len(names) > MOST_GROUPS:
        raise ValueError(
            f"column {column!r}: must have at most {MOST_GROUPS} values to group by; it has more. Choose a column such "
            f"as the model or the domain for --by"
        )


def groups_of(about: Mapping[str, Any]) -> tuple[GroupScores, ...]:
    """The groups in the sidecar of a score file, where an undefined number is null."""
    made: Any = GroupScores
    return tuple(
        made(**{name: math.nan if value is None else value for name, value in group.items()})
        for group in about.get("groups", ())
    )
