"""Collections: what they hold, that a kill costs little, and that training does not notice."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

import quals_metric
from qa_inference.decoding import TopKSampling
from qa_inference.models.encoder_decoder import EncoderDecoder
from quals_metric import QualsConfig, QualsScorer
from quals_metric.files import durable
from quals_metric.training import collection
from quals_metric.training.candidates import CollectionSettings
from quals_metric.training.collection import collect
from quals_metric.training.collector import ConseqCollector
from quals_metric.training.conseq import ConseqTrainer
from quals_metric.training.examples import TextFormat
from quals_metric.training.rouge import RougeScorer
from quals_metric.training.selection import reselect, select
from tests import PATIENCE, tiny
from tests.quals_metric.training.conseq_program import arguments

ROWS = Dataset.from_list(
    [
        {"document": f"{text} Number {number}.", "ground_truth": text.split(".")[0]}
        for number, text in enumerate(tiny.CORPUS + [c.swapcase() for c in tiny.CORPUS] + ["The man."])
    ]
)
SETTINGS = CollectionSettings(samples=3, max_new_tokens=8, negative_ratio=0.7, positive_ratio=0.7, shard_rows=4)


class WordScorer:
    """A scorer that needs no model: minus the length, undefined where the text has no letter `e`; it draws numbers."""

    signature = "words|version:1"

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], list[str]]] = []
        self.left = math.inf

    def score(self, *, summaries: Sequence[str], sources: Sequence[str], spread: bool = False) -> Any:
        torch.rand(3), np.random.rand(), random.random()
        if not self.left:
            raise RuntimeError("killed")
        self.left -= 1
        self.calls.append((list(summaries), list(sources)))
        scores = [-float(len(summary)) if "e" in summary.casefold() else math.nan for summary in summaries]
        return SimpleNamespace(summaries=[SimpleNamespace(score=score) for score in scores])


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_collection(name: str, tmp_path: Path) -> None:
    model, tokenizer = tiny.checkpoint(name)
    scorer = WordScorer()
    found = collect(model, scorer, ROWS, tmp_path / "data", SETTINGS, tokenizer=tokenizer)
    assert [dict(document=row["document"], ground_truth=row["ground_truth"]) for row in found] == ROWS.to_list()
    assert len(scorer.calls) == 3  # 4 + 4 + 1 documents
    # The samples are those of the search, each document by its place; scores are the scorer's.
    reader = EncoderDecoder(model, tokenizer, sharing="expanded")
    search = TopKSampling(3, 50, max_new_tokens=8)
    for place, row in enumerate(found):
        ids = tokenizer(row["document"])["input_ids"][:64]
        if len(tokenizer(row["document"])["input_ids"]) <= 64:
            (drawn,) = reader.generate([ids], search, keys=[place])
            assert row["samples"] == [reader.text.decode(one.tokens).strip() for one in drawn]
        for text, score in zip(
            [*row["samples"], row["ground_truth"]], [*row["sample_scores"], row["ground_truth_score"]], strict=True
        ):
            assert score == (-float(len(text)) if "e" in text.casefold() else None)
    expected = select(
        [_nan(score) for score in found["ground_truth_score"]],
        [[_nan(score) for score in scores] for scores in found["sample_scores"]],
        negative_ratio=0.7,
        positive_ratio=0.7,
    )
    assert 0 < len(expected.pairs) < 9
    assert [(i, row["lowest"]) for i, row in enumerate(found) if row["selected"]] == expected.pairs
    assert all((row["negative"] is not None) == row["selected"] for row in found)
    assert all(row["negative"] == row["samples"][row["lowest"]] for row in found if row["selected"])
    assert found["in_negative"] == expected.negative.tolist() and found["in_positive"] == expected.positive.tolist()
    about = json.loads((tmp_path / "data.meta.json").read_text())
    assert about["documents"] == 9 and about["samples"] == 27 and about["selected"] == len(expected.pairs)
    assert about["undefined_samples"] == sum(score is None for row in found for score in row["sample_scores"])
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("ground")) == [
        "data",
        "data.meta.json",
    ]


def test_the_selection_can_be_made_anew(tmp_path: Path) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    found = collect(model, WordScorer(), ROWS, tmp_path / "data", SETTINGS, tokenizer=tokenizer)
    assert reselect(found, negative_ratio=0.7, positive_ratio=0.7).to_list() == found.to_list()
    assert not any(reselect(found, negative_ratio=0.0)["selected"])
    everything = reselect(found, negative_ratio=1.0, positive_ratio=1.0)
    assert sum(everything["selected"]) > sum(found["selected"])


def test_ground_truths_are_scored_once(tmp_path: Path) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    first, second = WordScorer(), WordScorer()
    one = collect(model, first, ROWS, tmp_path / "one", SETTINGS, tokenizer=tokenizer)
    two = collect(model, second, ROWS, tmp_path / "two", replace(SETTINGS, seed=1), tokenizer=tokenizer)
    assert (
        sum(len(texts) for texts, _ in first.calls) == 9 * 4 and sum(len(texts) for texts, _ in second.calls) == 9 * 3
    )
    assert one["ground_truth_score"] == two["ground_truth_score"] and one["samples"] != two["samples"]
    other = collect(model, WordScorer(), ROWS.select(range(4)), tmp_path / "three", SETTINGS, tokenizer=tokenizer)
    assert other["samples"] == one["samples"][:4] and len(list(tmp_path.glob("ground_truths-*.jsonl"))) == 2


def test_a_killed_collection_goes_on(tmp_path: Path) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    whole = collect(model, WordScorer(), ROWS, tmp_path / "whole", SETTINGS, tokenizer=tokenizer)
    for path in tmp_path.glob("ground_truths-*"):
        path.unlink()
    killed = WordScorer()
    killed.left = 2
    with pytest.raises(RuntimeError, match="killed"):
        collect(model, killed, ROWS, tmp_path / "data", SETTINGS, tokenizer=tokenizer)
    assert not (tmp_path / "data").exists() and len(list((tmp_path / "data.unfinished").glob("*.jsonl"))) == 2
    with pytest.raises(ValueError, match=r"differs in seed \(0 then, 5 now\)"):
        collect(model, WordScorer(), ROWS, tmp_path / "data", replace(SETTINGS, seed=5), tokenizer=tokenizer)
    with torch.no_grad():
        model.model.shared.weight += 0.5
    with pytest.raises(ValueError, match="differs in weights"):
        collect(model, WordScorer(), ROWS, tmp_path / "data", SETTINGS, tokenizer=tokenizer)
    with torch.no_grad():
        model.load_state_dict(tiny.checkpoint("bart")[0].state_dict())
    again = WordScorer()
    assert collect(model, again, ROWS, tmp_path / "data", SETTINGS, tokenizer=tokenizer).to_list() == whole.to_list()
    assert len(again.calls) == 1 and not (tmp_path / "data.unfinished").exists()
    done = WordScorer()  # and one that is finished is read
    assert collect(model, done, ROWS, tmp_path / "data", SETTINGS, tokenizer=tokenizer).to_list() == whole.to_list()
    assert not done.calls
    with pytest.raises(
        FileExistsError, match="must be a collection of the same weights, texts and settings; it is not"
    ):
        collect(model, done, ROWS, tmp_path / "data", replace(SETTINGS, seed=5), tokenizer=tokenizer)


@pytest.mark.parametrize("damage", ["truncated", "longer", "changed", "empty", "nested", "forged"])
def test_21_a4_damaged_scores_of_ground_truths_are_made_anew(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    whole = collect(model, WordScorer(), ROWS, tmp_path / "one", SETTINGS, tokenizer=tokenizer)
    (path,) = tmp_path.glob("ground_truths-*")
    lines = path.read_text().splitlines(keepends=True)
    if damage == "forged":  # with a right digest
        durable.write_sealed(path, ["-1"] + [0] * 8)
    else:
        path.write_text(
            {
                "truncated": "".join(lines[:-2]),
                "longer": "".join([*lines, "-1.0\n"]),
                "changed": "".join([*lines[:-1], "-1.0\n"]),
                "empty": "",
                "nested": "[" * 100_000,
            }[damage]
        )
    scorer = WordScorer()
    found = collect(model, scorer, ROWS, tmp_path / "two", SETTINGS, tokenizer=tokenizer)
    assert found.to_list() == whole.to_list()
    assert sum(len(texts) for texts, _ in scorer.calls) == 9 * 4
    assert any("the ground truths are scored again" in record.getMessage() for record in caplog.records)
    assert path.read_text() == "".join(lines)


@pytest.mark.parametrize("damage", ["truncated", "longer", "empty"])
def test_21_a4_a_damaged_shard_is_made_anew(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    whole = collect(model, WordScorer(), ROWS, tmp_path / "whole", SETTINGS, tokenizer=tokenizer)
    (kept,) = tmp_path.glob("ground_truths-*")
    kept.unlink()
    killed = WordScorer()
    killed.left = 2
    with pytest.raises(RuntimeError, match="killed"):
        collect(model, killed, ROWS, tmp_path / "data", SETTINGS, tokenizer=tokenizer)
    shard = min((tmp_path / "data.unfinished").glob("*.jsonl"))
    content = shard.read_bytes()
    shard.write_bytes({"truncated": content[:-20], "longer": content + content[-200:], "empty": b""}[damage])
    again = WordScorer()
    found = collect(model, again, ROWS, tmp_path / "data", SETTINGS, tokenizer=tokenizer)
    assert found.to_list() == whole.to_list() and len(again.calls) == 2
    (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("quals_metric"))
    assert shard.name in message and "sampled and scored again" in message


@pytest.mark.parametrize("moment", ["write", "publish"])
def test_21_b14_the_loser_of_two_collections_reads_the_winners(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one is at its last shard, or about to publish, another finishes the same collection."""
    model, tokenizer = tiny.checkpoint("bart")
    winners: list[Any] = []

    def win() -> None:
        monkeypatch.undo()
        winners.append(collect(model, WordScorer(), ROWS, tmp_path / "data", SETTINGS, tokenizer=tokenizer))

    class Losing(WordScorer):
        def score(self, **texts: Any) -> Any:
            if len(self.calls) == 2 and moment == "write":
                win()
            return super().score(**texts)

    join = collection._Collection._join_shards
    if moment == "publish":
        monkeypatch.setattr(collection._Collection, "_join_shards", lambda task, job: (win(), join(task, job)))
    found = collect(model, Losing(), ROWS, tmp_path / "data", SETTINGS, tokenizer=tokenizer)
    assert len(winners) == 1 and found.to_list() == winners[0].to_list()
    assert not (tmp_path / "data.unfinished").exists()


def test_21_b8_a_list_of_dicts_is_a_data_set(tmp_path: Path) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    expected = collect(model, WordScorer(), ROWS, tmp_path / "one", SETTINGS, tokenizer=tokenizer)
    found = collect(model, WordScorer(), ROWS.to_list(), tmp_path / "two", SETTINGS, tokenizer=tokenizer)
    assert found.to_list() == expected.to_list()


class Unspread:
    def score(self, *, summaries: Sequence[str], sources: Sequence[str]) -> Any:
        raise AssertionError


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"rows": ROWS.rename_column("document", "text")}, ValueError, "must have the columns document and ground_tr"),
        ({"rows": [{"document": "a text"}]}, ValueError, r"rows\[0\]: must have the keys .* no ground_truth"),
        ({"rows": [{"document": "a text", "ground_truth": None}]}, TypeError, r"ground_truth\[0\]: must be str"),
        ({"rows": [1]}, TypeError, "must be a datasets.Dataset or a list of dicts; got list"),
        ({"rows": ROWS.to_iterable_dataset()}, TypeError, "got IterableDataset"),
        ({"rows": ROWS.select([])}, ValueError, "must not be empty"),
        ({"scorer": SimpleNamespace()}, TypeError, "scorer: must have a `score`"),
        ({"scorer": Unspread()}, TypeError, "must take summaries, sources and spread by name; got Unspread"),
        ({"settings": replace(SETTINGS, max_new_tokens=1000)}, ValueError, "max_new_tokens: must leave room"),
        ({"folder": "file/sets"}, OSError, "file"),
    ],
)
@pytest.mark.parametrize("is_attached", [True, False])
def test_21_b8_what_can_be_known_is_known_before_the_training(
    change: dict[str, Any], error: type[Exception], match: str, is_attached: bool, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    options = {"scorer": WordScorer(), "rows": ROWS, "folder": "sets", "settings": SETTINGS} | change
    model, tokenizer = tiny.checkpoint("bart")
    collector = ConseqCollector(
        options["scorer"], tokenizer, options["rows"], tmp_path / options["folder"], options["settings"]
    )
    more = {} if is_attached else {"callbacks": [collector]}
    args = arguments(tmp_path / "run")
    trainer = ConseqTrainer(model, args, train_dataset=ROWS, processing_class=tokenizer, **more)
    with pytest.raises(error, match=match):
        collector.attach(trainer) if is_attached else trainer.train()
    assert trainer.state.global_step == 0


def test_21_b8_a_failure_does_not_end_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    killed = WordScorer()
    killed.left = 2
    collector = ConseqCollector(killed, tiny.wordpiece(), ROWS, tmp_path / "sets", SETTINGS)
    trainer = _train(tmp_path / "a", collector)
    trainer.save_model(str(tmp_path / "model"))
    assert any("the collection failed (RuntimeError: killed)" in record.getMessage() for record in caplog.records)
    with pytest.raises(ValueError, match=r"continue with collect\(model, scorer, rows, '.*final', settings"):
        collector.dataset()
    again = WordScorer()
    found = collect(tmp_path / "model", again, ROWS, tmp_path / "sets" / "final", SETTINGS)
    assert len(found) == 9 and len(again.calls) == 1  # two shards were there


def test_the_advice_after_a_failure_works(tmp_path: Path) -> None:
    killed = WordScorer()
    killed.left = 2
    collector = ConseqCollector(killed, tiny.wordpiece(), ROWS, tmp_path / "sets", SETTINGS, every_epoch=True)
    trainer = _train(tmp_path / "a", collector, max_steps=1)
    with pytest.raises(ValueError, match=rf"epoch-1', dataclasses.replace\(settings, seed={SETTINGS.seed + 1}\), "):
        collector.dataset()
    of_epoch = replace(SETTINGS, seed=SETTINGS.seed + 1)
    epoch, rest = tmp_path / "sets" / "epoch-1", WordScorer()
    collect(trainer.model, rest, ROWS, epoch, of_epoch, tokenizer=tiny.wordpiece())
    assert len(rest.calls) == 1  # two shards were there
    collector._collect(tiny.checkpoint("t5")[0], "epoch-1", of_epoch)  # a training that was resumed before this epoch
    with pytest.raises(ValueError, match=r"An earlier collection is kept: load it with load_from_disk\('.*epoch-1'\)"):
        collector.dataset()


def test_the_folder_of_a_collection_is_made(tmp_path: Path) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    assert len(collect(model, WordScorer(), ROWS, tmp_path / "new" / "final", SETTINGS, tokenizer=tokenizer)) == 9
    raising = WordScorer()
    raising.left = 0
    strict = ConseqCollector(raising, tiny.wordpiece(), ROWS, tmp_path / "b", SETTINGS, on_failure="raise")
    with pytest.raises(RuntimeError, match="killed"):
        _train(tmp_path / "c", strict)
    with pytest.raises(ValueError, match="on_failure: must be 'log' or 'raise'; got 'stale'"):
        ConseqCollector(raising, tiny.wordpiece(), ROWS, tmp_path, on_failure="stale")  # type: ignore[arg-type]


def test_a_checkpoint_folder_gives_what_its_model_gives(tmp_path: Path) -> None:
    """By shared attention in the one, by copies in the other."""
    folder = tiny.save("bart", tmp_path / "bart")
    found = collect(folder, WordScorer(), ROWS, tmp_path / "one", SETTINGS)
    model, tokenizer = tiny.checkpoint("bart")
    assert (
        found.to_list() == collect(model, WordScorer(), ROWS, tmp_path / "two", SETTINGS, tokenizer=tokenizer).to_list()
    )
    with pytest.raises(ValueError, match="tokenizer: must be given with a model"):
        collect(model, WordScorer(), ROWS, tmp_path / "three", SETTINGS)


def test_two_processes_collect_what_one_does(tmp_path: Path) -> None:
    program = Path(__file__).with_name("collector_program.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    package = str(Path(quals_metric.__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": package}
    subprocess.run([*command, str(tmp_path)], env=environment, check=True, timeout=PATIENCE)
    model, tokenizer = tiny.checkpoint("bart")
    expected = collect(model, WordScorer(), ROWS, tmp_path / "one", SETTINGS, tokenizer=tokenizer).to_list()
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [each["rows"] for each in found] == [expected, expected]
    assert "cannot be made" in found[0]["refused"] and "rank 0 raised FileExistsError" in found[1]["refused"]


def test_quals_and_rouge_score_a_collection(tmp_path: Path) -> None:
    """Each the numbers the scorer gives when asked directly."""
    model, tokenizer = tiny.checkpoint("bart")
    name = str(tiny.trained(tmp_path / "qagen"))
    quals = QualsScorer(QualsConfig(name, groups=20, min_new_tokens=2, max_new_tokens=14, device="cpu"))
    rows = ROWS.select(range(4))
    found = collect(model, quals, rows, tmp_path / "quals", SETTINGS, tokenizer=tokenizer)
    direct = quals.score(summaries=rows["ground_truth"][:], sources=rows["document"][:])
    assert any(not math.isnan(score) for score in direct.scores)
    assert [_nan(score) for score in found["ground_truth_score"]] == pytest.approx(direct.scores, abs=1e-5, nan_ok=True)
    settings = replace(SETTINGS, against="ground_truth", positive_ratio=1.0)
    rouge = collect(model, RougeScorer(), rows, tmp_path / "rouge", settings, tokenizer=tokenizer)
    assert rouge["ground_truth_score"] == pytest.approx([1.0] * 4) and all(rouge["in_positive"])
    best = RougeScorer().score(summaries=rouge[0]["samples"], sources=[rouge[0]["ground_truth"]] * 3)
    assert [_nan(score) for score in rouge[0]["sample_scores"]] == pytest.approx(best.scores, nan_ok=True)


def test_a_decoder_only_model_is_sampled_by_its_generate(tmp_path: Path) -> None:
    tokenizer = tiny.byte_bpe()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=16, n_layer=1, n_head=2, eos_token_id=2, bos_token_id=0
    )
    settings = replace(SETTINGS, text_format=TextFormat("question: {text}"))
    found = collect(GPT2LMHeadModel(config), WordScorer(), ROWS, tmp_path / "data", settings, tokenizer=tokenizer)
    assert all(len(row["samples"]) == 3 for row in found)


def _train(folder: Path, collector: ConseqCollector | None, **more: Any) -> ConseqTrainer:
    model, tokenizer = tiny.checkpoint("bart")
    args = arguments(folder, optim="adamw_torch", learning_rate=1e-3, per_device_train_batch_size=3, **more)
    trainer = ConseqTrainer(model, args, train_dataset=ROWS, processing_class=tokenizer)
    if collector is not None:
        collector.attach(trainer)
    trainer.train()
    return trainer


def test_the_online_collector_leaves_training_alone(tmp_path: Path) -> None:
    """With dropout: the weights are those of a run without it, bit for bit."""
    settings = {"max_steps": -1, "num_train_epochs": 2}
    scorer = WordScorer()
    collector = ConseqCollector(scorer, tiny.wordpiece(), ROWS, tmp_path / "sets", SETTINGS, every_epoch=True)
    with pytest.raises(ValueError, match="must have collected"):
        collector.dataset()
    watched = _train(tmp_path / "a", collector, **settings)
    plain = _train(tmp_path / "b", None, **settings)
    for name, weights in plain.model.state_dict().items():
        assert torch.equal(weights, watched.model.state_dict()[name]), name
    assert watched.model.training == plain.model.training
    assert sorted(path.name for path in (tmp_path / "sets").iterdir() if path.is_dir()) == ["epoch-1", "epoch-2"]
    assert sum(len(texts) for texts, _ in scorer.calls) == 9 * (3 + 3 + 1)
    assert collector.dataset()["samples"] != Dataset.load_from_disk(str(tmp_path / "sets" / "epoch-1"))["samples"]
    with pytest.raises(FileExistsError, match="a collection of an earlier training"):
        _train(tmp_path / "c", collector, **settings)


def test_an_epoch_that_is_cut_short_has_its_number(tmp_path: Path) -> None:
    collector = ConseqCollector(WordScorer(), tiny.wordpiece(), ROWS, tmp_path / "sets", SETTINGS, every_epoch=True)
    _train(tmp_path / "a", collector, max_steps=1)
    assert sorted(path.name for path in (tmp_path / "sets").iterdir() if path.is_dir()) == ["epoch-1"]


def test_from_training_to_retraining(tmp_path: Path) -> None:
    """The callback's data set is the next trainer's."""
    collector = ConseqCollector(WordScorer(), tiny.wordpiece(), ROWS, tmp_path / "sets", SETTINGS)
    trainer = _train(tmp_path / "a", collector)
    data = collector.dataset()
    state = torch.get_rng_state()
    modes = [module.training for module in trainer.model.train().modules()]
    collect(trainer.model, WordScorer(), ROWS, tmp_path / "more", SETTINGS, tokenizer=tiny.wordpiece())
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in trainer.model.modules()] == modes
    again = ConseqTrainer(
        trainer.model, arguments(tmp_path / "b", per_device_train_batch_size=8), train_dataset=data,
        processing_class=tiny.wordpiece(),
    )  # fmt: skip
    assert len(again.train_dataset) == sum(data["selected"])
    again.train()
    assert again.state.log_history[0]["unlikelihood"] > 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"samples": 0}, "samples: must be an integer of at least 1; got 0"),
        ({"seed": -1}, "seed: must be an integer of at least 0"),
        ({"positive_ratio": 2.0}, "positive_ratio: must be between 0 and 1"),
        ({"against": "source"}, "against: must be 'document' or 'ground_truth'"),
    ],
)
def test_settings_are_checked(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollectionSettings(**setting)


def test_rows_must_be_there(tmp_path: Path) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    with pytest.raises(ValueError, match="ground_truth: must not be empty"):
        collect(model, WordScorer(), ROWS.select([]), tmp_path / "data", SETTINGS, tokenizer=tokenizer)
