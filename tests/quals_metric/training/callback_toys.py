"""Toy trainings with a toy scorer, for the tests of the callback and the programs they start."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DataCollatorForSeq2Seq,
    GPT2Config,
    GPT2LMHeadModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from quals_metric.result import PairScore, QualsResult, SummaryScore
from quals_metric.training import GenerationSettings
from tests import tiny

ROWS = [{"document": text, "summary": " ".join(text.split()[:4])} for text in tiny.CORPUS * 2]
SHORT = GenerationSettings(max_new_tokens=6, batch_size=2)


class ToyScorer:
    """Scores a summary by its length, undefined if that is a multiple of five; draws from every random generator."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], list[str]]] = []

    def score(self, *, summaries: Sequence[str], sources: Sequence[str]) -> QualsResult:
        self.calls.append((list(summaries), list(sources)))
        random.random(), np.random.rand(3), torch.rand(3)
        return QualsResult(tuple(map(self._one, summaries)), "toy")

    def _one(self, summary: str) -> SummaryScore:
        if len(summary) % 5 == 0:
            return SummaryScore(math.nan, (), "no pair kept")
        pairs = [
            PairScore("what | is it?", "<b>it", 0, 1, -len(summary) / 10 + shift, ("a",), (0.0,), (0.0,))
            for shift in (0.5, -0.5)
        ]
        return SummaryScore(-len(summary) / 10, tuple(pairs))


class ScriptedScorer:
    """Gives the scores of a list, one a call; an exception in it is raised, and its last entry stands for the rest."""

    def __init__(self, *script: float | Exception) -> None:
        self.script = list(script)

    def score(self, *, summaries: Sequence[str], sources: Sequence[str]) -> QualsResult:
        value = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(value, Exception):
            raise value
        return QualsResult(tuple(SummaryScore(value, ()) for _ in summaries), "scripted")


def tokenized(rows: Sequence[dict[str, str]], tokenizer: Any) -> list[dict[str, list[int]]]:
    """What a trainer trains on."""
    return [
        {
            "input_ids": tokenizer(row["document"], truncation=True, max_length=32)["input_ids"],
            "labels": tokenizer(row["summary"])["input_ids"],
        }
        for row in rows
    ]


def trainer(folder: Path, name: str = "bart", *, eval_dataset: Any = None, more: Any = None, **settings: Any) -> Any:
    """A Seq2SeqTrainer of a toy model: four steps over eight rows, evaluated after every second."""
    model, tokenizer = tiny.checkpoint(name)
    arguments = {
        "output_dir": str(folder), "max_steps": 4, "per_device_train_batch_size": 2, "eval_strategy": "steps",
        "eval_steps": 2, "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True, "seed": 3,
        "dataloader_pin_memory": False, "learning_rate": 1e-3, "logging_steps": 2,
    } | settings  # fmt: skip
    data = tokenized(ROWS, tokenizer)
    return Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(**arguments),
        train_dataset=data,
        eval_dataset=data[:4] if eval_dataset is None else eval_dataset,
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        **(more or {}),
    )


def gpt2() -> tuple[Any, Any]:
    """A decoder-only toy whose tokenizer, like GPT-2's own, has no padding token."""
    tokenizer = tiny.byte_bpe()
    tokenizer.pad_token = None
    torch.manual_seed(5)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=2,
        initializer_range=0.3, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config), tokenizer


def entries(state: Any, key: str = "eval_quals") -> list[Any]:
    """What the log has under a key."""
    return [entry[key] for entry in state.log_history if key in entry]
