"""What `test_batching.py` runs: a process that has computed forks, and its child computes the same.

Exits with 0 if the child does.
"""

from __future__ import annotations

import os

import torch

from qa_inference.batching import map_batches


def products(numbers: list[int]) -> list[float]:
    """Large enough for torch to use all its threads."""
    matrices = [torch.full((500, 500), float(number)) for number in numbers]
    return [float((matrix @ matrix).sum()) for matrix in matrices]


def compute() -> list[float]:
    return map_batches(products, [1, 2, 3], lambda number: number, token_budget=3)


def main() -> None:
    torch.set_num_threads(2)
    expected = compute()
    child = os.fork()
    if child == 0:
        os._exit(0 if compute() == expected and torch.get_num_threads() == 1 else 1)
    _, status = os.waitpid(child, 0)
    raise SystemExit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
