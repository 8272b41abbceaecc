"""Pictures of a score as HTML and static SVG: the per-token figure, the marked summary, a histogram.

Every text is escaped, because anybody may have written it. Colours are attributes, so a picture needs no style sheet.
`STYLE` adds the marks, and colours for a dark page.
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

from qa_inference.metric_base.results import ScoredSummary
from quals_metric.metrics import first_characters, format_number, format_share, metric_spec

STYLE = (files("quals_metric.report") / "templates" / "figures.css").read_text(encoding="utf-8")

# Not allowed in HTML, or half a character. Each becomes U+FFFD, one for one, so that no offset changes.
_NOT_IN_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

_BAR, _STEP, _LEFT, _HEIGHT, _TOP = 8, 24, 34, 120, 8  # sizes in the figures, in pixels
_LABEL = 14  # the most characters shown of a token


class PairWithTokens(Protocol):
    """A pair with its tokens and their log-probabilities in nats given the summary and given the source.

    A `PairScore` of QUALS is one.
    """

    @property
    def tokens(self) -> tuple[str, ...]:
        """The pair's tokens."""

    @property
    def summary_log_probs(self) -> tuple[float, ...]:
        """Their log-probabilities in nats given the summary."""

    @property
    def source_log_probs(self) -> tuple[float, ...]:
        """Their log-probabilities in nats given the source."""


class ProbabilityBin(Protocol):
    """Summaries with similar probabilities."""

    @property
    def count(self) -> int:
        """Their number."""

    @property
    def probability(self) -> float:
        """Their mean probability."""

    @property
    def share(self) -> float:
        """The share of them that is consistent."""

    @property
    def low(self) -> float:
        """The lower bound of the share."""

    @property
    def high(self) -> float:
        """The upper bound of the share."""


def figure_svg(pair: PairWithTokens) -> str:
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
        f"{label} {format_number(in_summary, 2)}, {format_number(in_source, 2)}"
        for label, in_summary, in_source in zip(labels, summary, source, strict=True)
    )
    short = [first_characters(label, _LABEL) for label in labels]
    return render_template(
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


def marked_summary_html(summary_text: str, scored_summary: ScoredSummary, prefix: str = "") -> str:
    """The summary's text with its answers marked: coloured by the question's score, numbered as the questions are.

    Where answers overlap, the lowest score gives the colour. `STYLE` is the style sheet.

    Args:
        summary_text: the text that was scored.
        scored_summary: its part of a result, of any metric.
        prefix: numbers link to `#PREFIXpair-N`; "": they link to nothing.
    """
    return render_template("marked.html.jinja", runs=_runs(summary_text, scored_summary), prefix=prefix)


def histogram_svg(bars: Sequence[tuple[str, int]], title: str) -> str:
    """Bars of counts as SVG, from left to right. All numbers are in the text alternative too.

    Args:
        bars: for each bar, the label of its lower bound and its count.
        title: the title of the picture.

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
    return render_template("histogram.svg.jinja", title=title, shapes=shapes, most=most, **sizes)


def reliability_svg(bins: Sequence[ProbabilityBin], title: str) -> str:
    """A reliability plot as SVG: for every bin of probabilities, the share that is consistent, with its interval.

    Points on the diagonal are right. All numbers are in the text alternative too.
    """
    sizes = dict(left=44, top=10, size=260, ticks=[step / 5 for step in range(6)])
    return render_template("reliability.svg.jinja", title=title, bins=bins, **sizes)


def readable(token: str) -> str:
    """A token as people write it: without the marks of WordPiece, byte-level and SentencePiece vocabularies."""
    bare = token.removeprefix("##").lstrip("Ġ▁").replace("▁", " ")
    return bare or token


def environment() -> Environment:
    """Jinja's environment for the templates of this package: values are escaped, a missing name is an error."""
    made = Environment(
        loader=PackageLoader("quals_metric.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_forbidden,
    )
    made.filters |= {"number": format_number, "share": format_share}
    return made


def render_template(template: str, **values: object) -> str:
    """A template of this package, filled in."""
    variables: Mapping[str, object] = values
    return _TEMPLATES.get_template(template).render(variables)


@dataclass(frozen=True)
class _Run:
    """Characters of a summary that belong to the same answers: the lowest band, and which answers end here."""

    text: str
    band: int | None
    word: str
    ends: tuple[int, ...]


def _runs(summary_text: str, scored_summary: ScoredSummary) -> list[_Run]:
    """The summary cut wherever an answer begins or ends; `band` is None outside of all answers."""
    spec = metric_spec(scored_summary.metric)
    # 1. The characters of every answer, within the text (which may be cut), with its score.
    spans = [(max(0, item.start), min(item.end, len(summary_text)), item.score) for item in scored_summary.items]
    # 2. The bounds of the runs.
    cuts = sorted({0, len(summary_text), *(cut for start, end, _ in spans if start < end for cut in (start, end))})
    # 3. For every run the scores of the answers over it; the lowest band gives the colour. An undefined score is in
    #    band 0, below all others.
    runs = []
    for first, last in pairwise(cuts):
        scores = [score for start, end, score in spans if start <= first and last <= end]
        ends = tuple(number for number, (start, end, _) in enumerate(spans, 1) if end == last and start < end)
        lowest = min(scores, key=spec.band, default=None)
        text = summary_text[first:last]
        runs.append(
            _Run(text, None, "", ()) if lowest is None else _Run(text, spec.band(lowest), spec.band_name(lowest), ends)
        )
    return runs


def _bars(values: Sequence[float], shift: int) -> str:
    """The outline of all bars of one side, as the data of one SVG path; `shift` moves them to the right."""
    base = _TOP + _HEIGHT
    return "".join(
        f"M{_LEFT + _STEP * index + shift} {base}v-{_HEIGHT * value:.4g}h{_BAR}V{base}z"
        for index, value in enumerate(values)
        if value > 0
    )


def _probability(value: float) -> float:
    """A probability from its logarithm, NaN if undefined."""
    return math.exp(min(value, 0.0)) if not math.isnan(value) else math.nan


def _without_forbidden(value: Any) -> Any:
    """A value as it is written: a text without the characters that HTML cannot hold; trusted HTML as it is."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _NOT_IN_HTML.sub("\ufffd", value)
    return value


_TEMPLATES = environment()
