"""Work that several processes share; the only file of this package that uses accelerate.

`map_spread` shares one `map_batches` among them. Each process draws its next batch from a counter that all share, so
that one long item does not hold up the rest. The counter lives on rank 0 in a `TCPStore` of our own, on a free port of
the machine that `MASTER_ADDR` names (unset: rank 0's host name). The store also carries failures, so that no process
waits for one that has stopped.

`try_on_all`, `on_every_rank` and `on_first_rank` exchange values and failures: an error on one rank is raised on all.

This file uses `PartialState` and `gather_object` of accelerate and nothing else.
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch

if torch.distributed.is_available():
    # torch documents both, but does not export them by name.
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from accelerate import PartialState

Value = TypeVar("Value")
OnBatch = Callable[[int, int], None]

_POLL_SECONDS = 0.02
_LEAVE_SECONDS = 5.0
_CONNECT_TIMEOUT = timedelta(seconds=60)


class SpreadWork(Protocol):
    """The items of one map, their costs, its budget, and the function that computes a batch of item indices."""

    items: Sequence[Any]
    token_budget: int

    @property
    def costs(self) -> list[int]:
        """The cost of every item."""

    def plan(self, num_processes: int) -> list[list[int]]:
        """Batches of item indices for several processes."""

    def run(self, batch: list[int]) -> list[Any]:
        """The results of a batch of item indices, in its order."""


def process_state() -> PartialState:
    """The state of the processes that were launched together; the first call connects them, if nothing else has."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    has_backend = torch.accelerator.is_available() and not torch.mps.device_count()
    connected = torch.distributed.is_available() and torch.distributed.is_initialized()
    # Without cpu=True, accelerate treats each process on a machine without GPUs as the only process.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not has_backend)
    if not connected and state.num_processes > 1:
        atexit.register(_disconnect)
    return state


def _disconnect() -> None:
    """Close the process group that `process_state` opened; otherwise its threads may abort the ending interpreter."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """One rank's attempt: its value, or the `failure` as text ("" if there is none), and how many seconds it took."""

    value: Value | None
    failure: str
    seconds: float


def try_on_all(attempt: Callable[[], Value]) -> tuple[list[Outcome[Value]], Exception | None]:
    """The outcome of `attempt` on every rank, in the order of the ranks, and this rank's own error. All must call.

    An interruption (KeyboardInterrupt, SystemExit) is raised on its own rank, after the others have learned of it.
    """
    from accelerate.utils import gather_object

    rank, begin = process_state().process_index, time.monotonic()
    value: Value | None = None
    error: BaseException | None = None
    try:
        value = attempt()
    except BaseException as caught:
        error = caught
    failure = "" if error is None else _report(rank, error)
    outcomes = gather_object([Outcome(value, failure, time.monotonic() - begin)])
    if error is not None and not isinstance(error, Exception):
        raise error
    return outcomes, error


def on_every_rank(attempt: Callable[[], Value], subject: str) -> list[Value]:
    """The values of `attempt` on all ranks, in the order of the ranks. All processes must call.

    Raises:
        Exception: this rank's own error.
        RuntimeError: if another rank failed; it names `subject`, that rank and its error.
    """
    outcomes, error = try_on_all(attempt)
    if error is not None:
        raise error
    for outcome in outcomes:
        if outcome.failure:
            raise RuntimeError(f"{subject} because {outcome.failure}")
    return [outcome.value for outcome in outcomes]  # type: ignore[misc]  # no attempt failed


def on_first_rank(attempt: Callable[[], Value], subject: str) -> Value:
    """The value of `attempt` on rank 0, on every rank; raises as `on_every_rank`. All processes must call."""
    is_first = process_state().is_main_process
    return on_every_rank(lambda: attempt() if is_first else None, subject)[0]  # type: ignore[return-value]


def map_spread(work: SpreadWork, on_batch: OnBatch | None) -> list[Any]:
    """The results of all items on every process; see `map_batches` for `on_batch` and the errors.

    All processes make the same three exchanges, whatever fails in between.
    """
    from accelerate.utils import gather_object

    state = process_state()
    rank, size = state.process_index, state.num_processes
    subject = f"map stopped on rank {rank}"
    # 1. The processes compare what they are asked to do, and learn where the queue of this call is.
    openings = on_every_rank(lambda: (_fingerprint(work), _open_queue() if rank == 0 else ""), subject)
    differing = [str(number) for number, (fingerprint, _) in enumerate(openings) if fingerprint != openings[0][0]]
    if differing:
        raise ValueError(
            f"spread: every process must map the same items, with the same costs and budget; those of rank "
            f"{', '.join(differing)} differ from rank 0's. Use spread=False to map other items on each process"
        )
    # 2. All connect to it.
    queue = _Queue(openings[0][1], rank, size)
    on_every_rank(queue.connect, subject)
    batches = work.plan(size)
    # 3. Each draws batches until none is left. A failure is reported through the queue: the others do not wait here.
    try:
        own_results = pickle.dumps(_draw_and_run(work, batches, queue, on_batch))
        queue.arrive()
    except BaseException as error:
        queue.leave(error)
        raise
    # 4. Every process gets all results.
    results: dict[int, Any] = {}
    for rank_results in gather_object([own_results]):
        results.update(pickle.loads(rank_results))
    return [results[index] for index in range(len(work.items))]


def _draw_and_run(
    work: SpreadWork, batches: list[list[int]], queue: _Queue, on_batch: OnBatch | None
) -> dict[int, Any]:
    """The results of this process by item index; returns when all batches are done, by whichever process."""
    results: dict[int, Any] = {}
    done, total = 0, len(work.items)
    while done < total:
        number = queue.draw()
        if number < len(batches):
            results.update(zip(batches[number], work.run(batches[number]), strict=True))
            finished = len(batches[number])
        else:
            time.sleep(_POLL_SECONDS)
            finished = 0
        before, done = done, queue.count(finished)
        if on_batch is not None and done != before:
            on_batch(done, total)
    return results


def _report(rank: int, error: BaseException) -> str:
    return f"rank {rank} raised {type(error).__name__}: {error}".removesuffix(": ")


def hash_tensors(digest: Hash, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Update a digest of `hashlib` with tensors: names, types, shapes and contents, in the order they come.

    A tensor on the meta device has no content yet and gives its name, type and shape alone.
    """
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if not tensor.is_meta:
            digest.update(_tensor_bytes(tensor))


def _tensor_bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


class _PlainPickler(pickle.Pickler):
    """Writes equal values as equal bytes: objects that are shared are written again, arrays are written as data."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        super().__init__(types.SimpleNamespace(write=write), protocol=5)
        self.fast = True

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return str, (str(value.dtype), tuple(value.shape), _tensor_bytes(value).tobytes())
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return str, (str(value.dtype), value.shape, value.tobytes())
        return NotImplemented


def _fingerprint(work: SpreadWork) -> str:
    """A digest that two processes share only if their budget, costs and items are the same: SHA-256 of the pickles.

    Items may hold text, numbers, arrays, tensors, lists, dicts in the same order, and dataclasses of these. They may
    not hold sets of strings, whose order differs from process to process.
    """
    digest = hashlib.sha256()
    pickler = _PlainPickler(digest.update)
    for value in (work.token_budget, work.costs, *work.items):
        pickler.dump(value)
    return digest.hexdigest()


class _Queue:
    """The queue of one spread call: batch numbers that all processes draw, counts of finished items, and failures.

    Args:
        address: what `_open_queue` returned on rank 0.
        rank: this process, from 0.
        size: the number of processes.
    """

    def __init__(self, address: str, rank: int, size: int) -> None:
        self._address, self._rank, self._size = address, rank, size
        self._subject = f"map stopped on rank {rank}"

    def connect(self) -> None:
        host, port, call = json.loads(self._address)
        self._store = PrefixStore(call, TCPStore(host, port, is_master=False, timeout=_CONNECT_TIMEOUT))

    def draw(self) -> int:
        """The next batch number, counted from 0; it may lie past the last batch.

        Raises:
            RuntimeError: if another process failed; so do `count` and `arrive`.
        """
        return self._add("drawn", 1) - 1

    def count(self, finished: int) -> int:
        """Add `finished` items; returns how many all processes have done."""
        return self._add("done", finished)

    def arrive(self) -> None:
        """Wait until every process is here: no code that can fail runs between this and the gathering."""
        arrived = self._add("arrived", 1)
        while arrived < self._size:
            time.sleep(_POLL_SECONDS)
            arrived = self._add("arrived", 0)

    def leave(self, error: BaseException) -> None:
        """Report this process's failure, unless another was reported before; wait a moment for the others to see it."""
        with contextlib.suppress(RuntimeError):  # rank 0 has ended, and its store with it
            self._store.compare_set("failure", "", json.dumps(_report(self._rank, error)))
            left, deadline = self._store.add("left", 1), time.monotonic() + _LEAVE_SECONDS
            while left < self._size and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                left = self._store.add("left", 0)

    def _add(self, counter: str, amount: int) -> int:
        try:
            if self._store.check(["failure"]):
                failure = json.loads(self._store.get("failure"))
                raise RuntimeError(f"{self._subject} because {failure}")
            return self._store.add(counter, amount)
        except torch.distributed.DistError as error:
            raise RuntimeError(f"{self._subject} because rank 0 has ended; see its own output") from error


@functools.cache
def _server() -> TCPStore:
    """The store on rank 0; it carries all spread calls of this run, one after another."""
    host = os.environ.get("MASTER_ADDR") or socket.gethostname()
    return TCPStore(host, 0, is_master=True, wait_for_workers=False)


def _open_queue() -> str:
    """The address of a new queue: host, port and a key of its own."""
    return json.dumps([_server().host, _server().port, uuid.uuid4().hex])
