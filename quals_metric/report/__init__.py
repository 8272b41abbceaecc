"""The page that explains scores: `write` of a result, `write_rows` of a score file.

- `evidence`: what is behind a score, the same for both metrics, from a result or from a file
- `passages`: which sentences of a source a question is about
- `figures`: pictures as HTML and SVG
- `rows`: what of a scoring is shown
- `page`, `templates/`: the HTML
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference.lazy import lazily

if TYPE_CHECKING:
    from quals_metric.report.writing import write, write_rows

__all__ = ["write", "write_rows"]

_HOMES = {"write": "writing", "write_rows": "writing"}

__getattr__, __dir__ = lazily(globals(), _HOMES)
