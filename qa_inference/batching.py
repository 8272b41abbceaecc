"""Apply a function to many items, in batches that fit into memory, on one process or on several.

`map_batches` sorts the items by cost, fills batches up to a budget, halves a batch that runs out of memory, and returns
the results in the order of the items. It knows no model: the function takes a list of items and returns a list of
results. `distributed.py` shares one such map among processes.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Generic, TypeVar

import torch

from qa_inference.distributed import OnBatch, map_spread, process_state

Item = TypeVar("Item")
Result = TypeVar("Result")

DEFAULT_TOKEN_BUDGET = 8192  # tokens in a batch: its longest item's, times its number of items
TOKENS_PER_HYPOTHESIS = 8  # the cost of one hypothesis of a search or of one sample, in addition to its source
if hasattr(os, "register_at_fork"):
    # A forked process has the state of torch's thread pool but not its threads, and would wait for them for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def plan_batches(costs: Sequence[int], token_budget: int, num_processes: int = 1) -> list[list[int]]:
    """Batches of item indices, the costliest item first, and items of equal cost in input order.

    A batch takes items until its largest cost times its number of items would exceed the budget. It takes at least one
    item. An item costs at least 1.

    Several processes draw these batches one after another. They all end at about the same time, because a batch then
    takes at most half of an even share of the work that is left. Small batches are slow, so this bound does not fall
    below an eighth of the budget, unless an even share of the whole work is less.
    """
    # 1. Items of like cost come together, so that a batch has little padding; the costliest come first, so that memory
    #    runs out at the start or never.
    order = sorted(range(len(costs)), key=lambda index: -costs[index])
    remaining = sum(max(1, cost) for cost in costs)
    least = min(token_budget // 8, remaining // num_processes)
    batches = []
    start = 0
    while start < len(order):
        # 2. The first item of a batch is its costliest, so the budget divided by its cost is the number of rows.
        share = max(least, remaining // (2 * num_processes)) if num_processes > 1 else token_budget
        stop = start + max(1, min(token_budget, share) // max(1, costs[order[start]]))
        batches.append(order[start:stop])
        remaining -= sum(max(1, costs[index]) for index in batches[-1])
        start = stop
    return batches


def map_batches(
    fn: Callable[[list[Item]], list[Result]],
    items: Sequence[Item],
    cost: Callable[[Item], int],
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    spread: bool = False,
    on_batch: OnBatch | None = None,
) -> list[Result]:
    """`fn` of every item, in the order of the items.

    A batch that runs out of memory is halved and tried again. No batch of that cost is tried afterwards.

    Args:
        fn: takes a list of items, returns a list of as many results. It runs under `torch.inference_mode()`.
        items: the items; under `spread` the same on every process, and they and the results can be pickled.
        cost: returns an item's cost in the budget's unit, such as its number of tokens; at least 0.
        token_budget: the highest cost of a batch: its costliest item's cost times its number of items.
        spread: False: this process does all the work and calls nothing distributed, so one rank alone may call.
            True: all processes must call, share the work, and get all results. Batches become smaller towards the end
            (`plan_batches`), so that every process has work and none waits long for the others.
        on_batch: called as `on_batch(done, total)` with numbers of items after each batch; an exception in it stops
            the map. Under `spread`, `done` counts all processes: each calls its own `on_batch` after its own batches,
            and as the others' batches end while it waits for them; the last call has `done == total`.

    Raises:
        TypeError: if `fn` does not return a list.
        ValueError: if the budget is less than 1, `fn` returns too many or too few results, a cost is not an integer of
            at least 0, or, under `spread` and on every process, the items, their costs or the budget differ between
            processes.
        MemoryError: if a single item does not fit; it names the item.
        RuntimeError: under `spread`, if another process failed; it names the rank and its error. That process raises
            its own error. Each finishes its current batch, waits at most 5 seconds for the others to learn of the
            failure, and raises; the next call starts afresh. The launcher notices a process that is killed and stops
            the others; they notice it themselves only if it was rank 0.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget: must be at least 1, the highest cost of a batch; got {token_budget}")
    work = _BatchedWork(fn, items, cost, token_budget)
    if spread and process_state().num_processes > 1:
        return map_spread(work, on_batch)
    results: dict[int, Result] = {}
    for batch in work.plan(1):
        results.update(zip(batch, work.run(batch), strict=True))
        if on_batch is not None:
            on_batch(len(results), len(items))
    return [results[index] for index in range(len(items))]


@dataclass
class _BatchedWork(Generic[Item, Result]):
    """One call of `map_batches`, as one process sees it."""

    fn: Callable[[list[Item]], list[Result]]
    items: Sequence[Item]
    cost: Callable[[Item], int]
    token_budget: int
    too_costly: float = field(default=math.inf, init=False)  # the least cost of a batch that ran out of memory

    @functools.cached_property
    def costs(self) -> list[int]:
        costs: list[Any] = [self.cost(item) for item in self.items]  # Any: numpy integers are allowed
        for index, cost in enumerate(costs):
            if not isinstance(cost, Integral) or cost < 0:
                raise ValueError(f"cost: must be an integer of at least 0; got {cost!r} for item {index}")
        return costs

    def plan(self, num_processes: int) -> list[list[int]]:
        """See `plan_batches`."""
        return plan_batches(self.costs, self.token_budget, num_processes)

    def run(self, batch: list[int]) -> list[Result]:
        """The results of a batch of item indices, in its order, in as many parts as the memory needs."""
        results: list[Result] = []
        parts = [batch]
        while parts:
            part = parts.pop()
            may_fit = len(part) == 1 or self._batch_cost(part) < self.too_costly
            part_results = self._attempt(part) if may_fit else None
            if part_results is None:
                middle = (len(part) + 1) // 2
                parts += [part[middle:], part[:middle]]
            else:
                results += part_results
        _trim_heap()
        return results

    def _batch_cost(self, part: list[int]) -> int:
        return len(part) * max(self.costs[index] for index in part)

    def _attempt(self, part: list[int]) -> list[Result] | None:
        """The results of a part; None if it ran out of memory."""
        try:
            with torch.inference_mode():
                return _one_per_item(self.fn([self.items[index] for index in part]), len(part))
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if len(part) == 1:
                subject = f"item {part[0]} (cost {self.costs[part[0]]})"
                raise MemoryError(f"{subject} does not fit in memory even alone; shorten it") from error
        # Here the error is gone, and with its traceback the tensors of the failed attempt.
        self.too_costly = min(self.too_costly, self._batch_cost(part))
        _release_memory()
        return None


def _one_per_item(results: list[Result], expected: int) -> list[Result]:
    if not isinstance(results, list):
        raise TypeError(f"fn: must return a list with one result per item; got {type(results).__name__}")
    if len(results) != expected:
        raise ValueError(f"fn: must return one result per item; got {len(results)} for a batch of {expected}")
    return results


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error).lower() for sign in _OUT_OF_MEMORY
    )


@functools.cache
def _heap() -> Any:
    """The C library with `malloc_trim`, which glibc has; None elsewhere."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # TypeError: on Windows
        return None
    return library if hasattr(library, "malloc_trim") else None


def _trim_heap() -> None:
    """Return free pieces of the C heap to the system; batches of different shapes leave many of them."""
    if (library := _heap()) is not None:
        library.malloc_trim(0)


def _release_memory() -> None:
    gc.collect()
    for device in (torch.cuda, torch.xpu, torch.mps):
        if device.device_count():
            device.empty_cache()
