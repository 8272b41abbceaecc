"""The report of a score file that is finished."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from quals_metric.files.groups import check_groups, facts_of_scores
from quals_metric.files.scored_files import read_sidecar
from quals_metric.files.tables import Table, count_rows, records
from quals_metric.metrics import METRICS, metric_of_row
from quals_metric.report.writing import DETAILS, write_rows

# Facts that only the sidecar has.
_KEPT = ("num_windowed_summaries", "num_windowed_sources", "signature", "calibration")


def report_file(
    scores: str | os.PathLike[str],
    page: str | os.PathLike[str],
    *,
    summary: str = "summary",
    source: str = "source",
    by: str = "",
    threshold: float | None = None,
    details: int = DETAILS,
) -> None:
    """Write the page of a score file that has the texts and the questions (`quals score --keep --pairs`).

    Args:
        scores: the score file.
        page: the file to write; an existing file is replaced.
        summary: the column of the summaries.
        source: the column of the sources: a text, or a list of passages.
        by: the column that rows are grouped by; "": none.
        threshold: the score below which an answer is unsupported; None: that of the scoring, else the metric's.
        details: how many rows are shown of the lowest scores, of the highest and of the undefined.

    Raises:
        TypeError: if a text is none, or rows cannot be grouped by their value.
        ValueError: if the file lacks the texts or the questions, has too many groups, or its sidecar is not JSON.
        OSError: if a file cannot be read or written.
    """
    path = Path(scores)
    _check_texts(path, summary, source)
    about = read_sidecar(path, count_rows(path))
    rows = Table((path,), summary, source, keep=True, by=by)
    # 1. The score of every row, its group, and whether it has an unsupported answer.
    spec = METRICS.get(about.get("metric", ""))
    scored, scored_01, unsupported, names = [], [], [], []
    for row in rows.read():
        spec = spec or metric_of_row(row.columns)
        if spec is None or spec.summary_type().items_field not in row.columns:
            raise ValueError(f"{row.location}: must have the questions behind its score. Score with --pairs --keep")
        threshold = about.get("threshold", spec.threshold) if threshold is None else threshold
        scored_summary = spec.summary_type().from_row(row.columns, row.summary)
        scored.append(scored_summary.score)
        scored_01.append(scored_summary.score_01)
        unsupported.append(bool(scored_summary.spans(threshold)))
        names.append(row.group)
    if spec is None:
        raise ValueError(f"{path}: must hold at least one row; there is none")
    check_groups(set(names), by)
    # 2. The facts of the whole.
    facts = {
        **{name: about[name] for name in _KEPT if name in about},
        **facts_of_scores(scored, scored_01, unsupported, names, by),
        "metric": spec.name,
        "threshold": threshold,
    }
    # 3. The page.
    texts = ((row.summary, row.source) for row in rows.read())
    write_rows((row for _, row in records(path)), texts, page, about=facts, details=details)


def _check_texts(path: Path, summary: str, source: str) -> None:
    """Raise ValueError if the first row of a score file lacks its texts: only `--keep` writes them."""
    for location, row in islice(records(path), 1):
        for name, option in ((summary, "summary-column"), (source, "source-column")):
            if name not in row:
                raise ValueError(
                    f"{location}: must have a column {name!r}; it has {', '.join(map(repr, row)) or 'none'}. Score "
                    f"with --keep --pairs, or name yours with --{option}"
                )
