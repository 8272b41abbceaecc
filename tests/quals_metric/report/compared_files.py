"""Score files of several systems, with summaries, sources and questions."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qa_inference.metric_base.results import json_ready
from quals_metric.result import PairScore, SummaryScore


def write_system(
    path: Path,
    scores: Sequence[float],
    claim: str = "won the cup",
    source: str = "Source",
    passages: Sequence[str] = (),
    **columns: Any,
) -> Path:
    """Write the rows of a system; a score of NaN is undefined, and every other row has one question.

    With `passages`, these stand before the source, from which the question is; `columns` are written too.
    """
    lines = []
    for number, score in enumerate(scores):
        summary = f"Ann Lee {claim} {number}."
        pair = PairScore("who was it ?", "Ann Lee", 0, 7, score, ("who",), (-0.1,), (-1.0,), len(passages))
        scored = SummaryScore(score, () if math.isnan(score) else (pair,), "no pair kept" if math.isnan(score) else "")
        of_row = f"{source} {number}."
        texts = {"id": number, "system": path.stem, "summary": summary, **columns}
        texts["source"] = [*passages, of_row] if passages else of_row
        lines.append(json.dumps(texts | json_ready(scored.row(True))) + "\n")
    path.write_text("".join(lines))
    return path
