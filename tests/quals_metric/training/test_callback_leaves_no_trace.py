"""A training with the callback ends as one that evaluates at the same steps without it: bit for bit, on a CPU."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

import quals_metric
from quals_metric.training import GenerationSettings, QualsCallback, state
from tests import PATIENCE
from tests.quals_metric.training import callback_toys as toys
from tests.quals_metric.training.callback_toys import ROWS, SHORT, ScriptedScorer, ToyScorer

PROGRAM = Path(__file__).with_name("callback_program.py")
SAMPLED = GenerationSettings(max_new_tokens=4, do_sample=True)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def train(folder: Path, scorer: Any = None, generation: GenerationSettings = SHORT, **settings: Any) -> Any:
    trainer = toys.trainer(folder, **settings)
    if scorer is not None:
        QualsCallback(scorer, dataset=ROWS[:3], generation=generation).attach(trainer)
    trainer.train()
    return weights(trainer.model)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"name": "t5"},
        {"gradient_accumulation_steps": 2},
        {"activation_checkpointing": True},
        {"gradient_accumulation_steps": 2, "activation_checkpointing": True, "eval_steps": 1},
        {"predict_with_generate": True},
    ],
    ids=["plain", "t5", "accumulation", "checkpointing", "both", "generate"],
)
def test_the_weights_are_those_without_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    without = train(tmp_path / "a", **settings)
    assert same(without, train(tmp_path / "b", ToyScorer(), **settings))
    assert same(without, train(tmp_path / "c", ScriptedScorer(LookupError("gone")), SAMPLED, **settings))


def test_this_would_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training draws from the generators: were they not put back, the weights would differ."""
    without = train(tmp_path / "a")
    monkeypatch.setattr(state, "_random_generators", lambda: lambda: None)
    assert not same(without, train(tmp_path / "b", ToyScorer()))


def test_a_decoder_only_model(tmp_path: Path) -> None:
    found = []
    for scorer in (None, ToyScorer()):
        model, tokenizer = toys.gpt2()
        model.config.resid_pdrop = model.config.attn_pdrop = 0.1
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        tokenizer.pad_token = "<pad>"
        tokenizer.padding_side = "right"
        data = [{"input_ids": tokenizer(row["document"], truncation=True, max_length=32)["input_ids"]} for row in ROWS]
        arguments = TrainingArguments(
            output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=2, eval_strategy="steps", eval_steps=2,
            save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        trainer = Trainer(
            model=model, args=arguments, train_dataset=data, eval_dataset=data, processing_class=tokenizer,
            data_collator=collator,
        )  # fmt: skip
        if scorer is not None:
            generation = GenerationSettings(max_new_tokens=6, template="{text}\nTL;DR:")
            rows = [{"document": text} for text in ("Klitschko", "Anthony Joshua beat him.")]
            QualsCallback(scorer, dataset=rows, generation=generation).attach(trainer)
        trainer.train()
        found.append(weights(model))
        assert tokenizer.padding_side == "right"
    assert same(*found)
    assert len(scorer.calls) == 2
    assert all("TL;DR" not in summary and "Klitschko" not in summary for summary in scorer.calls[0][0])


def test_resuming(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From a checkpoint to the same weights; a failure after it reports the value from before it."""
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = train(tmp_path / "whole", ToyScorer(), **settings)
    first = toys.trainer(tmp_path / "parts", **settings)
    QualsCallback(ScriptedScorer(-0.25), dataset=ROWS[:3], generation=SHORT).attach(first)
    first.train()
    again = toys.trainer(tmp_path / "parts", **settings)
    QualsCallback(ScriptedScorer(LookupError("gone")), dataset=ROWS[:3], generation=SHORT).attach(again)
    with caplog.at_level(logging.ERROR):
        again.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert same(whole, weights(again.model))
    (entry,) = (entry for entry in again.state.log_history if "eval_quals_stale_runtime" in entry)
    assert entry["eval_quals"] == -0.25 and entry["step"] == 4


def test_two_processes(tmp_path: Path) -> None:
    """DDP: the same metrics and weights on both, those of the training without it; summaries are shared out."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(PROGRAM)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(quals_metric.__file__).parents[1])}
    subprocess.run([*command, str(tmp_path)], env=environment, check=True, timeout=PATIENCE)
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one["log"] == two["log"] and one["evaluated"] == two["evaluated"]
    assert one["weights"] == two["weights"] == one["weights_without"]
    lines = [json.loads(line) for line in (tmp_path / "with" / "quals_samples.jsonl").read_text().splitlines()]
    last = lines[-5:]
    assert [row["source"] for row in last] == [row["document"] for row in ROWS[:5]]
    assert [calls[-1][0] for calls in (one["calls"], two["calls"])] == [
        [row["summary"] for row in last[rank::2]] for rank in range(2)
    ]
    scores = [row["score"] for row in last if row["score"] is not None]
    assert one["evaluated"]["eval_quals"] == pytest.approx(np.mean(scores))
    assert one["evaluated"]["eval_quals_undefined_runtime"] == 5 - len(scores)
    # One document, two processes; and a failure on one of them is a failure on both.
    assert one["single"] == two["single"] and one["single"]["eval_quals_undefined_runtime"] in (0, 1)
    assert one["failed"] == two["failed"] and one["failed"]["eval_quals_stale_runtime"] == "1"
    assert "rank 1 raised LookupError: gone" in one["raised"] and one["raised"] == two["raised"]
    # The trainer's own summaries, more than there are documents: the last batch is filled up with the first.
    assert one["predicted"] == two["predicted"]
    assert [len(calls) for calls in (one["predicted_calls"], two["predicted_calls"])] == [3, 2]
    assert one["predicted_calls"] == [row["document"] for row in ROWS[:5:2]]
