"""QUALS of the summaries of a model in training, in the training log.

    QualsCallback(QualsScorer(), dataset=raw["validation"], source_column="document").attach(trainer)

At each evaluation the model in training summarizes a sample of the raw documents. The scores are added to the metrics
that `Trainer.evaluate` returns, which the choice of the best checkpoint, early stopping and plateau schedulers read.
They are also added to the log, which every tracker reads.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from qa_inference.checks import integer_from
from quals_metric.training import trainers
from quals_metric.training.generation import GenerationSettings, generate_summaries
from quals_metric.training.measuring import (
    Measurement,
    MeasuringError,
    OnFailure,
    SummaryScorer,
    check_on_failure,
    log_failure,
    measure,
    stale_metrics,
)
from quals_metric.training.samples import append_samples, drop_samples_after, show_samples
from quals_metric.training.state import left_as_found, release_memory

logger = logging.getLogger(__name__)

SINGLE = "eval"
"""The name of the evaluation set if the trainer has only one."""


class QualsCallback(TrainerCallback):
    """Measures QUALS at each evaluation of a `Trainer` or `Seq2SeqTrainer`, once it is attached to one (`attach`).

    With the trainer's prefix, `eval` or `eval_<name of the evaluation set>`, it reports:

    - `eval_quals`: the mean over the documents whose summary has a score, in nats per token. Higher is better. It is
      NaN if no summary has a score; such a checkpoint is never the best;
    - `eval_quals_undefined_runtime`: the number of documents whose summary has no score;
    - `eval_quals_runtime`: the time of generating and scoring, in seconds;
    - `eval_quals_stale_runtime`: 1 if measuring failed and the values are the last good ones; otherwise it is
      absent.

    The default objective of `Trainer.hyperparameter_search` is the sum of all metrics, but leaves out those that end in
    `_runtime`. It is better to name the objective: `hyperparameter_search(direction="maximize",
    compute_objective=lambda metrics: metrics["eval_quals"])`.

    Only evaluations of the trainer's own sets are measured. `trainer.evaluate(other_set)` is not, because the raw rows
    of that set are not known, and the log says so once. Give such a set a name of its own:
    `datasets={"eval": rows, "test": test_rows}` and `trainer.evaluate(test_set, metric_key_prefix="test")`.

    The training itself is not changed: see `state.left_as_found`. Under DDP every process generates and scores a share.
    A table of the samples goes to `<name>_samples.jsonl` in the output folder, and to TensorBoard, Weights & Biases,
    Comet or trackio where the trainer has them.

    Args:
        scorer: a loaded `QualsScorer`, `QagsScorer` or an object of the same shape; every process needs one.
        dataset: the raw rows of the trainer's evaluation set, in any order: a `datasets.Dataset` or a list of dicts.
        datasets: for a trainer with several evaluation sets, the raw rows of those to measure, by the sets' names.
        source_column: the column with the document's text.
        sample_size: the number of documents of each set to summarize, the same at every evaluation; None: all.
        seed: the seed of the sample.
        name: the start of the keys, after the trainer's prefix; "qags" for QAGS.
        generation: how to generate the summaries; None: with the model's own settings, without sampling.
        tokenizer: the model's tokenizer; None: the trainer's `processing_class`.
        on_failure: "stale": a failure is logged with its cause, the last good values are reported (NaN if there are
            none), and the training continues. "raise": a failure ends the training.
        table_size: the most samples in a tracker's table; the file has all.

    Raises:
        TypeError: unless either `dataset` or `datasets` is given, rows are a sequence, and texts are str.
        ValueError: if a column is missing, a set is empty, or an option has another value than those above.
    """

    def __init__(
        self,
        scorer: SummaryScorer,
        *,
        dataset: Sequence[Mapping[str, Any]] | None = None,
        datasets: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        source_column: str = "document",
        sample_size: int | None = 64,
        seed: int = 0,
        name: str = "quals",
        generation: GenerationSettings | None = None,
        tokenizer: Any = None,
        on_failure: OnFailure = "stale",
        table_size: int = 16,
    ) -> None:
        if (dataset is None) == (datasets is None):
            raise TypeError("dataset: give the raw rows of one evaluation set, or `datasets` of several, not both")
        integer_from(1, or_none=True)("sample_size", sample_size)
        check_on_failure(on_failure)
        rows_by_set = {SINGLE: dataset} if dataset is not None else dict(datasets or {})
        self.texts = {
            name_of_set: _sample_texts(rows, source_column, sample_size, seed)
            for name_of_set, rows in rows_by_set.items()
        }
        self.scorer, self.name, self.tokenizer = scorer, name, tokenizer
        self.generation = generation or GenerationSettings()
        self.on_failure, self.table_size = on_failure, table_size
        self._has_names = datasets is not None
        self._trainer: Any = None
        self._own_sets: dict[str, Any] = {}
        self._evaluated: Any = None
        self._unmeasured: set[str] = set()

    def attach(self, trainer: Any) -> QualsCallback:
        """Put this callback before the trainer's others, so that early stopping finds the metrics; returns itself.

        Raises:
            TypeError: if the model cannot generate, or there is no tokenizer.
            ValueError: if the trainer's settings prefer a lower QUALS (`greater_is_better=False`, a plateau scheduler
                in mode "min"), its evaluation sets have other names, its model is divided among processes (FSDP,
                ZeRO-3, tensor parallelism), or this callback is attached already.
        """
        if self._trainer is not None:
            raise ValueError(
                "trainer: this callback is attached to a trainer already; make another for another trainer"
            )
        trainers.check_model(trainer)
        measured = tuple(self.texts) if self._has_names else ()
        trainers.check_sets(trainer, measured)
        trainers.check_best_metric(trainer, self.name, measured)
        self.tokenizer = self.tokenizer if self.tokenizer is not None else trainer.processing_class
        if self.tokenizer is None:
            raise TypeError(
                "tokenizer: the trainer has none; give it one as `processing_class`, or the callback a `tokenizer`"
            )
        self._trainer = trainer
        self._own_sets = trainers.own_sets(trainer)
        trainers.watch_evaluated_set(trainer, self._note_evaluated)
        trainer.callback_handler.callbacks.insert(0, self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check that there is a trainer; a resumed training removes the samples of the steps that it repeats."""
        self._check_attached()
        if state.global_step and state.is_world_process_zero:
            path = self._samples_path(args)
            try:
                drop_samples_after(path, state.global_step)
            except OSError as error:
                logger.warning("%s: samples of repeated steps are not removed: %s", path, error)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Measure, and put the values into the log and into `metrics`, the dict that `evaluate` returns."""
        self._check_attached()
        metrics = {} if metrics is None else metrics
        prefix = _prefix(metrics)
        evaluated, self._evaluated = self._evaluated, None
        sources = self.texts.get(prefix) or self.texts.get(prefix.removeprefix("eval_"))
        if sources is None:
            known = ", ".join(map(repr, self.texts))
            self._log_unmeasured(
                prefix, f"there are no raw rows for {prefix!r}, only for {known}; give them in `datasets`"
            )
            return
        if prefix in self._own_sets and evaluated is not self._own_sets[prefix]:
            self._log_unmeasured(
                prefix,
                "the evaluated set is not the one that the trainer had at `attach`, whose raw rows are known; name "
                "another set: datasets={'test': rows} and evaluate(set, metric_key_prefix='test')",
            )
            return
        key = f"{prefix}_{self.name}"
        try:
            measured = self._measure(sources)
            values = measured.metrics(key)
        except MeasuringError as error:
            if self.on_failure == "raise":
                raise
            log_failure(key, error)
            measured, values = None, stale_metrics(key, _last_good(state, key), sources, error.seconds)
        if measured is None:
            release_memory()  # here the error is gone, and with its traceback the tensors of the failed attempt
        metrics.update(values)
        self._trainer.log(dict(values))
        if measured is not None and state.is_world_process_zero:
            self._show(measured, prefix, args, state)

    def _measure(self, sources: Sequence[str]) -> Measurement:
        """Summarize and score, then restore the state of the training."""
        model = self._trainer.accelerator.unwrap_model(self._trainer.model, keep_torch_compile=False)

        def summarize(indices: Sequence[int]) -> list[str]:
            documents = [sources[index] for index in indices]
            generated = generate_summaries(model, self.tokenizer, documents, self.generation, seeds=indices)
            return [summaries[0] for summaries in generated]

        with left_as_found(model, self.tokenizer):
            return measure(self.scorer, sources, summarize)

    def _show(self, measured: Measurement, prefix: str, args: Any, state: Any) -> None:
        """Write all samples to the file, and the first ones to the trackers."""
        path = self._samples_path(args)
        try:
            append_samples(path, measured.samples, {"step": state.global_step, "epoch": state.epoch, "set": prefix})
        except OSError as error:
            logger.warning("%s: the samples are not written: %s", path, error)
        title = f"{prefix}_{self.name}_samples".replace("eval_", "eval/", 1)  # as trackers write `eval_quals`
        callbacks = self._trainer.callback_handler.callbacks
        show_samples(callbacks, title, measured.samples[: self.table_size], state.global_step)

    def _samples_path(self, args: Any) -> Path:
        return Path(args.output_dir) / f"{self.name}_samples.jsonl"

    def _check_attached(self) -> None:
        if self._trainer is None:
            raise RuntimeError("QualsCallback: must know its trainer; call .attach(trainer), without `callbacks=[...]`")

    def _note_evaluated(self, dataset: Any) -> None:
        self._evaluated = dataset

    def _log_unmeasured(self, prefix: str, reason: str) -> None:
        """Log once per prefix and reason that an evaluation is not measured."""
        message = f"{prefix}_{self.name} is not measured: {reason}"
        if message not in self._unmeasured:
            self._unmeasured.add(message)
            logger.warning("%s", message)


def _sample_texts(rows: Any, column: str, size: int | None, seed: int) -> list[str]:
    """The texts of a seeded sample of the rows, in the rows' order."""
    if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__") or isinstance(rows, Mapping | str):
        raise TypeError(
            f"dataset: must be a datasets.Dataset or a list of dicts; got {type(rows).__name__}. Make a stream a list"
        )
    if not len(rows):
        raise ValueError("dataset: must not be empty; got 0 rows")
    indices = list(range(len(rows)))
    if size is not None and size < len(rows):
        indices = sorted(np.random.default_rng(seed).choice(len(rows), size, replace=False).tolist())
    return [_document_text(rows[index], column, index) for index in indices]


def _document_text(row: Mapping[str, Any], column: str, index: int) -> str:
    """The text of one row."""
    if column not in row:
        raise ValueError(f"source_column: must be one of {', '.join(map(repr, row))}; got {column!r}")
    text = row[column]
    if not isinstance(text, str):
        raise TypeError(f"dataset[{index}][{column!r}]: must be str; got {type(text).__name__} ({text!r:.40})")
    return text


def _prefix(metrics: Mapping[str, float]) -> str:
    """The trainer's prefix, from its own key `<prefix>_runtime`, the shortest of the keys with that end."""
    runtimes = [key.removesuffix("_runtime") for key in metrics if key.endswith("_runtime")]
    return min(runtimes, key=len, default=SINGLE)


def _last_good(state: Any, key: str) -> dict[str, float] | None:
    """The last measured and defined values in the log, which a resumed training reads from its checkpoint."""
    for entry in reversed(state.log_history):
        is_measured = f"{key}_undefined_runtime" in entry and f"{key}_stale_runtime" not in entry
        if is_measured and not math.isnan(entry[key]):
            return dict(entry)
    return None
