"""benchmarks/memory.py: its steps at toy size. What they take is measured by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests import programs, tiny

memory = programs.load("benchmarks/memory.py")


@pytest.mark.skipif(not memory.STATUS.exists(), reason="/proc is Linux's")
def test_every_step_has_its_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, threads = tmp_path / "rows.jsonl", torch.get_num_threads()
    data.write_text("\n".join(json.dumps({"document": text, "summary": text}) for text in tiny.CORPUS[:3]))
    try:
        memory.main(["--data", str(data), "--model", str(tiny.trained(tmp_path / "model")), "--rows", "2"])
    finally:
        torch.set_num_threads(threads)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == [
        "| Python and this program", "| import torch", "| import transformers, its T5 and BERT", "| load the model",
        "| score 2 summaries", "| score 1 summaries",
    ]  # fmt: skip
    for _, _, resident, private, peak in rows:
        assert 0 < int(private) <= int(resident) <= int(peak.rstrip(" |"))
