"""QUALS and QAGS in Inspect: a scorer of tasks that summarize.

It needs the extra `inspect`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from quals_metric.integrations._harness import HarnessScorer

try:
    import anyio
    from inspect_ai.scorer import Score, mean, scorer, stderr
except ImportError as error:
    raise ImportError("inspect_ai: must be installed for this scorer. pip install 'quals-metric[inspect]'") from error

if TYPE_CHECKING:
    from inspect_ai.scorer import Scorer, Target
    from inspect_ai.solver import TaskState


@scorer(metrics=[mean(), stderr()], name="quals")  # type: ignore[untyped-decorator]  # has no types here
def quals_scorer(source: str | None = None, **options: Any) -> Scorer:
    """QUALS of the completion of every sample.

    A sample without a score is unscored: Inspect leaves it out of its metrics and counts it.

    Args:
        source: the key of the sample's metadata that holds the text that was summarized; None: its input is that text.
        options: options of `QualsConfig`, for example `tokens="answer"` or `device="cpu"`.

    Raises:
        TypeError: if an option is unknown.
        ValueError: if the model is unknown or an option is out of its range. The scorer itself raises it if a sample
            has no such key.
        ImportError: if something that the metric or its model needs is not installed.
    """
    return _score_with(HarnessScorer("quals", **options), source)


@scorer(metrics=[mean(), stderr()], name="qags")  # type: ignore[untyped-decorator]  # has no types here
def qags_scorer(source: str | None = None, **options: Any) -> Scorer:
    """QAGS of the completion of every sample; see `quals_scorer`. The options are those of `QagsConfig`."""
    return _score_with(HarnessScorer("qags", **options), source)


def _score_with(harness_scorer: HarnessScorer, source_key: str | None) -> Scorer:
    lock = anyio.Lock()

    async def score(state: TaskState, target: Target) -> Score:
        if source_key is not None and source_key not in state.metadata:
            raise ValueError(
                f"source: must be a key of the sample's metadata; {source_key!r} is not among {sorted(state.metadata)}"
            )
        source = state.input_text if source_key is None else state.metadata[source_key]
        summary = state.output.completion
        async with lock:  # one at a time, in a thread: the other samples go on generating
            result = await anyio.to_thread.run_sync(harness_scorer.score, [summary], [source])
        (scored,) = result.summaries
        metadata = {"signature": result.signature, f"num_{scored.items_field}": len(scored.items)}
        if math.isnan(scored.score):
            return Score.unscored(reason="scoring_failed", answer=summary, explanation=scored.note, metadata=metadata)
        explanation = harness_scorer.explain(scored)
        return Score(value=scored.score, answer=summary, explanation=explanation, metadata=metadata)

    return score
