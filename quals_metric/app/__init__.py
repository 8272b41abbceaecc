"""The metrics as a web page.

- `interface`: the page and what its buttons do
- `server`: serves a page; shared with the human study
- `guard`: checks every request before it reaches the server
- `limits`: bounds one visitor's texts, file and time
- `scoring_queue`: the loaded models, with one scoring at a time
- `uploads`, `views`: reads a visitor's file, and shows scores
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference.lazy import lazily

if TYPE_CHECKING:
    from quals_metric.app.interface import build, serve
    from quals_metric.app.limits import Limits

__all__ = ["Limits", "build", "serve"]

_HOMES = {"Limits": "limits", "build": "interface", "serve": "interface"}

__getattr__, __dir__ = lazily(globals(), _HOMES)
