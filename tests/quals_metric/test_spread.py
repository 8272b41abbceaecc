"""A scoring spread over two processes, or two machines, gives each of them what one process gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quals_metric
from quals_metric import QualsConfig, QualsScorer
from tests import PATIENCE, tiny
from tests.quals_metric.test_scorer import SOURCES, SUMMARIES

PROGRAM = Path(__file__).with_name("spread_program.py")


def assert_close(found: Any, expected: Any) -> None:
    """Equal, numbers within 1e-5."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


def environment() -> dict[str, str]:
    """One thread, on the CPU, with the package that is tested here."""
    package = str(Path(quals_metric.__file__).parents[1])
    return os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": package}


def run_twice(program: Path, *arguments: str) -> None:
    """Run a program in two processes that know of each other."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    subprocess.run([*command, *arguments], env=environment(), check=True, timeout=PATIENCE)


def run_on_two_machines(program: Path, *arguments: str) -> None:
    """Run a program in one process on each of two "machines", which find each other by an address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no"]  # and no question what they should be
    launch += ["--num_machines=2", "--main_process_ip=127.0.0.1", f"--main_process_port={port}"]
    machines = [
        subprocess.Popen([*launch, f"--machine_rank={rank}", str(program), *arguments], env=environment())
        for rank in range(2)
    ]
    try:
        assert [machine.wait(timeout=PATIENCE) for machine in machines] == [0, 0]
    finally:
        for machine in machines:
            machine.terminate()  # a launcher then ends what it started
            machine.wait(timeout=PATIENCE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.trained(tmp_path_factory.mktemp("model") / "bart"))


@pytest.mark.parametrize("run", [run_twice, run_on_two_machines])
def test_two_processes_give_the_result_of_one(run: Callable[..., None], model: str, tmp_path: Path) -> None:
    (tmp_path / "texts.json").write_text(json.dumps([SUMMARIES, SOURCES]))
    run(PROGRAM, model, str(tmp_path / "texts.json"), str(tmp_path))
    scorer = QualsScorer(QualsConfig(model, groups=30, min_new_tokens=2, max_new_tokens=14, device="cpu"))
    whole = scorer.score(summaries=SUMMARIES, sources=SOURCES).to_dict()
    single = scorer.score(summaries=SUMMARIES[:1], sources=SOURCES[:1]).to_dict()
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert_close(found["whole"], whole)
        assert_close(found["single"], single)
        assert "those of rank 1 differ from rank 0's" in found["refused"]
    assert_close(found["alone"], whole)
