"""Scores as the app shows them: HTML without a script."""

from __future__ import annotations

import math
from importlib.resources import files

from markupsafe import Markup

from qa_inference.metric_base.results import CorpusResult, ScoredSummary
from quals_metric.metrics import metric_spec
from quals_metric.report.figures import STYLE, environment, figure_svg, marked_summary_html
from quals_metric.report.html import legend_html, places_html
from quals_metric.report.spelling import natural_question

CSS = STYLE + (files("quals_metric.report") / "templates" / "app.css").read_text(encoding="utf-8")

_ENVIRONMENT = environment()


def result_html(label: str, summary: str, scored: ScoredSummary, source: str = "") -> str:
    """A summary's score, the summary with its answers marked, and its questions, the lowest score first.

    If it has several sentences, each has its score. The unsupported answers are listed.
    Every QUALS pair has its figure: the probability of each token given the summary and given the source. Questions
    have the spelling of the summary and the source.
    """
    spec = metric_spec(scored.metric)
    # An undefined score, NaN, cannot be compared: it comes first.
    ordered = sorted(enumerate(scored.items, 1), key=lambda numbered: _sort_key(numbered[1].score))
    return _ENVIRONMENT.get_template("app.html.jinja").render(
        label=label,
        metric=spec,
        scored=scored,
        marked=Markup(marked_summary_html(summary, scored)),
        places=Markup(places_html(spec, scored, spec.threshold)),
        questions=[
            (
                number,
                item,
                natural_question(item.question, summary, source),
                Markup(figure_svg(item) if hasattr(item, "tokens") else ""),
            )
            for number, item in ordered
        ],
    )


def corpus_html(result: CorpusResult[ScoredSummary]) -> str:
    """A file's mean score, the number of rows without a score, and the signature."""
    template = _ENVIRONMENT.get_template("app_file.html.jinja")
    return template.render(metric=metric_spec(result.kind.metric), result=result)


def help_html(metric: str) -> str:
    """How to read the marks, as a report says it."""
    heading = "<h3>How to read the marks</h3>"
    return f'<section class="q-help" aria-label="Legend">{heading}{legend_html(metric_spec(metric))}</section>'


def _sort_key(score: float) -> tuple[bool, float]:
    return not math.isnan(score), score
