"""The rows that a report shows: the lowest, the highest and the undefined ones, with a histogram of all scores.

Rows are added one by one. Memory holds only the rows that are shown, however many there are.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from qa_inference.metric_base.results import ScoredSummary

SHOWN_TEXT = 20_000  # the most characters shown of a text
MOST_BARS = 24

_FINEST = 100  # counted steps in one unit of the score; bars are wider
_FARTHEST = 100.0  # a score beyond it is counted as this


@dataclass(frozen=True)
class Entry:
    """A row that is shown: its number from 1, its label, its texts, its score, and the user's columns.

    The source is a text, or several passages.
    """

    number: int
    label: str
    summary: str
    source: str | tuple[str, ...]
    scored: ScoredSummary
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def passages(self) -> tuple[str, ...]:
        """The passages of the source; a text is one, and an empty list is one without a text."""
        return (self.source,) if isinstance(self.source, str) else self.source or ("",)


class Histogram:
    """Counts of scores; `top` is the greatest possible score, which is counted with those just below it."""

    def __init__(self, top: float = math.inf) -> None:
        self._last = math.inf if math.isinf(top) else math.ceil(top * _FINEST) - 1
        self._counts: Counter[int] = Counter()

    def add(self, score: float) -> None:
        """Count a defined score."""
        near = min(max(score, -_FARTHEST), _FARTHEST)
        # The sum keeps 0.29 * 100 = 28.999… in the step it is written in.
        self._counts[int(min(math.floor(near * _FINEST + 1e-9), self._last))] += 1

    def bars(self) -> list[tuple[float, float, int]]:
        """Bars of equal round widths: lower bound, upper bound (not included), count; empty without scores."""
        if not self._counts:
            return []
        low, high = min(self._counts), max(self._counts)
        widths = (factor * 10**power for power in range(6) for factor in (1, 2, 5))
        width = next(width for width in widths if high // width - low // width < MOST_BARS)
        sums: Counter[int] = Counter()
        for step, count in self._counts.items():
            sums[step // width] += count
        scale = width / _FINEST
        return [(bar * scale, (bar + 1) * scale, sums[bar]) for bar in range(low // width, high // width + 1)]


@dataclass
class ShownRows:
    """The `size` lowest, highest and undefined rows of those added; of equal scores the earlier rows."""

    size: int
    histogram: Histogram = field(default_factory=Histogram)
    num_rows: int = 0
    num_undefined: int = 0
    _lowest: list[tuple[float, int, Entry]] = field(default_factory=list)
    _highest: list[tuple[float, int, Entry]] = field(default_factory=list)
    _undefined: list[Entry] = field(default_factory=list)

    def add(self, score: float, make: Callable[[], Entry]) -> None:
        """Count a row; `make` is called only if the row is among those to show so far."""
        self.num_rows += 1
        if math.isnan(score):
            self.num_undefined += 1
            if len(self._undefined) < self.size:
                self._undefined.append(make())
            return
        self.histogram.add(score)
        wanted = [(heap, (key, -self.num_rows)) for heap, key in ((self._lowest, -score), (self._highest, score))]
        wanted = [(heap, key) for heap, key in wanted if len(heap) < self.size or (self.size and key > heap[0][:2])]
        if not wanted:
            return
        entry = make()
        for heap, key in wanted:
            (heapq.heappush if len(heap) < self.size else heapq.heapreplace)(heap, (*key, entry))

    @property
    def groups(self) -> list[tuple[str, list[Entry]]]:
        """The rows to show by heading, none twice; rows with a score are one group if all of them are shown."""
        lowest, highest = (
            [entry for *_, entry in sorted(heap, reverse=True)] for heap in (self._lowest, self._highest)
        )
        taken = {entry.number for entry in lowest}
        highest = [entry for entry in highest if entry.number not in taken]
        groups = [("Lowest scores", lowest), ("Highest scores", highest)]
        if len(lowest) + len(highest) == self.num_rows - self.num_undefined:
            groups = [("All with a score, lowest first", lowest + highest[::-1])]
        return [(name, entries) for name, entries in [*groups, ("Undefined", self._undefined)] if entries]
