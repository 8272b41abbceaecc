"""Estimate the time that very many summaries take on several processes, from a measured rate.

    python benchmarks/capacity.py --data rows.jsonl [--measure 100] [--model embedded] [--dtype float32] [--threads 1]
    python benchmarks/capacity.py --seconds 0.5 [--hours 4 --cores 32 --memory 128 [--gpus 4 --gpus-per-process 0.5]]

`--data` measures the wall-clock seconds that one process takes per summary, on the first rows (`document`, `summary`).
`--seconds` is such a rate, measured elsewhere. The table has `--summaries` times that rate, divided by the number of
processes and by `--efficiency`. The efficiency is the throughput of many processes together, relative to the same
number of processes alone.

`--hours` asks for a plan: how many nodes of `--cores`, `--memory` and `--gpus` score all summaries in that time. A
process takes `--threads` cores, `--memory-per-process` and `--gpus-per-process`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from quals_metric.files.scoring import SHARD_ROWS

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


@dataclass(frozen=True)
class Resources:
    """What a node has, or a process takes: cores, memory in GB and GPUs."""

    cores: int
    memory: float
    gpus: float

    def processes(self, process: Resources) -> int:
        """How many processes fit on this node."""
        room = [self.cores // process.cores, int(self.memory / process.memory)]
        return min(room + ([int(self.gpus / process.gpus + 1e-9)] if process.gpus else []))


def plan(rate: Rate, summaries: int, efficiency: float, hours: float, node: Resources, process: Resources) -> str:
    """The number of nodes that finish in time, with the settings for SLURM and Ray. A process must fit on a node."""
    per_node = node.processes(process)
    nodes = math.ceil(summaries * rate.seconds / 3600 / (hours * per_node * efficiency))
    total = nodes * per_node
    shown = summaries * rate.seconds / 3600 / (total * efficiency)
    gpus = f", num_gpus={process.gpus:g}" if process.gpus else ""
    return (
        f"In {hours:g} hours: {nodes:,} node(s) with {per_node} processes each, {total:,} in all; {shown:,.2g} hours. "
        f"SLURM: --array=0-{total - 1}. Ray: ActorPoolStrategy(size={total}), num_cpus={process.cores}{gpus}. If a "
        f"process is killed, at most its shard or batch is lost: for {SHARD_ROWS} rows "
        f"{SHARD_ROWS * rate.seconds / 60:,.2g} minutes of its work."
    )


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
    parser.add_argument("--hours", type=float, help="plan: the time that all summaries may take")
    parser.add_argument("--cores", type=int, default=1, help="plan: the cores of a node")
    parser.add_argument("--memory", type=float, default=2.0, help="plan: the memory of a node in GB")
    parser.add_argument("--gpus", type=float, default=0.0, help="plan: the GPUs of a node")
    parser.add_argument("--memory-per-process", type=float, default=1.6, help="in GB; 1.6: the embedded model on a CPU")
    parser.add_argument("--gpus-per-process", type=float, default=0.0, help="0.5: two processes share a GPU")
    args = parser.parse_args(argv)
    node = Resources(args.cores, args.memory, args.gpus)
    process = Resources(args.threads, args.memory_per_process, args.gpus_per_process)
    if args.hours is not None and not (math.isfinite(args.hours) and args.hours > 0):
        parser.error(f"--hours: must be a finite number above 0; got {args.hours}")
    if args.threads < 1 or not args.memory_per_process > 0 or args.gpus_per_process < 0:
        parser.error("--threads and --memory-per-process: must be above 0, and --gpus-per-process not below it")
    if args.hours is not None and not node.processes(process):
        parser.error(
            f"--cores, --memory and --gpus: must have room for a process; got {node} for {process}. Describe your node"
        )
    if args.seconds is not None and not (math.isfinite(args.seconds) and args.seconds > 0):
        parser.error(f"--seconds: must be a finite number above 0; got {args.seconds}")
    if not 0 < args.efficiency <= 1:
        parser.error(f"--efficiency: must be above 0 and at most 1; got {args.efficiency}")
    if args.data is None:
        rate = Rate(args.seconds, "as given")
    else:
        rate = measure(args.data, args.measure, args.model, args.dtype, args.threads)
    print(table(rate, args.summaries, args.efficiency))
    if args.hours is not None:
        print("\n" + plan(rate, args.summaries, args.efficiency, args.hours, node, process))


if __name__ == "__main__":
    main()
