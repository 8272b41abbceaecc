"""What `test_batching.py` runs in several processes: `spread_program.py FOLDER SCENARIO...`.

Each process runs the scenarios in order and writes what came of them to `FOLDER/<rank>.json`: per
scenario "value" (its return value) or "error" ([type, text]), and "batches" (how many it began). Where the order of
events matters, a process waits for the other's event, so that no result depends on how fast the machine is.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qa_inference import distributed
from qa_inference.batching import map_batches

RANK = int(os.environ.get("RANK", "0"))
BUDGET = 10
seen: list[int] = []
batches: list[int] = []  # the first number of each batch that was begun
queues: list[distributed._Queue] = []


class WatchedQueue(distributed._Queue):
    """The last one is at hand, to wait for what the other process does."""

    def connect(self) -> None:
        super().connect()
        queues.append(self)

    def wait(self, happened: Callable[[distributed.TCPStore], bool]) -> None:
        while not happened(self._store):
            time.sleep(0.01)


distributed._Queue = WatchedQueue


@dataclass(frozen=True)
class Document:
    text: str
    ids: np.ndarray


class Secret:
    def __reduce__(self) -> str:
        raise TypeError("not to be sent")


def double(numbers: list[int]) -> list[int]:
    seen.extend(numbers)
    return [2 * number for number in numbers]


def together(numbers: list[int]) -> list[int]:
    """At its first batch each process waits until the other has begun one too."""
    if not batches:
        queues[-1]._store.add("begun", 1)
        queues[-1].wait(lambda store: store.add("begun", 0) == 2)
    batches.append(numbers[0])
    return double(numbers)


def until_failure(numbers: list[int]) -> list[int]:
    """Lasts until the other process has told its failure, or has ended."""
    batches.append(numbers[0])
    with contextlib.suppress(torch.distributed.DistError):
        queues[-1].wait(lambda store: store.check(["failure"]))
    return double(numbers)


def spread(numbers: list[int], fn: Callable[[list[int]], list[Any]] = double, **options: Any) -> list[Any]:
    return map_batches(fn, numbers, lambda number: number, token_budget=BUDGET, spread=True, **options)


def sizes() -> list[list[int]]:
    """Nothing, fewer items than processes, and numbers that no number of processes divides."""
    return [spread(list(range(1, 1 + count))) for count in (0, 1, 2, 3, 7, 23)]


def even_share() -> int:
    """One batch would hold all items: how many of them came to this process."""
    map_batches(together, [1] * 8, lambda number: number, token_budget=100, spread=True)
    return len(seen)


def records() -> list[Any]:
    """Equal dataclasses, arrays and tensors, though rank 0's share a text and the other's arrays are read-only."""
    shared = "text" if RANK == 0 else None
    documents = [Document(shared or "".join(["te", "xt"]), np.arange(3)) for _ in range(4)]
    for document in documents:
        document.ids.flags.writeable = RANK == 0
    pairs = [(document, torch.ones(2, dtype=torch.bfloat16)) for document in documents]
    return map_batches(
        lambda batch: [document.text + str(document.ids.sum()) for document, _ in batch],
        pairs,
        lambda _: 5,
        token_budget=BUDGET,
        spread=True,
    )


def one_long_item() -> list[int]:
    """The first item lasts until the ten others are done."""

    def work(numbers: list[int]) -> list[int]:
        if numbers[0] == 20:
            queues[-1].wait(lambda store: store.add("done", 0) == 10)
        return double(numbers)

    spread(list(range(10, 21)), work)
    return list(seen)


def progress() -> list[tuple[int, int]]:
    """The process that computes nothing more still learns that all is done."""
    calls: list[tuple[int, int]] = []
    spread([9, 8, 7], on_batch=lambda done, total: calls.append((done, total)))
    return calls


def differing_items() -> list[int]:
    return spread([1, 2, 3 + RANK])


def differing_budget() -> list[int]:
    return map_batches(double, [1], lambda number: number, token_budget=BUDGET + RANK, spread=True)


def failing_cost() -> list[int]:
    def cost(number: int) -> int:
        if RANK == 0:
            raise LookupError("no tokenizer")
        return number

    return map_batches(double, [1, 2], cost, token_budget=BUDGET, spread=True)


def failing_rank(rank: int, error: BaseException) -> list[int]:
    """One process fails at its first batch; the other is at its first then, and 598 are left."""

    def work(numbers: list[int]) -> list[int]:
        if rank == RANK:
            batches.append(numbers[0])
            raise error
        return until_failure(numbers)

    return spread([10] * 600, work)


def stopping_rank() -> list[int]:
    def stop(done: int, total: int) -> None:
        if RANK == 1 and done > 2:
            raise TimeoutError("the deadline has passed")

    return spread([10] * 600, double if RANK == 1 else until_failure, on_batch=stop)


def stopping_at_the_end() -> list[int]:
    """Rank 1 raises when all items are done and only the gathering is left."""

    def stop(done: int, total: int) -> None:
        if RANK == 1 and done == total:
            raise TimeoutError("the deadline has passed")

    return spread([10, 9, 8], on_batch=stop)


def unpicklable_result() -> list[Any]:
    return spread([10] * 6, lambda numbers: [Secret() for _ in together(numbers)] if RANK else together(numbers))


def dying_rank_0() -> list[int]:
    def work(numbers: list[int]) -> list[int]:
        if RANK == 0:
            os._exit(3)
        return until_failure(numbers)

    return spread([10] * 600, work)


SCENARIOS: dict[str, Callable[[], Any]] = {
    scenario.__name__: scenario
    for scenario in (
        sizes,
        even_share,
        records,
        one_long_item,
        progress,
        differing_items,
        differing_budget,
        failing_cost,
        stopping_rank,
        stopping_at_the_end,
        unpicklable_result,
        dying_rank_0,
    )
} | {
    "afterwards": sizes,
    "failing_rank_0": lambda: failing_rank(0, ZeroDivisionError("no \ud800 luck")),
    "failing_rank_1": lambda: failing_rank(1, KeyError("luck")),
    "interrupted_rank_1": lambda: failing_rank(1, KeyboardInterrupt()),
}


def outcome(scenario: Callable[[], Any]) -> dict[str, Any]:
    seen.clear()
    batches.clear()
    try:
        told: dict[str, Any] = {"value": scenario()}
    except BaseException as error:
        told = {"error": [type(error).__name__, str(error)]}
    return told | {"batches": len(batches)}


def main(folder: str, *names: str) -> None:
    outcomes = {name: outcome(SCENARIOS[name]) for name in names}
    Path(folder, f"{RANK}.json").write_text(json.dumps(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
