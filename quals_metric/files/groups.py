"""The scores of groups of rows, such as those of each model or domain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


def score_groups(names: Sequence[str], scores: Sequence[float], unsupported: Sequence[bool]) -> tuple[GroupScores, ...]:
    """The scores of every group, in the order in which the groups appear.

    Args:
        names: the group of every row.
        scores: the score of every row; NaN: undefined.
        unsupported: whether a row has an unsupported answer.
    """
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows_of.setdefault(name, []).append(row)
    groups = []
    for name, rows in rows_of.items():
        defined = [row for row in rows if not math.isnan(scores[row])]
        values = [scores[row] for row in defined]
        undefined_rate, rate = 1 - len(defined) / len(rows), share_of(unsupported[row] for row in defined)
        groups.append(
            GroupScores(name, len(rows), mean_of_defined(values), *bootstrap_interval(values), undefined_rate, rate)
        )
    return tuple(groups)


def share_of(flags: Iterable[bool]) -> float:
    """The share of the flags that are set; NaN of none."""
    return mean_of_defined(map(float, flags))


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
