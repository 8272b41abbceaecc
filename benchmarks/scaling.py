"""How the cost of QUALS grows: time and peak memory against one thing at a time.

    python benchmarks/scaling.py --data rows.jsonl [--axes summaries groups …] [--summaries 10 100 1000 10000] …
    python benchmarks/scaling.py --data rows.jsonl --large     memory at BART-large's shape, shared against expanded
    python benchmarks/scaling.py --data rows.jsonl --cache     the same texts again, as each epoch of training has them

A row holds `document`; texts of any length and number are made by joining the documents' sentences. The axes:

    summaries    how many summaries, each with a source of its own, scored as `quals score` does: 128 at a time
    one-call     the same in one call, whose result holds all pairs of all summaries
    groups       the groups of the search
    words        the length of the source
    candidates   summaries of one document
    size         millions of parameters: BART with random weights, which writes hypotheses of full length; ten of them
                 are scored on the source

Every point is measured in a process of its own. `n` is its number of summaries; seconds are the processor's, and
the clock's beside them; memory is the process's peak, and how much of it came on top of the loaded model. `growth` is
the exponent between a point and the one before: 1 is a straight line through the origin, 0 is flat.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import random
import re
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from itertools import chain, islice
from pathlib import Path
from typing import Any

from quals_metric.files.tables import records

SHARD = 128  # rows, as `quals score` has it
SHAPES = {2: (64, 1), 8: (192, 2), 30: (384, 4), 120: (768, 6), 400: (1024, 12)}  # width and layers of each half
VOCABULARY, LARGE_VOCABULARY, LARGE_WINDOW = 30_522, 50_265, 1024  # BERT's, with which SHAPES have their sizes; BART's
SCORED = 10  # hypotheses of random weights that are scored

# ru_maxrss is never less than what the parent had in memory, so the parent must not import torch.


@dataclass(frozen=True)
class Point:
    """A point to measure; `value` is its position on its axis, `shape` (width, layers) a model of random weights."""

    axis: str
    value: float
    data: str
    model: str = "embedded"
    summaries: int = 16
    candidates: int = 1
    source_words: int = 400
    summary_words: int = 40
    groups: int = 60
    shard: int = SHARD
    shape: tuple[int, int] | None = None
    vocabulary: int | None = None
    sharing: str = "auto"
    operations: str = "search and score"
    dtype: str = "float32"
    threads: int = 1


@dataclass(frozen=True)
class Measured:
    """The result of a measurement: processor and wall-clock seconds, memory in MB at its peak and before the work."""

    processor: float
    clock: float
    peak: float
    loaded: float
    parameters: float
    pairs: int


Measure = Callable[[Point], Measured | None]
Row = tuple[Point, Measured | None]


# ---- texts ----------------------------------------------------------------------------------------------------------


class Sentences:
    """Texts of any length and number, made of the sentences of some documents."""

    def __init__(self, path: str) -> None:
        documents = [row["document"] for _, row in records(Path(path))]
        sentences = [part.split() for text in documents for part in re.split(r"(?<=[.!?])\s+", text)]
        self.sentences = [words for words in sentences if words]
        if not self.sentences:
            raise ValueError(f"{path}: must hold rows with a `document` that is not blank; got none")

    def text(self, number: int, words: int, skip: int = 0) -> str:
        """Text `number` of so many words, from its sentence `skip` on.

        It begins with two sentences that no other number below the square of theirs has in this order.
        """
        total, rest = len(self.sentences), random.Random(number)
        first = number % total
        order = chain((first, (first + 1 + number // total) % total), iter(lambda: rest.randrange(total), None))
        text_words: list[str] = []
        for index in islice(order, skip, None):
            text_words += self.sentences[index]
            if len(text_words) >= words:
                break
        return " ".join(text_words[:words])


def texts(point: Point) -> tuple[list[str], list[str]]:
    """The summaries of a point and their sources; a summary is the beginning of its source, or a later part of it."""
    sentences = Sentences(point.data)
    summaries, sources = [], []
    for number in range(point.summaries):
        document, candidate = divmod(number, point.candidates)
        summaries.append(sentences.text(document, point.summary_words, skip=candidate))
        sources.append(sentences.text(document, point.source_words))
    return summaries, sources


# ---- one point ------------------------------------------------------------------------------------------------------


def run(point: Point) -> Measured:
    """Measure a point in this process."""
    import torch

    torch.set_num_threads(point.threads)
    call, model = _random(point) if point.shape else _checkpoint(point)
    loaded, processor, clock = _resident(), time.process_time(), time.perf_counter()
    pairs = call()
    processor, clock = time.process_time() - processor, time.perf_counter() - clock
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    peak = max(loaded, _peak())  # which is counted less often
    return Measured(processor, clock, peak, loaded, parameters, pairs)


def _checkpoint(point: Point) -> tuple[Callable[[], int], Any]:
    """The scoring of a point's texts by a checkpoint, and its model."""
    from quals_metric import QualsConfig, QualsScorer

    sharing: Any = point.sharing
    scorer = QualsScorer(QualsConfig(point.model, dtype=point.dtype, groups=point.groups, sharing=sharing))
    summaries, sources = texts(point)

    def call() -> int:
        pairs = 0
        for start in range(0, len(summaries), point.shard):
            part = slice(start, start + point.shard)
            result = scorer.score(summaries=summaries[part], sources=sources[part])
            pairs += sum(len(summary.pairs) for summary in result.summaries)
        return pairs

    scorer.score(summaries=summaries[:1], sources=[summaries[0]])  # what is done once is done
    return call, scorer.model.model


def _random(point: Point) -> tuple[Callable[[], int], Any]:
    """The search from a point's summaries and the scoring on its sources by random weights, and their model.

    With `operations` "search" or "score" there is that only, on the sources; targets are then any tokens.
    """
    import numpy as np

    from qa_inference.decoding import DiverseBeamSearch
    from qa_inference.models.shared_rows import ScoringRequest

    model = random_model(point)
    summaries, sources = ([_ids(model, text) for text in side] for side in texts(point))
    search = DiverseBeamSearch(point.groups)

    def call() -> int:
        pairs = 0
        for summary, source in zip(summaries, sources, strict=True):
            if point.operations == "score":
                targets = list(np.array(source)[np.arange(SCORED * 24).reshape(SCORED, 24) % len(source)])
            else:
                hypotheses = model.generate([source if point.operations == "search" else summary], search)[0]
                targets = [hypothesis.tokens for hypothesis in hypotheses[:SCORED]]
            if point.operations != "search":
                model.log_likelihood([ScoringRequest(source, targets)])
            pairs += len(targets)
        return pairs

    return call, model.model


def random_model(point: Point) -> Any:
    """A BART of a point's shape with random weights and the tokenizer of its checkpoint."""
    import torch
    from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration

    from qa_inference.models.devices import choose_dtype
    from qa_inference.models.encoder_decoder import EncoderDecoder
    from quals_metric import QualsConfig

    tokenizer = AutoTokenizer.from_pretrained(QualsConfig(point.model).model_preset().model)
    width, layers = point.shape or SHAPES[30]
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=max(point.vocabulary or VOCABULARY, len(tokenizer)), d_model=width,
        encoder_layers=layers, decoder_layers=layers,
        encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width, encoder_attention_heads=max(1, width // 64),
        decoder_attention_heads=max(1, width // 64), max_position_embeddings=LARGE_WINDOW, forced_eos_token_id=None,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2,
    )  # fmt: skip
    dtype = choose_dtype(point.dtype, torch.device("cpu"))
    sharing: Any = point.sharing
    return EncoderDecoder(BartForConditionalGeneration(config).to(dtype), tokenizer, sharing=sharing)


def _ids(model: Any, text: str) -> list[int]:
    """A text's ids, cut to the window."""
    encoded = model.text.encode(text)
    return [int(i) for i in encoded.window(0, min(len(encoded.ids), LARGE_WINDOW - encoded.around))]


def _peak() -> float:
    """The most memory this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _resident() -> float:
    """The memory this process has now, in MB; its peak where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return _peak()
    return pages * resource.getpagesize() / 2**20


def alone(point: Point) -> Measured | None:
    """Measure a point in a process of its own; None if it was killed, for example for lack of memory."""
    return _in_a_process(run, point)


def _in_a_process(function: Callable[[Point], Any], point: Point) -> Any:
    """The result of `function` in a process of its own; None if the process ended without a result."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(theirs, function, point))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _send(connection: Any, function: Callable[[Point], Any], point: Point) -> None:
    warnings.simplefilter("ignore")  # random weights write no questions, and are told so
    connection.send(function(point))


# ---- the axes -------------------------------------------------------------------------------------------------------


def points(axis: str, base: Point, values: Sequence[int]) -> list[Point]:
    """The points of an axis; what the axis does not change is as in `base`."""
    made = {
        "summaries": lambda n: {"summaries": n},
        "one-call": lambda n: {"summaries": n, "shard": n},
        "groups": lambda n: {"groups": n},
        "words": lambda n: {"source_words": n},
        "candidates": lambda n: {"candidates": n, "summaries": n * max(1, base.summaries // 4)},
        "size": lambda n: {"shape": SHAPES[n], "summaries": min(2, base.summaries)},
    }[axis]
    return [replace(base, axis=axis, value=value, **made(value)) for value in values]


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of one axis."""
    axis = rows[0][0].axis
    lines = [f"| {axis} | n | seconds (clock) | growth | ms a summary | pairs | peak MB | growth | of it work |"]
    lines.append("|" + " ---: |" * 9)
    before: Row | None = None
    for point, measured in rows:
        if measured is None:
            lines.append(f"| {point.value:,} | {point.summaries:,} | was killed | | | | | | |")
            continue
        name = f"{measured.parameters:.1f} M" if axis == "size" else f"{point.value:,}"
        grown = ["", ""] if before is None else _growth(before, (point, measured))
        lines.append(
            f"| {name} | {point.summaries:,} | {measured.processor:.2f} ({measured.clock:.2f}) | {grown[0]} | "
            f"{1000 * measured.processor / point.summaries:.0f} | {measured.pairs:,} | {measured.peak:,.0f} | "
            f"{grown[1]} | {measured.peak - measured.loaded:,.0f} |"
        )
        before = point, measured
    return "\n".join(lines)


def _growth(before: Row, after: Row) -> list[str]:
    """The exponents by which time and memory grew between two points."""
    (point, earlier), (later_point, later) = before, after
    if earlier is None or later is None or point.value == later_point.value:
        return ["", ""]
    is_size = point.axis == "size"
    ends = (earlier.parameters, later.parameters) if is_size else (point.value, later_point.value)
    apart = math.log(ends[1] / ends[0])
    return [
        f"{math.log(b / a) / apart:.2f}" for a, b in ((earlier.processor, later.processor), (earlier.peak, later.peak))
    ]


def plot(rows: Sequence[Row]) -> str:
    """Time (blue) and peak memory (orange) of one axis as SVG: logarithmic, on one scale, each from its least on."""
    known = [(point, measured) for point, measured in rows if measured is not None]
    names = [f"{point.value:,}" for point, _ in known]
    values_across = [point.value for point, _ in known]
    across = _scale(values_across, 60, 420, _span(values_across))
    span = max(_span([measured.processor for _, measured in known]), _span([measured.peak for _, measured in known]))
    parts = [f'<text x="60" y="16">{escape(rows[0][0].axis)}</text>']
    parts += [
        f'<text x="{x:.0f}" y="226" text-anchor="middle">{name}</text>' for x, name in zip(across, names, strict=True)
    ]
    for colour, unit, values in (
        ("#1f77b4", "s", [measured.processor for _, measured in known]),
        ("#d95f02", "MB", [measured.peak for _, measured in known]),
    ):
        places = list(zip(across, _scale(values, 200, 40, span), strict=True))
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<text x="{x:.0f}" y="{y - 6:.0f}" fill="{colour}" text-anchor="middle">{value:,.3g} {unit}</text>'
            for (x, y), value in zip(places, values, strict=True)
        ]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 236" font-family="sans-serif" font-size="11">'
        f'<rect width="480" height="236" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _span(values: Sequence[float]) -> float:
    """How far apart the least and the largest are, as a logarithm."""
    return math.log(max(values) / min(values))


def _scale(values: Sequence[float], low: float, high: float, span: float) -> list[float]:
    """Where values lie from `low` (the least) on, `high` being `span` above it, logarithmically."""
    return [low + (high - low) * math.log(value / min(values)) / (span or 1.0) for value in values]


# ---- two questions of their own -------------------------------------------------------------------------------------


def large(base: Point, measure: Measure) -> str:
    """Peak memory at BART-large's shape, shared against expanded, of a search and of a scoring."""
    shape = {"shape": SHAPES[400], "vocabulary": LARGE_VOCABULARY, "summaries": 1, "source_words": 2 * LARGE_WINDOW}
    lines = ["| operation | attention | seconds | peak MB | loaded MB | of it work | shared ÷ expanded |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for operation in ("search", "score"):
        work = {}
        for sharing in ("shared", "expanded"):
            measured = measure(replace(base, axis=operation, value=1, sharing=sharing, operations=operation, **shape))
            if measured is None:
                lines.append(f"| {operation} | {sharing} | was killed | | | | |")
                continue
            work[sharing] = measured.peak - measured.loaded
            ratio = f"{work['shared'] / work['expanded']:.3f}" if len(work) == 2 else ""
            lines.append(
                f"| {operation} | {sharing} | {measured.processor:.1f} | {measured.peak:,.0f} | "
                f"{measured.loaded:,.0f} | {work[sharing]:,.0f} | {ratio} |"
            )
    return "\n".join(lines)


def epochs(point: Point) -> list[tuple[str, float, float, float]]:
    """Seconds of processor and clock and the mean score: without a cache, with an empty one, with what that left."""
    import torch

    from quals_metric import QualsConfig, QualsScorer

    torch.set_num_threads(point.threads)
    summaries, sources = texts(point)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        plain, cached = (
            QualsScorer(QualsConfig(point.model, dtype=point.dtype, groups=point.groups, cache=cache))
            for cache in (None, folder)
        )
        plain.score(summaries=summaries[:1], sources=[summaries[0]])
        for name, scorer in (("no cache", plain), ("first epoch", cached), ("second epoch", cached)):
            processor, clock = time.process_time(), time.perf_counter()
            result = scorer.score(summaries=summaries, sources=sources)
            rows.append((name, time.process_time() - processor, time.perf_counter() - clock, result.score))
    return rows


def epochs_table(rows: Sequence[tuple[str, float, float, float]], summaries: int) -> str:
    """A Markdown table of what `epochs` found."""
    lines = ["| | seconds (clock) | ms a summary | ÷ no cache | QUALS |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, processor, clock, score in rows:
        lines.append(
            f"| {name} | {processor:.2f} ({clock:.2f}) | {1000 * processor / summaries:.1f} | "
            f"{processor / rows[0][1]:.3f} | {score:.6f} |"
        )
    return "\n".join(lines)


def about(base: Point) -> str:
    """The setting of the measurements."""
    from importlib.metadata import version

    return (
        f"Model {base.model}, {base.dtype}, {base.threads} thread(s); where not said otherwise {base.summaries} "
        f"summaries of {base.summary_words} words, sources of {base.source_words}, {base.groups} groups; "
        f"{platform.machine()}, torch {version('torch')}, transformers {version('transformers')}, "
        f"Python {platform.python_version()}"
    )


AXES: dict[str, list[int]] = {
    "summaries": [10, 100, 1000, 10000],
    "one-call": [10, 100, 1000],
    "groups": [1, 15, 30, 60, 120],
    "words": [50, 500, 5000, 50000],
    "candidates": [1, 3, 6, 12],
    "size": list(SHAPES),
}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    for axis, values in AXES.items():
        parser.add_argument(f"--{axis}", nargs="+", type=int, default=values, metavar="N")
    parser.add_argument("--base-summaries", type=int, default=16, help="how many, where that is not the axis")
    parser.add_argument("--base-groups", type=int, default=60, help="of the search, where that is not the axis")
    parser.add_argument("--source-words", type=int, default=400)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--cache", action="store_true")
    parser.add_argument("--plots", type=Path, help="a folder for an SVG of each axis")
    parser.add_argument("--out", type=Path, help="also write every point as JSON lines")
    args = parser.parse_args(argv)
    wrong = set(args.size) - set(SHAPES)
    if wrong:
        parser.error(f"--size takes some of {', '.join(map(str, SHAPES))}; got {', '.join(map(str, sorted(wrong)))}")
    return args


def main(argv: Sequence[str] | None = None, measure: Measure = alone) -> None:
    """Parse the command line, measure, print and write; `measure` says where a point is measured."""
    args = _arguments(argv)
    base = Point(
        "", 0, args.data, args.model, args.base_summaries, source_words=args.source_words, groups=args.base_groups,
        dtype=args.dtype, threads=args.threads,
    )  # fmt: skip
    print(f"{about(base)}\n", flush=True)
    if args.large:
        print(large(base, measure))
        return
    if args.cache:
        epoch_rows = epochs(base) if measure is not alone else _in_a_process(epochs, base)
        print(epochs_table(epoch_rows, base.summaries))
        return
    for axis in args.axes:
        values = getattr(args, axis.replace("-", "_"))
        rows: list[Row] = [(point, measure(point)) for point in points(axis, base, values)]
        print(f"{table(rows)}\n", flush=True)
        if args.plots and any(measured for _, measured in rows):
            args.plots.mkdir(parents=True, exist_ok=True)
            (args.plots / f"{axis}.svg").write_text(plot(rows), encoding="utf-8")
        if args.out:
            with args.out.open("a", encoding="utf-8") as lines:
                for point, measured in rows:
                    print(
                        json.dumps({**asdict(point), **(asdict(measured) if measured else {"killed": True})}),
                        file=lines,
                    )


if __name__ == "__main__":
    main()
