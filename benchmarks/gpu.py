"""Check QUALS and QAGS on a CUDA device against the CPU, and measure them there. One program, without a network.

    python benchmarks/gpu.py [--data rows.jsonl] [--minutes 2.5] [--out gpu.json]

A row holds `document` and `summary`; without `--data`, texts are made of the guide's sentences. The program has four
parts. Each part begins no measurement after `--minutes`, so that all of it takes about ten minutes on any device:

    check     the same texts on the device and on the CPU in float32: hypotheses, log-probabilities, scores, answers of
              the reader, the value that the callback reports. In half precision: how far log-probabilities move
    rates     summaries a second, peak memory, the time in which the device does nothing, and how often the CPU waits
              for the device, in float32, bfloat16 and float16
    budgets   summaries a second and peak memory with other sizes of a batch (`token_budget`)
    large     the same as `rates` at the shape of BART-large, with random weights: 60 hypotheses of 24 tokens for each
              summary, and ten of them scored on its source

One process uses one device. The tables are in Markdown, for RESULTS.md. The exit status is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import processes
import scaling
import torch
from peers import SHAPES, tiny
from torch.profiler import ProfilerActivity, profile, supported_activities
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from qa_inference.batching import DEFAULT_TOKEN_BUDGET, map_batches
from qa_inference.decoding import DiverseBeamSearch
from qa_inference.models.devices import choose_device
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions
from qa_inference.models.reader import Reader
from qa_inference.models.shared_rows import ScoringRequest
from quals_metric import QualsConfig, QualsScorer

ROOT = Path(__file__).parents[1]
DTYPES = ("float32", "bfloat16", "float16")
BUDGETS = (2048, 8192, 32_768, 131_072)
CHUNK = 64  # summaries of a call; between two calls the clock is read
WATCHED = 16  # summaries of the calls whose waits are counted
CHECKED, SUMMARIZED = 12, 4  # texts that the device and the CPU both take
TOKENS, SCORED = 24, 10  # of a hypothesis of random weights, and hypotheses that are scored

Texts = list[str]
Score = Callable[[Texts, Texts], Any]


class Deadline:
    """The end of a part."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    @property
    def is_over(self) -> bool:
        """Whether no further measurement may begin."""
        return time.monotonic() >= self.end


# ---- texts ----------------------------------------------------------------------------------------------------------


def texts(data: str | None, rows: int) -> tuple[Texts, Texts]:
    """So many summaries and sources, no two alike: of a file, or made of the sentences of the guide."""
    if data is not None:
        return processes.texts([data], rows)
    paragraphs = [
        " ".join(block.split())
        for page in sorted((ROOT / "docs").glob("*.md"))
        for block in page.read_text(encoding="utf-8").split("\n\n")
        if block[:1].isalpha() and len(block) > 100 and not set("|`") & set(block)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guide.jsonl"
        path.write_text("\n".join(json.dumps({"document": text}) for text in paragraphs), encoding="utf-8")
        return scaling.texts(scaling.Point("", 0, str(path), summaries=rows))


# ---- the check ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """A number that compares the device with the CPU, and the bound that it must keep."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the value keeps its bound. NaN does not."""
        return self.value >= self.least if self.least is not None else self.value <= (self.most or 0.0)

    def row(self) -> str:
        """The row of the table."""
        bound = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return f"| {self.name} | {self.value:.2g} | {bound} | {'yes' if self.passed else '**no**'} |"


def check(args: argparse.Namespace, summaries: Texts, sources: Texts, deadline: Deadline) -> list[Check]:
    """Compare the device with the CPU on a few texts; prints the table."""
    summaries, sources = summaries[:CHECKED], sources[:CHECKED]
    here, there = (_scorer(args, device, "float32") for device in ("cpu", args.device))
    checks = [*_search_checks(here, there, summaries, sources)]
    # Near ties may make a search choose another token, so scores are compared where both asked the same.
    results = [scorer.score(summaries, sources).summaries for scorer in (here, there)]
    same = [(a, b) for a, b in zip(*results, strict=True) if _questions(a) == _questions(b)]
    apart = [a.score - b.score for a, b in same if a.pairs]
    checks.append(Check("share of summaries with the same pairs", len(same) / len(summaries), least=0.5))
    checks.append(Check("their scores: largest difference", _largest(apart), most=1e-3))
    checks += _reader_checks(args, results[0], summaries)
    checks += _callback_checks(args, here, there, sources)
    for dtype in DTYPES[1:]:
        if not deadline.is_over:
            half = _scorer(args, args.device, dtype)
            moved = np.concatenate(_differences(here, half, summaries, sources))
            checks.append(Check(f"log-probabilities in {dtype}: mean difference", float(moved.mean()), most=0.1))
    print("\n| device against CPU | value | must be | kept |\n| --- | ---: | --- | --- |")
    print("\n".join(one.row() for one in checks), flush=True)
    return checks


def _scorer(args: argparse.Namespace, device: str, dtype: str, **options: Any) -> QualsScorer:
    return QualsScorer(QualsConfig(args.model, device=device, dtype=dtype, groups=args.groups, **options))


def _questions(summary: Any) -> list[tuple[str, str]]:
    return [(pair.question, pair.answer) for pair in summary.pairs]


def _largest(values: Sequence[float]) -> float:
    """The largest absolute value; NaN of none."""
    return float(np.abs(values).max()) if len(values) else float("nan")


def _search_checks(here: QualsScorer, there: QualsScorer, summaries: Texts, sources: Texts) -> list[Check]:
    """Whether both find the same hypotheses, and give the same log-probabilities to those of the CPU."""
    search = DiverseBeamSearch(here.config.groups)
    inputs = [text.inputs()[0] for text in here.tokenize(summaries).values()]
    found = [scorer.model.generate(inputs, search) for scorer in (here, there)]
    pairs = [pair for of_input in zip(*found, strict=True) for pair in zip(*of_input, strict=True)]
    identical = [np.array_equal(a.tokens, b.tokens) for a, b in pairs]
    apart = [
        float(np.abs(a.log_probs - b.log_probs).max()) for (a, b), same in zip(pairs, identical, strict=True) if same
    ]
    differences = np.concatenate(_differences(here, there, summaries, sources))
    return [
        Check("share of hypotheses that are identical", float(np.mean(identical)), least=0.9),
        Check("log-probabilities of these: largest difference", _largest(apart), most=1e-3),
        Check("log-probabilities given the sources: largest difference", float(differences.max()), most=1e-3),
    ]


def _differences(here: QualsScorer, other: QualsScorer, summaries: Texts, sources: Texts) -> list[Any]:
    """For every pair of the CPU, the absolute differences of its tokens' log-probabilities given the source."""
    windows = here.tokenize(sources)
    requests = [
        ScoringRequest(windows[source].inputs()[0], [pair.tokens for pair in pairs])
        for pairs, source in zip(here.generate_pairs(summaries).values(), sources, strict=True)
        if pairs
    ]
    first, second = (scorer.model.log_likelihood(requests) for scorer in (here, other))
    return [np.abs(a - b) for of_a, of_b in zip(first, second, strict=True) for a, b in zip(of_a, of_b, strict=True)]


def _reader_checks(args: argparse.Namespace, results: Sequence[Any], summaries: Texts) -> list[Check]:
    """Whether both readers give the same answers to the questions about the summaries."""
    from qags_metric import QagsConfig

    asked = [(q, text) for scored, text in zip(results, summaries, strict=True) for q, _ in _questions(scored)]
    questions, passages = ([one[side] for one in asked] for side in (0, 1))
    place = QagsConfig(reader=args.reader).reader_preset().model
    answers = [
        Reader.load(place, LoadingOptions(device=device, dtype="float32")).read(questions, passages)
        for device in ("cpu", args.device)
    ]
    same = [a.text == b.text for a, b in zip(*answers, strict=True)]
    return [Check("share of the reader's answers that are the same", float(np.mean(same)), least=0.95)]


def _callback_checks(args: argparse.Namespace, here: QualsScorer, there: QualsScorer, sources: Texts) -> list[Check]:
    """What the callback of a trainer on the device reports, against summaries and scores of the CPU."""
    from transformers import Trainer, TrainingArguments

    from quals_metric.training import GenerationSettings, QualsCallback, generate_summaries

    documents = sources[:SUMMARIZED]
    place = QualsConfig(args.model).model_preset().place
    tokenizer = AutoTokenizer.from_pretrained(place)
    settings = GenerationSettings(num_beams=1, max_new_tokens=24)
    model = AutoModelForSeq2SeqLM.from_pretrained(place, dtype=torch.float32)
    written = [found[0] for found in generate_summaries(model, tokenizer, documents, settings)]
    expected = here.score(written, documents).score
    example = {name: torch.tensor(tokenizer("a")["input_ids"]) for name in ("input_ids", "labels")}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, report_to=[], disable_tqdm=True, dataloader_pin_memory=False)
        trainer = Trainer(model, arguments, eval_dataset=[example] * 2, processing_class=tokenizer)
        rows = [{"document": document} for document in documents]
        QualsCallback(there, dataset=rows, generation=settings, on_failure="raise").attach(trainer)
        reported = trainer.evaluate()["eval_quals"]
    apart = 0.0 if np.isnan([reported, expected]).all() else abs(reported - expected)
    return [Check("the callback's value: difference", apart, most=0.05)]


# ---- measuring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """A measurement: what, summaries a second, peak memory in MB, idle share of the device, waits a summary."""

    name: str
    summaries: int
    per_second: float
    peak: float
    idle: float
    waits: float
    signature: str = ""

    def row(self) -> str:
        """The row of the table."""
        idle = "" if np.isnan(self.idle) else f"{self.idle:.0%}"
        return (
            f"| {self.name} | {self.summaries} | {self.per_second:.3g} | {self.peak:,.0f} | {idle} | {self.waits:.1f} |"
        )


HEAD = (
    "\n| | summaries | a second | peak device memory, MB | device idle | waits of the CPU a summary |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: |"
)


def measure(
    name: str, score: Score, summaries: Texts, sources: Texts, deadline: Deadline
) -> tuple[Rate, Counter[str]] | None:
    """Score the texts, as many as the part's time allows; None if it is over. Also the lines at which the CPU waits."""
    if deadline.is_over:
        print(f"| {name} | not measured: the part's time was over | | | | |", flush=True)
        return None
    watched = summaries[:WATCHED], sources[:WATCHED]
    score(*watched)  # what is done once is done
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    began, done = time.perf_counter(), 0
    while done < len(summaries) and not (done and deadline.is_over):
        part = slice(done, done + CHUNK)
        score(summaries[part], sources[part])
        done += len(summaries[part])
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated() / 1e6
    waits = _waits(lambda: score(*watched))
    idle = _idle_share(lambda: score(*watched))
    rate = Rate(name, done, done / seconds, peak, idle, sum(waits.values()) / len(watched[0]))
    print(rate.row(), flush=True)
    return rate, waits


def _waits(call: Callable[[], Any]) -> Counter[str]:
    """How often each line made the CPU wait for the device, as torch reports it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "synchronizing CUDA operation" in str(warning.message)
    )


def _idle_share(call: Callable[[], Any]) -> float:
    """The share of a call's time in which the device ran no kernel and copied nothing; NaN where nothing tells."""
    if ProfilerActivity.CUDA not in supported_activities():
        return float("nan")
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return max(0.0, 1 - busy(spans) / 1e6 / seconds) if spans else float("nan")


def busy(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the union of some spans."""
    total, reached = 0.0, -np.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return float(total)


def rates(args: argparse.Namespace, summaries: Texts, sources: Texts, deadline: Deadline) -> list[Rate]:
    """QUALS in every type, and QAGS in the device's own."""
    print(HEAD)
    measured, lines = [], Counter[str]()
    for dtype in DTYPES:
        scorer = _scorer(args, args.device, dtype)
        if found := measure(f"QUALS, {dtype}", scorer.score, summaries, sources, deadline):
            measured.append(found[0])
            lines = lines or found[1]
    try:
        from qags_metric import QagsConfig, QagsScorer

        config = QagsConfig(args.question_model, reader=args.reader, device=args.device, dtype=args.dtype)
        if found := measure("QAGS", QagsScorer(config).score, summaries, sources, deadline):
            measured.append(found[0])
    except (ImportError, OSError) as error:  # spaCy or its model is not on every machine with a GPU
        print(f"| QAGS | not measured: {error} | | | | |")
    if lines:
        print("\nThe CPU waits at (QUALS in float32, times a summary):\n")
        count = len(summaries[:WATCHED])
        print("\n".join(f"- `{line}`: {times / count:.1f}" for line, times in lines.most_common(12)), flush=True)
    return measured


def budgets(args: argparse.Namespace, summaries: Texts, sources: Texts, deadline: Deadline) -> list[Rate]:
    """QUALS in the device's own type with other sizes of a batch."""
    print(HEAD)
    measured = []
    for budget in BUDGETS:
        scorer = _scorer(args, args.device, args.dtype, token_budget=budget)
        note = " (default)" if budget == DEFAULT_TOKEN_BUDGET else ""
        found = measure(f"QUALS, {budget:,} tokens{note}", scorer.score, summaries, sources, deadline)
        measured += [found[0]] if found else []
    return measured


def large(args: argparse.Namespace, summaries: Texts, sources: Texts, deadline: Deadline) -> list[Rate]:
    """The search and the scoring of a model of BART-large's shape, with random weights."""
    print(HEAD)
    measured = []
    search = DiverseBeamSearch(args.groups, max_new_tokens=TOKENS)
    for dtype in DTYPES:
        model = score = None  # the memory of one model is free before the next one is made
        model = _large_model(args, dtype)
        for budget in BUDGETS[1:]:
            score = _large_score(model, search, budget)
            found = measure(f"{dtype}, {budget:,} tokens", score, summaries, sources, deadline)
            measured += [found[0]] if found else []
    return measured


def _large_model(args: argparse.Namespace, dtype: str) -> EncoderDecoder:
    """A BART-large with random weights and the special tokens of the embedded model's tokenizer."""
    place = QualsConfig(args.model).model_preset().place
    of_checkpoint = AutoConfig.from_pretrained(place)
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    kind, shape = SHAPES["facebook/bart-large"]
    shape = tiny(shape) if args.tiny else shape
    config = AutoConfig.for_model(kind, **shape | {name: getattr(of_checkpoint, name, None) for name in names})
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config, dtype=getattr(torch, dtype)).to(args.device)
    return EncoderDecoder(model, AutoTokenizer.from_pretrained(place))


def _large_score(model: EncoderDecoder, search: DiverseBeamSearch, budget: int) -> Score:
    """A search from each summary, and the scoring of its first hypotheses on the source."""

    def ids(text: str) -> Any:
        encoded = model.text.encode(text)
        return encoded.window(0, min(len(encoded.ids), scaling.LARGE_WINDOW - encoded.around))

    def score(summaries: Texts, sources: Texts) -> None:
        inputs = [ids(text) for text in summaries]
        rows = search.groups * TOKENS
        found = map_batches(
            lambda batch: model.generate(batch, search), inputs, lambda row: len(row) + rows, token_budget=budget
        )
        requests = [
            ScoringRequest(ids(source), [hypothesis.tokens for hypothesis in hypotheses[:SCORED]])
            for source, hypotheses in zip(sources, found, strict=True)
        ]
        cost = SCORED * TOKENS
        map_batches(model.log_likelihood, requests, lambda request: len(request.source) + cost, token_budget=budget)

    return score


PARTS: dict[str, Callable[..., Any]] = {"check": check, "rates": rates, "budgets": budgets, "large": large}


def about(args: argparse.Namespace) -> str:
    """The setting of the measurements."""
    import transformers

    name = torch.cuda.get_device_name(args.device)
    libraries = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    data = Path(args.data).name if args.data else "sentences of the guide"
    return f"{name}, one process, {libraries}; {args.rows} summaries ({data}), {args.groups} groups"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run the parts, print and write; returns 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="rows; default: texts made of the guide's sentences")
    parser.add_argument("--rows", type=int, default=512, help="the most summaries of a measurement")
    parser.add_argument("--minutes", type=float, default=2.5, help="of each part; 0: only the check")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", help="of QAGS and the part `budgets`; default: the device's own")
    parser.add_argument("--groups", type=int, default=60)
    parser.add_argument("--model", default="embedded", help="of QUALS")
    parser.add_argument("--question-model", default="embedded", help="of QAGS")
    parser.add_argument("--reader", default="embedded", help="of QAGS")
    parser.add_argument(
        "--tiny", action="store_true", help="instead of BART-large, one narrow layer: to try the program"
    )
    parser.add_argument("--out", type=Path, help="also write all numbers as JSON")
    args = parser.parse_args(argv)
    try:
        choose_device(args.device)
    except ValueError as error:
        parser.error(str(error))
    summaries, sources = texts(args.data, args.rows)
    print(f"{about(args)}\n", flush=True)
    results: dict[str, list[Any]] = {}
    for part in args.parts:
        began = time.monotonic()
        results[part] = PARTS[part](args, summaries, sources, Deadline(args.minutes))
        print(f"\n{part}: {time.monotonic() - began:.0f} s\n", flush=True)
    if args.out:
        rows = {part: [vars(row) for row in found] for part, found in results.items()}
        args.out.write_text(json.dumps({"about": about(args), **rows}, indent=1), encoding="utf-8")
    failed = [one.name for one in results.get("check", []) if not one.passed]
    if failed:
        print(f"The device does not agree with the CPU: {'; '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
