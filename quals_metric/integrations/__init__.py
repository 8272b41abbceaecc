"""QUALS and QAGS inside other libraries, one file for each library.

A library is needed only where its file is used. Each has an extra of the package, for example
`pip install 'quals-metric[trl]'`. A name is imported when it is first used.
"""

from __future__ import annotations

from qa_inference.lazy import lazily

__all__: list[str] = []

_HOMES: dict[str, str] = {}

__getattr__, __dir__ = lazily(globals(), _HOMES)
