"""QUALS and QAGS in lm-evaluation-harness.

A task names two functions in its YAML file. The first is called for every document and only keeps its source and its
summary. The second is called once and scores all of them in batches:

    doc_to_target: document
    metric_list:
      - metric: !function quals_metric.integrations.lm_eval.quals
        aggregation: !function quals_metric.integrations.lm_eval.mean_quals
        higher_is_better: true

The harness hands the target to its metrics as the reference, so the target of the task must be the source. A task
whose target is a gold summary needs a `process_results` of its own, which returns `{"quals": (source, summary)}`.

This file does not import the harness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from quals_metric.integrations._harness import HarnessScorer, mean_and_undefined

SourceAndSummary = tuple[str, str]
SampleFunction = Callable[..., SourceAndSummary]
Aggregation = Callable[[Sequence[SourceAndSummary]], float]


def lm_eval_metric(
    metric: str = "quals", **options: Any
) -> tuple[SampleFunction, Aggregation, SampleFunction, Aggregation]:
    """Make the functions of a task for a metric with options: call this in a file beside the task's YAML file.

    >>> quals, mean_quals, quals_undefined, count_undefined = lm_eval_metric("quals", tokens="answer", device="cpu")

    Args:
        metric: "quals" or "qags".
        options: options of the metric.

    Returns:
        The function for every document and the aggregation for the mean, then the same for the number of summaries
        without a score, which the mean leaves out. Both aggregations of a run score once.

    Raises:
        TypeError: if an option is unknown.
        ValueError: if the metric or its model is unknown, or an option is out of its range.
        ImportError: if something that the metric or its model needs is not installed.
    """
    scorer = HarnessScorer(metric, **options)

    @lru_cache(maxsize=1)
    def values(pairs: tuple[SourceAndSummary, ...]) -> dict[str, float]:
        result = scorer.score(summaries=[summary for _, summary in pairs], sources=[source for source, _ in pairs])
        return mean_and_undefined(metric, result.scores)

    def functions(name: str) -> tuple[SampleFunction, Aggregation]:
        def source_and_summary(references: Sequence[str], predictions: Sequence[str]) -> SourceAndSummary:
            return references[0], predictions[0]

        source_and_summary.__name__ = name  # the harness names the result by it
        return source_and_summary, lambda pairs: values(tuple((source, summary) for source, summary in pairs))[name]

    return *functions(metric), *functions(f"{metric}_undefined")


quals, mean_quals, quals_undefined, count_quals_undefined = lm_eval_metric("quals")
_OF_QAGS = ("qags", "mean_qags", "qags_undefined", "count_qags_undefined")


def __getattr__(name: str) -> Any:
    """The functions of QAGS, made when a task names one: a task with QUALS alone does not need the extra of QAGS."""
    if name not in _OF_QAGS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals().update(zip(_OF_QAGS, lm_eval_metric("qags"), strict=True))
    return globals()[name]
