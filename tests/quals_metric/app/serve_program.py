"""The app or the study as a process of its own: `python serve_program.py app PORT` or `study PORT PAIRS ANSWERS`.

The app's scorer knows no model: it gives every summary the same score when standard input has a line for it. A
connection has a second to start a request. It prints a line when it is ready.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from quals_metric import app, study
from quals_metric.app import server
from quals_metric.result import QualsResult, SummaryScore


class WaitingScorer:
    def score(self, *, summaries: list[str], sources: list[str], on_batch: Callable[[int, int], None]) -> QualsResult:
        print("scoring", flush=True)
        sys.stdin.readline()
        return QualsResult((SummaryScore(-1.0, ()),) * len(summaries), "quals|fake")


def main(kind: str, port: str, *files: Any) -> None:
    server._IDLE_SECONDS = 1
    bound_connections = server._bound_connections

    def tell(config: Any) -> None:
        bound_connections(config)
        print("ready", flush=True)

    server._bound_connections = tell
    if kind == "study":
        study.serve(*files, port=int(port))
    else:
        app.serve("quals", port=int(port), load=lambda chosen: WaitingScorer())


if __name__ == "__main__":
    main(*sys.argv[1:])
