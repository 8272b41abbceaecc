"""What `test_batching.py` runs in several processes: `spread_program.py FOLDER SCENARIO...`.

Each process runs the scenarios in order and writes what came of them to `FOLDER/<rank>.json`: per
scenario "value" (its return value) or "error" ([type, text]), and "seconds".
"""

from __future__ import annotations

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

from qa_inference.batching import map_batches

RANK = int(os.environ.get("RANK", "0"))
BUDGET = 10
seen: list[int] = []


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


def slowly(seconds: float) -> Callable[[list[int]], list[int]]:
    def work(numbers: list[int]) -> list[int]:
        time.sleep(seconds)
        return double(numbers)

    return work


def spread(numbers: list[int], fn: Callable[[list[int]], list[Any]] = double, **options: Any) -> list[Any]:
    return map_batches(fn, numbers, lambda number: number, token_budget=BUDGET, spread=True, **options)


def sizes() -> list[list[int]]:
    """Nothing, fewer items than processes, and numbers that no number of processes divides."""
    return [spread(list(range(1, 1 + count))) for count in (0, 1, 2, 3, 7, 23)]


def even_share() -> int:
    """One batch would hold all items: how many of them came to this process."""
    seen.clear()
    map_batches(slowly(0.3), [1] * 8, lambda number: number, token_budget=100, spread=True)
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
    """The first item takes as long as the ten others together."""
    seen.clear()
    spread(list(range(10, 21)), lambda numbers: slowly(1.0 if numbers[0] == 20 else 0.1)(numbers))
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
    """One process fails at its first batch; the other would have a minute of work."""

    def work(numbers: list[int]) -> list[int]:
        time.sleep(0.1)
        if rank == RANK:
            raise error
        return numbers

    return spread([10] * 600, work)


def stopping_rank() -> list[int]:
    def stop(done: int, total: int) -> None:
        if RANK == 1 and done > 2:
            raise TimeoutError("the deadline has passed")

    return spread([10] * 600, slowly(0.1), on_batch=stop)


def stopping_at_the_end() -> list[int]:
    """Rank 1 raises when all items are done and only the gathering is left."""

    def stop(done: int, total: int) -> None:
        if RANK == 1 and done == total:
            raise TimeoutError("the deadline has passed")

    return spread([10, 9, 8], on_batch=stop)


def unpicklable_result() -> list[Any]:
    work = slowly(0.1)
    return spread([10] * 6, lambda numbers: [Secret() for _ in work(numbers)] if RANK else work(numbers))


def dying_rank_0() -> list[int]:
    def work(numbers: list[int]) -> list[int]:
        time.sleep(0.2)
        if RANK == 0:
            os._exit(3)
        return numbers

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
    begin = time.monotonic()
    try:
        told: dict[str, Any] = {"value": scenario()}
    except BaseException as error:
        told = {"error": [type(error).__name__, str(error)]}
    return told | {"seconds": time.monotonic() - begin}


def main(folder: str, *names: str) -> None:
    outcomes = {name: outcome(SCENARIOS[name]) for name in names}
    Path(folder, f"{RANK}.json").write_text(json.dumps(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
