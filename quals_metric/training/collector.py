"""Collects the data set of CONSEQ's retraining: samples of every training document, their scores, the selection.

    collector = ConseqCollector(QualsScorer(), tokenizer, rows, "collected").attach(trainer)
    trainer.train()  # the data set is then in collected/final
    ConseqTrainer(model, args, train_dataset=collector.dataset(), processing_class=tokenizer).train()

or, from a finished checkpoint, `collect("my/summarizer", QualsScorer(), rows, "collected/final")`.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from accelerate.utils import extract_model_from_parallel
from datasets import Dataset, load_from_disk
from transformers import TrainerCallback

from quals_metric.training.candidates import CollectionSettings, Sampler
from quals_metric.training.collection import collect, read_columns
from quals_metric.training.state import left_as_found
from quals_metric.training.trainers import check_model

logger = logging.getLogger(__name__)


class ConseqCollector(TrainerCallback):
    """Collects with the current model at the end of a training, or of each of its epochs.

    The data set is saved in `folder/final` or, with `every_epoch` (the online variant), in `folder/epoch-N`, each with
    other draws. All processes share the work. The training itself is not changed.

    Args:
        scorer: see `collect`.
        tokenizer: the model's tokenizer.
        rows: the training documents, as text: the columns `document` and `ground_truth`.
        folder: the folder of the data sets; it is made if it does not exist.
        settings: how to collect; None: the defaults.
        every_epoch: whether to collect at the end of every epoch instead of the end of the training.
        on_failure: "log": a failed collection is logged with its cause, and the training ends as usual. The error of
            `dataset` then shows the call that continues the collection. "raise": a failure ends the training.

    Raises:
        ValueError: if `on_failure` has another value.
    """

    def __init__(
        self,
        scorer: Any,
        tokenizer: Any,
        rows: Any,
        folder: str | os.PathLike[str],
        settings: CollectionSettings | None = None,
        *,
        every_epoch: bool = False,
        on_failure: Literal["log", "raise"] = "log",
    ) -> None:
        if on_failure not in ("log", "raise"):
            raise ValueError(f"on_failure: must be 'log' or 'raise'; got {on_failure!r}")
        self.on_failure = on_failure
        self.scorer, self.tokenizer, self.rows, self.every_epoch = scorer, tokenizer, rows, every_epoch
        self.folder, self.settings = Path(folder), settings or CollectionSettings()
        self._latest: Path | None = None
        self._failure, self._is_checked = "", False

    def attach(self, trainer: Any) -> ConseqCollector:
        """Add this to a trainer. Everything that a collection needs is checked here, hours before it begins.

        The model samples one document as a test. Afterwards all random generators are restored.

        Raises:
            TypeError: if the model cannot generate, rows or texts have another type than `collect` takes, or the
                scorer has no `score` that takes `spread`.
            ValueError: if a column is missing, there are no rows, or the model cannot sample as the settings ask.
            OSError: if the folder cannot be made or written to.
        """
        check_model(trainer)
        self._check(trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False))
        trainer.add_callback(self)
        return self

    def _check(self, model: Any) -> None:
        """Check the scorer, the rows, the settings and the folder; see `attach` for the errors."""
        _check_scorer(self.scorer)
        documents, _ = read_columns(self.rows)
        with left_as_found(model, self.tokenizer):
            Sampler(model, self.tokenizer, self.settings, "expanded").sample([(documents[0], 0)], spread=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass  # the folder is writable
        self._is_checked = True

    def dataset(self) -> Dataset:
        """The latest collection. Raises ValueError if there is none yet, or the latest has failed."""
        if self._failure:
            raise ValueError(self._failure)
        if self._latest is None:
            raise ValueError("collector: must have collected; call `trainer.train()` first")
        return load_from_disk(str(self._latest))

    def on_train_begin(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """Refuse a folder with another training's collections before the training instead of after it."""
        if not self._is_checked:  # passed in `callbacks=[...]`
            self._check(extract_model_from_parallel(about["model"]))
        first = self.folder / ("epoch-1" if self.every_epoch else "final")
        if state.global_step == 0 and first.exists():
            raise FileExistsError(
                f"{first}: must not exist before the training; it is a collection of an earlier training. Name another "
                f"folder, or delete it"
            )

    def on_epoch_end(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """See `TrainerCallback`."""
        if self.every_epoch:
            epoch = math.ceil(state.epoch - 1e-6)  # the last epoch may end early, at `max_steps`
            self._collect(about["model"], f"epoch-{epoch}", replace(self.settings, seed=self.settings.seed + epoch))

    def on_train_end(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """See `TrainerCallback`."""
        if not self.every_epoch:
            self._collect(about["model"], "final", self.settings)

    def _collect(self, model: Any, name: str, settings: CollectionSettings) -> None:
        output = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            bare = extract_model_from_parallel(model)
            collect(bare, self.scorer, self.rows, output, settings, tokenizer=self.tokenizer, spread=True)
        except Exception as error:
            if self.on_failure == "raise":
                raise
            self._failure = self._advice(output, settings, error)
            logger.warning("%s", self._failure, exc_info=error)
        else:
            self._latest, self._failure = output, ""

    def _advice(self, output: Path, settings: CollectionSettings, error: Exception) -> str:
        """The cause of a failure, and what to do about it."""
        cause = f"{output}: the collection failed ({type(error).__name__}: {error})"
        if output.is_dir():  # every process sees it, while only one of them has the error of the folder
            return (
                f"{cause}. An earlier collection is kept: load it with load_from_disk({str(output)!r}). To collect "
                f"with this model, save it, delete the folder, and call {_call(output, settings, self.settings)}"
            )
        return (
            f"{cause}. Finished shards are kept. Save the model, and continue with "
            f"{_call(output, settings, self.settings)}"
        )


def _call(output: Path, settings: CollectionSettings, of_user: CollectionSettings) -> str:
    """The call that makes a collection; an epoch's seed differs from that of the user's settings."""
    shown = "settings" if settings == of_user else f"dataclasses.replace(settings, seed={settings.seed})"
    return f"collect(model, scorer, rows, {str(output)!r}, {shown}, tokenizer=tokenizer)"


def _check_scorer(scorer: Any) -> None:
    """Raise TypeError unless a scorer's `score` can be called as a collection calls it."""
    score = getattr(scorer, "score", None)
    if not callable(score):
        raise TypeError(f"scorer: must have a `score`; got {type(scorer).__name__}")
    try:
        inspect.signature(score).bind(summaries=[], sources=[], spread=True)
    except TypeError as error:
        raise TypeError(
            f"scorer: its `score` must take summaries, sources and spread by name; got {type(scorer).__name__} "
            f"({error})"
        ) from error
