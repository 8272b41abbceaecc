"""A metric in an evaluation harness: it is named by its name and its options, and loads its models at its first use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from qa_inference.metric_base.options import refuse_unknown
from qa_inference.metric_base.results import CorpusResult, ScoredSummary, mean_of_defined
from quals_metric.metrics import format_number, markdown_cell, metric_spec


class HarnessScorer:
    """Scores the summaries of a harness. Invalid options are errors when it is made, before anything is generated.

    Args:
        metric: "quals" or "qags".
        options: options of the metric, for example `tokens="answer"` or `device="cpu"`.

    Raises:
        TypeError: if an option is unknown.
        ValueError: if the metric is unknown, an option is out of its range, or `MetricSpec.check` refuses it.
        ImportError: if something that the metric or its model needs is not installed.
    """

    def __init__(self, metric: str = "quals", **options: Any) -> None:
        self._spec, self._options = metric_spec(metric), options
        self.metric = metric
        refuse_unknown(metric, options, self._spec.options())
        self._spec.check(self._spec.config_type()(**options))

    def __repr__(self) -> str:
        """The metric and its options without a token: harnesses log it, and find earlier results by it."""
        shown = [f"{name}={value!r}" for name, value in self._options.items() if name != "token"]
        return f"HarnessScorer({', '.join([repr(self.metric), *shown])})"

    def __deepcopy__(self, memo: object) -> HarnessScorer:
        """The scorer itself: harnesses copy their settings, and the models are loaded once."""
        return self

    @cached_property
    def _scorer(self) -> Any:
        return self._spec.load_scorer(**self._options)

    def score(self, summaries: Sequence[str], sources: Sequence[str]) -> CorpusResult[Any]:
        """The score of every summary against the source at the same index."""
        result: CorpusResult[Any] = self._scorer.score(summaries=summaries, sources=sources)
        return result

    def explain(self, summary: ScoredSummary) -> str:
        """The questions behind a score as a table in Markdown, the worst first."""
        rows = [self._spec.columns, ["---"] * len(self._spec.columns)]
        for item in sorted(summary.items, key=lambda item: item.score):
            rows.append([format_number(item.score), *self._spec.cells(item)])
        return "\n".join(f"| {' | '.join(map(markdown_cell, cells))} |" for cells in rows)


def mean_and_undefined(metric: str, scores: Iterable[float]) -> dict[str, float]:
    """The mean of the scores that are defined, under the metric's name, and the number of the others."""
    values = list(scores)
    return {metric: mean_of_defined(values), f"{metric}_undefined": float(sum(map(math.isnan, values)))}
