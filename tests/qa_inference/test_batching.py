"""`map_batches` on one process, with functions that note their batches, then on two (`spread_program.py`)."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qa_inference import batching
from qa_inference.batching import map_batches, plan_batches
from tests import PATIENCE

PROGRAM = Path(__file__).with_name("spread_program.py")


class Noting:
    """Doubles numbers and notes the batches it was given; batches above `most` run out of memory."""

    def __init__(self, most: int = 1000, error: Exception | None = None) -> None:
        self.batches: list[list[int]] = []
        self.most = most
        self.error = error or MemoryError()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        if len(numbers) > self.most:
            raise self.error
        return [2 * number for number in numbers]


def itself(number: int) -> int:
    return number


@pytest.mark.parametrize(
    ("costs", "budget", "expected"),
    [
        ([], 10, []),
        ([3], 10, [[0]]),
        ([30], 10, [[0]]),
        ([1, 5, 2, 5], 10, [[1, 3], [2, 0]]),
        ([2, 2, 2, 2, 2], 4, [[0, 1], [2, 3], [4]]),
        ([9, 4, 1, 3, 3, 12], 12, [[5], [0], [1, 3, 4], [2]]),
        ([0, 0, 0], 2, [[0, 1], [2]]),
    ],
)
def test_plan_batches(costs: list[int], budget: int, expected: list[list[int]]) -> None:
    assert plan_batches(costs, budget) == expected


@pytest.mark.parametrize(
    ("costs", "budget", "num_processes", "sizes"),
    [
        ([], 10, 2, []),
        ([9], 10, 2, [1]),
        ([9, 9], 100, 2, [1, 1]),
        ([1] * 8, 100, 2, [4, 4]),
        ([1] * 64, 16, 2, [16, 12, 9, 6, 5, 4, 3, 2, 2, 2, 2, 1]),
        ([1] * 64, 16, 4, [8, 7, 6, 5, 4, 4, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]),
    ],
)
def test_batches_for_several_processes_become_smaller(
    costs: list[int], budget: int, num_processes: int, sizes: list[int]
) -> None:
    batches = plan_batches(costs, budget, num_processes)
    assert [len(batch) for batch in batches] == sizes
    assert sorted(index for batch in batches for index in batch) == list(range(len(costs)))


@given(st.lists(st.integers(0, 30)), st.integers(1, 100), st.integers(1, 5))
def test_batches_keep_to_the_budget_whatever_the_number_of_processes(
    costs: list[int], budget: int, num_processes: int
) -> None:
    batches = plan_batches(costs, budget, num_processes)
    assert [costs[index] for batch in batches for index in batch] == sorted(costs, reverse=True)
    assert all(len(batch) == 1 or len(batch) * max(costs[index] for index in batch) <= budget for batch in batches)


@given(st.lists(st.integers(0, 30)), st.integers(1, 100))
def test_results_do_not_depend_on_the_budget(numbers: list[int], budget: int) -> None:
    fn = Noting()
    assert map_batches(fn, numbers, itself, token_budget=budget) == [2 * number for number in numbers]
    assert all(len(batch) == 1 or len(batch) * max(batch) <= budget for batch in fn.batches)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_batch_that_runs_out_of_memory_is_halved(error: Exception) -> None:
    fn = Noting(most=3, error=error)
    assert map_batches(fn, [1] * 13, itself, token_budget=7) == [2] * 13
    # 7 and 4 do not fit; the second batch, of 6, is halved without trying.
    assert [len(batch) for batch in fn.batches] == [7, 4, 2, 2, 3, 3, 3]


def test_order_survives_halving() -> None:
    numbers = [5, 1, 9, 3, 7, 2, 8]
    assert map_batches(Noting(most=1), numbers, itself, token_budget=100) == [2 * number for number in numbers]


def test_a_single_item_that_does_not_fit_is_named() -> None:
    cause = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(MemoryError, match=r"item 1 \(cost 8\) does not fit") as caught:
        map_batches(Noting(most=0, error=cause), [3, 8, 5], itself, token_budget=100)
    assert caught.value.__cause__ is cause


def test_a_failed_attempt_keeps_no_tensor_alive() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def fn(numbers: list[int]) -> list[int]:
        gc.disable()  # the attempt must be gone for want of references, not by collection
        assert all(reference() is None for reference in held)
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        if len(numbers) > 1:
            raise MemoryError
        return numbers

    try:
        map_batches(fn, [1, 1, 1, 1], itself, token_budget=4)
    finally:
        gc.enable()
    assert len(held) == 1 + 1 + 4  # of 4, of 2, each alone


@pytest.mark.skipif(batching._heap() is None, reason="the C library has no malloc_trim")
def test_free_pieces_of_the_heap_go_back_after_a_batch() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def fn(numbers: list[int]) -> list[torch.Tensor]:
        pieces = [torch.ones(20_000) for _ in range(1000)]  # 80 kB each, 80 MB in all
        before.append(resident())
        return pieces[-1:]  # the topmost stays: nothing below it would go back by itself

    before: list[int] = []
    kept = map_batches(fn, [1], itself, token_budget=1)
    assert before[0] - resident() > 50e6 and len(kept) == 1


def test_other_errors_pass_through() -> None:
    fn = Noting(most=0, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        map_batches(fn, [1, 1], itself, token_budget=4)
    assert len(fn.batches) == 1


def test_fn_must_return_a_list_of_one_result_per_item() -> None:
    with pytest.raises(ValueError, match="got 1 for a batch of 2"):
        map_batches(lambda batch: batch[:1], [1, 2], itself, token_budget=4)
    with pytest.raises(TypeError, match="got Tensor"):
        map_batches(torch.tensor, [1, 2], itself, token_budget=4)  # type: ignore[arg-type]


def test_on_batch_counts_items_and_may_stop() -> None:
    calls: list[tuple[int, int]] = []
    map_batches(Noting(), [1, 3, 2, 1], itself, on_batch=lambda *call: calls.append(call), token_budget=4)
    assert calls == [(1, 4), (3, 4), (4, 4)]

    def stop(done: int, total: int) -> None:
        raise TimeoutError("the deadline has passed")

    fn = Noting()
    with pytest.raises(TimeoutError):
        map_batches(fn, [1, 1, 1], itself, on_batch=stop, token_budget=1)
    assert len(fn.batches) == 1


def test_only_fn_runs_in_inference_mode() -> None:
    modes: list[bool] = []

    def fn(numbers: list[int]) -> list[int]:
        modes.append(torch.is_inference_mode_enabled())
        return numbers

    def on_batch(done: int, total: int) -> None:
        modes.append(torch.is_inference_mode_enabled())

    map_batches(fn, [1], itself, on_batch=on_batch, token_budget=1)
    assert modes == [True, False]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="token_budget: must be at least 1, the highest cost of a batch; got 0"):
        map_batches(Noting(), [1], itself, token_budget=0)
    with pytest.raises(ValueError, match="cost: must be an integer of at least 0; got -2 for item 1"):
        map_batches(Noting(), [1, -2], itself, token_budget=1)
    with pytest.raises(ValueError, match=r"cost: .* got 1\.0 for item 0"):
        map_batches(Noting(), [1], float, token_budget=1)  # type: ignore[arg-type]


def test_a_local_map_needs_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert map_batches(Noting(), [1, 2], itself, token_budget=1) == [2, 4]
    assert not torch.distributed.is_initialized()


def test_spread_over_one_process_is_local() -> None:
    from accelerate import PartialState

    was_there = bool(PartialState._shared_state)
    try:
        assert map_batches(Noting(), [1, 2], itself, spread=True, token_budget=1) == [2, 4]
    finally:
        if not was_there:
            PartialState._reset_state()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_21_b15_a_forked_process_computes() -> None:
    program = str(PROGRAM.with_name("fork_program.py"))
    process = subprocess.Popen([sys.executable, program], env=environment(), start_new_session=True)
    try:
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a child that hangs outlives its parent


# --- in two processes

SUCCEEDING = ["sizes", "even_share", "records", "one_long_item", "progress"]
DIFFERING = ["differing_items", "differing_budget"]
FAILING = {  # scenario: (the rank that fails, its error, what it says)
    "failing_cost": (0, "LookupError", "no tokenizer"),
    "failing_rank_0": (0, "ZeroDivisionError", "no \ud800 luck"),
    "failing_rank_1": (1, "KeyError", "'luck'"),
    "interrupted_rank_1": (1, "KeyboardInterrupt", ""),
    "stopping_rank": (1, "TimeoutError", "the deadline has passed"),
    "stopping_at_the_end": (1, "TimeoutError", "the deadline has passed"),
    "unpicklable_result": (1, "TypeError", "not to be sent"),
}


def environment(**variables: str) -> dict[str, str]:
    """One thread, on the CPU, with the package that is tested here."""
    package = str(Path(batching.__file__).parents[1])
    return os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": package} | variables


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What came of each scenario on rank 0 and on rank 1; after all the failures, "sizes" once more on each."""
    folder = tmp_path_factory.mktemp("ranks")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    names = [*SUCCEEDING, *DIFFERING, *FAILING, "afterwards"]
    subprocess.run([*launch, str(PROGRAM), str(folder), *names], env=environment(), check=True, timeout=PATIENCE)
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.mark.parametrize("scenario", ["sizes", "afterwards"])
def test_every_rank_has_the_result_of_one_process(ranks: list[dict[str, Any]], scenario: str) -> None:
    expected = [[2 * number for number in range(1, 1 + count)] for count in (0, 1, 2, 3, 7, 23)]
    assert [outcomes[scenario]["value"] for outcomes in ranks] == [expected, expected]


def test_no_rank_is_left_without_work(ranks: list[dict[str, Any]]) -> None:
    assert [outcomes["even_share"]["value"] for outcomes in ranks] == [4, 4]


def test_equal_items_are_equal_however_they_are_held(ranks: list[dict[str, Any]]) -> None:
    assert [outcomes["records"]["value"] for outcomes in ranks] == [["text3"] * 4] * 2


def test_one_long_item_does_not_hold_up_the_rest(ranks: list[dict[str, Any]]) -> None:
    by_length = sorted((outcomes["one_long_item"]["value"] for outcomes in ranks), key=len)
    assert by_length[0] == [20]
    assert sorted(by_length[1]) == list(range(10, 20))


def test_every_rank_hears_of_the_progress(ranks: list[dict[str, Any]]) -> None:
    for outcomes in ranks:
        calls = outcomes["progress"]["value"]
        assert calls[-1] == [3, 3]
        assert calls == sorted(calls)
        assert len({done for done, _ in calls}) == len(calls)


@pytest.mark.parametrize("scenario", DIFFERING)
def test_differing_inputs_are_refused_on_every_rank(ranks: list[dict[str, Any]], scenario: str) -> None:
    for outcomes in ranks:
        kind, text = outcomes[scenario]["error"]
        assert kind == "ValueError"
        assert "those of rank 1 differ from rank 0's" in text


@pytest.mark.parametrize("scenario", FAILING)
def test_21_0_a_failure_on_one_rank_is_raised_on_all_before_another_batch(
    ranks: list[dict[str, Any]], scenario: str
) -> None:
    failing, kind, text = FAILING[scenario]
    own, other = ranks[failing][scenario], ranks[1 - failing][scenario]
    assert own["error"][0] == kind
    assert text in own["error"][1]
    assert other["error"][0] == "RuntimeError"
    assert f"on rank {1 - failing} because rank {failing} raised {kind}" in other["error"][1]
    assert text in other["error"][1]
    assert other["batches"] <= (6 if scenario == "unpicklable_result" else 1)  # of 600


def test_the_death_of_rank_0_is_noticed(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(tmp_path), "dying_rank_0"],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **common),
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=PATIENCE) for process in processes] == [3, 0]
    finally:
        for process in processes:
            process.kill()
    told = json.loads((tmp_path / "1.json").read_text(encoding="utf-8"))["dying_rank_0"]
    assert told["error"] == ["RuntimeError", "map stopped on rank 1 because rank 0 has ended; see its own output"]
    assert told["batches"] <= 1  # of 600
