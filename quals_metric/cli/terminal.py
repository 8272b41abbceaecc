"""A result as plain text for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quals_metric.metrics import format_number

if TYPE_CHECKING:
    from qa_inference.metric_base import ScoredSummary

WIDTH = 100


@dataclass(frozen=True)
class View:
    """How a metric's scores are shown: the questions in columns, the first their value, and what that means.

    `value` and `cells` take a question of the metric's result; the cells are those of the other columns.
    """

    title: str
    columns: tuple[str, ...]
    value: Callable[[Any], float]
    cells: Callable[[Any], tuple[str, ...]]
    legend: str
    shows_01: bool  # the scores' 0-to-1 view too, because they are not between 0 and 1 as they are


VIEWS = {
    "quals": View(
        "QUALS",
        ("support", "answer", "question"),
        lambda pair: float(pair.score),
        lambda pair: (pair.answer, pair.question),
        "support: nats per token, the source against the summary. 0: the source supports a pair as well.",
        shows_01=True,
    ),
    "qags": View(
        "QAGS",
        ("F1", "summary says", "source says", "question"),
        lambda question: float(question.f1),
        lambda question: (question.summary_answer.text, question.source_answer.text or "(nothing)", question.question),
        "F1: the words that the answers from the summary and from the source share. 1: the same answer.",
        shows_01=False,
    ),
}
"""By the metric's name."""


def paragraph(label: str, text: str) -> str:
    """A labelled text, wrapped, with its lines below one another."""
    lead = f"{label}: "
    return textwrap.fill(_printable(text), WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead))


def summary_block(label: str, text: str, score: ScoredSummary) -> str:
    """One summary, its score, and the questions that made it, those with the least support first."""
    head, view = paragraph(label, text), VIEWS[score.metric]
    if math.isnan(score.score):
        return f"{head}\n  {view.title} undefined: {score.note}"
    rows = [(format_number(view.value(one)), *view.cells(one)) for one in sorted(score.items, key=view.value)]
    in_01 = f"   (0 to 1: {format_number(score.score_01)})" if view.shows_01 else ""
    return f"{head}\n  {view.title} {format_number(score.score)}{in_01}\n{rows_block(view.columns, rows)}"


def rows_block(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns; the last column is wrapped into what is left of the width, the others at a third of it."""
    cells = [[textwrap.wrap(_printable(cell), WIDTH // 3) or [""] for cell in row[:-1]] for row in (header, *rows)]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(header) - 1)]
    left = max(20, WIDTH - 2 - sum(width + 2 for width in widths))
    lines = []
    for row, start in zip((header, *rows), cells, strict=True):
        columns = [*start, textwrap.wrap(_printable(row[-1]), left) or [""]]
        for index in range(max(map(len, columns))):
            parts = [column[index] if index < len(column) else "" for column in columns]
            padded = [part.ljust(width) for part, width in zip(parts, [*widths, 0], strict=True)]
            lines.append(("    " + "  ".join(padded)).rstrip())
    return "\n".join(lines)


def _printable(text: str) -> str:
    """The text without what would move a terminal's cursor or change its colours."""
    return "".join(char if char.isprintable() else " " for char in text)
