"""benchmarks/gpu.py on a CUDA device that is only pretended, at toy size; no number of it is about speed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from tests import device, programs, tiny, tiny_readers

programs.load("benchmarks/peers.py")
programs.load("benchmarks/processes.py")
programs.load("benchmarks/scaling.py")
gpu = programs.load("benchmarks/gpu.py")


@pytest.fixture
def pretended() -> Iterator[None]:
    """A device whose driver answers the questions of the program."""
    answers = {
        "synchronize": None, "reset_peak_memory_stats": None, "max_memory_allocated": 0, "set_sync_debug_mode": None,
        "get_device_name": "a pretended device",
    }  # fmt: skip
    with device.pretended():
        patches = [mock.patch.object(torch.cuda, name, return_value=answer) for name, answer in answers.items()]
        for patch in patches:
            patch.start()
        yield
        for patch in patches:
            patch.stop()


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Toy models and rows."""
    folder = tmp_path_factory.mktemp("gpu")
    data = folder / "rows.jsonl"
    data.write_text("\n".join(json.dumps({"document": text, "summary": text}) for text in tiny.CORPUS))
    bart, reader = tiny.trained(folder / "bart"), tiny_readers.save("bert", folder / "reader")
    names = ("--model", "--question-model", "--reader")
    return [
        "--data", str(data), "--rows", "3", "--groups", "7", "--device", "cuda:0", "--tiny",
        *(text for pair in zip(names, map(str, (bart, bart, reader)), strict=True) for text in pair),
    ]  # fmt: skip


@pytest.mark.usefixtures("pretended")
def test_the_device_agrees_with_the_cpu(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([*arguments, "--parts", "check", "--minutes", "60"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| yes |") == 9 and "**no**" not in printed and "a pretended device" in printed


@pytest.mark.usefixtures("pretended")
def test_measurements(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "DTYPES", ("float32", "float16"))
    monkeypatch.setattr(gpu, "BUDGETS", (2048, 8192))
    out = tmp_path / "gpu.json"
    parts = ["--parts", "rates", "budgets", "large", "--minutes", "60", "--out", str(out)]
    assert gpu.main([*arguments, *parts]) == 0
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert [len(found[part]) for part in ("rates", "budgets", "large")] == [3, 2, 2]
    assert all(row["summaries"] == 3 and row["per_second"] > 0 for part in ("rates", "large") for row in found[part])
    for name in ("QUALS, float16", "QAGS", "QUALS, 8,192 tokens (default)", "float16, 8,192 tokens"):
        assert f"| {name} | 3 |" in printed


@pytest.mark.usefixtures("pretended")
def test_no_measurement_begins_after_the_time(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([*arguments, "--parts", "budgets", "--minutes", "0"]) == 0
    assert capsys.readouterr().out.count("not measured: the part's time was over") == len(gpu.BUDGETS)


def test_what_does_not_agree_is_said(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [gpu.Check("a", 0.5, least=0.9), gpu.Check("b", math.nan, most=1.0), gpu.Check("c", 0.0, most=0.0)]
    assert [one.passed for one in checks] == [False, False, True] and "| 0.5 | at least 0.9 | **no** |" in checks[
        0
    ].row()
    monkeypatch.setitem(gpu.PARTS, "check", lambda *_: checks)
    with mock.patch.object(torch.cuda, "get_device_name", return_value="x"):
        assert gpu.main([*arguments, "--device", "cpu", "--parts", "check"]) == 1


def test_a_machine_without_the_device_is_told_so(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main([*arguments, "--device", "cuda:99"])
    error = capsys.readouterr().err
    assert "device" in error and "'cuda:99'" in error and "cpu (1)" in error


def test_spans_that_overlap_count_once() -> None:
    assert gpu.busy([(0, 2), (1, 3), (5, 6), (5, 5.5)]) == 4.0 and gpu.busy([]) == 0.0


def test_texts_of_the_guide_are_distinct() -> None:
    summaries, sources = gpu.texts(None, 50)
    assert len(set(summaries)) == len(set(sources)) == 50
    assert all("|" not in text and "```" not in text for text in sources)
    assert np.mean([len(text.split()) for text in sources]) == 400
