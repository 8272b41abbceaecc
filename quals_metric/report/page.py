"""The HTML of a report: what fits of a selection of rows, in one self-contained page."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from itertools import pairwise, zip_longest
from typing import Any

from markupsafe import Markup

from quals_metric.metrics import format_number
from quals_metric.report.evidence import BANDS, LIMITS, Evidence
from quals_metric.report.figures import STYLE, environment, figure_svg, histogram_svg, marked_summary_html
from quals_metric.report.passages import Passage, Source
from quals_metric.report.rows import SHOWN_TEXT, Entry, Histogram, Selection

_RESERVE = 20_000  # bytes for what stands between the parts that are counted
_FEW = 4  # rows that are shown open, in the order given, without a histogram


@dataclass(frozen=True)
class Metric:
    """What a page says of a metric; `top` is its greatest score."""

    key: str
    name: str
    meaning: str
    top: float


METRICS = {
    "quals": Metric(
        "quals",
        "QUALS",
        "Every question and answer that the summary suggests is read against the source. A pair's score is in nats "
        "per token: 0 if the source supports it as well as the summary does, the lower the less.",
        math.inf,
    ),
    "qags": Metric(
        "qags",
        "QAGS",
        "A reader answers questions about the summary twice: from the summary, and from the source. A question's score "
        "is the F1 of the words of the two answers: 1 if they are the same, 0 if they share none.",
        1.0,
    ),
}

_CSS = (files("quals_metric.report") / "templates" / "report.css").read_text(encoding="utf-8") + STYLE
_ENVIRONMENT = environment()


def page(metric: Metric, selection: Selection, about: Mapping[str, Any], max_bytes: int) -> bytes:
    """The page as UTF-8.

    Args:
        metric: one of `METRICS`.
        selection: the rows.
        about: what is said of the whole, by name; what is not given is not said.
        max_bytes: the most it may take; figures are left out first, then rows, and the page says so.
    """
    groups = selection.groups
    few = sum(len(group) for _, group in groups) == selection.num_rows <= _FEW
    if few:
        entries = sorted((entry for _, group in groups for entry in group), key=lambda entry: entry.number)
        groups = [("Summaries" if len(entries) > 1 else "Summary", entries)]
    template = _ENVIRONMENT.get_template("report.html.jinja")
    fixed = {
        "metric": metric,
        "style": _CSS,
        "digest": base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode(),
        "bands": _legend(metric),
        "facts": _facts(metric, selection, about),
        "bars": [] if few else selection.histogram.bars(),
        "histogram": Markup("") if few else _histogram(selection.histogram),
    }
    room = max_bytes - _RESERVE - len(template.render(**fixed, groups=[], left_out=0).encode())
    shown = _fitted(metric, [group for _, group in groups], few, room)
    parts = [(name, [shown[entry.number] for entry in group if entry.number in shown]) for name, group in groups]
    left_out = sum(len(group) for _, group in groups) - len(shown)
    return template.render(**fixed, groups=parts, left_out=left_out).encode()


def _legend(metric: Metric) -> list[tuple[int, str, str]]:
    """The bands, from the highest: number, name and which scores are in it."""
    limits = [f"{limit:g}" for limit in LIMITS[metric.key]]
    ranges = [f"below {limits[0]}", *(f"{low} to {high}" for low, high in pairwise(limits)), f"{limits[-1]} and above"]
    return [*zip(range(1, len(BANDS) + 1), BANDS, ranges, strict=True)][::-1]


def _fitted(metric: Metric, groups: Sequence[Sequence[Entry]], is_open: bool, room: int) -> dict[int, Markup]:
    """The rows' HTML by number: what fits `room` bytes, by turns from every group; then with figures as they fit."""
    views = [_View(metric, entry, is_open) for turn in zip_longest(*groups) for entry in turn if entry is not None]
    shown: dict[int, Markup] = {}
    for view in views:
        html = view.html(figures=False)
        if (size := len(html.encode())) <= room:
            shown[view.entry.number] = html
            room -= size
    for view in views:
        if view.entry.number in shown and 0 < view.least_of_figures <= room:
            html = view.html(figures=True)
            more = len(html.encode()) - len(shown[view.entry.number].encode())
            if more <= room:
                shown[view.entry.number] = html
                room -= more
    return shown


@dataclass(frozen=True)
class _View:
    """One row as HTML; `is_open`: all of it is seen at once."""

    metric: Metric
    entry: Entry
    is_open: bool

    @cached_property
    def passages(self) -> list[tuple[str, tuple[Passage, ...]]]:
        """What is shown of the source for every question."""
        source = Source(self.entry.source)
        return [_passages(source, item) for item in self.entry.scored.evidence]

    @property
    def least_of_figures(self) -> int:
        """Bytes that its figures take at least; 0 if it has none."""
        return sum(600 + 50 * len(item.tokens) for item in self.entry.scored.evidence if item.tokens)

    def html(self, figures: bool) -> Markup:
        """The row, with or without its figures."""
        evidence, prefix = self.entry.scored.evidence, f"row-{self.entry.number}-"
        return Markup(
            _ENVIRONMENT.get_template("entry.html.jinja").render(
                metric=self.metric,
                entry=self.entry,
                scored=self.entry.scored,
                prefix=prefix,
                is_open=self.is_open,
                marked=Markup(marked_summary_html(self.entry.summary[:SHOWN_TEXT], self.entry.scored, prefix)),
                questions=[
                    (item, lead, passages, Markup(figure_svg(item) if figures else ""))
                    for item, (lead, passages) in zip(evidence, self.passages, strict=True)
                ],
                limit=SHOWN_TEXT,
            )
        )


def _passages(source: Source, item: Evidence) -> tuple[str, tuple[Passage, ...]]:
    """What is shown of the source for a question, and what that is."""
    answer = item.from_source
    if answer is not None and 0 <= answer.start < answer.end <= len(source.text):
        return "Where the reader found its answer in the source:", (source.around(answer.start, answer.end),)
    found = source.about(item.question, item.answer)
    none = "" if answer is None else "The reader found no answer in the source. "
    if not found:
        return none + "No sentence of the source shares a word with the question or the answer.", ()
    pointer = (
        "Sentences of the source that share most words with the question and the answer. This is a pointer by words"
    )
    return none + pointer + (": the score comes from the whole source." if answer is None else "."), found


def _facts(metric: Metric, selection: Selection, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of the whole, each with its name."""
    facts = []
    if "score" in about:
        bounds = [about.get(name, math.nan) for name in ("low", "high")]
        interval = (
            "" if any(map(math.isnan, bounds)) else " (95 % interval {} to {})".format(*map(format_number, bounds))
        )
        facts.append((f"Mean {metric.name}", format_number(about["score"]) + interval))
    if "score_01" in about and metric.top > 1:
        facts.append(("Mean between 0 and 1", format_number(about["score_01"])))
    facts += [("Summaries", f"{selection.num_rows:,}"), ("Of these undefined", f"{selection.num_undefined:,}")]
    for name, what in (("num_windowed_summaries", "Summaries"), ("num_windowed_sources", "Sources")):
        if about.get(name):
            facts.append((f"{what} longer than the model's window", f"{about[name]:,}"))
    return facts + ([("Signature", about["signature"])] if "signature" in about else [])


def _histogram(histogram: Histogram) -> Markup:
    bars = [(f"{low:g}", count) for low, _, count in histogram.bars()]
    return Markup(histogram_svg(bars, "How many summaries have which score")) if bars else Markup("")
