"""benchmarks/peers.py: every contender at toy size, the shapes' sizes, the table and the picture."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import programs, tiny, tiny_readers

programs.load("benchmarks/speed.py")
peers = programs.load("benchmarks/peers.py")

SUMMARY = f"{tiny.CORPUS[3]} {tiny.CORPUS[0]}"
MODELS = [name for name in peers.CONTENDERS if name not in ("copied 2-grams", "QUALS", "QAGS", "QUALS, BART-large")]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("peers")
    rows = [{"document": " ".join([*tiny.CORPUS] * 3), "faithful": SUMMARY}, *[{"document": tiny.CORPUS[0]}] * 2]
    rows[1] |= {"summary": tiny.CORPUS[0]}
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    bart, reader = tiny.trained(folder / "bart"), tiny_readers.save("bert", folder / "reader")
    names = ("--model", "--question-model", "--reader")
    named = [text for pair in zip(names, map(str, (bart, bart, reader)), strict=True) for text in pair]
    return ["--data", str(data), "--tiny", *named]


def _bench(arguments: list[str]) -> Any:
    values = dict(zip(arguments[3::2], arguments[4::2], strict=True))
    options = {name.removeprefix("--").replace("-", "_"): value for name, value in values.items()}
    return peers.Bench(argparse.Namespace(data=arguments[1], rows=2, dtype="float32", threads=1, tiny=True, **options))


def test_every_contender_scores_every_summary(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    threads, files = torch.get_num_threads(), [tmp_path / name for name in ("out.jsonl", "now.svg", "again.svg")]
    try:
        peers.main([*arguments, "--out", str(files[0]), "--svg", str(files[1])], peers.measure)
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    peers.main([*arguments, "--measured", str(files[0]), "--svg", str(files[2])])  # the same without measuring
    assert printed.endswith(capsys.readouterr().out) and files[1].read_text() == files[2].read_text()
    assert "2 summaries of rows.jsonl" in printed and "tiny shapes: a trial" in printed
    for name in peers.CONTENDERS:
        assert printed.count(f"| **{name}** |" if name in peers.OURS else f"| {name} |") == 1


@pytest.mark.parametrize("name", MODELS)
def test_a_summary_has_the_same_score_alone_and_among_others(name: str, arguments: list[str]) -> None:
    bench = _bench(arguments)
    with torch.inference_mode():
        score = peers.CONTENDERS[name].make(bench)
        together = score(bench.summaries, bench.sources)
        alone = [score([s], [d])[0] for s, d in zip(bench.summaries, bench.sources, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5) and together[0] != pytest.approx(together[1], abs=1e-7)


def test_bart_score_is_the_mean_log_probability_that_the_library_gives(arguments: list[str]) -> None:
    bench, made = _bench(arguments), []
    build = bench.model
    bench.model = lambda *args, **changes: made.append(build(*args, **changes)) or made[0]
    score = peers.bart_score(bench)
    (summary, source), rows = (bench.summaries[0], bench.sources[0]), []
    for text in (source, summary):
        rows.append(torch.tensor([[0, *bench.ids(text), 2]]))
    with torch.inference_mode():
        loss = made[0](input_ids=rows[0], labels=rows[1]).loss
        assert score([summary], [source])[0] == pytest.approx(-float(loss), abs=1e-5)


def test_the_shapes_have_the_sizes_of_their_models() -> None:
    import transformers

    # millions of parameters, as the models' authors state them; T5's is 783 with two matrices of the vocabulary, of
    # which transformers 5 keeps one
    stated = {
        "roberta-base": 125, "roberta-large": 355, "facebook/bart-large": 406, "tals/albert-xlarge-vitaminc-mnli": 59,
        "google/flan-t5-large": 750, "Qwen/Qwen2.5-1.5B-Instruct": 1540,
    }  # fmt: skip
    assert stated.keys() == peers.SHAPES.keys()
    for name, (kind, shape) in peers.SHAPES.items():
        task = {"qwen2": "AutoModelForCausalLM", "bart": "AutoModelForSeq2SeqLM", "t5": "AutoModelForSeq2SeqLM"}
        config = transformers.AutoConfig.for_model(kind, **shape)
        with torch.device("meta"):
            model = getattr(transformers, task.get(kind, "AutoModel")).from_config(config)
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert millions == pytest.approx(stated[name], rel=0.015), name


def test_accuracies_come_from_the_results() -> None:
    found = peers.accuracies(peers.RESULTS.read_text(encoding="utf-8"))
    assert {"QUALS", "BERTScore", "BARTScore", "SummaC-ZS", "copied 2-grams"} <= found.keys()
    assert all(0 < one.low <= one.value <= one.high < 1 for one in found.values())
    assert "AlignScore-base" not in found
    results = "**BUMP**, with\n\n| | accuracy |\n|---|---|\n| **QUALS, all tokens** | 0.7 [0.6, 0.8] | x |\n\n"
    assert peers.accuracies(results) == {"QUALS": peers.Accuracy(0.7, 0.6, 0.8)}


def test_the_table_and_the_picture() -> None:
    runs = [
        {"name": name, "seconds": seconds, "clock": 9.0, "peak": 500.0, "parameters": 25e6, "rows": 2}
        for name, seconds in (("SummaC-ZS", 20.0), ("QUALS", 0.5), ("QAGS", 5.0))
    ]
    agreement = {"QUALS": peers.Accuracy(0.6, 0.5, 0.7), "SummaC-ZS": peers.Accuracy(0.7, 0.6, 0.8)}
    lines = peers.table(runs, agreement).splitlines()
    assert lines[2] == "| **QUALS** | 25 | 0.5 | 1 | 500 | 0.600 [0.500, 0.700] |"
    assert lines[3] == "| **QAGS** | 25 | 5 | 10 | 500 |  |" and lines[4].startswith("| SummaC-ZS | 25 | 20 | 40 |")
    svg = ElementTree.fromstring(peers.picture(runs, agreement))
    space = "{http://www.w3.org/2000/svg}"
    circles = {c.get("class"): (float(c.get("cx", 0)), float(c.get("cy", 0))) for c in svg.iter(f"{space}circle")}
    assert len(list(svg.iter(f"{space}circle"))) == 3 and circles.keys() == {"dot ours", "dot"}
    texts = [text.text for text in svg.iter(f"{space}text")]
    assert {"QUALS", "QAGS", "SummaC-ZS", "no accuracy known:"} <= set(texts)
    quals = next(c for c in svg.iter(f"{space}circle") if c.get("class") == "dot ours")
    assert float(quals.get("cx", 0)) < circles["dot"][0] and float(quals.get("cy", 0)) > circles["dot"][1]
    style = svg.find(f"{space}style")
    assert style is not None and "prefers-color-scheme:dark" in str(style.text)
