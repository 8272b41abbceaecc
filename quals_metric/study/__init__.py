"""The human study: which of two summaries is better?

- `pairs`: what people are to judge, drawn from two score files
- `page`: the web page they do it on
- `answers`: the file of their answers
- `table`: what they say, and whether it may be chance
- `commands`: `quals study`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference.lazy import lazily

if TYPE_CHECKING:
    from quals_metric.study.page import build, serve
    from quals_metric.study.pairs import prepare
    from quals_metric.study.table import tabulate

__all__ = ["build", "prepare", "serve", "tabulate"]

_HOMES = {"build": "page", "prepare": "pairs", "serve": "page", "tabulate": "table"}

__getattr__, __dir__ = lazily(globals(), _HOMES)
