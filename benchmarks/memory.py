"""Measure where the memory of a process that scores goes: the libraries, the weights, the work. Linux only.

    python benchmarks/memory.py --data rows.jsonl [--metric quals] [--rows 16] [--calls 2] [--dtype float32]
    MALLOC_MMAP_THRESHOLD_=4194304 python benchmarks/memory.py …     with another setting of the C library's heap

A row holds `document` and `summary`. The process takes the steps of the table one after another. `resident` is the
memory that it has after a step, and `private` the part that is no file's, so that every further process has it again.
`peak` is the most that it had during the step. Seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from quals_metric.files.tables import records

STATUS = Path("/proc/self/status")
FORGET_PEAK = Path("/proc/self/clear_refs"), "5"


def memory() -> dict[str, float]:
    """Resident, private and peak memory in MB of 1e6 bytes."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
    names = {"resident": "VmRSS", "private": "RssAnon", "peak": "VmHWM"}
    return {name: int(lines[field].split()[0]) * 1024 / 1e6 for name, field in names.items()}


def steps(args: argparse.Namespace) -> list[tuple[str, Callable[[], Any]]]:
    """The steps with their names, in order."""
    rows = [row for _, row in islice(records(Path(args.data)), args.rows * args.calls)]
    made: dict[str, Any] = {}

    def load_torch() -> None:
        import torch

        torch.set_num_threads(args.threads)

    def load_library() -> None:
        import transformers.models.bert.modeling_bert
        import transformers.models.t5.modeling_t5  # noqa: F401

    def load_model() -> None:
        from qags_metric import QagsConfig, QagsScorer
        from quals_metric import QualsConfig, QualsScorer

        options: Any = {"dtype": args.dtype, "device": "cpu", "token_budget": args.token_budget}
        if args.metric == "quals":
            made["scorer"] = QualsScorer(QualsConfig(args.model, **options))
        else:
            made["scorer"] = QagsScorer(QagsConfig(args.model, reader=args.reader, **options))

    def score(part: Sequence[dict[str, Any]]) -> None:
        made["scorer"].score([row["summary"] for row in part], [row["document"] for row in part])

    calls = [rows[start : start + args.rows] for start in range(0, len(rows), args.rows)]
    return [
        ("Python and this program", lambda: None),
        ("import torch", load_torch),
        ("import transformers, its T5 and BERT", load_library),
        ("load the model", load_model),
        *((f"score {len(part)} summaries", lambda part=part: score(part)) for part in calls),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, take the steps, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--metric", choices=["quals", "qags"], default="quals")
    parser.add_argument("--rows", type=int, default=16, help="summaries of a call")
    parser.add_argument("--calls", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--token-budget", type=int, help="of a batch; default: the metric's")
    parser.add_argument("--model", default="embedded", help="the model that asks")
    parser.add_argument("--reader", default="embedded", help="of QAGS")
    args = parser.parse_args(argv)
    if not STATUS.exists():
        parser.error("the memory of a process is read from /proc, which only Linux has")
    print("| step | seconds | resident, MB | private | peak |\n| --- | ---: | ---: | ---: | ---: |", flush=True)
    for name, step in steps(args):
        FORGET_PEAK[0].write_text(FORGET_PEAK[1], encoding="ascii")
        began = time.process_time()
        step()
        seconds, used = time.process_time() - began, memory()
        print(
            f"| {name} | {seconds:.2f} | {used['resident']:.0f} | {used['private']:.0f} | {used['peak']:.0f} |",
            flush=True,
        )
    heap = ", ".join(f"{name}={value}" for name, value in os.environ.items() if name.startswith("MALLOC_"))
    setting = f"{args.metric}, {args.dtype}, {args.threads} thread(s), budget {args.token_budget or 'default'}"
    print(f"\n{setting}, heap {heap or 'default'}, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
