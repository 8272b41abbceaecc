"""A table of samples for people: in a file of JSON lines, and in the trackers that the run uses."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from qa_inference.metric_base.results import json_ready
from quals_metric.files import durable
from quals_metric.metrics import first_characters, markdown_cell
from quals_metric.training.measuring import Sample

logger = logging.getLogger(__name__)

COLUMNS = ["source", "summary", "score", "worst question", "worst answer", "worst score"]
CELL = 400
"""The most characters of a text in a tracker's table; the file has the whole text."""


def append_samples(path: Path, samples: Iterable[Sample], moment: dict[str, Any]) -> None:
    """Add one line per sample to a file of JSON lines; each line begins with `moment` (step, epoch, evaluation set).

    Undefined scores are null. A last line that was not written whole is removed first. Raises OSError if the file
    cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(moment | json_ready(asdict(sample)), ensure_ascii=False) + "\n" for sample in samples]
    _remove_torn_line(path)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(lines))


def _remove_torn_line(path: Path) -> None:
    """Cut a file after its last line feed: a process that is killed may write a part of a line."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start, kept = end, 0
        while start and not kept:
            size = min(start, 1 << 16)
            start = file.seek(start - size)
            kept = file.read(size).rfind(b"\n") + 1
        if start + kept < end:
            file.truncate(start + kept)


def drop_samples_after(path: Path, step: int) -> None:
    """Remove the samples of later steps, which a training resumed at `step` measures again; other lines stay.

    Raises OSError if the file cannot be read or written.
    """
    if not path.exists():
        return
    _remove_torn_line(path)
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        durable.write_file(path, b"".join(kept))


def _step_of(line: bytes) -> int:
    """The step of a sample; 0 for a line that is no sample."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return 0
    return step if isinstance(step, int) else 0


def show_samples(callbacks: Iterable[Any], title: str, samples: Sequence[Sample], step: int) -> None:
    """Send a table to TensorBoard, Weights & Biases, Comet and trackio, where the trainer has a callback for them.

    A tracker that fails is logged and does not end the training.
    """
    integrations: Any = import_module("transformers.integrations")
    trackers = (
        (integrations.TensorBoardCallback, _to_tensorboard),
        (integrations.WandbCallback, _to_wandb),
        (integrations.CometCallback, _to_comet),
        (integrations.TrackioCallback, _to_trackio),
    )
    rows = [_table_row(sample) for sample in samples]
    for callback in callbacks:
        for kind, show in trackers:
            if isinstance(callback, kind):
                try:
                    show(callback, title, rows, step)
                except Exception as error:
                    logger.warning("%s did not take the table %r: %s", kind.__name__, title, error)


def _table_row(sample: Sample) -> list[Any]:
    """One row of `COLUMNS`; undefined numbers are None, long texts are cut."""
    texts = (sample.source, sample.summary, sample.worst_question, sample.worst_answer)
    source, summary, question, answer = (first_characters(text, CELL) for text in texts)
    score, worst = (None if math.isnan(value) else round(value, 3) for value in (sample.score, sample.worst_score))
    return [source, summary, score, question, answer, worst]


def _to_tensorboard(callback: Any, title: str, rows: Sequence[Sequence[Any]], step: int) -> None:
    """A Markdown table in the text tab."""
    if callback.tb_writer is None:
        return  # no training runs
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([markdown_cell(value) for value in row] for row in rows)]
    callback.tb_writer.add_text(title, "\n".join(f"| {' | '.join(line)} |" for line in lines), step)
    callback.tb_writer.flush()


def _to_wandb(callback: Any, title: str, rows: Sequence[Sequence[Any]], step: int) -> None:
    """A wandb Table at this global step."""
    if callback._wandb is None or callback._wandb.run is None:
        return
    table = callback._wandb.Table(columns=COLUMNS, data=[list(row) for row in rows])
    callback._wandb.log({title: table, "train/global_step": step})


def _to_comet(callback: Any, title: str, rows: Sequence[Sequence[Any]], step: int) -> None:
    """A CSV table among the experiment's assets."""
    if callback._experiment is None:
        return
    filename = f"{title.replace('/', '_')}_{step}.csv"
    callback._experiment.log_table(filename, tabular_data=[list(row) for row in rows], headers=COLUMNS)


def _to_trackio(callback: Any, title: str, rows: Sequence[Sequence[Any]], step: int) -> None:
    """A trackio Table at this global step."""
    if not callback._initialized:
        return  # no training runs
    table = callback._trackio.Table(columns=COLUMNS, data=[list(row) for row in rows])
    callback._trackio.log({title: table, "train/global_step": step})
