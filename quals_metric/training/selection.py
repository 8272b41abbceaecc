"""The selection of documents for contrastive retraining, and of the negative example of each document.

This file sees numbers only: the scores may be QUALS, QAGS or the mean of ROUGE-1, ROUGE-2 and ROUGE-L.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

RATIO = 0.3  # of all documents, for S- and for S+: the published setting


@dataclass(frozen=True)
class SelectedDocuments:
    """The documents of S- and S+, in arrays with one entry for each of N documents.

    `lowest` [N] is the index of a document's lowest sample, -1 if none of its samples has a score. `negative` [N] is
    true if the document is in S- (that sample is among the worst), `positive` [N] if it is in S+ (its ground truth is
    among the best).
    """

    lowest: npt.NDArray[np.int64]
    negative: npt.NDArray[np.bool_]
    positive: npt.NDArray[np.bool_]

    @property
    def selected(self) -> npt.NDArray[np.bool_]:
        """The documents to train on [N]: those in S- and S+."""
        return self.negative & self.positive

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The index of every selected document and that of its negative sample, in the order of the documents."""
        return [(int(document), int(self.lowest[document])) for document in np.flatnonzero(self.selected)]


def select(
    ground_truth_scores: Sequence[float],
    sample_scores: Sequence[Sequence[float]],
    *,
    negative_ratio: float = RATIO,
    positive_ratio: float = RATIO,
) -> SelectedDocuments:
    """The selection of CONSEQ (Nan et al. 2021, arXiv 2105.04623), as its published code makes it.

    S- holds the `round(negative_ratio * N)` documents whose lowest sample scores lowest. S+ holds the
    `round(positive_ratio * N)` documents whose ground truth scores highest. N counts all documents, also those without
    a defined score. Of equal scores the earlier comes first. An undefined score (NaN) is never selected here; in the
    published code it is the last choice.

    Args:
        ground_truth_scores: one score for each of the N documents; NaN: undefined.
        sample_scores: for each document the scores of its samples, in any number; NaN: undefined.
        negative_ratio: the size of S-, between 0 and 1.
        positive_ratio: the size of S+, between 0 and 1.

    Raises:
        ValueError: if the lengths differ or a ratio is not between 0 and 1.
    """
    count = len(ground_truth_scores)
    if len(sample_scores) != count:
        raise ValueError(
            f"sample_scores: must have one list per document; got {len(sample_scores)} for {count} ground truths"
        )
    lowest = np.array([_lowest(scores) for scores in sample_scores], np.int64)
    worst = [scores[sample] if sample >= 0 else math.nan for scores, sample in zip(sample_scores, lowest, strict=True)]
    negative = _among_lowest(np.array(worst, np.float64), _size("negative_ratio", negative_ratio, count))
    positive = _among_lowest(-np.array(ground_truth_scores, np.float64), _size("positive_ratio", positive_ratio, count))
    return SelectedDocuments(lowest, negative, positive)


def check_ratio(name: str, ratio: float) -> None:
    """Raise ValueError unless a ratio is between 0 and 1."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"{name}: must be between 0 and 1, a share of all documents; got {ratio!r}")


def reselect(rows: Any, *, negative_ratio: float = RATIO, positive_ratio: float = RATIO) -> Any:
    """A collected data set with another selection, from the scores it holds.

    Args:
        rows: a data set of `ConseqCollector`, or one with its `samples`, `sample_scores` and `ground_truth_score`.
        negative_ratio: see `select`.
        positive_ratio: see `select`.

    Returns:
        The rows with the columns `in_negative` and `in_positive` (whether the document is in S-, in S+), `selected`
        (in both), `lowest` (the index of its worst sample; None: no sample has a score) and `negative` (that sample;
        None: the document is not selected).
    """
    selection = select(
        [_nan_if_none(score) for score in rows["ground_truth_score"]],
        [[_nan_if_none(score) for score in scores] for scores in rows["sample_scores"]],
        negative_ratio=negative_ratio,
        positive_ratio=positive_ratio,
    )
    negatives = {document: rows[document]["samples"][sample] for document, sample in selection.pairs}
    columns = {
        "in_negative": selection.negative.tolist(),
        "in_positive": selection.positive.tolist(),
        "selected": selection.selected.tolist(),
        "lowest": [None if sample < 0 else sample for sample in selection.lowest.tolist()],
        "negative": [negatives.get(document) for document in range(len(rows))],
    }
    rows = rows.remove_columns([name for name in columns if name in rows.column_names])
    for name, values in columns.items():
        rows = rows.add_column(name, pa.array(values, _TYPES[name]))
    return rows


_TYPES = {
    "in_negative": pa.bool_(), "in_positive": pa.bool_(), "selected": pa.bool_(),
    "lowest": pa.int64(), "negative": pa.string(),
}  # fmt: skip


def _nan_if_none(score: float | None) -> float:
    return math.nan if score is None else score


def _size(name: str, ratio: float, count: int) -> int:
    check_ratio(name, ratio)
    return round(ratio * count)


def _lowest(scores: Sequence[float]) -> int:
    """The index of the lowest defined score, the first of equal ones; -1 if there is none."""
    defined = [index for index, score in enumerate(scores) if not math.isnan(score)]
    return min(defined, key=lambda index: scores[index], default=-1)


def _among_lowest(scores: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.bool_]:
    """Whether each entry [N] is among the `size` lowest; an undefined one never is."""
    order = np.argsort(scores, kind="stable")[:size]  # NaN sorts last
    is_lowest = np.zeros(len(scores), bool)
    is_lowest[order] = True
    return is_lowest & ~np.isnan(scores)
