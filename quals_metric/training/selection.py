"""Which documents the contrastive retraining learns from, and which of their samples is its bad example.

Numbers only: the scores may be QUALS, QAGS or the mean of ROUGE-1, ROUGE-2 and ROUGE-L.
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
class Selection:
    """The documents of S- and S+, in arrays with one entry per document.

    `lowest` [N] is the number of a document's lowest sample, -1 if none of its samples has a score; `negative` [N]
    says whether the document is in S- (that sample is among the worst), `positive` [N] whether it is in S+ (its ground
    truth is among the best).
    """

    lowest: npt.NDArray[np.int64]
    negative: npt.NDArray[np.bool_]
    positive: npt.NDArray[np.bool_]

    @property
    def selected(self) -> npt.NDArray[np.bool_]:
        """The documents in both, [N]: to train on."""
        return self.negative & self.positive

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(document, its sample that is the negative), in the order of the documents."""
        return [(int(i), int(self.lowest[i])) for i in np.flatnonzero(self.selected)]


def select(
    ground_truth_scores: Sequence[float],
    sample_scores: Sequence[Sequence[float]],
    *,
    negative_ratio: float = RATIO,
    positive_ratio: float = RATIO,
) -> Selection:
    """The selection of CONSEQ (Nan et al. 2021, arXiv 2105.04623), as its published code makes it.

    S- are the `round(negative_ratio * N)` documents whose lowest sample scores lowest, S+ the
    `round(positive_ratio * N)` whose ground truth scores highest; of N documents, the undefined ones too. Of equal
    scores the earlier counts first. An undefined score (NaN) is never chosen; the published code takes a document
    without any defined sample once the ratio reaches it.

    Args:
        ground_truth_scores: one per document, N; NaN: undefined.
        sample_scores: for each document those of its samples, as many as it has.
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
    worst = [scores[place] if place >= 0 else math.nan for scores, place in zip(sample_scores, lowest, strict=True)]
    negative = _first(np.array(worst, np.float64), _size("negative_ratio", negative_ratio, count))
    positive = _first(-np.array(ground_truth_scores, np.float64), _size("positive_ratio", positive_ratio, count))
    return Selection(lowest, negative, positive)


def check_ratio(name: str, ratio: float) -> None:
    """Raise ValueError unless a ratio is between 0 and 1."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"{name}: must be between 0 and 1, a share of all documents; got {ratio!r}")


def reselect(rows: Any, *, negative_ratio: float = RATIO, positive_ratio: float = RATIO) -> Any:
    """A collected data set with another selection, from the scores it holds.

    Args:
        rows: what `ConseqCollector` saved, or rows with its `samples`, `sample_scores` and `ground_truth_score`.
        negative_ratio: see `select`.
        positive_ratio: see `select`.

    Returns:
        The rows with the columns `in_negative` and `in_positive` (whether the document is in S-, in S+), `selected`
        (in both), `lowest` (its worst sample's number, None: none has a score) and `negative` (that sample, None
        where the document is not selected).
    """
    truths = [_number(score) for score in rows["ground_truth_score"]]
    found = select(
        truths,
        [[_number(score) for score in scores] for scores in rows["sample_scores"]],
        negative_ratio=negative_ratio,
        positive_ratio=positive_ratio,
    )
    negatives = {document: rows[document]["samples"][sample] for document, sample in found.pairs}
    columns = {
        "in_negative": found.negative.tolist(),
        "in_positive": found.positive.tolist(),
        "selected": found.selected.tolist(),
        "lowest": [None if place < 0 else place for place in found.lowest.tolist()],
        "negative": [negatives.get(document) for document in range(len(truths))],
    }
    rows = rows.remove_columns([name for name in columns if name in rows.column_names])
    for name, values in columns.items():
        rows = rows.add_column(name, pa.array(values, _TYPES[name]))
    return rows


_TYPES = {
    "in_negative": pa.bool_(), "in_positive": pa.bool_(), "selected": pa.bool_(),
    "lowest": pa.int64(), "negative": pa.string(),
}  # fmt: skip


def _number(score: float | None) -> float:
    return math.nan if score is None else score


def _size(name: str, ratio: float, count: int) -> int:
    check_ratio(name, ratio)
    return round(ratio * count)


def _lowest(scores: Sequence[float]) -> int:
    """The place of the lowest defined score, the first of several; -1 if there is none."""
    defined = [place for place, score in enumerate(scores) if not math.isnan(score)]
    return min(defined, key=lambda place: scores[place], default=-1)


def _first(scores: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.bool_]:
    """Which entries are among the `size` lowest, the undefined ones never."""
    order = np.argsort(scores, kind="stable")[:size]  # NaN sorts last
    chosen = np.zeros(len(scores), bool)
    chosen[order] = True
    return chosen & ~np.isnan(scores)
