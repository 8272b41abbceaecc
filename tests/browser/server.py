"""The app as a process of its own: `python -m tests.browser.server METRIC PORT`.

The embedded models, with a narrow search so that a score takes a fraction of a second. Two things are other than in the
app: a request with the header `x-unguarded` passes the guard by, and Gradio fetches addresses of this machine too,
which it refuses by itself. So a test can show that an address would be opened, were it not for the guard.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradio import processing_utils

from qags_metric import QagsConfig, QagsScorer
from quals_metric import QualsConfig, QualsScorer, app
from quals_metric.app import server
from quals_metric.app.guard import Guard, Receive, Send
from quals_metric.app.limits import Limits
from tests.qags_metric.models import Finder

LIMITS = Limits(waiting=8, rows=4)


class Switched(Guard):
    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if any(name == b"x-unguarded" for name, _ in scope.get("headers", ())):
            await self._app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def fetch(url: str, cache_dir: str) -> str:
    path = Path(cache_dir) / "fetched.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(url) as answer:
        path.write_bytes(answer.read())
    return str(path)


def load(metric: str) -> Any:
    if metric == "quals":
        return QualsScorer(QualsConfig(groups=6, max_new_tokens=40, max_pairs=3, device="cpu"))
    config = QagsConfig(num_candidates=2, beam_width=2, hypotheses=2, max_question_tokens=32, device="cpu")
    return QagsScorer(config, finder=Finder())


if __name__ == "__main__":
    processing_utils.async_ssrf_protected_download = fetch
    server.Guard = Switched
    scorer = load(sys.argv[1])
    app.serve(sys.argv[1], port=int(sys.argv[2]), load=lambda chosen: scorer, limits=LIMITS)
