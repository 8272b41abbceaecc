"""The recipe of contrastive retraining, end to end at toy size."""

from __future__ import annotations

import gzip
import json
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from quals_metric import QualsConfig
from tests import programs, tiny

recipe = programs.load("recipes/conseq.py")


@pytest.fixture(scope="module")
def factcc(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A toy classifier with FactCC's labels."""
    folder = tmp_path_factory.mktemp("factcc") / "bert"
    tokenizer = tiny.wordpiece()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, initializer_range=0.5, id2label={0: "CORRECT", 1: "INCORRECT"},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Twelve training documents in SciTLDR's form, compressed, four of which each in dev and test."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"document": f"{text} It was {number}.", "summaries": [text.split(".")[0] + ".", f"It was {number}."]}
        for number in range(3)
        for text in tiny.CORPUS
    ]
    command = []
    for name, count in (("train", 12), ("dev", 4), ("test", 4)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows[:count])
        command += [f"--{name}", str(folder / f"{name}.jsonl.gz")]
    return command


@pytest.fixture(scope="module")
def qagen(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.trained(tmp_path_factory.mktemp("qagen") / "bart"))


def test_from_a_data_set_to_a_table(
    data: list[str], qagen: str, factcc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, results = tmp_path / "run", tmp_path / "RESULTS.md"
    results.write_text("# Results\n")
    # The toy's questions are short.
    short = lambda model, groups: QualsConfig(model, groups=groups, min_new_tokens=2, max_new_tokens=14, device="cpu")  # noqa: E731  (a line)
    monkeypatch.setattr(recipe, "QualsConfig", short)
    command = [
        *data, "--out", str(out), "--results", str(results), "--init", qagen, "--quals-model", qagen,
        "--quals-groups", "12", "--seeds", "5", "--mle-updates", "2", "--updates", "2", "--lrs", "1e-4", "1e-3",
        "--ratios", "0.9", "--published", "--keep-ends", "--batch", "4", "--accumulate", "1",
        "--max-target-tokens", "12", "--samples", "3", "--beams", "1", "--least-defined", "0", "--factcc", factcc,
        "--without", "qags", "--cpu",
    ]  # fmt: skip
    recipe.main(command)
    found = json.loads((out / "results.json").read_text())
    assert list(found) == ["5"]
    for seed in found.values():
        assert list(seed) == ["mle", "rouge", "positives", "conseq", "ends", "published"]
        for name, system in seed.items():
            scores = system["scores"]
            assert scores.keys() == set(recipe.COLUMNS) - {"qags"} and all(len(each) == 4 for each in scores.values())
            assert set(scores["factcc"]) <= {0.0, 1.0} and system["moved"] > 0
            assert system["updates"] == 2 or name == "published"
            assert (system["negative"] is None) == (name == "mle")
            assert name != "rouge" or system["negative"] < system["positive"] == 1.0  # each its own reference
            assert system["documents"] == 12 if name == "mle" else 0 < system["documents"] <= 11
        assert seed["conseq"]["documents"] == seed["positives"]["documents"]
        assert any(score is not None for score in seed["conseq"]["scores"]["quals"])
    table = (out / "table.md").read_text()
    assert "| CONSEQ | " in table and "| contrastive, ROUGE | " in table and "CONSEQ minus the other" in table
    assert "qags: empty, because it cannot be had: left out by --without" in table
    written = results.read_text()
    assert written.startswith("# Results\n") and table in written
    # The same command does nothing twice; a stage that is missing is made anew, and the same.
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("trained.json")}
    assert len(stamps) == 1 + 4 * 2 + 1 and not list(out.rglob("state"))
    monkeypatch.setattr(recipe, "summarize", lambda *_: pytest.fail("the summaries are there"))
    recipe.main(command)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("trained.json")} == stamps
    assert (out / "table.md").read_text() == table and results.read_text() == written
    with pytest.raises(SystemExit, match=r"was begun with --updates \[2\], not \[3\]"):
        recipe.main([*command, "--updates", "3"])


def test_what_the_first_seed_chooses_the_others_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[int, str]] = []

    def train(stage: Any, start: str, rows: Any, folder: Path, seed: int, args: Any) -> Path:
        trained.append((seed, stage.name))
        return folder

    def evaluated(model: Path, *_: Any, **__: Any) -> Any:
        return ["a summary"], {"quals": [("lr2" in model.parent.name) + ("updates3" in model.parent.name) - 2.0]}

    monkeypatch.setattr(recipe, "train", train)
    monkeypatch.setattr(recipe, "evaluated", lambda model, documents, path, *rest, **more: evaluated(path))
    monkeypatch.setattr(recipe, "report", lambda model, *_: model.name)
    for name in ("collected", "selected"):
        monkeypatch.setattr(recipe, name, lambda *_: None)
    document = recipe.Document("a text", ("a summary",))
    splits = {name: [document] for name in ("train", "dev", "test")}
    for flags, left in (([], 4), (["--search-once"], 1)):
        trained.clear()
        scorers: Any = SimpleNamespace(args=recipe.make_parser().parse_args(["--out", str(tmp_path), *flags]))
        settings = {"conseq": [(lr, 0.5, updates) for lr in (1.0, 2.0) for updates in (3, 4)]}
        for seed in (0, 1):
            systems = recipe.run_seed(seed, splits, scorers, settings, lambda _: None)
            assert systems["conseq"] == "conseq-lr2-ratio0.5-updates3"
        assert len(settings["conseq"]) == left
        assert [seed for seed, _ in trained] == [0] * 5 + [1] * (1 + left)


def test_it_stops_where_the_first_model_writes_nothing_that_can_be_scored(data: list[str], tmp_path: Path) -> None:
    model = str(tiny.save("bart", tmp_path / "random"))
    command = [
        *data, "--out", str(tmp_path / "run"), "--init", model, "--quals-model", model, "--quals-groups", "4",
        "--mle-updates", "1", "--max-target-tokens", "8", "--beams", "1", "--cpu",
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="every score is undefined"), pytest.raises(SystemExit, match="0% of the summ"):
        recipe.main(command)
    shown = json.loads((tmp_path / "run" / "seed-0" / "samples.json").read_text())
    assert len(shown) == 4 and shown[0].keys() == {"document", "summary", "quals"}


def test_factcc_reads_the_text_first_and_says_correct(factcc: str) -> None:
    scorer = recipe.FactCC(factcc, batch_size=2)
    summaries, sources = ["A rise.", "The man.", "Perth."], [tiny.CORPUS[0] * 9, tiny.CORPUS[1], tiny.CORPUS[2]]
    expected = []
    for summary, source in zip(summaries, sources, strict=True):
        one = scorer.tokenizer(source, summary, truncation="only_first", max_length=64, return_tensors="pt")
        assert one.input_ids.shape[1] <= 64
        with torch.no_grad():
            expected.append(float(scorer.model(**one).logits[0].argmax() == 0))
    assert scorer.scores(summaries, sources) == expected
    scorer.model.classifier.weight.data.zero_()
    scorer.model.classifier.bias.data = torch.tensor([1.0, 0.0])  # CORRECT, whatever it reads
    assert scorer.scores(summaries, sources) == [1.0, 1.0, 1.0]


def test_a_metric_that_cannot_be_had_has_a_reason(qagen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args = recipe.make_parser().parse_args(
        ["--out", "x", "--factcc", f"{os.sep}no{os.sep}such", "--quals-model", qagen]
    )
    scorers = recipe.Scorers(args)
    monkeypatch.setitem(sys.modules, "qags_metric", None)
    documents = [recipe.Document("The council.", ("A.",))]
    assert scorers.by("qags", ["A."], documents) is None and scorers.by("factcc", ["A."], documents) is None
    assert "qags_metric" in scorers.missing["qags"] and scorers.missing["factcc"]


def test_a_trial_is_chosen_by_dev() -> None:
    scores = {"quals": [math.nan, -1.0], "rouge1": [0.5], "rouge2": [0.1], "rougeL": [0.3]}
    assert recipe.criterion(scores, "quals") == -1.0
    assert recipe.criterion(scores, "rouge") == pytest.approx(0.3)
    assert recipe.criterion({"quals": [math.nan]}, "quals") == -math.inf


def _seed(conseq: float, other: float) -> dict[str, Any]:
    """Two documents' scores by two systems."""
    about = {"lr": 1e-3, "ratio": 0.3, "documents": 2, "updates": 4, "moved": 0.01, "positive": -2.0, "negative": None}
    system = lambda value: {"scores": {"quals": [value, value], "length": [3.0, math.nan]}, **about}  # noqa: E731  (two uses)
    return {"mle": system(other), "conseq": system(conseq)}


def test_the_table_has_means_over_seeds() -> None:
    args = recipe.make_parser().parse_args(["--out", "x", "--seeds", "3", "4", "--init", "a/b"])
    table = recipe.make_table([_seed(-0.5, -1.0), _seed(-0.3, -1.0)], {}, args)
    assert "seeds 3, 4; 2 test documents; from `b`" in table
    assert "-0.400 (-0.500 to -0.300)" in table  # CONSEQ's QUALS
    assert "| quals | +0.600 [+0.600, +0.600] p " in table and "1 left out" in table
    assert "| CONSEQ | 2, 2 | -2, -2 |  | 4, 4 |" in table


def test_the_table_replaces_its_own_section(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    recipe.put_between_marks(path, "one\n")
    path.write_text("before\n\n" + path.read_text() + "\nafter\n")
    recipe.put_between_marks(path, "two\n")
    text = path.read_text()
    assert text.startswith("before\n\n<!--") and text.endswith("-->\n\nafter\n") and "two" in text and "one" not in text
