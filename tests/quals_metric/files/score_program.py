"""What `test_scoring.py` runs and kills: `score_program.py INPUT OUTPUT [--pairs] [--keep] [--shard-rows N]`.

Its scorer needs no model. `DIE_AT` is the number of the write to the disk (flush or renaming) at which the process
kills itself, as hard as it can be killed; `LOG` names a file to which the first summary of every shard it scored is
added. It scores at most `AT_MOST` shards, and then waits to be killed. With `TOGETHER`, the process of a rank begins
its first shard when all of them have reached theirs: each leaves a file named by that and its rank.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quals_metric.files.scoring import score_files
from quals_metric.files.tables import Table, expand
from quals_metric.result import PairScore, QualsResult, SummaryScore


class QuickScorer:
    """Scores that depend on the texts alone; blank texts have none."""

    signature = "quick"
    scored = 0

    def score(self, *, summaries: Sequence[str], sources: Sequence[str]) -> QualsResult:
        self._wait()
        if "LOG" in os.environ:
            with open(os.environ["LOG"], "a", encoding="utf-8") as log:
                log.write(summaries[0] + "\n")
        windowed = sum(len(source) > 30 for source in sources)
        return QualsResult(tuple(map(self._one, summaries, sources)), self.signature, 0, windowed)

    def _wait(self) -> None:
        self.scored += 1
        if together := os.environ.get("TOGETHER"):
            Path(f"{together}-{os.environ['RANK']}").touch()
            while not all(Path(f"{together}-{rank}").exists() for rank in range(int(os.environ["WORLD_SIZE"]))):
                time.sleep(0.005)
        while self.scored > int(os.environ.get("AT_MOST", self.scored)):
            time.sleep(60)

    def _one(self, summary: str, source: str) -> SummaryScore:
        if not summary.strip() or not source.strip():
            return SummaryScore(math.nan, (), "blank summary" if not summary.strip() else "blank source")
        value = -(zlib.crc32(f"{summary}\n{source}".encode("utf-8", "surrogatepass")) % 3000) / 997
        answer = summary.split()[0]
        start = summary.index(answer)
        pair = PairScore("What?", answer, start, start + len(answer), value, ("What", "?"), (-1.0, -2.5), (-1.0, value))
        return SummaryScore(value, (pair,))


def die_at(number: int) -> None:
    """Kill this process at its `number`-th write to the disk: every other time before it, else after it."""
    count = 0

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    os.fsync, os.replace, os.rename = map(dying, (os.fsync, os.replace, os.rename))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("input")
    parser.add_argument("output")
    for flag in ("--pairs", "--keep", "--overwrite"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--shard-rows", type=int, default=10)
    options = parser.parse_args()
    if "DIE_AT" in os.environ:
        die_at(int(os.environ["DIE_AT"]))
    score_files(
        Table(expand([options.input]), keep=options.keep),
        options.output,
        QuickScorer,
        pairs=options.pairs,
        shard_rows=options.shard_rows,
        overwrite=options.overwrite,
    )


if __name__ == "__main__":
    main()
