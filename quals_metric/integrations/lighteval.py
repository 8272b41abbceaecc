"""QUALS and QAGS in lighteval: a metric that scores all summaries of a task in batches.

It needs the extra `lighteval`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quals_metric.integrations._harness import HarnessScorer, mean_and_undefined

try:
    from lighteval.metrics.metrics_sample import SampleLevelComputation
    from lighteval.metrics.utils.metric_utils import SampleLevelMetric
    from lighteval.tasks.requests import SamplingMethod
except ImportError as error:
    raise ImportError("lighteval: must be installed for this metric. pip install 'quals-metric[lighteval]'") from error

if TYPE_CHECKING:
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc


class _SummaryScores(SampleLevelComputation):  # type: ignore[misc]  # has no types
    """The scores of all summaries of a task. lighteval prints its attributes."""

    def __init__(self, scorer: HarnessScorer, source_column: str) -> None:
        self.scorer, self.source_column = scorer, source_column

    def compute(self, responses: list[ModelResponse], docs: list[Doc], **_: Any) -> list[float]:
        """The score of the first response to every document; NaN: undefined."""
        summaries = [response.final_text[0] for response in responses]
        return self.scorer.score(summaries, [self._source(doc) for doc in docs]).scores

    def _source(self, doc: Doc) -> str:
        specific = doc.specific or {}
        if self.source_column not in specific:
            raise ValueError(
                f"source_column: must be a key of Doc.specific; {self.source_column!r} is not among "
                f"{sorted(specific)}. Set specific={{{self.source_column!r}: the source}} in the prompt function"
            )
        source: str = specific[self.source_column]
        return source


def lighteval_metric(metric: str = "quals", *, source_column: str = "document", **options: Any) -> SampleLevelMetric:
    """A metric for `LightevalTaskConfig(metrics=[...])`. The models are loaded after the generation.

    The results have the mean of the defined scores, `quals`, and the number of the others, `quals_undefined`. The
    details have the score of every summary.

    Args:
        metric: "quals" or "qags".
        source_column: the key of `Doc.specific` that holds the text that was summarized.
        options: options of the metric, for example `tokens="answer"` or `device="cpu"`.

    Raises:
        TypeError: if an option is unknown.
        ValueError: if the metric or its model is unknown, or an option is out of its range. The metric itself raises
            it if a document has no such key.
        ImportError: if something that the metric or its model needs is not installed.
    """
    return SampleLevelMetric(
        metric_name=metric,
        higher_is_better=True,
        category=SamplingMethod.GENERATIVE,
        sample_level_fn=_SummaryScores(HarnessScorer(metric, **options), source_column),
        corpus_level_fn=lambda scores: mean_and_undefined(metric, scores),
        batched_compute=True,
    )
