"""QUALS of the summaries that a trainer generates itself: `compute_metrics` for `predict_with_generate=True`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_inference.distributed import process_state
from quals_metric.training.examples import IGNORED
from quals_metric.training.measuring import (
    MeasuringError,
    OnFailure,
    SummaryScorer,
    check_on_failure,
    log_failure,
    measure,
    stale_metrics,
)

logger = logging.getLogger(__name__)


def make_compute_metrics(
    scorer: SummaryScorer,
    tokenizer: Any,
    *,
    sources: Sequence[str] | Mapping[str, Sequence[str]],
    name: str = "quals",
    on_failure: OnFailure = "stale",
) -> Callable[[Any], dict[str, float]]:
    """Make the `compute_metrics` of a `Seq2SeqTrainer`: it scores the summaries that the evaluation generates anyway.

    It returns `quals`, `quals_undefined_runtime`, `quals_runtime` and, after a failure, `quals_stale_runtime`; see
    `QualsCallback`. The trainer puts its prefix before them. It needs `predict_with_generate=True`. Every
    process must call it with the same predictions, as the trainer does; they share the scoring.

    The trainer does not tell the function which set it evaluates. The first evaluation with as many rows as there are
    sources counts as that of their set. A later evaluation with other labels, such as `trainer.predict(test)` on a test
    set of the same length, is not scored: the function returns no values, and the log says so once.

    Args:
        scorer: a loaded `QualsScorer`, `QagsScorer` or an object of the same shape.
        tokenizer: decodes the predictions.
        sources: all documents of the evaluation set, in its order (so not with `group_by_length`). For several sets, a
            dict of them by name; the function recognizes a set by its length, so no two may have the same length.
        name: the start of the keys.
        on_failure: as for `QualsCallback`; the last good values are those of the same set.

    Raises:
        TypeError: if `sources` is a str. The function raises it if the predictions are no token ids.
        ValueError: if `sources` is empty or two sets have the same length. The function raises it if no set is as long
            as the predictions.
    """
    check_on_failure(on_failure)
    sets = _documents_by_length(sources)
    last: dict[int, dict[str, float]] = {}
    first_labels: dict[int, str] = {}
    refused: set[int] = set()

    def compute_metrics(evaluation: Any) -> dict[str, float]:
        ids = _token_ids(evaluation.predictions)
        labels = _same_padding(tokenizer, evaluation.label_ids)
        texts = _evaluated(sets, len(ids), labels)
        digest = _labels_digest(tokenizer, labels, len(texts))
        if first_labels.setdefault(len(texts), digest) != digest:
            if len(texts) not in refused:
                refused.add(len(texts))
                logger.warning(
                    "%s is not measured: this evaluation has as many rows as `sources` but other labels than the first "
                    "one, so its summaries may be of other documents; use another make_compute_metrics for this set",
                    name,
                )
            return {}
        try:
            # Decoding is a part of the measurement, so that an error in it is handled like others.
            measured = measure(scorer, texts, lambda indices: _decode(tokenizer, ids[list(indices)]))
        except MeasuringError as error:
            if on_failure == "raise":
                raise
            log_failure(name, error)
            return stale_metrics(name, last.get(len(texts)), texts, error.seconds)
        values = measured.metrics(name)
        if measured.num_undefined < len(texts):
            last[len(texts)] = values
        return values

    return compute_metrics


def _documents_by_length(sources: Sequence[str] | Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The sets of documents, shortest first."""
    if isinstance(sources, str):
        raise TypeError("sources: must be a list of str, or a dict of such lists; got str")
    sets = [list(texts) for texts in (sources.values() if isinstance(sources, Mapping) else [sources])]
    lengths = sorted(map(len, sets))
    if not lengths or not lengths[0]:
        raise ValueError(f"sources: must not be empty; got lengths {lengths}")
    if len(set(lengths)) < len(lengths):
        raise ValueError(
            f"sources: evaluation sets must differ in length, which alone tells them apart; got lengths {lengths}. Use "
            f"QualsCallback(datasets=...), which knows their names"
        )
    return sorted(sets, key=len)


def _token_ids(predictions: Any) -> NDArray[Any]:
    """The generated ids [N, T]; some models return them in a tuple."""
    if isinstance(predictions, list):
        raise TypeError(
            "predictions: must be one array [summaries, tokens]; got a list of batches. Set "
            "eval_do_concat_batches=True in Seq2SeqTrainingArguments"
        )
    ids = np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(
            f"predictions: must be token ids [summaries, tokens]; got {ids.dtype} {list(ids.shape)}. Set "
            f"predict_with_generate=True in Seq2SeqTrainingArguments"
        )
    return ids


def _evaluated(sets: Sequence[Sequence[str]], count: int, labels: Any) -> Sequence[str]:
    """The set of documents that `count` predictions belong to.

    On several processes, Seq2SeqTrainer completes the last batch with the first examples and keeps them. Then there are
    more predictions than documents, and the labels begin again after the last document.
    """
    if process_state().num_processes > 1 and labels is not None:
        for texts in sets:
            if len(texts) <= count and np.array_equal(labels, labels[np.arange(count) % len(texts)]):
                return texts
    for texts in sets:
        if len(texts) == count:
            return texts
    lengths = ", ".join(str(len(texts)) for texts in sets)
    raise ValueError(
        f"sources: must have one document per prediction; got {lengths} documents for {count} predictions. Give all "
        f"documents of the evaluation set, in its order; several sets by name: sources={{'a': [...], 'b': [...]}}"
    )


def _labels_digest(tokenizer: Any, labels: Any, count: int) -> str:
    """A digest of the labels of the first `count` rows that does not depend on their padding; "" without labels."""
    if labels is None:
        return ""
    pad, digest = _pad_token(tokenizer), hashlib.sha256()
    for row in labels[:count]:
        digest.update(json.dumps(row[row != pad].tolist()).encode())
    return digest.hexdigest()


def _decode(tokenizer: Any, ids: NDArray[Any]) -> list[str]:
    """The texts of rows of token ids [N, T]."""
    rows = _same_padding(tokenizer, ids)
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


def _same_padding(tokenizer: Any, ids: Any) -> Any:
    """`ids` padded with the tokenizer's token only: the trainer also pads with -100 where it joins batches."""
    if not isinstance(ids, np.ndarray):
        return None
    return np.where(ids == IGNORED, _pad_token(tokenizer), ids)


def _pad_token(tokenizer: Any) -> Any:
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
