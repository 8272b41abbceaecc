"""The HTML of a report: the rows that fit, in one self-contained page."""

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

from qa_inference.metric_base.results import ScoredSummary
from quals_metric.metrics import BANDS, MetricSpec, format_number, format_share
from quals_metric.report.excerpts import Excerpt, SourceExcerpts
from quals_metric.report.figures import STYLE, figure_svg, histogram_svg, marked_summary_html, render_template
from quals_metric.report.rows import SHOWN_TEXT, Entry, Histogram, ShownRows
from quals_metric.report.spelling import natural_question

RESERVE = 20_000  # bytes of a page for what stands between the parts that are counted
_MOST_SENTENCES = 100  # shown of a summary
_FEW = 4  # rows that are shown open, in the order given, without a histogram

REPORT_CSS = (files("quals_metric.report") / "templates" / "report.css").read_text(encoding="utf-8") + STYLE


def csp_digest(text: str) -> str:
    """The digest by which a content security policy allows a style sheet or a script of the page itself."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


PAGE = {"style": REPORT_CSS, "digest": csp_digest(REPORT_CSS)}
"""The style sheet of a page, and the digest by which its content security policy allows it."""


def report_html(spec: MetricSpec, rows: ShownRows, about: Mapping[str, Any], max_bytes: int) -> bytes:
    """The page as UTF-8.

    Args:
        spec: the metric of the scores.
        rows: the rows to show.
        about: facts of the whole, by name; see `write_rows`.
        max_bytes: the most bytes of the page. Figures are left out first, then rows, and the page says so.
    """
    groups = rows.groups
    few = sum(len(group) for _, group in groups) == rows.num_rows <= _FEW
    if few:
        entries = sorted((entry for _, group in groups for entry in group), key=lambda entry: entry.number)
        groups = [("Summaries" if len(entries) > 1 else "Summary", entries)]
    fixed = {
        "metric": spec,
        **PAGE,
        "legend": Markup(legend_html(spec)),
        "facts": _facts(spec, rows, about),
        "calibration": about.get("calibration", ""),
        "by": about.get("by", ""),
        "scores_by": about.get("groups", ()),
        "bars": [] if few else rows.histogram.bars(),
        "histogram": Markup("") if few else _histogram(rows.histogram),
    }
    empty = render_template("report.html.jinja", **fixed, groups=[], left_out=0)
    room = max_bytes - RESERVE - len(empty.encode())
    shown = _fit(spec, [group for _, group in groups], few, room, about.get("threshold", spec.threshold))
    parts = [(name, [shown[entry.number] for entry in group if entry.number in shown]) for name, group in groups]
    left_out = sum(len(group) for _, group in groups) - len(shown)
    return render_template("report.html.jinja", **fixed, groups=parts, left_out=left_out).encode()


def legend_html(spec: MetricSpec) -> str:
    """How to read the marks of a metric: the caveat, and the bands with their ranges of scores, the highest first."""
    limits = [f"{limit:g}" for limit in spec.band_limits]
    ranges = [f"below {limits[0]}", *(f"{low} to {high}" for low, high in pairwise(limits)), f"{limits[-1]} and above"]
    bands = [*zip(range(1, len(BANDS) + 1), BANDS, ranges, strict=True)][::-1]
    return render_template("legend.html.jinja", metric=spec, bands=bands)


def _fit(
    spec: MetricSpec, groups: Sequence[Sequence[Entry]], is_open: bool, room: int, threshold: float
) -> dict[int, Markup]:
    """The HTML of the rows that fit into `room` bytes, by row number.

    1. Rows are taken from the groups by turns, without their figures, while they fit.
    2. The rows that were taken get their figures while these fit.
    """
    entries = (entry for turn in zip_longest(*groups) for entry in turn if entry is not None)
    views = [_EntryView(spec, entry, is_open, threshold) for entry in entries]
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
class _EntryView:
    """One row as HTML; `is_open`: it is shown unfolded. Answers below `threshold` are listed as unsupported."""

    spec: MetricSpec
    entry: Entry
    is_open: bool
    threshold: float

    @cached_property
    def excerpts(self) -> list[tuple[str, tuple[Excerpt, ...]]]:
        """For every question, the excerpts shown of the source, and a sentence that introduces them."""
        passages = [SourceExcerpts(text) for text in self.entry.passages]
        return [_excerpts(passages, item) for item in self.entry.scored.items]

    @cached_property
    def wordings(self) -> list[str]:
        """Every question in the spelling of the summary and the source."""
        texts = [text[:SHOWN_TEXT] for text in (self.entry.summary, *self.entry.passages)]
        return [natural_question(item.question, *texts) for item in self.entry.scored.items]

    @property
    def least_of_figures(self) -> int:
        """The fewest bytes that its figures take; 0 if it has none."""
        return sum(600 + 50 * len(tokens) for tokens in map(_tokens, self.entry.scored.items) if tokens)

    def html(self, figures: bool) -> Markup:
        """The row, with or without its figures."""
        scored, prefix = self.entry.scored, f"row-{self.entry.number}-"
        return Markup(
            render_template(
                "entry.html.jinja",
                metric=self.spec,
                entry=self.entry,
                scored=scored,
                prefix=prefix,
                is_open=self.is_open,
                marked=Markup(marked_summary_html(self.entry.summary[:SHOWN_TEXT], scored, prefix)),
                places=Markup(places_html(self.spec, scored, self.threshold)),
                questions=[
                    (item, wording, lead, excerpts, _figure(item) if figures else Markup(""), _tokens(item))
                    for item, wording, (lead, excerpts) in zip(scored.items, self.wordings, self.excerpts, strict=True)
                ],
                limit=SHOWN_TEXT,
            )
        )


def _figure(item: Any) -> Markup:
    return Markup(figure_svg(item) if _tokens(item) else "")


def _tokens(item: Any) -> tuple[str, ...]:
    """The tokens of a question of which a figure is drawn; empty for a metric without."""
    tokens: tuple[str, ...] = getattr(item, "tokens", ())
    return tokens


def places_html(spec: MetricSpec, scored: ScoredSummary, threshold: float) -> str:
    """Where a summary is wrong: the score of every sentence, if it has several, and the unsupported answers."""
    sentences = [part for part in scored.sentences if part.end <= SHOWN_TEXT]
    return render_template(
        "places.html.jinja",
        metric=spec,
        sentences=sentences[:_MOST_SENTENCES] if len(sentences) > 1 and not math.isnan(scored.score) else (),
        left_out=max(0, len(sentences) - _MOST_SENTENCES),
        spans=scored.spans(threshold),
        threshold=f"{threshold:g}",
    )


def _excerpts(passages: Sequence[SourceExcerpts], item: Any) -> tuple[str, tuple[Excerpt, ...]]:
    """A text that introduces the sentences of the source for a question, and these sentences."""
    source, lead = passages[item.passage], f"Passage {item.passage + 1}. " if len(passages) > 1 else ""
    answer = getattr(item, "source_answer", None)  # of a metric whose reader answers from the source
    if answer is not None and 0 <= answer.start < answer.end <= len(source.text):
        return f"{lead}Where the reader found its answer in the source:", (source.around(answer.start, answer.end),)
    excerpts = source.about(item.question, item.answer)
    lead += "" if answer is None else "The reader found no answer in the source. "
    if not excerpts:
        return lead + "No sentence of the source shares a word with the question or the answer.", ()
    whole = "passage" if len(passages) > 1 else "source"
    lead += f"Sentences of the {whole} that share most words with the question and the answer."
    return lead + (f" The score comes from the whole {whole}." if answer is None else ""), excerpts


def _facts(spec: MetricSpec, rows: ShownRows, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of the whole, each with its name."""
    facts = []
    if "score" in about:
        bounds = [about.get(name, math.nan) for name in ("low", "high")]
        interval = (
            "" if any(map(math.isnan, bounds)) else " (95 % interval {} to {})".format(*map(format_number, bounds))
        )
        facts.append((f"Mean {spec.title}", format_number(about["score"]) + interval))
    if "score_01" in about and spec.shows_01:
        facts.append(("Mean between 0 and 1", format_number(about["score_01"])))
    facts += [("Summaries", f"{rows.num_rows:,}"), ("Summaries without a score", f"{rows.num_undefined:,}")]
    if not math.isnan(about.get("unsupported_rate", math.nan)):
        name = f"Scored summaries with an unsupported answer (below {about['threshold']:g})"
        facts.append((name, format_share(about["unsupported_rate"])))
    for name, texts in (("num_windowed_summaries", "Summaries"), ("num_windowed_sources", "Sources")):
        if about.get(name):
            facts.append((f"{texts} longer than the model's window", f"{about[name]:,}"))
    return facts + ([("Signature", about["signature"])] if "signature" in about else [])


def _histogram(histogram: Histogram) -> Markup:
    bars = [(f"{low:g}", count) for low, _, count in histogram.bars()]
    return Markup(histogram_svg(bars, "How many summaries have which score")) if bars else Markup("")
