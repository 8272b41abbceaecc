"""How fast are QUALS and QAGS, against the published procedures and against each other?

    python benchmarks/speed.py --data rows.jsonl [--rows 4] [--repeats 5] [--threads 1] [--out speed.json]
    python benchmarks/speed.py --limit --data rows.jsonl …      how near QUALS is to the machine's limit: limit.py

A row holds `document` and `summary`. Five contenders score the same texts with the same checkpoints and dtype. Each has
its own process. They take turns, so that a busy machine slows all of them alike:

    (a)   QAGS, published: one text at a time is asked about, by transformers' own beam search; the reader takes batches
          of 8: all questions on the summary, the kept ones on the source and on the summary again
    (a')  QAGS, published, batched: the same work in batches of the engine's budget
    (b)   QAGS: ours
    (c)   QUALS, published: five summaries at a time, the source copied for each of 60 groups, a plain loop over the
          groups on the whole vocabulary; every pair scored by encoding its source again
    (d)   QUALS: ours

Deviations from the published programs: those add random questions and candidates if there are too few, and they run
other checkpoints on fairseq. The program checks that (a) and (b), and (c) and (d), give the same scores. It reports
seconds per summary (median, range), ratios within each repeat, shares of the stages and peak memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from quals_metric.files.tables import records

BEAMS_AT_ONCE, READER_BATCH, SUMMARIES_AT_ONCE = 1, 8, 5  # the published batch sizes
NAMES = {
    "a": "QAGS, published", "a'": "QAGS, published, batched", "b": "QAGS", "c": "QUALS, published", "d": "QUALS",
}  # fmt: skip
RATIOS = (("a", "d"), ("a'", "d"), ("b", "d"), ("a", "b"), ("c", "d"))
SAME = (("a", "b"), ("a'", "b"), ("c", "d"))
TOLERANCE = 1e-4

Texts = Sequence[str]


class Contender:
    """Scores texts and keeps how long the stages took, in seconds."""

    def __init__(self) -> None:
        self.stages: Counter[str] = Counter()

    def score(self, summaries: Texts, sources: Texts) -> list[float]:
        """One score per summary."""
        raise NotImplementedError

    @contextmanager
    def stage(self, name: str) -> Any:
        """Book the block's time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] += time.perf_counter() - began

    def watch(self, owner: Any, function: str, name: str) -> None:
        """Book the time of one object's method."""
        inner = getattr(owner, function)

        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return inner(*args, **kwargs)

        setattr(owner, function, watched)


class Ours(Contender):
    """Our scorers, watched from outside."""

    def __init__(self, metric: str, args: argparse.Namespace) -> None:
        super().__init__()
        if metric == "quals":
            from quals_metric import QualsConfig, QualsScorer

            self.scorer: Any = QualsScorer(QualsConfig(args.model, dtype=args.dtype))
            self.watch(self.scorer.model, "generate", "generate")
            self.watch(self.scorer.model, "log_likelihood", "score")
        else:
            self.scorer = qags_scorer(args)
            self.watch(self.scorer.finder, "find", "candidates")
            self.watch(self.scorer.generator, "generate", "generate")
            self.watch(self.scorer.reader, "spans", "read")

    def score(self, summaries: Texts, sources: Texts) -> list[float]:
        """One score per summary."""
        return list(self.scorer.score(summaries=summaries, sources=sources).scores)


def qags_scorer(args: argparse.Namespace) -> Any:
    """QAGS with the checkpoints to be compared."""
    from qags_metric import QagsConfig, QagsScorer

    return QagsScorer(QagsConfig(args.question_model, reader=args.reader, dtype=args.dtype))


def use_library_products(*networks: Any) -> None:
    """Give networks the linear layers of transformers back. Their norms and GELU stay ours, which is faster."""
    from torch import nn

    from qa_inference.models._cpu_modules import Float32Linear

    for module in (module for network in networks for module in network.modules()):
        if isinstance(module, Float32Linear):
            module.__class__ = nn.Linear


class PublishedQags(Contender):
    """QAGS step by step on the library's own beam search, in batches of the published sizes or of a token budget."""

    def __init__(self, args: argparse.Namespace, *, batched: bool) -> None:
        super().__init__()
        self.parts = qags_scorer(args)  # for its models, formats and settings; its own `score` is not called
        self.network = self.parts.generator.model
        self.network.set_attn_implementation("sdpa")  # as it was before rows shared their source
        use_library_products(self.network, self.parts.reader.model)
        self.batched = batched

    def map(self, function: Callable[[list[Any]], list[Any]], items: list[Any], size: int, cost: Any) -> list[Any]:
        """`function` over batches of `size`, or of the default token budget."""
        if self.batched:
            from qa_inference.batching import map_batches

            return map_batches(function, items, cost)
        return [result for i in range(0, len(items), size) for result in function(items[i : i + size])]

    def score(self, summaries: Texts, sources: Texts) -> list[float]:
        """One score per summary."""
        from qags_metric.selection import parse_questions

        inputs, owners = [], []
        parts = self.parts
        for i, summary in enumerate(summaries):
            with self.stage("candidates"):
                (candidates,) = parts.finder.find([summary], parts.config.num_candidates)
            for candidate in candidates:
                marked = parts.format.input(parts.generator.text, summary, candidate.start, candidate.end, parts.window)
                if marked is not None:
                    inputs.append(marked[0])
                    owners.append((i, candidate))
        with self.stage("generate"):
            hypotheses_of_input = self.map(self.generate, inputs, BEAMS_AT_ONCE, lambda ids: 10 * (len(ids) + 32))
        asked: list[list[Any]] = [[] for _ in summaries]
        for (i, answer), hypotheses in zip(owners, hypotheses_of_input, strict=True):
            asked[i] += parse_questions(hypotheses, answer, parts.generator.text)
        with self.stage("read"):
            return self.compare(summaries, sources, asked)

    def compare(self, summaries: Texts, sources: Texts, asked: list[list[Any]]) -> list[float]:
        """Filter by the answers from the summary; F1 of the answers from both, read once more."""
        from qa_inference.metric_base.results import mean_of_defined as mean
        from qags_metric.selection import select_questions, token_f1

        config = self.parts.config
        own = self.answers(
            [
                (question.question, text)
                for text, questions in zip(summaries, asked, strict=True)
                for question in questions
            ]
        )
        kept = []
        for questions in asked:
            read = {question.question: own.pop(0) for question in questions}
            kept.append(
                [
                    question.question
                    for question in select_questions(questions, read, config.max_questions, config.exact)
                ]
            )
        both = [
            self.answers([(q, text) for text, questions in zip(texts, kept, strict=True) for q in questions])
            for texts in (sources, summaries)
        ]
        agreements = [token_f1(b.text, a.text) for a, b in zip(*both, strict=True)]
        return [mean([agreements.pop(0) for _ in questions]) for questions in kept]

    def answers(self, questions_and_texts: list[tuple[str, str]]) -> list[Any]:
        """The reader's answer to each question on a text."""
        reader = self.parts.reader
        windows = [reader.windows(*question_and_text) for question_and_text in questions_and_texts]
        flat = [window for of_question in windows for window in of_question]
        spans = self.map(reader.spans, flat, READER_BATCH, lambda window: window.cost)
        return [
            reader.answer(text, of_question, [spans.pop(0) for _ in of_question])
            for (_, text), of_question in zip(questions_and_texts, windows, strict=True)
        ]

    def generate(self, inputs: list[Any]) -> list[Any]:
        """Ten hypotheses per input by transformers' `generate`."""
        import torch

        from qa_inference.decoding import Hypothesis

        config, vocabulary = self.parts.config, self.parts.generator.vocabulary
        width = max(map(len, inputs))
        ids = torch.tensor([[*map(int, row), *[vocabulary.pad] * (width - len(row))] for row in inputs])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in inputs])
        with torch.inference_mode():
            output = self.network.generate(
                input_ids=ids, attention_mask=mask, num_beams=config.beam_width, do_sample=False,
                num_return_sequences=config.hypotheses, early_stopping=True, length_penalty=1.0,
                min_new_tokens=config.min_question_tokens, max_new_tokens=config.max_question_tokens,
                return_dict_in_generate=True, output_scores=True,
            )  # fmt: skip
            scores = self.network.compute_transition_scores(
                output.sequences, output.scores, output.beam_indices, normalize_logits=False
            )
        hypotheses = []
        for row, log_probs in zip(output.sequences[:, 1:].tolist(), scores.numpy(), strict=True):
            end = next((i for i, token in enumerate(row) if token in vocabulary.ends), None)
            length = len(row) if end is None else end + 1
            hypotheses.append(Hypothesis(np.array(row[:length]), log_probs[:length], end is not None))
        return [hypotheses[i : i + config.hypotheses] for i in range(0, len(hypotheses), config.hypotheses)]


class PublishedQuals(Contender):
    """QUALS step by step: copies of the source, a plain loop over the groups, a source encoded for each pair."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        from quals_metric import QualsConfig, QualsScorer

        self.parts = QualsScorer(QualsConfig(args.model, dtype=args.dtype, sharing="expanded"))
        self.network = self.parts.model.model
        use_library_products(self.network)

    def score(self, summaries: Texts, sources: Texts) -> list[float]:
        """One score per summary."""
        from qa_inference.metric_base.results import mean_of_defined as mean

        texts = self.parts.tokenize(summaries)
        scores: list[float] = []
        for i in range(0, len(summaries), SUMMARIES_AT_ONCE):
            batch = summaries[i : i + SUMMARIES_AT_ONCE]
            inputs = [window for text in batch for window in texts[text].inputs()]
            with self.stage("generate"):
                hypotheses_of_window = self.search(inputs)
            for text, source in zip(batch, sources[i : i + SUMMARIES_AT_ONCE], strict=True):
                pairs = self.kept(text, texts[text], [hypotheses_of_window.pop(0) for _ in texts[text].windows])
                with self.stage("score"):
                    scores.append(mean(self.pair_scores(pairs, source)))
        return scores

    def kept(self, summary: str, text: Any, hypotheses_of_window: list[list[Any]]) -> list[Any]:
        """Step 2, which costs little and is ours."""
        from quals_metric.selection import SummaryText, locate_answers, parse_pairs, select_pairs

        parsed = parse_pairs(
            [h for hypotheses in hypotheses_of_window for h in hypotheses], self.parts.format, self.parts.model.text
        )
        located = locate_answers(parsed, SummaryText(summary, text.encoded, self.parts.model.text))
        return select_pairs(located, self.parts.config.max_pairs)

    def pair_scores(self, pairs: list[Any], source: str) -> list[float]:
        """Every pair of a summary in one batch, its source's best window encoded once for each of them."""
        if not pairs:
            return []
        best = np.full(len(pairs), -np.inf)
        for window in self.parts.tokenize([source])[source].inputs():
            rows = self.teacher_forced(window, [pair.tokens for pair in pairs])
            best = np.maximum(best, [row.mean(dtype=np.float64) for row in rows])
        return [float(b - pair.log_probs.mean(dtype=np.float64)) for b, pair in zip(best, pairs, strict=True)]

    def teacher_forced(self, window: Any, targets: list[Any]) -> list[Any]:
        """Token log-probabilities of each target given the window."""
        import torch

        prefix, pad = self.parts.model.prefix, self.parts.model.vocabulary.pad
        width = max(map(len, targets))
        labels = torch.tensor([[*map(int, t), *[pad] * (width - len(t))] for t in targets])
        before = torch.cat([torch.tensor(prefix).expand(len(labels), -1), labels[:, :-1]], 1)
        ids = torch.tensor(np.asarray(window, np.int64)).expand(len(labels), -1)
        with torch.inference_mode():
            logits = self.network(input_ids=ids, decoder_input_ids=before, use_cache=False).logits[:, len(prefix) - 1 :]
            scores = logits.float().log_softmax(-1).gather(2, labels[..., None])[..., 0].numpy()
        return [row[: len(target)] for row, target in zip(scores, targets, strict=True)]

    def search(self, inputs: list[Any]) -> list[list[Any]]:
        """Diverse beam search of every input, group after group on the whole vocabulary."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        config, vocabulary = self.parts.config, self.parts.model.vocabulary
        groups, ends = config.groups, list(vocabulary.ends)
        with torch.inference_mode():
            encoded, mask = self.parts.model.encode(inputs)
            encoded, mask = encoded.repeat_interleave(groups, 0), mask.repeat_interleave(groups, 0)
            tokens = torch.tensor(self.parts.model.prefix).expand(len(inputs) * groups, -1)
            done = torch.zeros(len(inputs), groups, dtype=torch.bool)
            chosen, log_probs, cache = [], [], None
            for t in range(config.max_new_tokens):
                output = self.network(
                    encoder_outputs=BaseModelOutput(last_hidden_state=encoded), attention_mask=mask,
                    decoder_input_ids=tokens, past_key_values=cache, use_cache=True,
                )  # fmt: skip
                cache = output.past_key_values
                scores = output.logits[:, -1].float().log_softmax(-1).view(len(inputs), groups, -1)
                if t < config.min_new_tokens:
                    scores[..., ends] = -torch.inf
                choice = self.choose(scores, done, config.strength)
                chosen.append(choice)
                log_probs.append(scores.gather(2, choice[..., None])[..., 0])
                done = done | torch.isin(choice, torch.tensor(ends))
                if done.all():
                    break
                tokens = choice.view(-1, 1)
        return self.hypotheses(torch.stack(chosen, -1).numpy(), torch.stack(log_probs, -1).numpy())

    def choose(self, scores: Any, done: Any, strength: float) -> Any:
        """Every group's token [S, G], groups in order; `scores` [S, G, V] are log-probabilities."""
        import torch

        vocabulary = self.parts.model.vocabulary
        ends, every = torch.tensor(vocabulary.ends), torch.arange(len(scores))
        counts, choices = torch.zeros(len(scores), scores.shape[2]), []
        for group in range(scores.shape[1]):
            penalized = scores[:, group] - strength * counts
            best = penalized.argmax(1)
            penalized[:, ends] = -torch.inf
            counted = torch.where(torch.isin(best, ends), penalized.argmax(1), best)
            padding = torch.full_like(best, vocabulary.pad)
            counts[every, torch.where(done[:, group], padding, counted)] += 1
            choices.append(torch.where(done[:, group], padding, best))
        return torch.stack(choices, 1)

    def hypotheses(self, tokens: Any, log_probs: Any) -> list[list[Any]]:
        """The tokens of each group [S, G, T], up to its end."""
        from qa_inference.decoding import Hypothesis

        def cut(row: Any, scores: Any) -> Any:
            ends = np.flatnonzero(np.isin(row, self.parts.model.vocabulary.ends))
            length = int(ends[0]) + 1 if len(ends) else len(row)
            return Hypothesis(row[:length], scores[:length], len(ends) > 0)

        return [
            [cut(*row) for row in zip(*of_source, strict=True)] for of_source in zip(tokens, log_probs, strict=True)
        ]


def make(name: str, args: argparse.Namespace) -> Contender:
    """A contender by its letter."""
    if name in ("a", "a'"):
        return PublishedQags(args, batched=name == "a'")
    return PublishedQuals(args) if name == "c" else Ours("qags" if name == "b" else "quals", args)


def work(connection: Any, name: str, args: argparse.Namespace) -> None:
    """A contender's process: load, then score as often as asked."""
    import torch

    torch.set_num_threads(args.threads)
    contender = make(name, args)
    rows = read(args.data, args.rows)
    summaries, sources = [row["summary"] for row in rows], [row["document"] for row in rows]
    contender.score(summaries[:1], sources[:1])  # the first call pays for what is done once
    while connection.recv():
        contender.stages.clear()
        began, used = time.perf_counter(), time.process_time()
        scores = contender.score(summaries, sources)
        seconds, processor = time.perf_counter() - began, time.process_time() - used
        stages = {**contender.stages, "the rest": seconds - sum(contender.stages.values())}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send({"seconds": seconds, "processor": processor, "scores": scores, "stages": stages, "peak": peak})


def read(path: str, count: int) -> list[dict[str, Any]]:
    """The first rows of a JSON-lines file."""
    return [row for _, row in islice(records(Path(path)), count)]


def measure(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Every contender's runs, in turns."""
    context = multiprocessing.get_context("spawn")
    ends, runs_of = {}, {}
    for name in args.contenders:
        ours, theirs = context.Pipe()
        context.Process(target=work, args=(theirs, name, args), daemon=True).start()
        theirs.close()
        ends[name], runs_of[name] = ours, []
    for repeat in range(args.repeats):
        order = list(ends) if repeat % 2 == 0 else list(ends)[::-1]
        for name in order:
            ends[name].send(True)
            runs_of[name].append(ends[name].recv())
            seconds = runs_of[name][-1]["seconds"] / args.rows
            print(f"repeat {repeat + 1}, {NAMES[name]}: {seconds:.2f} s a summary", flush=True)
    for end in ends.values():
        end.send(False)
    return runs_of


def check(runs_of: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines that say how far the scores of each two that must agree are apart. Raises ValueError if they do not."""
    lines = []
    for first, second in SAME:
        if first in runs_of and second in runs_of:
            a, b = (np.array(runs_of[name][0]["scores"], float) for name in (first, second))
            apart = float(np.nanmax(np.abs(a - b), initial=0.0))
            if apart > TOLERANCE or (np.isnan(a) != np.isnan(b)).any():
                raise ValueError(
                    f"({first}) and ({second}) must give the same scores; got {a.tolist()} and {b.tolist()}"
                )
            lines.append(f"Scores of ({first}) and ({second}) are at most {apart:.0e} apart.")
    return lines


def show(runs_of: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> str:
    """Markdown tables."""
    seconds = {name: np.array([run["seconds"] for run in runs]) / args.rows for name, runs in runs_of.items()}
    lines = ["| | seconds a summary, median (range) | processor | shares of the stages | peak memory, MB |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for name, runs in runs_of.items():
        total: Counter[str] = Counter()
        for run in runs:
            total.update(run["stages"])
        shares = ", ".join(f"{stage} {100 * spent / sum(total.values()):.0f} %" for stage, spent in total.most_common())
        processor = float(np.median([run["processor"] for run in runs])) / args.rows
        peak = max(run["peak"] for run in runs)
        lines.append(f"| ({name}) {NAMES[name]} | {_range(seconds[name])} | {processor:.2f} | {shares} | {peak:.0f} |")
    lines += ["", "| ratio, repeat by repeat | median (range) |", "| --- | --- |"]
    for first, second in RATIOS:
        if first in seconds and second in seconds:
            lines.append(f"| ({first}) / ({second}) | {_range(seconds[first] / seconds[second])} |")
    return "\n".join([*lines, "", *check(runs_of)])


def _range(values: Any) -> str:
    return f"{np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"


def about(args: argparse.Namespace) -> str:
    """The setting of the measurements."""
    import torch
    import transformers

    models = f"QAGen {args.model}, questions {args.question_model}, reader {args.reader}, {args.dtype}"
    hardware = f"{platform.machine()}, {os.cpu_count()} processors, {args.threads} thread(s)"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    return f"{args.rows} summaries of {Path(args.data).name}, {args.repeats} repeats; {models}; {hardware}; {versions}"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print and write."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--limit"]:
        import limit

        limit.main(arguments[1:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--question-model", default="embedded")
    parser.add_argument("--reader", default="embedded")
    parser.add_argument("--contenders", nargs="+", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--out", help="also write every run as JSON")
    args = parser.parse_args(arguments)
    args.rows = len(read(args.data, args.rows))
    runs_of = measure(args)
    print(f"\n{about(args)}\n\n{show(runs_of, args)}")
    if args.out:
        Path(args.out).write_text(json.dumps({"about": about(args), "runs": runs_of}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
