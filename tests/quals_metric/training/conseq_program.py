"""What `test_conseq.py` runs in several processes: `conseq_program.py FOLDER JOB.json…`, one update for each job.

A job names the toy architecture, the rows, and the arguments; rank 0 writes `JOB.pt` and `JOB.log.json`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Seq2SeqTrainingArguments

from quals_metric.training.conseq import ConseqTrainer
from tests import tiny


def without_dropout(name: str) -> tuple[Any, Any]:
    """A toy model that computes the same whatever is drawn, and its tokenizer."""
    model, tokenizer = tiny.checkpoint(name)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model, tokenizer


def arguments(folder: Path, **more: Any) -> Seq2SeqTrainingArguments:
    """Plain gradient descent on the CPU, without anything that is not asked for."""
    given: dict[str, Any] = {
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "label_smoothing_factor": 0.1,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return Seq2SeqTrainingArguments(str(folder), **{**given, **more})


def update(folder: Path, job: dict[str, Any]) -> ConseqTrainer:
    """The trainer after its update."""
    model, tokenizer = without_dropout(job["model"])
    data = Dataset.from_list(job["rows"])
    args = arguments(folder / "run", **job["arguments"])
    trainer = ConseqTrainer(model, args, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    return trainer


def main(folder: str, *jobs: str) -> None:
    for job in map(Path, jobs):
        trainer = update(Path(folder), json.loads(job.read_text()))
        if os.environ.get("RANK", "0") == "0":
            torch.save(trainer.accelerator.unwrap_model(trainer.model).state_dict(), job.with_suffix(".pt"))
            job.with_suffix(".log.json").write_text(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Left to the interpreter's end, the threads of the group that the trainer opened may abort the process; and they
    # live as long as anything holds the group, as the trainers' reference cycles do.
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
