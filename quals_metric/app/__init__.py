"""The metrics as a web page; see `page`.

- `server`: how it and the study are served
- `guard`: what stands before the server
- `limits`: what is taken of a visitor
- `scoring`: the models in memory, one scoring at a time
- `files`, `views`: a visitor's file, and what is shown
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference.lazy import lazily

if TYPE_CHECKING:
    from quals_metric.app.limits import Limits
    from quals_metric.app.page import build, serve

__all__ = ["Limits", "build", "serve"]

_HOMES = {"Limits": "limits", "build": "page", "serve": "page"}

__getattr__, __dir__ = lazily(globals(), _HOMES)
