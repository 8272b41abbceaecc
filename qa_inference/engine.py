"""One function over many items: in batches that fit the memory, on one process or spread over many.

`Engine.map` sorts items by cost, fills batches up to a budget, halves a batch that runs out of memory and restores the
order. It knows no model: `fn` is any function from a list of items to a list of results.

Spread over processes, each draws its next batch from a counter that all share, so that one long item does not hold up
the rest. The counter lives on rank 0 in a `TCPStore` of our own, on a free port of the machine that `MASTER_ADDR` names
(unset: rank 0's host name); it also carries failures, so that no process waits for one that has stopped. This is the
package's one door to accelerate, of which only `PartialState` and the gathering of objects are used.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
import math
import os
import pickle
import socket
import time
import types
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from numbers import Integral
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch

if TYPE_CHECKING:
    from accelerate import PartialState

if torch.distributed.is_available():
    # torch documents both but leaves them out of what it exports by name.
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

Item = TypeVar("Item")
Result = TypeVar("Result")
Value = TypeVar("Value")
OnBatch = Callable[[int, int], None]

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_POLL_SECONDS = 0.02  # between two looks at what the other processes have done
_LEAVE_SECONDS = 5.0  # that a failing process stays for the others to learn of it
_CONNECT_TIMEOUT = timedelta(seconds=60)


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


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The floating-point type to compute in on `device`.

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
    return chosen


def plan(costs: Sequence[int], token_budget: int) -> list[list[int]]:
    """Batches of item indices, the costliest item first, ties in input order.

    A batch takes items until its largest cost times its number of items would exceed the budget, one item at least;
    an item counts as costing at least 1.
    """
    order = sorted(range(len(costs)), key=lambda index: -costs[index])
    batches = []
    start = 0
    while start < len(order):
        stop = start + max(1, token_budget // max(1, costs[order[start]]))
        batches.append(order[start:stop])
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
                True: all processes must call, share the work, and get all results. The budget is lowered to an
                even share of the work if that is less, so that no process is left without any.
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
        if spread and (state := _processes()).num_processes > 1:
            return _map_spread(job, self.token_budget, on_batch, state)
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


def _release_memory() -> None:
    gc.collect()
    for device in (torch.cuda, torch.xpu, torch.mps):
        if device.device_count():
            device.empty_cache()


def _processes() -> PartialState:
    """The processes that were launched together; the first call connects them, if the program has not."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    has_backend = torch.accelerator.is_available() and not torch.mps.device_count()
    # Without cpu=True accelerate takes each process on a machine without GPUs for the only one.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not has_backend)


def _map_spread(
    job: _Job[Item, Result], token_budget: int, on_batch: OnBatch | None, state: PartialState
) -> list[Result]:
    """`Engine.map` on one of several processes. All make the same three exchanges, whatever happens in between."""
    from accelerate.utils import gather_object

    rank, size = state.process_index, state.num_processes
    openings = _exchange(rank, lambda: (_fingerprint(job, token_budget), _open_queue() if rank == 0 else ""))
    differing = [str(other) for other, (fingerprint, _) in enumerate(openings) if fingerprint != openings[0][0]]
    if differing:
        raise ValueError(
            "map with spread=True takes the same items, costs and budget on every process, but those of rank "
            f"{', '.join(differing)} differ from rank 0's; to map other items on each process use spread=False"
        )
    queue = _Queue(openings[0][1], rank, size)
    _exchange(rank, queue.connect)
    even_share = math.ceil(sum(max(1, cost) for cost in job.costs) / size)
    batches = plan(job.costs, min(token_budget, even_share))
    try:
        mine = pickle.dumps(_work(job, batches, queue, on_batch))
        queue.arrive()
    except BaseException as error:
        queue.leave(error)
        raise
    results: dict[int, Result] = {}
    for part in gather_object([mine]):
        results.update(pickle.loads(part))
    return [results[index] for index in range(len(job.items))]


def _work(
    job: _Job[Item, Result], batches: list[list[int]], queue: _Queue, on_batch: OnBatch | None
) -> dict[int, Result]:
    """Draws and computes batches until all are done, by whichever process; its own results by item index."""
    results: dict[int, Result] = {}
    done, total = 0, len(job.items)
    while done < total:
        number = queue.draw()
        if number < len(batches):
            results.update(zip(batches[number], job.run(batches[number]), strict=True))
            finished = len(batches[number])
        else:
            time.sleep(_POLL_SECONDS)
            finished = 0
        before, done = done, queue.count(finished)
        if on_batch is not None and done != before:
            on_batch(done, total)
    return results


def _exchange(rank: int, attempt: Callable[[], Value]) -> list[Value]:
    """What `attempt` gives on each rank; an error on every rank if it raised on any. All processes must call."""
    from accelerate.utils import gather_object

    value, failure = None, None
    try:
        value = attempt()
    except BaseException as error:
        failure = error
    told = gather_object([(value, None if failure is None else _report(rank, failure))])
    if failure is not None:
        raise failure
    for _, report in told:
        if report is not None:
            raise _stopped(rank, report)
    return [value for value, _ in told]


def _report(rank: int, error: BaseException) -> str:
    return f"rank {rank} raised {type(error).__name__}: {error}".removesuffix(": ")


def _stopped(rank: int, report: str) -> RuntimeError:
    return RuntimeError(f"map stopped on rank {rank} because {report}")


class _PlainPickler(pickle.Pickler):
    """Writes equal values as equal bytes: without a memo, so however objects are shared, and arrays as plain data."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        super().__init__(types.SimpleNamespace(write=write), protocol=5)
        self.fast = True

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            data = value.detach().cpu().flatten().view(torch.uint8).numpy()
            return str, (str(value.dtype), tuple(value.shape), data.tobytes())
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return str, (str(value.dtype), value.shape, value.tobytes())
        return NotImplemented


def _fingerprint(job: _Job[Item, Result], token_budget: int) -> str:
    """Equal on two processes if items, costs and budget are: SHA-256 of their pickles.

    Items may hold text, numbers, arrays, tensors, lists, dicts in the same order and dataclasses of these; no sets of
    strings, whose order differs from process to process.
    """
    digest = hashlib.sha256()
    pickler = _PlainPickler(digest.update)
    for value in (token_budget, job.costs, *job.items):
        pickler.dump(value)
    return digest.hexdigest()


class _Queue:
    """The batches of one spread call: numbers that all processes draw, and how the others fare.

    Args:
        address: what `_open_queue` gave on rank 0.
        rank: this process, from 0.
        size: the number of processes.
    """

    def __init__(self, address: str, rank: int, size: int) -> None:
        self._address, self._rank, self._size = address, rank, size

    def connect(self) -> None:
        host, port, call = json.loads(self._address)
        self._store = PrefixStore(call, TCPStore(host, port, is_master=False, timeout=_CONNECT_TIMEOUT))

    def draw(self) -> int:
        """The next batch number, from 0, perhaps past the last.

        Raises:
            RuntimeError: if another process failed, as `count` and `arrive` do.
        """
        return self._add("drawn", 1) - 1

    def count(self, finished: int) -> int:
        """The number of items all processes have done, `finished` more than before."""
        return self._add("done", finished)

    def arrive(self) -> None:
        """Wait until every process has come here. The caller's code does not run between this and the gathering."""
        arrived = self._add("arrived", 1)
        while arrived < self._size:
            time.sleep(_POLL_SECONDS)
            arrived = self._add("arrived", 0)

    def leave(self, error: BaseException) -> None:
        """Tell the others of this process's failure, unless one was told before, and give them a moment to hear it."""
        with contextlib.suppress(RuntimeError):  # rank 0 has ended: nobody to tell
            self._store.compare_set("failure", "", json.dumps(_report(self._rank, error)))
            left, deadline = self._store.add("left", 1), time.monotonic() + _LEAVE_SECONDS
            while left < self._size and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                left = self._store.add("left", 0)

    def _add(self, counter: str, amount: int) -> int:
        try:
            if self._store.check(["failure"]):
                raise _stopped(self._rank, json.loads(self._store.get("failure")))
            return self._store.add(counter, amount)
        except torch.distributed.DistError as error:
            raise _stopped(self._rank, "rank 0 has ended; see its own output") from error


@functools.cache
def _server() -> TCPStore:
    """The store on rank 0 that carries this process's spread calls, one after another, as long as it runs."""
    host = os.environ.get("MASTER_ADDR") or socket.gethostname()
    return TCPStore(host, 0, is_master=True, wait_for_workers=False)


def _open_queue() -> str:
    """Where the queue of one call is: host, port and a key of its own."""
    return json.dumps([_server().host, _server().port, uuid.uuid4().hex])
