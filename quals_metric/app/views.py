"""What the app shows of a score, as HTML without a script."""

from __future__ import annotations

from importlib.resources import files

from markupsafe import Markup

from qa_inference.metric_base import CorpusResult, ScoredSummary
from quals_metric.report.evidence import of_score
from quals_metric.report.figures import STYLE, environment, figure_svg, marked_summary_html
from quals_metric.report.page import METRICS

CSS = STYLE + (files("quals_metric.report") / "templates" / "app.css").read_text(encoding="utf-8")

_ENVIRONMENT = environment()


def result_html(label: str, summary: str, score: ScoredSummary) -> str:
    """A summary's score, the summary with its answers marked, and what was asked, the least supported first.

    Of QUALS every pair has its figure: each token's probability given the summary and given the source.
    """
    scored = of_score(score)
    numbered = enumerate(scored.evidence, 1)
    # An undefined score, NaN, compares with nothing: it comes first.
    ordered = sorted(numbered, key=lambda item: (item[1].score == item[1].score, item[1].score))
    return _ENVIRONMENT.get_template("app.html.jinja").render(
        label=label,
        metric=METRICS[score.metric],
        scored=scored,
        marked=Markup(marked_summary_html(summary, scored)),
        questions=[(number, item, Markup(figure_svg(item))) for number, item in ordered],
    )


def corpus_html(result: CorpusResult[ScoredSummary]) -> str:
    """What is said of a file: the mean, the rows without a score, what it was computed with."""
    template = _ENVIRONMENT.get_template("app_file.html.jinja")
    return template.render(metric=METRICS[result.kind.metric], result=result)
