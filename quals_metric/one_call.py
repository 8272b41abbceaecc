"""One call that scores: `quals_metric.score`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping, Sized
from typing import Any

from qa_inference.calibration import calibration_digest
from qa_inference.metric_base.options import refuse_unknown
from quals_metric.metrics import metric_spec


def score(
    summaries: str | Iterable[str],
    sources: str | Iterable[str] | None = None,
    *,
    contexts: Iterable[Any] | None = None,
    metric: str = "quals",
    progress: bool = False,
    **options: Any,
) -> Any:
    """The scores of summaries against their sources, in one call.

    The scorer of the last call stays loaded, for calls with the same options. To use several, make scorers.

    Args:
        summaries: the texts to judge, in any one-dimensional collection of str; or a single text.
        sources: for each summary, the text it was written from; or a single text, which is the source of all.
        contexts: instead of `sources`: for each summary, a list of passages; for a single summary, its passages.
        metric: the name of a metric: "quals" or "qags".
        progress: show a progress bar.
        **options: options of the metric's configuration, such as `model` or `device`.

    Returns:
        The result of the metric's scorer. If the summaries are a pandas Series, a DataFrame with the same index: the
        score, the 0-to-1 view, the number of questions and the note of each; `attrs["signature"]` has the signature.

    Raises:
        TypeError: if an argument holds anything but str, or an option is unknown.
        ValueError: if the lengths or the indexes differ, a value is not allowed, or there is no such metric.
    """
    refuse_unknown(metric, options, metric_spec(metric).options())
    texts = contexts if sources is None else sources
    index = _index(summaries)
    if index is not None and (texts_index := _index(texts)) is not None and not index.equals(texts_index):
        raise ValueError(
            "summaries and their texts: must have the same index; they differ. Take both from one DataFrame, or call "
            "reset_index(drop=True) on both"
        )
    # 1. A single text becomes a list.
    if isinstance(summaries, str):
        summaries, contexts = [summaries], None if contexts is None else [contexts]
    if isinstance(sources, str):
        summaries = summaries if isinstance(summaries, Sized) else list(summaries)
        sources = [sources] * len(summaries)
    # 2. Score.
    scorer = _scorer_of_call(metric, options)
    result = scorer.score(summaries, sources, contexts=contexts, progress=progress)
    if index is None:
        return result
    # 3. A Series becomes a DataFrame.
    table = result.to_pandas().set_index(index)
    table.attrs["signature"] = result.signature
    return table


def _index(texts: Any) -> Any:
    """The index of a pandas Series; None for anything else."""
    pandas = sys.modules.get("pandas")
    return texts.index if pandas is not None and isinstance(texts, pandas.Series) else None


_ONE_AT_A_TIME = threading.Lock()
_last_scorer: dict[Any, Any] = {}  # the scorer of the last call, by everything that it depends on


def _scorer_of_call(metric: str, options: Mapping[str, Any]) -> Any:
    """The scorer of the last call if it fits, else a new one. Memory may not hold both, so the last is freed first."""
    key = metric, tuple(sorted(options.items())), calibration_digest(options.get("calibration"))
    with _ONE_AT_A_TIME:
        if key not in _last_scorer:
            _last_scorer.clear()
            _last_scorer[key] = metric_spec(metric).load_scorer(**options)
        return _last_scorer[key]
