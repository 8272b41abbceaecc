"""Pictures of a score as HTML and static SVG: the per-token figure, the marked summary, a histogram.

Every text is escaped: it is somebody's words. Colours stand in attributes, so that a picture needs no style sheet; a
page that has `STYLE` gets the marks, and colours that suit a dark one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from qa_inference.metric_base import ScoredSummary
from quals_metric.metrics import format_number
from quals_metric.report.evidence import Evidence, Scored, of_score

STYLE = (files("quals_metric.report") / "templates" / "figures.css").read_text(encoding="utf-8")

# Not allowed in HTML, or half a character: each becomes U+FFFD, so that what lies where stays as it is.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

_BAR, _STEP, _LEFT, _HEIGHT, _TOP = 8, 24, 34, 120, 8  # of the figures, in pixels
_LABEL = 14  # characters of a token that are shown, at most


class Pair(Protocol):
    """What a figure is drawn from: a `PairScore`, or the same read from a file."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """The pair's tokens."""

    @property
    def summary_log_probs(self) -> tuple[float, ...]:
        """Their log-probabilities in nats given the summary."""

    @property
    def source_log_probs(self) -> tuple[float, ...]:
        """Their log-probabilities in nats given the source."""


def figure_svg(pair: Pair) -> str:
    """The QUALS article's figure of a pair as SVG: each token's probability given the summary and given the source.

    The summary's bars are blue and stand on the left, the source's are orange and stand on the right; all numbers are
    in the text alternative too. An empty string if the pair has no tokens.
    """
    if not pair.tokens:
        return ""
    labels = [readable(token) for token in pair.tokens]
    summary, source = (
        [_probability(value) for value in side] for side in (pair.summary_log_probs, pair.source_log_probs)
    )
    alternative = "; ".join(
        f"{label} {format_number(a, 2)}, {format_number(b, 2)}"
        for label, a, b in zip(labels, summary, source, strict=True)
    )
    short = [label if len(label) <= _LABEL else label[: _LABEL - 1] + "…" for label in labels]
    return _render(
        "figure.svg.jinja",
        alternative=alternative,
        labels=[(label, round(_LEFT + _STEP * (index + 0.5))) for index, label in enumerate(short)],
        summary=_bars(summary, 3),
        source=_bars(source, 3 + _BAR + 1),
        left=_LEFT,
        top=_TOP,
        base=_TOP + _HEIGHT,
        right=_LEFT + _STEP * len(labels),
        # A token is written downwards: about seven pixels for a character.
        height=_TOP + _HEIGHT + 12 + 7 * max(map(len, short)),
    )


def marked_summary_html(summary: str, score: ScoredSummary | Scored, prefix: str = "") -> str:
    """The summary's text with its answers marked, coloured by their pair's score and numbered as the pairs are.

    Where answers overlap, the lowest score gives the colour. `STYLE` is the style sheet.

    Args:
        summary: the text that was scored.
        score: its part of a result, of either metric.
        prefix: numbers link to `#PREFIXpair-N`; "": they link to nothing.
    """
    scored = of_score(score) if isinstance(score, ScoredSummary) else score
    return _render("marked.html.jinja", runs=_runs(summary, scored.evidence), prefix=prefix)


def histogram_svg(bars: Sequence[tuple[str, int]], title: str) -> str:
    """Bars of counts, from left to right, each with the label of where it begins; all numbers are in the text too.

    Raises:
        ValueError: if there are no bars.
    """
    if not bars:
        raise ValueError("bars: must not be empty; got 0")
    most = max(count for _, count in bars) or 1
    step = 30
    shapes = [
        (_LEFT + step * index, round(_HEIGHT * count / most, 1), label, count)
        for index, (label, count) in enumerate(bars)
    ]
    right = _LEFT + step * len(bars)
    sizes = dict(left=_LEFT, top=_TOP + 8, base=_TOP + 8 + _HEIGHT, right=right, height=_HEIGHT + 68, step=step)
    return _render("histogram.svg.jinja", title=title, shapes=shapes, most=most, **sizes)


def readable(token: str) -> str:
    """A token as people write it: without the marks of WordPiece, byte-level and SentencePiece vocabularies."""
    bare = token.removeprefix("##").lstrip("Ġ▁").replace("▁", " ")
    return bare or token


def environment() -> Environment:
    """Jinja's, for the templates of this package: everything is escaped, a missing name is an error."""
    made = Environment(
        loader=PackageLoader("quals_metric.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    made.filters["number"] = format_number
    return made


@dataclass(frozen=True)
class _Run:
    """Characters of a summary under the same answers: their lowest band, and which answers end here."""

    text: str
    band: int | None
    word: str
    ends: tuple[int, ...]


def _runs(summary: str, evidence: Sequence[Evidence]) -> list[_Run]:
    """The summary cut wherever an answer begins or ends; `band` is None outside of all."""
    spans = [(max(0, item.start), min(item.end, len(summary))) for item in evidence]
    cuts = sorted({0, len(summary), *(cut for span in spans if span[0] < span[1] for cut in span)})
    runs = []
    for first, last in pairwise(cuts):
        over = [item for item, (start, end) in zip(evidence, spans, strict=True) if start <= first and last <= end]
        ends = tuple(n for n, (start, end) in enumerate(spans, 1) if end == last and start < end)
        lowest = min(over, key=lambda item: item.band, default=None)
        runs.append(
            _Run(summary[first:last], None, "", ())
            if lowest is None
            else _Run(summary[first:last], lowest.band, lowest.word, ends)
        )
    return runs


def _bars(values: Sequence[float], shift: int) -> str:
    """The outline of all bars of one side, as the data of one SVG path."""
    base = _TOP + _HEIGHT
    return "".join(
        f"M{_LEFT + _STEP * index + shift} {base}v-{_HEIGHT * value:.4g}h{_BAR}V{base}z"
        for index, value in enumerate(values)
        if value > 0
    )


def _probability(value: float) -> float:
    """A probability from its logarithm, NaN if undefined."""
    return math.exp(min(value, 0.0)) if not math.isnan(value) else math.nan


def _printable(value: Any) -> Any:
    """What is written in place of a value: text without what HTML cannot hold; trusted HTML as it is."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNPRINTABLE.sub("\ufffd", value)
    return value


_ENVIRONMENT = environment()


def _render(template: str, **values: object) -> str:
    variables: Mapping[str, object] = values
    return _ENVIRONMENT.get_template(template).render(variables)
