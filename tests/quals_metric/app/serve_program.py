"""The app or the study as a process of its own: `python serve_program.py app PORT` or `study PORT PAIRS ANSWERS`.

The app's scorer knows no model and is never done: it reports a batch after every line of standard input, and without
end when the input has ended. A connection has a second to start a request. It prints a line when it is ready.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from quals_metric import app, study
from quals_metric.app import server


class EndlessScorer:
    def score(self, *, summaries: list[str], sources: list[str], on_batch: Callable[[int, int], None]) -> NoReturn:
        print("scoring", flush=True)
        while True:
            sys.stdin.readline()
            on_batch(0, 1)


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
        app.serve("quals", port=int(port), load=lambda chosen: EndlessScorer())


if __name__ == "__main__":
    main(*sys.argv[1:])
