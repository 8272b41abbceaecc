"""Labelled summaries: a file with a label for every summary, or with pairs of a faithful and an unfaithful summary."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qa_inference.overlap import copied_share
from quals_metric.agreement.statistics import Flags, Floats, Places
from quals_metric.files.tables import Record, Source, has_text_cells, number_in, records, source_in, text_in

SOURCE_COLUMNS = ("source", "document")
SIDES = ("faithful", "unfaithful")
NGRAMS = (1, 2, 3, 4)
COPIED_SHARES = tuple(f"copied {n}-grams" for n in NGRAMS)


@dataclass(frozen=True)
class LabelledSet:
    """The labelled summaries of one file.

    Attributes:
        name: the name of the file.
        digest: the SHA-256 of the file.
        sources: the source of every summary: a text, or several passages.
        summaries: the summaries.
        labels: the label of every summary, a number.
        good: a mask of the summaries that count as consistent.
        pairs: the pairs [P, 2] of summaries that are compared: the first of each should have the higher score.
        columns: further scores of every summary that the file has, by their names; NaN where one is missing.
        num_unlabelled: how many rows have no label, and are left out.
    """

    name: str
    digest: str
    sources: list[Source]
    summaries: list[str]
    labels: Floats
    good: Flags
    pairs: Places
    columns: dict[str, Floats] = field(default_factory=dict)
    num_unlabelled: int = 0

    def copied_shares(self) -> dict[str, Floats]:
        """The shares of a summary's 1- to 4-grams that its source has: scores that need no model."""
        sources = (source if isinstance(source, str) else "\n\n".join(source) for source in self.sources)
        texts = list(zip(self.summaries, sources, strict=True))
        shares = (np.array([copied_share(*both, n) for both in texts]) for n in NGRAMS)
        return dict(zip(COPIED_SHARES, shares, strict=True))


def read_labelled(
    path: Path,
    *,
    summary: str = "summary",
    source: str | None = None,
    label: str = "label",
    consistent_from: float = 1.0,
    scores: Sequence[str] = (),
) -> LabelledSet:
    """Read a file of labelled summaries.

    A row has a source, a summary and a label; or a source, a `faithful` and an `unfaithful` summary. A source is a text
    or a list of passages. In a file of pairs, the labels are 1 and 0, and a score column NAME is read from
    `NAME_faithful` and `NAME_unfaithful`.

    Args:
        path: a file that `records` reads.
        summary: the column of the summaries.
        source: the column of the sources; None: `source`, or `document`.
        label: the column of the labels. A row with an empty label is left out.
        consistent_from: the least label of a summary that counts as consistent.
        scores: further columns that hold scores.

    Raises:
        TypeError: if a text is no text.
        ValueError: if a row cannot be read, or the summaries are all consistent or all not.
        OSError: if the file cannot be read.
    """
    rows = list(records(path))
    if not rows:
        raise ValueError(f"{path}: must have at least one row; it has none. Label some summaries first")
    if source is None:
        source = next((name for name in SOURCE_COLUMNS if name in rows[0][1]), SOURCE_COLUMNS[0])
    is_text = has_text_cells(path)
    of_pairs = summary not in rows[0][1] and any(side in rows[0][1] for side in SIDES)
    made = (
        _pair_rows(rows, source, scores, is_text) if of_pairs else _rows(rows, summary, source, label, scores, is_text)
    )
    kept = list(made)
    labels = np.array([row.label for row in kept])
    good = labels >= (1.0 if of_pairs else consistent_from)
    if not 0 < good.sum() < len(good):
        raise ValueError(
            f"{path}: must have consistent summaries and others; of {len(good)} with a label, {int(good.sum())} have "
            f"one of at least {consistent_from:g}. --consistent-from says which labels count as consistent"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    sources = [row.source for row in kept]
    return LabelledSet(
        name=path.name,
        digest=digest,
        sources=sources,
        summaries=[row.summary for row in kept],
        labels=labels,
        good=good,
        pairs=np.arange(len(kept)).reshape(-1, 2) if of_pairs else _pairs_of_documents(sources, labels),
        columns={name: np.array([row.scores[index] for row in kept]) for index, name in enumerate(scores)},
        num_unlabelled=0 if of_pairs else len(rows) - len(kept),
    )


@dataclass(frozen=True)
class _LabelledRow:
    source: Source
    summary: str
    label: float
    scores: list[float]


def _rows(
    rows: Sequence[Record], summary: str, source: str, label: str, scores: Sequence[str], is_text: bool
) -> Iterator[_LabelledRow]:
    """The rows with one summary and its label."""
    for location, columns in rows:
        value = _number(columns, label, location, is_text, "--label-column")
        if not np.isnan(value):
            yield _LabelledRow(
                source_in(columns, source, location),
                text_in(columns, summary, location, "summary"),
                value,
                [_number(columns, name, location, is_text, "--score-column") for name in scores],
            )


def _pair_rows(rows: Sequence[Record], source: str, scores: Sequence[str], is_text: bool) -> Iterator[_LabelledRow]:
    """The rows with two summaries, each as two rows: first the faithful one."""
    for location, columns in rows:
        for side, value in zip(SIDES, (1.0, 0.0), strict=True):
            if side not in columns:
                raise ValueError(
                    f"{location}: must have the columns 'faithful' and 'unfaithful'; it lacks {side!r}. Add it, or "
                    f"leave the row out"
                )
            yield _LabelledRow(
                source_in(columns, source, location),
                text_in(columns, side, location, side),
                value,
                [_number(columns, f"{name}_{side}", location, is_text, "--score-column") for name in scores],
            )


def _number(columns: Mapping[str, Any], name: str, location: str, is_text: bool, option: str) -> float:
    """A number, NaN if it is empty; true and false are 1 and 0."""
    if isinstance(columns.get(name), bool):
        return float(columns[name])
    remedy = f"Write a number, or name another column with {option}" if name in columns else f"Name yours with {option}"
    return number_in(columns, name, location, is_text=is_text, remedy=remedy)


def _pairs_of_documents(sources: Sequence[Source], labels: Floats) -> Places:
    """All pairs [P, 2] of summaries of the same source of which the first has the higher label."""
    of_source: dict[Source, list[int]] = {}
    for index, source in enumerate(sources):
        of_source.setdefault(source, []).append(index)
    pairs = [np.empty((0, 2), int)]
    for rows in map(np.array, of_source.values()):
        better, worse = np.nonzero(labels[rows][:, None] > labels[rows][None, :])
        pairs.append(np.stack([rows[better], rows[worse]], axis=1))
    return np.concatenate(pairs)
