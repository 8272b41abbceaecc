"""One `Engine.map` shared by several processes.

Each process draws its next batch from a counter that all share, so that one long item does not hold up the rest. The
counter lives on rank 0 in a `TCPStore` of our own, on a free port of the machine that `MASTER_ADDR` names (unset:
rank 0's host name); it also carries failures, so that no process waits for one that has stopped. This is the package's
one door to accelerate, of which only `PartialState` and the gathering of objects are used.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import pickle
import socket
import time
import types
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch

if torch.distributed.is_available():
    # torch documents both but leaves them out of what it exports by name.
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from accelerate import PartialState

Value = TypeVar("Value")
OnBatch = Callable[[int, int], None]

_POLL_SECONDS = 0.02
_LEAVE_SECONDS = 5.0
_CONNECT_TIMEOUT = timedelta(seconds=60)


class Job(Protocol):
    """What the processes share of one call: the items, their costs, and how a batch of item numbers is computed."""

    items: Sequence[Any]

    @property
    def costs(self) -> list[int]:
        """One per item."""

    def run(self, batch: list[int]) -> list[Any]:
        """The results of some items, in the batch's order."""


def processes() -> PartialState:
    """The processes that were launched together; the first call connects them, if the program has not."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    has_backend = torch.accelerator.is_available() and not torch.mps.device_count()
    connected = torch.distributed.is_available() and torch.distributed.is_initialized()
    # Without cpu=True accelerate takes each process on a machine without GPUs for the only one.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not has_backend)
    if not connected and state.num_processes > 1:
        atexit.register(_disconnect)
    return state


def _disconnect() -> None:
    """Close the process group that `processes` opened: left to the interpreter's end, its threads may abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def map_spread(
    job: Job, plan: Callable[[Sequence[int], int, int], list[list[int]]], token_budget: int, on_batch: OnBatch | None
) -> list[Any]:
    """The results of all items on every process. All make the same three exchanges, whatever happens in between.

    `plan(costs, budget, processes)` makes the batches. See `Engine.map` for `on_batch` and what is raised.
    """
    from accelerate.utils import gather_object

    state = processes()
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
    batches = plan(job.costs, token_budget, size)
    try:
        mine = pickle.dumps(_work(job, batches, queue, on_batch))
        queue.arrive()
    except BaseException as error:
        queue.leave(error)
        raise
    results: dict[int, Any] = {}
    for part in gather_object([mine]):
        results.update(pickle.loads(part))
    return [results[index] for index in range(len(job.items))]


def _work(job: Job, batches: list[list[int]], queue: _Queue, on_batch: OnBatch | None) -> dict[int, Any]:
    """Draws and computes batches until all are done, by whichever process; its own results by item index."""
    results: dict[int, Any] = {}
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


def _fingerprint(job: Job, token_budget: int) -> str:
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
