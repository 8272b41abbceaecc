"""Measure the start of quals-metric: imports, the command's help, `evaluate.load` and the embedded model.

    python benchmarks/startup.py --rouge evaluate/metrics/rouge --repeats 5

`--rouge` is the folder of evaluate's own ROUGE, in a checkout of github.com/huggingface/evaluate (it needs the package
rouge_score). Each line of the table is a new Python process; the processes take turns. The table has wall-clock and
processor seconds. The last line is the time that `QualsScorer()` takes in such a process after its imports.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOADING = "loading the embedded model"
PROGRAMS = {
    "python": "",
    "import transformers": "import transformers",
    "import quals_metric": "import quals_metric",
    "quals --help": "import sys; from quals_metric.cli.commands import main; sys.argv = ['quals', '--help']; main()",
    "evaluate.load(ROUGE)": "import evaluate; evaluate.load({rouge!r})",
    'evaluate.load("quals")': "import evaluate; evaluate.load('quals')",
    LOADING: (
        "import time, torch, transformers.models.t5.modeling_t5; from quals_metric.scorer import QualsScorer; "
        "began = time.perf_counter(), time.process_time(); QualsScorer(); "
        "print(time.perf_counter() - began[0], time.process_time() - began[1])"
    ),
}


@dataclass(frozen=True)
class Taken:
    """Seconds of the clock and of the processor."""

    clock: float
    processor: float


def run(name: str, program: str, environment: Mapping[str, str]) -> Taken:
    """Start a Python with a program and wait for its end. Raises SystemExit if it fails."""
    clock, before = time.perf_counter(), _of_children()
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    clock, spent = time.perf_counter() - clock, _of_children() - before
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    if name == LOADING:
        return Taken(*map(float, done.stdout.split()))
    return Taken(clock, spent)


def _of_children() -> float:
    """Seconds of processor that all ended child processes took, to the microsecond (`os.times` counts hundredths)."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(rouge: str | None, repeats: int) -> dict[str, list[Taken]]:
    """Every program's runs, after one that is not counted: the first reads files that are in no cache yet."""
    programs = {name: text.format(rouge=rouge) for name, text in PROGRAMS.items() if rouge or "{rouge" not in text}
    with tempfile.TemporaryDirectory() as modules:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_MODULES_CACHE": modules, "HF_EVALUATE_OFFLINE": "1"}
        run("registering", "import quals_metric; quals_metric.register()", environment)
        turns = [{name: run(name, text, environment) for name, text in programs.items()} for _ in range(repeats + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in programs}


def table(runs_of: Mapping[str, Sequence[Taken]]) -> str:
    """Medians and ranges, and each as a share of `import transformers`."""
    lines = ["| | seconds, median (range) | processor | ÷ import transformers |", "| --- | ---: | ---: | ---: |"]
    base = [taken.clock for taken in runs_of["import transformers"]]
    for name, runs in runs_of.items():
        clock = [taken.clock for taken in runs]
        ratio = statistics.median(a / b for a, b in zip(clock, base, strict=True))
        lines.append(
            f"| {name} | {statistics.median(clock):.2f} ({min(clock):.2f} to {max(clock):.2f}) "
            f"| {statistics.median(taken.processor for taken in runs):.2f} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rouge", help="a folder; default: without that line")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f"--repeats: must be at least 1; got {args.repeats}")
    print(table(measure(args.rouge, args.repeats)))


if __name__ == "__main__":
    main()
