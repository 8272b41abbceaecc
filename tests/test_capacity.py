"""benchmarks/capacity.py: its arithmetic by hand, and a rate measured at toy size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from quals_metric.files.scoring import SHARD_ROWS
from tests import programs, tiny

programs.load("benchmarks/limit.py")  # which the other imports
capacity = programs.load("benchmarks/capacity.py")


def test_hours_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    capacity.main(["--seconds", "3.6", "--efficiency", "0.5", "--summaries", "100000"])
    out = capsys.readouterr().out
    assert "Computed, not measured: 100,000 summaries at 3.6 s each (as given)" in out
    rows = [line for line in out.splitlines() if line.startswith("| ") and "hours" not in line and "-" not in line]
    # 100 hours alone; two processes at half of what two would have alone are as fast as one
    assert rows == ["| 1 | 100.0 | 4.2 |", "| 2 | 100.0 | 4.2 |", "| 8 | 25.0 | 1.0 |", "| 64 | 3.1 | 0.1 |"]
    assert "together they reach 50% of as many alone" in out


@pytest.mark.parametrize(
    ("node", "text"),
    [
        # 100 hours of work in 5: 20 processes of 100 %, 40 of 50 %; 8 fit by cores, 6 by memory
        (["--cores", "16", "--threads", "2", "--memory", "13", "--memory-per-process", "2"],
         "7 node(s) with 6 processes each, 42 in all; 4.8 hours. SLURM: --array=0-41. Ray: "
         "ActorPoolStrategy(size=42), num_cpus=2. "),
        (["--cores", "32", "--memory", "99", "--gpus", "4", "--gpus-per-process", "0.5"],
         "5 node(s) with 8 processes each, 40 in all; 5 hours. SLURM: --array=0-39. Ray: "
         "ActorPoolStrategy(size=40), num_cpus=1, num_gpus=0.5. "),
    ],
)  # fmt: skip
def test_a_plan_by_hand(node: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    capacity.main(["--seconds", "3.6", "--efficiency", "0.5", "--summaries", "100000", "--hours", "5", *node])
    out = capsys.readouterr().out
    assert text in out and f"for {SHARD_ROWS} rows {SHARD_ROWS * 0.06:.2g} minutes" in out


def test_a_measured_rate_says_where_it_is_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"document": text, "summary": text}) for text in tiny.CORPUS))
    model, threads = str(tiny.save("bart", tmp_path / "bart")), torch.get_num_threads()
    try:
        with pytest.warns(UserWarning, match="hypotheses is a question"):  # random weights write none
            capacity.main(["--data", str(path), "--measure", "3", "--model", model])
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert "measured on 3 summaries, 1 thread(s); quals|model:" in out and "at 0 s each" not in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--seconds", "0"], "--seconds: must be a finite number above 0; got 0.0"),
        (["--seconds", "nan"], "got nan"),
        (["--seconds", "1", "--efficiency", "1.5"], "--efficiency: must be above 0 and at most 1; got 1.5"),
        (["--seconds", "1", "--hours", "0"], "--hours: must be a finite number above 0; got 0.0"),
        (["--seconds", "1", "--threads", "0"], "--threads and --memory-per-process: must be above 0"),
        (["--seconds", "1", "--hours", "1", "--threads", "2"], "must have room for a process; got Resources(cores=1"),
        ([], "one of the arguments --data --seconds is required"),
    ],
)
def test_a_rate_that_cannot_be_is_refused(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        capacity.main(arguments)
    assert text in capsys.readouterr().err
