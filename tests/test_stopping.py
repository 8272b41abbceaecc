"""The count of benchmarks/stopping.py: which tokens of a search a rule would leave out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qa_inference.decoding import Hypothesis
from tests import programs, tiny

stopping = programs.load("benchmarks/stopping.py")
HYPOTHESES = [Hypothesis(np.array(tokens), np.zeros(len(tokens)), True) for tokens in ([5, 6, 3], [5, 7, 8, 3], [5, 3])]


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        # the start, the common row [5], then [5, 6] and [5, 7], then [5, 7, 8]
        ({0, 1, 2}, 1 + 1 + 2 + 1),
        ({0}, 1 + 1 + 1 + 0),  # the groups after the first stop at once, but share its first two rows
        ({1}, 1 + 1 + 2 + 1),  # the first goes on, because its choices change those of the second
        ({2}, 1 + 1 + 0 + 0),
        (set(), 0),
    ],
)
def test_tokens_read(needed: set[int], expected: int) -> None:
    assert stopping.tokens_read(HYPOTHESES, lambda group, length: group in needed) == expected


def test_a_group_may_stop_late() -> None:
    assert stopping.tokens_read(HYPOTHESES, lambda group, length: length < 2) == 1 + 1
    assert stopping.tokens_read(HYPOTHESES) == 5


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(
        "\n".join(json.dumps({"document": text, "summary": text}) for text in [*tiny.CORPUS, tiny.CORPUS[0]])
    )
    threads = torch.get_num_threads()
    try:
        stopping.main(["--data", str(data), "--model", str(tiny.trained(tmp_path / "model"))])
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{len(tiny.CORPUS)} distinct summaries; quals|")
    rows = [line.split(" | ") for line in printed.splitlines()[-3:]]
    counts = [int(number.replace(",", "")) for _, number, _ in rows]
    assert [name for name, *_ in rows] == ["| as it is", "| exact", "| foresight"]
    assert counts[0] >= counts[1] >= counts[2] >= 0 and counts[0] > 0
