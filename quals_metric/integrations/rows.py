"""Scores for batches of rows, inside the engines that spread them: `datasets.map`, Ray Data, Spark and Dask.

    ray.data.read_parquet("summaries").map_batches(
        QualsRows, fn_constructor_args=(QualsConfig(),), batch_format="pyarrow", batch_size=256, concurrency=8
    ).write_parquet("scores")

This file imports none of these libraries. Each calls a function or an object with a batch of columns.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_inference import __version__
from qa_inference.calibration import calibration_digest
from qa_inference.metric_base.key import fingerprint
from qa_inference.metric_base.options import ModelOptions, as_config
from qa_inference.metric_base.texts import check_texts
from quals_metric.metrics import metric_spec

if TYPE_CHECKING:
    import pyarrow as pa

_ONE_AT_A_TIME = threading.Lock()  # the threads of a process (Dask, Ray) share its scorer


@lru_cache(maxsize=2)
def _scorer(metric: str, config: ModelOptions) -> Any:
    """The scorer of this process."""
    return metric_spec(metric).load_scorer(**vars(config))


class QualsRows:
    """Adds the scores to a batch of rows. The model is loaded once in every process, with the first batch.

    An object is small, can be pickled and loads nothing when it is made. A batch is a dict of columns (lists or
    arrays), a pandas DataFrame, or an Arrow table or record batch. The result is of the same kind. It has the columns
    of the batch and those of `schema`: `score` and `score_01` (undefined: NaN; null in Arrow), with a calibration
    `probability`, `num_pairs` (of QAGS `num_questions`), `note`, and `signature`. Rows keep their order. A batch may be
    empty.

    Args:
        config: the options of the metric, or the name of a model; None: the defaults.
        metric: the metric, "quals" or "qags".
        summary_column: the column with the texts to judge.
        source_column: the column with the texts they were written from.
        prefix: the beginning of the names of the added columns, for example "qags_" if the rows have scores already.

    Raises:
        TypeError: if `config` is no configuration of the metric.
        ValueError: if there is no such metric, model or floating-point type.
        ImportError: if something that the metric or its model needs is not installed.
    """

    def __init__(
        self,
        config: ModelOptions | str | None = None,
        metric: str = "quals",
        *,
        summary_column: str = "summary",
        source_column: str = "source",
        prefix: str = "",
    ) -> None:
        spec = metric_spec(metric)
        self.config, self.metric = as_config(config, spec.config_type()), metric
        spec.check(self.config)
        self.summary_column, self.source_column, self.prefix = summary_column, source_column, prefix

    @property
    def schema(self) -> pa.Schema:
        """The added columns with their Arrow types."""
        import pyarrow as pa

        types = {float: pa.float64(), int: pa.int64(), str: pa.string()}
        calibrated = self.config.calibration is not None
        columns = metric_spec(self.metric).summary_type().columns(pairs=False, calibrated=calibrated)
        return pa.schema(
            [(f"{self.prefix}{name}", types[kind]) for name, kind in (columns | {"signature": str}).items()]
        )

    def __getstate__(self) -> dict[str, Any]:
        """The arguments, with digests of what they name: `datasets` takes this for the identity of a function.

        These are of the weights in a folder and of a calibration file. The version stands for what ships.
        """
        models = (Path(getattr(self.config, option)) for option in metric_spec(self.metric).presets)
        digests = [__version__, *(fingerprint(folder) for folder in models if folder.is_dir())]
        if digest := calibration_digest(self.config.calibration):
            digests.append(digest)
        return vars(self) | {"digests": digests}

    def __call__(self, batch: Any, rank: int | None = None) -> Any:
        """The batch with the scores.

        Args:
            batch: a dict of columns, a DataFrame, a Table or a RecordBatch.
            rank: the number of the process, as `datasets.map(with_rank=True)` gives it. Process number n uses GPU n,
                modulo the number of GPUs, unless the configuration names a device.

        Raises:
            TypeError: if the batch is of another kind, or a text is not a str.
            ValueError: if a column is missing, or an added column has the name of another.
        """
        import pandas as pd
        import pyarrow as pa

        is_arrow = isinstance(batch, pa.Table | pa.RecordBatch)
        if not isinstance(batch, Mapping | pd.DataFrame) and not is_arrow:
            raise TypeError(
                f"batch: must be a dict of columns, a pandas DataFrame or an Arrow table; got {type(batch).__name__}"
            )
        self._check_names(batch.schema.names if is_arrow else list(batch))
        added = self._score(batch[self.summary_column], batch[self.source_column], rank)
        if is_arrow:
            for field in self.schema:
                batch = batch.append_column(field, pa.array(added[field.name], field.type, from_pandas=True))
            return batch
        return batch.assign(**added) if isinstance(batch, pd.DataFrame) else {**batch, **added}

    def _check_names(self, names: Sequence[str]) -> None:
        """Raise ValueError unless the columns are there and the added ones are new."""
        for argument in ("summary_column", "source_column"):
            if (name := getattr(self, argument)) not in names:
                raise ValueError(f"{argument}: must be a column of the rows; got {name!r}, and the columns are {names}")
        if taken := [name for name in self.schema.names if name in names]:
            raise ValueError(
                f"prefix: must keep the added columns apart from those of the rows; these have {taken} already. Set "
                f"another one, for example QualsRows(prefix='{self.metric}_')"
            )

    def _score(self, summaries: Any, sources: Any, rank: int | None) -> dict[str, list[Any]]:
        """The added columns of two columns of texts."""
        if not len(summaries):
            return {name: [] for name in self.schema.names}
        summaries, sources = check_texts(summaries, sources, (self.summary_column, self.source_column))
        with _ONE_AT_A_TIME:
            result = _scorer(self.metric, self._config_of(rank)).score(summaries=summaries, sources=sources)
        rows = [[*summary.row(pairs=False).values(), result.signature] for summary in result.summaries]
        return dict(zip(self.schema.names, map(list, zip(*rows, strict=True)), strict=True))

    def _config_of(self, rank: int | None) -> ModelOptions:
        """The configuration with the device of a process."""
        import torch

        gpus = torch.cuda.device_count()
        if rank is None or self.config.device is not None or not gpus:
            return self.config
        return replace(self.config, device=f"cuda:{rank % gpus}")
