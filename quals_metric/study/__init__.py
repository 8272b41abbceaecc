"""The human study: people judge which of two summaries is better.

- `summary_pairs`: draws the pairs to judge from two score files
- `interface`: the web page on which people judge them
- `judgments`: the file of their answers, and who gets which pair next
- `table`: the outcome, with significance and agreement
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference.lazy import lazily

if TYPE_CHECKING:
    from quals_metric.study.interface import build, serve
    from quals_metric.study.summary_pairs import prepare
    from quals_metric.study.table import tabulate

__all__ = ["build", "prepare", "serve", "tabulate"]

_HOMES = {"build": "interface", "prepare": "summary_pairs", "serve": "interface", "tabulate": "table"}

__getattr__, __dir__ = lazily(globals(), _HOMES)
