"""Compare the time of QUALS with the least time that the machine needs for its matrix products.

    python benchmarks/limit.py --data rows.jsonl … [--limit 32] [--dtype float32 bfloat16] [--threads 1]
    python benchmarks/limit.py --data rows.jsonl --model FOLDER --groups 60     a decoder-only model too
    python benchmarks/limit.py --data rows.jsonl --search-dtype float32         scoring alone in bfloat16

A row holds `document` and `summary`. The report has three numbers for every dtype: the floating-point operations of the
call in each stage, which torch counts; the rate at which this machine multiplies matrices of the same shapes, measured
right after the call; and the time of the call relative to the time of those operations at that rate. The ratio is 1 for
a call that only multiplies, and as fast as the machine can. Other operations (softmax, norms, choices) are not counted,
so their time raises the ratio.

The time is the processor's, which a busy machine changes less than the wall clock's; the report has both. With a second
dtype, it also has the distance of its scores from those of the first.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from qa_inference.decoding import DiverseBeamSearch
from qa_inference.models import projection as likelihood
from qa_inference.models._float32_products import linear
from qa_inference.models.decoder_only import DecoderOnly, PrefixDecoder
from qa_inference.models.encoder_decoder import EncoderDecoder, SourceDecoder
from qa_inference.models.projection import Projection
from qa_inference.models.shared_rows import RunningRows
from quals_metric import QualsConfig, QualsScorer
from quals_metric.files.tables import records

Clock = Callable[[], float]
REST = "the rest"
# Stage by function; what a function calls that has a stage of its own counts there. Parts of the search and of the
# scoring have the same functions below them, so their names are put together with the one above.
STAGES: tuple[tuple[Any, str, str], ...] = (
    (QualsScorer, "tokenize", "tokenize"),
    (EncoderDecoder, "generate", "search: the rest"),
    (EncoderDecoder, "log_likelihood", "score: the rest"),
    (DecoderOnly, "generate", "search: the rest"),
    (DecoderOnly, "log_likelihood", "score: the rest"),
    (EncoderDecoder, "encode", "encode"),
    (PrefixDecoder, "read", "encode"),
    (SourceDecoder, "__call__", "decoder"),
    (PrefixDecoder, "continue_rows", "decoder"),
    (Projection, "logits", "vocabulary projection"),
    (likelihood, "top_of_part", "selection"),
    (likelihood, "merge_tops", "selection"),
    (likelihood, "targets_of_part", "log-probabilities"),
    (DiverseBeamSearch, "choose", "selection"),
    (RunningRows, "select", "cache"),
)
# torch counts the products inside attention on a GPU, but not those of its function for CPUs, nor those of oneDNN.
ALSO_COUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    torch.ops.mkldnn._linear_pointwise: lambda hidden, weight, *_, **__: 2 * math.prod(hidden) * weight[0],
}
MEASURED_SHARE = 0.95  # of the operations; the rarest shapes are left out of the measured rate


@dataclass
class Stages:
    """Readings of `clock` by stage: what passes inside a stage, but not inside one called by it."""

    clock: Clock
    spent: Counter[str] = field(default_factory=Counter)
    _open: list[str] = field(default_factory=lambda: [REST])
    _since: float = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the functions of STAGES inside the block."""
        with ExitStack() as stack:
            for owner, name, stage in STAGES:
                stack.enter_context(mock.patch.object(owner, name, self._watched(getattr(owner, name), stage)))
            self._since = self.clock()
            yield
            self._turn()

    def _watched(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            self._open.append(self._name(stage))
            try:
                return function(*args, **kwargs)
            finally:
                self._turn()
                self._open.pop()

        return watched

    def _name(self, stage: str) -> str:
        """The stage with the operation it is part of; a decoder-only model encodes with its decoder."""
        if stage == "decoder" and self._open[-1].startswith("encode"):
            return self._open[-1]
        operation = next((name.split(":")[0] for name in self._open if ":" in name), "")
        if stage == "encode":
            return "encode summaries" if operation == "search" else "encode sources"
        return f"{operation}: {stage}" if operation and ":" not in stage else stage

    def _turn(self) -> None:
        """Book what has passed to the stage that is open."""
        now = self.clock()
        self.spent[self._open[-1]] += now - self._since
        self._since = now


Product = tuple[int, int, int, torch.dtype]  # rows, inner, columns


class _Shapes(TorchDispatchMode):
    """Counts the products of matrices by the shapes and the type of their factors, plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        factors = {"aten::mm": 0, "aten::addmm": 1, "mkldnn::_linear_pointwise": 0}.get(func._schema.name)
        if factors is not None:
            left, right = args[factors], args[factors + 1]
            columns = right.shape[0 if func.namespace == "mkldnn" else 1]
            self.found[left.shape[:-1].numel(), left.shape[-1], columns, left.dtype] += 1
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Operations:
    """Floating-point operations by stage, and the matrix products among them with their numbers."""

    by_stage: Counter[str]
    products: Counter[Product]


def count(call: Callable[[], Any]) -> Operations:
    """The operations of a call; it runs many times slower meanwhile."""
    with _Shapes() as shapes, FlopCounterMode(display=False, custom_mapping=ALSO_COUNTED) as counter:
        stages = Stages(lambda: float(counter.get_total_flops()))
        with stages.watching():
            call()
    return Operations(stages.spent, shapes.found)


def rate(products: Counter[Product], seconds: float = 5.0) -> float:
    """Operations per second of these products, mixed as they occurred; about `seconds` are spent on it.

    Every product has its median time of several, into memory that is there already.
    """
    work = {product: math.prod(product[:3]) * times for product, times in products.items()}
    total = sum(work.values())
    done = taken = 0.0
    for product in sorted(work, key=lambda product: -work[product]):
        if done >= MEASURED_SHARE * total:
            break
        taken += products[product] * _time(product, seconds * work[product] / total)
        done += work[product]
    return 2 * done / taken


def _time(product: Product, seconds: float) -> float:
    """The median processor time of one product, by the library that computes it in the metric."""
    rows, inner, columns, dtype = product
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype)
    times: list[float] = []
    while len(times) < 4 or (sum(times) < seconds and len(times) < 1000):
        start = time.process_time()
        with torch.inference_mode():
            linear(left, right, memory=out)
        times.append(time.process_time() - start)
    return float(np.median(times[1:]))


def report(scorer: QualsScorer, texts: dict[str, list[str]], dtype: str) -> list[float]:
    """Print the table of one dtype; returns the scores."""
    scorer.score(**{side: part[:2] for side, part in texts.items()})  # what is done once is done
    clock, stages = time.perf_counter(), Stages(time.process_time)
    with stages.watching():
        result = scorer.score(**texts)
    clock, busy = time.perf_counter() - clock, stages.spent.total()
    operations = count(lambda: scorer.score(**texts))
    speed = rate(operations.products)
    total = operations.by_stage.total()
    print(
        f"\n**{dtype}**: {len(result.scores)} summaries, {busy:.2f} s of processor time ({clock:.2f} s by the clock), "
        f"{1000 * busy / len(result.scores):.0f} ms each; {total / 1e9:.0f} G operations, {speed / 1e9:.0f} G a second "
        f"in products of the shapes that occur; **time ÷ (operations ÷ rate) = {busy * speed / total:.2f}**\n"
    )
    print("| stage | seconds | share | G operations | ÷ limit |\n|---|---|---|---|---|")
    for stage, spent in stages.spent.most_common():
        share = operations.by_stage[stage]
        ratio = f"{spent * speed / share:.2f}" if share else ""
        print(f"| {stage} | {spent:.2f} | {spent / busy:.1%} | {share / 1e9:.1f} | {ratio} |")
    print(f"\n{result.signature}", flush=True)
    return list(result.scores)


def compare(names: Sequence[str], first: Sequence[float], second: Sequence[float]) -> str:
    """How far two dtypes' scores lie apart."""
    a, b = np.array(first), np.array(second)
    both = ~np.isnan(a) & ~np.isnan(b)
    apart, means = np.abs(a - b)[both], abs(a[both].mean() - b[both].mean())
    undefined = int((np.isnan(a) != np.isnan(b)).sum())
    # scores that are all the same, as those of summaries that are their own sources, have no rank correlation
    varies = np.ptp(a[both]) > 0 and np.ptp(b[both]) > 0
    correlation = stats.spearmanr(a[both], b[both]).statistic if varies else math.nan
    return (
        f"\n{names[1]} against {names[0]}: {both.sum()} scores, differences mean {apart.mean():.4f}, largest "
        f"{apart.max():.4f}, of the means {means:.4f}; rank correlation {correlation:.4f}; undefined in one only: "
        f"{undefined}"
    )


def read(paths: Sequence[str], limit: int) -> dict[str, list[str]]:
    """The first summaries and sources of JSON-lines files, one file after the other."""
    rows = [row for _, row in islice(chain.from_iterable(records(Path(path)) for path in paths), limit)]
    return {"summaries": [row["summary"] for row in rows], "sources": [row["document"] for row in rows]}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=32, help="rows to read")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--search-dtype", help="of the search alone, by a copy of the model")
    parser.add_argument("--groups", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    texts = read(args.data, args.limit)
    scores = []
    for dtype in args.dtype:
        config = QualsConfig(args.model, device="cpu", dtype=dtype, search_dtype=args.search_dtype, groups=args.groups)
        scorer = QualsScorer(config)
        scores.append(report(scorer, texts, dtype))
        if len(scores) > 1:
            print(compare([args.dtype[0], dtype], scores[0], scores[-1]))


if __name__ == "__main__":
    main()
