"""Collects the data set of CONSEQ's retraining: samples of every training document, their scores, the selection.

    collector = ConseqCollector(QualsScorer(), tokenizer, rows, "collected").attach(trainer)
    trainer.train()  # the data set is then in collected/final
    ConseqTrainer(model, args, train_dataset=collector.dataset(), processing_class=tokenizer).train()

or, from a finished checkpoint, `collect("my/summarizer", QualsScorer(), rows, "collected/final")`.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import extract_model_from_parallel
from datasets import Dataset, load_from_disk
from transformers import TrainerCallback

from quals_metric.training.candidates import CollectionSettings
from quals_metric.training.collection import collect
from quals_metric.training.trainers import check_model


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
    ) -> None:
        self.scorer, self.tokenizer, self.rows, self.every_epoch = scorer, tokenizer, rows, every_epoch
        self.folder, self.settings = Path(folder), settings or CollectionSettings()
        self._latest: Path | None = None

    def attach(self, trainer: Any) -> ConseqCollector:
        """Add this to a trainer. Raises TypeError or ValueError if the trainer's model cannot generate."""
        check_model(trainer)
        trainer.add_callback(self)
        return self

    def dataset(self) -> Dataset:
        """The latest collection. Raises ValueError if there is none yet."""
        if self._latest is None:
            raise ValueError("collector: must have collected; call `trainer.train()` first")
        return load_from_disk(str(self._latest))

    def on_train_begin(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """Refuse a folder with another training's collections before the training instead of after it."""
        first = self.folder / ("epoch-1" if self.every_epoch else "final")
        if state.global_step == 0 and first.exists():
            raise FileExistsError(
                f"{first}: there is a collection of an earlier training, and it is kept. Name another folder, or "
                f"delete it"
            )

    def on_epoch_end(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """See `TrainerCallback`."""
        if self.every_epoch:
            epoch = math.ceil(state.epoch - 1e-6)  # the last may end early, at `max_steps`
            self._collect(about["model"], f"epoch-{epoch}", replace(self.settings, seed=self.settings.seed + epoch))

    def on_train_end(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """See `TrainerCallback`."""
        if not self.every_epoch:
            self._collect(about["model"], "final", self.settings)

    def _collect(self, model: Any, name: str, settings: CollectionSettings) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        bare = extract_model_from_parallel(model)
        collect(bare, self.scorer, self.rows, self.folder / name, settings, tokenizer=self.tokenizer, spread=True)
        self._latest = self.folder / name
