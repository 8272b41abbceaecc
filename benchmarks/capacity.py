"""Estimate the time that very many summaries take on several processes, from a measured rate.

    python benchmarks/capacity.py --data rows.jsonl [--measure 100] [--model embedded] [--dtype float32] [--threads 1]
    python benchmarks/capacity.py --seconds 0.5

`--data` measures the wall-clock seconds that one process takes per summary, on the first rows (`document`, `summary`).
`--seconds` is such a rate, measured elsewhere. The table has `--summaries` times that rate, divided by the number of
processes and by `--efficiency`. The efficiency is the throughput of many processes together, relative to the same
number of processes alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

PROCESSES = (1, 2, 8, 64)


@dataclass(frozen=True)
class Rate:
    """Seconds of the clock that one process takes per summary, and where that is from."""

    seconds: float
    origin: str


def measure(data: str, rows: int, model: str, dtype: str, threads: int) -> Rate:
    """The rate of one process on the first rows of a file, its start and the loading of the model left out."""
    import torch
    from limit import read

    from quals_metric import QualsConfig, QualsScorer

    torch.set_num_threads(threads)
    texts = read([data], rows)
    scorer = QualsScorer(QualsConfig(model, dtype=dtype))
    scorer.score(**{side: part[:2] for side, part in texts.items()})  # what is done once is done
    begin = time.perf_counter()
    result = scorer.score(**texts)
    taken, count = time.perf_counter() - begin, len(result.scores)
    return Rate(taken / count, f"measured on {count} summaries, {threads} thread(s); {result.signature}")


def table(rate: Rate, summaries: int, efficiency: float) -> str:
    """Expected hours for each number of processes, in Markdown, with what they assume."""
    lines = [
        f"Computed, not measured: {summaries:,} summaries at {rate.seconds:.3g} s each ({rate.origin}).",
        "",
        "| processes | hours | days |",
        "| ---: | ---: | ---: |",
    ]
    for count in PROCESSES:
        hours = summaries * rate.seconds / 3600 / (1.0 if count == 1 else count * efficiency)
        lines.append(f"| {count} | {hours:,.1f} | {hours / 24:,.1f} |")
    lines += [
        "",
        "Assumed: each process has cores, or a GPU, and memory bandwidth of its own, as fast as where the rate was; "
        f"together they reach {efficiency:.0%} of as many alone; all texts are like those of the rate; loading the "
        "model takes no time beside this; no two summaries share a source and nothing is in a cache, either of which "
        "saves time.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure if asked, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", help="rows to measure the rate on")
    source.add_argument("--seconds", type=float, help="a rate that was measured: seconds per summary and process")
    parser.add_argument("--measure", type=int, default=100, help="how many rows")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--summaries", type=int, default=1_000_000)
    parser.add_argument(
        "--efficiency", type=float, default=0.9, help="1.8 times the throughput on two processes is 0.9"
    )
    args = parser.parse_args(argv)
    if args.seconds is not None and not (math.isfinite(args.seconds) and args.seconds > 0):
        parser.error(f"--seconds: must be a finite number above 0; got {args.seconds}")
    if not 0 < args.efficiency <= 1:
        parser.error(f"--efficiency: must be above 0 and at most 1; got {args.efficiency}")
    if args.data is None:
        rate = Rate(args.seconds, "as given")
    else:
        rate = measure(args.data, args.measure, args.model, args.dtype, args.threads)
    print(table(rate, args.summaries, args.efficiency))


if __name__ == "__main__":
    main()
