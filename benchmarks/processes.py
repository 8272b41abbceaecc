"""Measure the speed-up of QUALS on several processes of one thread each, and compare the scores.

    python benchmarks/processes.py --data rows.jsonl [more.jsonl] [--rows 400] [--processes 1 2] [--repeats 1]
    python benchmarks/processes.py --data rows.jsonl --machines     each process a "machine" of its own, over loopback

A row holds `document` and `summary`. If there are too few rows, they are used again with their sentences in another
order, so that no text repeats. The numbers of processes take turns; the processes are started as `torchrun` and
`accelerate launch` start them. The seconds are wall-clock time, from when all processes have loaded the model until the
last one has the whole result. The report has the summaries per second, the ratio to the first number of processes in
each repeat, and the largest difference of scores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def texts(paths: Sequence[str], rows: int) -> tuple[list[str], list[str]]:
    """So many summaries and sources, no two alike."""
    from quals_metric.files.tables import records

    source_rows = [row for path in paths for _, row in records(Path(path))]
    turned = (
        tuple(_turned(row[column], turn) for column in ("summary", "document"))
        for turn in count()
        for row in source_rows
    )
    distinct = dict.fromkeys(islice(turned, rows))
    if len(distinct) < rows:
        raise SystemExit(f"{rows} different rows cannot be made of {len(source_rows)}; give more data or fewer --rows")
    summaries, sources = zip(*distinct, strict=True)
    return list(summaries), list(sources)


def _turned(text: str, turn: int) -> str:
    """The text with its first `turn` sentences, or words where it has one sentence, at its end."""
    parts = text.split(". ")
    glue = ". " if len(parts) > 1 else " "
    parts = parts if len(parts) > 1 else text.split()
    turn %= max(1, len(parts))
    return glue.join(parts[turn:] + parts[:turn])


def child(args: argparse.Namespace) -> None:
    """The work of every process: load, wait for the others, score, and, on the first one, write the result."""
    import torch
    from accelerate import PartialState

    from qa_inference.metric_base.results import json_ready
    from quals_metric import QualsConfig, QualsScorer

    torch.set_num_threads(1)
    summaries, sources = json.loads(Path(args.texts).read_text(encoding="utf-8"))
    scorer = QualsScorer(QualsConfig(args.model, dtype=args.dtype, device=args.device))
    scorer.score(summaries=summaries[:2], sources=sources[:2])  # what is done once is done
    state = PartialState(cpu=args.device == "cpu")
    state.wait_for_everyone()
    began = time.monotonic()
    result = scorer.score(summaries=summaries, sources=sources, spread=True)
    state.wait_for_everyone()
    if state.is_main_process:
        outcome = {"seconds": time.monotonic() - began, "scores": json_ready(result.scores), "of": result.signature}
        Path(args.result).write_text(json.dumps(outcome), encoding="utf-8")
    state.destroy_process_group()  # left to the interpreter's end, its threads may abort the process


def run(processes: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One scoring by so many processes."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    own = [str(Path(__file__)), "--texts", str(folder / "texts.json"), "--result", str(result)]
    own += ["--data", *args.data, "--model", args.model, "--dtype", args.dtype, "--device", args.device]
    launch = [sys.executable, "-m", "torch.distributed.run"]
    if args.machines and processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = [f"--master-port={free.getsockname()[1]}", "--master-addr=127.0.0.1", "--nproc-per-node=1"]
        commands = [[*launch, *address, f"--nnodes={processes}", f"--node-rank={rank}"] for rank in range(processes)]
    else:
        commands = [[*launch, "--standalone", f"--nproc-per-node={processes}"]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([*command, *own], env=environment) for command in commands]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"{processes} processes: one failed; its error is above")
    return json.loads(result.read_text(encoding="utf-8"))


def apart(first: Sequence[float | None], second: Sequence[float | None]) -> float:
    """The largest difference of two lists of scores; infinity if one has a score where the other has none."""
    if [a is None for a in first] != [b is None for b in second]:
        return float("inf")
    return max((abs(a - b) for a, b in zip(first, second, strict=True) if a is not None and b is not None), default=0.0)


def report(runs_of: dict[int, list[dict[str, Any]]], rows: int) -> str:
    """The table."""
    first = next(iter(runs_of))
    lines = ["| processes | seconds, median (range) | summaries a second | ratio (range) | scores apart |"]
    lines += ["| ---: | ---: | ---: | ---: | ---: |"]
    for processes, runs in runs_of.items():
        seconds = [outcome["seconds"] for outcome in runs]
        ratios = [base["seconds"] / outcome["seconds"] for base, outcome in zip(runs_of[first], runs, strict=True)]
        distance = max(apart(outcome["scores"], runs_of[first][0]["scores"]) for outcome in runs)
        middle = statistics.median(seconds)
        lines.append(
            f"| {processes} | {middle:.1f} ({min(seconds):.1f} to {max(seconds):.1f}) | {rows / middle:.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {distance:.0e} |"
        )
    return "\n".join([*lines, "", runs_of[first][0]["of"]])


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--machines", action="store_true")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--texts", help=argparse.SUPPRESS)  # of a process that this program started, with --result
    parser.add_argument("--result", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.result:
        return child(args)
    runs_of: dict[int, list[dict[str, Any]]] = {processes: [] for processes in args.processes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts.json").write_text(json.dumps(texts(args.data, args.rows)), encoding="utf-8")
        for _ in range(args.repeats):
            for processes in args.processes:
                runs_of[processes].append(run(processes, args, folder))
                print(f"{processes} processes: {runs_of[processes][-1]['seconds']:.1f} s", flush=True)
    print(report(runs_of, args.rows))


if __name__ == "__main__":
    main()
