"""The table of metrics. The command line, the files, the report, the app, the study and the callback read it.

A new metric is a package of five files and one row of `METRICS`. This file is fast to import: a metric's own modules
are imported when they are first used.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from qa_inference.checks import one_of
from qa_inference.metric_base.options import ModelOptions, Option, options_of
from qa_inference.metric_base.results import ScoredSummary

DTYPES = ("float32", "bfloat16", "float16")
"""The floating-point types that a model computes in."""

BANDS = ("lowest", "low", "high", "highest")
"""Names of the bands of scores, from the lowest. They order the scores of questions and judge no summary."""


@dataclass(frozen=True)
class MetricSpec:
    """Everything that the product has to know of one metric.

    A question is an item of the scored summary. It may have `tokens` with `summary_log_probs` and `source_log_probs`,
    which a figure shows. It may have a `source_answer` with `text`, `start` and `end`, which is marked in the source.

    Attributes:
        name: the metric's name in evaluate.
        title: the metric's name for people.
        config: its class of options, as "module:name".
        scorer: its class of scorers, likewise.
        summary: its class of scored summaries, likewise.
        evaluate_class: its class for evaluate, likewise.
        best: the greatest value of a score.
        shows_01: whether the 0-to-1 view is shown too, because the score itself is not between 0 and 1.
        band_limits: the limits between the bands of a question's score, ascending.
        meaning: a few sentences on how a score is computed.
        legend: an explanation of the first column of the questions.
        columns: the titles of a question's columns in a terminal; the first is the score's.
        cells: returns the texts of a question's other columns.
        report_columns: the titles of a question's columns in a report; the last is the score's. The report itself adds
            a column for the question and one for the band.
        report_cells: returns the texts of the columns before the score.
        band_note: the data on which the bands were set.
        presets: for every option that takes a preset, its table of presets as "module:name".
        library: the library that the metric needs beyond the package's own; "": none.
        extra: the extra of the package that installs the library.
    """

    name: str
    title: str
    config: str
    scorer: str
    summary: str
    evaluate_class: str
    best: float
    shows_01: bool
    band_limits: tuple[float, ...]
    meaning: str
    legend: str
    columns: tuple[str, ...]
    cells: Callable[[Any], tuple[str, ...]]
    report_columns: tuple[str, ...]
    report_cells: Callable[[Any], tuple[str, ...]]
    band_note: str = ""
    presets: Mapping[str, str] = field(default_factory=dict)
    library: str = ""
    extra: str = ""

    @property
    def threshold(self) -> float:
        """The score below which an answer counts as unsupported by default: the limit between low and high."""
        return self.band_limits[BANDS.index("high") - 1]

    def config_type(self) -> type[ModelOptions]:
        """The class of its configuration."""
        config_type: type[ModelOptions] = _named(self.config)
        return config_type

    def summary_type(self) -> type[ScoredSummary]:
        """The class of a scored summary."""
        summary_type: type[ScoredSummary] = _named(self.summary)
        return summary_type

    def options(self) -> dict[str, Option]:
        """Its options by name."""
        return {config_field.name: about for config_field, about in options_of(self.config_type())}

    def preset_tables(self) -> dict[str, Mapping[str, Any]]:
        """The presets of every option that takes one, by option and name."""
        return {name: _named(table) for name, table in self.presets.items()}

    def make_config(self, **options: Any) -> ModelOptions:
        """The configuration with the options that are not None; the others have their defaults."""
        return self.config_type()(**{name: value for name, value in options.items() if value is not None})

    def check(self, config: ModelOptions) -> None:
        """Check what a scorer with this configuration needs, as far as it shows before a model is loaded.

        Raises:
            ValueError: if a model is no preset, no Hub name and no folder, or a floating-point type is unknown.
            ImportError: if the library that the metric needs or the package of a preset is not installed.
        """
        from qa_inference.presets import Preset, find_preset  # imports numpy

        for name, presets in self.preset_tables().items():
            preset = find_preset(name, getattr(config, name), presets)
            if isinstance(preset, Preset):
                _ = preset.place  # raises ImportError
        for name in ("dtype", "search_dtype"):
            if isinstance(dtype := getattr(config, name, None), str):
                one_of(*DTYPES)(name, dtype)
        if self.library and find_spec(self.library) is None:
            raise ImportError(
                f"{self.name}: needs the library {self.library}, which is not installed. pip install "
                f"'quals-metric[{self.extra}]'"
            )

    def load_scorer(self, **options: Any) -> Any:
        """A scorer with the options that are not None. It loads its models, without a bar for reading files."""
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # downloads keep theirs
        return _named(self.scorer)(self.make_config(**options))

    def band(self, score: float) -> int:
        """The number of a question's band, 1 to 4; 0 if the score is undefined."""
        return 0 if math.isnan(score) else bisect_right(self.band_limits, score) + 1

    def band_name(self, score: float) -> str:
        """The name of a question's band."""
        band = self.band(score)
        return BANDS[band - 1] if band else "undefined"


METRICS: dict[str, MetricSpec] = {
    spec.name: spec
    for spec in (
        MetricSpec(
            name="quals",
            title="QUALS",
            config="quals_metric.config:QualsConfig",
            scorer="quals_metric.scorer:QualsScorer",
            summary="quals_metric.result:SummaryScore",
            evaluate_class="quals_metric.metric:Quals",
            best=math.inf,
            shows_01=True,
            # Of the embedded model's pairs on CNN/DailyMail summaries that people call consistent, three in four score
            # above -0.8 and 94 % above -1.4; of the other summaries' pairs 4 % score below -2.6
            # (`benchmarks/agreement.py`). On XSum two thirds of the pairs score below -1.4, consistent or not.
            band_limits=(-2.6, -1.4, -0.8),
            meaning="A model writes questions and answers about the summary, and reads each pair against the source. A "
            "pair scores 0 if the source supports it as well as the summary does, and less if the source supports it "
            "less. The score of a summary is the mean of its pairs, in nats per token.",
            legend="support: nats per token, the source against the summary. 0: the source supports a pair as well.",
            columns=("support", "answer", "question"),
            cells=lambda pair: (pair.answer, pair.question),
            report_columns=("Answer", "Score"),
            report_cells=lambda pair: (pair.answer,),
            band_note="The bands were set on the embedded model and on summaries that keep to the source's words: of "
            "those that people call consistent, three in four pairs are in the highest band. Pairs of a summary in its "
            "own words score lower: on XSum two thirds of the pairs are in the two lowest bands, whether people call "
            "the summary consistent or not. Another model has another scale, and so have other tokens of the pairs.",
            presets={"model": "qa_inference.presets:PRESETS"},
        ),
        MetricSpec(
            name="qags",
            title="QAGS",
            config="qags_metric.config:QagsConfig",
            scorer="qags_metric.scorer:QagsScorer",
            summary="qags_metric.result:SummaryScore",
            evaluate_class="qags_metric.metric:Qags",
            best=1.0,
            shows_01=False,
            band_limits=(0.25, 0.5, 0.75),
            meaning="A reader answers questions about the summary twice: from the summary, and from the source. A "
            "question's score is the F1 of the words of the two answers: 1 if they are the same, 0 if they share none. "
            "The score of a summary is the mean of its questions.",
            legend="F1: the words that the answers from the summary and from the source share. 1: the same answer.",
            columns=("F1", "summary says", "source says", "question"),
            cells=lambda question: (
                question.summary_answer.text,
                question.source_answer.text or "(nothing)",
                question.question,
            ),
            report_columns=("Asked for", "Answer from the summary", "Answer from the source", "F1"),
            report_cells=lambda question: (
                question.answer,
                question.summary_answer.text or "no answer",
                question.source_answer.text or "no answer",
            ),
            presets={"model": "qa_inference.presets:QUESTION_PRESETS", "reader": "qa_inference.presets:READERS"},
            library="spacy",
            extra="qags-en",
        ),
    )
}
"""Every metric by its name."""


def metric_spec(name: str) -> MetricSpec:
    """The row of a metric. Raises ValueError if no metric has that name."""
    if name not in METRICS:
        raise ValueError(f"metric: must be one of {', '.join(METRICS)}; got {name!r}")
    return METRICS[name]


def metric_of_row(row: Mapping[str, Any]) -> MetricSpec | None:
    """The metric whose questions a row of a score file holds; None if it holds none."""
    return next((spec for spec in METRICS.values() if spec.summary_type().items_field in row), None)


def format_number(value: float, digits: int = 3) -> str:
    """`value` with `digits` decimals, never -0; the word undefined for NaN."""
    return "undefined" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"  # the sum makes -0.0 0.0


def format_share(value: float) -> str:
    """A share in percent, with one decimal; the word undefined for NaN."""
    return "undefined" if math.isnan(value) else f"{value:.1%}"


def first_characters(text: str, most: int) -> str:
    """The text, or its first characters and an ellipsis if it has more than `most` of them."""
    return text if len(text) <= most else text[: most - 1] + "…"


def markdown_cell(value: object) -> str:
    """The text of a cell of a Markdown table, escaped so that it neither ends the cell nor looks like a tag."""
    text = "" if value is None else " ".join(str(value).split())
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;")):
        text = text.replace(character, entity)
    return text


def _named(path: str) -> Any:
    """The object that "module:name" names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
