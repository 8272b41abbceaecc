"""Reports: pages that explain scores. `write` makes one of a result, `report_file` one of a score file.

- `rows`: the rows that a page shows
- `excerpts`: the sentences of a source that a question is about
- `spelling`: questions in the spelling of the texts
- `figures`: pictures as HTML and SVG
- `html`, `templates/`: the page
- `writing`: `write` and `write_rows`, which takes rows from anywhere
- `score_files`: `report_file`
- `comparison`: the page of `quals compare`
- `examples`: the examples of `quals demo` and of the app
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference.lazy import lazily

if TYPE_CHECKING:
    from quals_metric.report.score_files import report_file
    from quals_metric.report.writing import write, write_rows

__all__ = ["report_file", "write", "write_rows"]

_HOMES = {"report_file": "score_files", "write": "writing", "write_rows": "writing"}

__getattr__, __dir__ = lazily(globals(), _HOMES)
