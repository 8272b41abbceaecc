"""One function over many items: in batches that fit the memory, on one process or spread over many.

`Engine.map` sorts items by cost, fills batches up to a budget, halves a batch that runs out of memory and restores the
order. It knows no model: `fn` is any function from a list of items to a list of results.

How a call is spread over processes is in `spread.py`.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Generic, TypeVar

import torch

from qa_inference.distributed import OnBatch, map_spread, processes

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The device to compute on.

    Args:
        device: a device that must be there; None: the first kind there is of CUDA, XPU and CPU, and of several such
            devices the one `LOCAL_RANK` names, if it is set.

    Raises:
        ValueError: if `device` is not the name of a device of this machine.
    """
    if device is None:
        return _best_device()
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is not the name of a device; use one like 'cpu' or 'cuda:0'") from error
    if (chosen.index or 0) >= _num_devices(chosen.type):
        found = [f"{kind} ({_num_devices(kind)})" for kind in ("cuda", "xpu", "mps", "cpu") if _num_devices(kind)]
        raise ValueError(f"device '{chosen}' is not available; this machine has: {', '.join(found)}")
    return chosen


def _best_device() -> torch.device:
    for kind in ("cuda", "xpu"):
        if count := _num_devices(kind):
            rank = os.environ.get("LOCAL_RANK", "")
            return torch.device(kind, int(rank)) if rank.isdecimal() and int(rank) < count else torch.device(kind)
    return torch.device("cpu")


def _num_devices(kind: str) -> int:
    count = getattr(getattr(torch, kind, None), "device_count", None)
    return 0 if count is None else int(count())


@functools.cache
def cpu_has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 itself; one that has to imitate it takes several times as long."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@functools.cache
def _say_bfloat16_is_slow() -> None:
    logger.warning("this CPU has no bfloat16 of its own: float32 takes more memory here and a fraction of the time")


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The floating-point type to compute in on `device`; says once in the log if bfloat16 is asked of a CPU without it.

    Args:
        dtype: "float32", "bfloat16", "float16" or the torch type; None: bfloat16 on a CUDA device that computes in it,
            else float32.
        device: where the model is.

    Raises:
        ValueError: if `dtype` is another type, or float16 on a CPU.
    """
    if dtype is None:
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in _DTYPES.values():
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}")
    if chosen is torch.float16 and device.type == "cpu":
        raise ValueError("dtype float16 is for GPUs; on a CPU use float32 or bfloat16")
    if chosen is torch.bfloat16 and device.type == "cpu" and not cpu_has_bfloat16():
        _say_bfloat16_is_slow()
    return chosen


def plan(costs: Sequence[int], token_budget: int, num_processes: int = 1) -> list[list[int]]:
    """Batches of item indices, the costliest item first, ties in input order.

    A batch takes items until its largest cost times its number of items would exceed the budget, one item at least;
    an item counts as costing at least 1.

    For several processes that draw batches one after another, a batch is at most half of an even share of what is
    left, so that all of them end at about the same time; it does not fall below an eighth of the budget, where small
    batches begin to cost, unless an even share of everything is less.
    """
    order = sorted(range(len(costs)), key=lambda index: -costs[index])
    left = sum(max(1, cost) for cost in costs)
    least = min(token_budget // 8, left // num_processes)
    batches = []
    start = 0
    while start < len(order):
        shared = max(least, left // (2 * num_processes)) if num_processes > 1 else token_budget
        stop = start + max(1, min(token_budget, shared) // max(1, costs[order[start]]))
        batches.append(order[start:stop])
        left -= sum(max(1, costs[index]) for index in batches[-1])
        start = stop
    return batches


class Engine:
    """Maps functions over items in batches.

    Args:
        token_budget: the most a batch may cost: its largest item's cost times its number of items.

    Raises:
        ValueError: if the budget is less than 1.
    """

    def __init__(self, *, token_budget: int) -> None:
        if token_budget < 1:
            raise ValueError(f"token_budget is the most a batch may cost and must be at least 1, got {token_budget}")
        self.token_budget = token_budget

    def map(
        self,
        fn: Callable[[list[Item]], list[Result]],
        items: Sequence[Item],
        cost: Callable[[Item], int],
        *,
        spread: bool = False,
        on_batch: OnBatch | None = None,
    ) -> list[Result]:
        """`fn` of every item, in the order of the items.

        A batch that runs out of memory is halved and tried again, and no batch as costly is tried after it.

        Args:
            fn: takes a list of items, gives a list of as many results; runs under `torch.inference_mode()`.
            items: what to map; under `spread` the same on every process, and picklable, as the results must be.
            cost: an item's cost in the budget's unit, say its number of tokens; not negative.
            spread: False: this process does all the work and calls nothing distributed, so one rank alone may call.
                True: all processes must call, share the work, and get all results. Batches become smaller towards
                the end (`plan`), so that no process is left without any or has to wait long for the others.
            on_batch: called as `on_batch(done, total)` with numbers of items after each batch; what it raises stops
                the map. Under `spread`, `done` counts all processes: each calls its own `on_batch` after its own
                batches, and when it waits for the others as their batches end; the last call has `done == total`.

        Raises:
            TypeError: if `fn` does not return a list.
            ValueError: if `fn` returns too many or too few results, a cost is no whole number or negative, or, under
                `spread` and on every process, the items, their costs or the budget differ between processes.
            MemoryError: if a single item does not fit; it names the item.
            RuntimeError: under `spread`, if another process failed; it names the rank and its error. That process
                raises its own. Each finishes its current batch, waits at most 5 seconds for the others to learn of
                the failure, and raises; the next call starts afresh. A process that is killed is noticed by the
                launcher, which stops the others, and by them only if it was rank 0.
        """
        job = _Job(fn, items, cost)
        if spread and processes().num_processes > 1:
            return map_spread(job, plan, self.token_budget, on_batch)
        results: dict[int, Result] = {}
        for batch in plan(job.costs, self.token_budget):
            results.update(zip(batch, job.run(batch), strict=True))
            if on_batch is not None:
                on_batch(len(results), len(items))
        return [results[index] for index in range(len(items))]


@dataclass
class _Job(Generic[Item, Result]):
    """One call of `map`, as one process sees it."""

    fn: Callable[[list[Item]], list[Result]]
    items: Sequence[Item]
    cost: Callable[[Item], int]
    too_much: float = field(default=math.inf, init=False)  # the least cost of a batch that ran out of memory

    @functools.cached_property
    def costs(self) -> list[int]:
        costs: list[Any] = [self.cost(item) for item in self.items]  # checked here, numpy integers included
        for index, cost in enumerate(costs):
            if not isinstance(cost, Integral) or cost < 0:
                raise ValueError(f"the cost of item {index} must be a whole number and not negative, got {cost!r}")
        return costs

    def run(self, batch: list[int]) -> list[Result]:
        """The results of a batch of item indices, in its order, in as many parts as the memory asks for."""
        results: list[Result] = []
        parts = [batch]
        while parts:
            part = parts.pop()
            done = self._attempt(part) if len(part) == 1 or self._batch_cost(part) < self.too_much else None
            if done is None:
                middle = (len(part) + 1) // 2
                parts += [part[middle:], part[:middle]]
            else:
                results += done
        _trim_heap()
        return results

    def _batch_cost(self, part: list[int]) -> int:
        return len(part) * max(self.costs[index] for index in part)

    def _attempt(self, part: list[int]) -> list[Result] | None:
        """The results of a part, None if it ran out of memory."""
        try:
            with torch.inference_mode():
                return _checked(self.fn([self.items[index] for index in part]), len(part))
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if len(part) == 1:
                subject = f"item {part[0]} (cost {self.costs[part[0]]})"
                raise MemoryError(f"{subject} does not fit in memory even alone; shorten it") from error
        # Only here is the error gone, and with its traceback the tensors of the failed attempt.
        self.too_much = min(self.too_much, self._batch_cost(part))
        _release_memory()
        return None


def _checked(results: list[Result], expected: int) -> list[Result]:
    if not isinstance(results, list):
        raise TypeError(f"fn must return a list, one result per item, got {type(results).__name__}")
    if len(results) != expected:
        raise ValueError(f"fn must return one result per item: got {len(results)} for a batch of {expected}")
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
    """Give the system back what lies free in pieces in the C heap: with batches of unlike shapes it adds up."""
    if (library := _heap()) is not None:
        library.malloc_trim(0)


def _release_memory() -> None:
    gc.collect()
    for device in (torch.cuda, torch.xpu, torch.mps):
        if device.device_count():
            device.empty_cache()
