"""A result as plain text for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quals_metric.result import SummaryScore

WIDTH = 100


def paragraph(label: str, text: str) -> str:
    """A labelled text, wrapped, with its lines below one another."""
    lead = f"{label}: "
    return textwrap.fill(_printable(text), WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead))


def summary_block(label: str, text: str, score: SummaryScore) -> str:
    """One summary, its score, and the pairs that made it, those with the least support first."""
    head = paragraph(label, text)
    if math.isnan(score.score):
        return f"{head}\n  QUALS undefined: {score.note or 'no pair kept'}"
    pairs = sorted(score.pairs, key=lambda pair: pair.score)
    rows = [(_number(pair.score), pair.answer, pair.question) for pair in pairs]
    return (
        f"{head}\n  QUALS {_number(score.score)}   (0 to 1: {_number(score.score_01)})\n"
        f"{rows_block(('support', 'answer', 'question'), rows)}"
    )


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


def _number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # the sum turns -0.0 into 0.0


def _printable(text: str) -> str:
    """The text without what would move a terminal's cursor or change its colours."""
    return "".join(char if char.isprintable() else " " for char in text)
