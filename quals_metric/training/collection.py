"""A collection: samples of every training document, their scores and the selection, saved as a data set."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from datasets import Dataset, Features, List, Value, load_from_disk

from qa_inference.distributed import hash_tensors, on_first_rank
from qa_inference.metric_base.texts import check_texts
from qa_inference.models.decoder_only import DecoderOnly, is_decoder_only
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.shared_rows import Sharing
from quals_metric.files import durable
from quals_metric.files.scored_files import sidecar
from quals_metric.files.shards import Job, Plan, WorkFolder, digest, published
from quals_metric.files.tables import Row
from quals_metric.training.candidates import CollectionSettings, Sampler, ScoredDocument, score_documents
from quals_metric.training.selection import reselect
from quals_metric.training.state import left_as_found

logger = logging.getLogger(__name__)

ENDING = ".jsonl"
FEATURES = Features(
    {
        "document": Value("string"),
        "ground_truth": Value("string"),
        "samples": List(Value("string")),
        "sample_scores": List(Value("float64")),
        "ground_truth_score": Value("float64"),
    }
)

Result = TypeVar("Result")


def collect(
    model: Any,
    scorer: Any,
    rows: Any,
    output: str | os.PathLike[str],
    settings: CollectionSettings | None = None,
    *,
    tokenizer: Any = None,
    spread: bool = False,
) -> Dataset:
    """Sample, score and select, save the result as a data set, and return it.

    Finished shards lie in `OUTPUT.unfinished` until the collection is complete. The same call continues a collection
    that was killed, and only reads a complete one. The scores of the ground truths are kept in the folder of `output`
    (`ground_truths-….jsonl`) for every further collection of the same rows with the same scorer. `OUTPUT.meta.json`
    has the signature and the counts.

    Args:
        model: a checkpoint's folder or Hub name; or a model. Afterwards the model and all random generators are as
            before.
        scorer: `QualsScorer`, or an object with the same `signature` and `score` (and its argument `spread`, if used).
        rows: a data set, or a list of dicts, with the columns `document` and `ground_truth`.
        output: the folder to save to; all processes must see it.
        settings: how to collect; None: the defaults.
        tokenizer: the tokenizer of a model that is not a name.
        spread: False: this process does all the work. True: all processes must call, and they share the work.

    Returns:
        One row per document: `document`, `ground_truth`, `samples`, `sample_scores`, `ground_truth_score` (None:
        undefined) and the columns of `selection.reselect`.

    Raises:
        FileExistsError: if `output` exists and is another collection.
        TypeError: if `rows` is neither a data set nor a list of dicts, or a text is not a str.
        ValueError: if there are no rows, a column is missing, or an unfinished collection of the same name differs
            from this one.
        OSError: if a file cannot be read or written; finished shards stay.
    """
    settings, output = settings or CollectionSettings(), Path(output)
    sharing: Sharing = "expanded"  # a model in training keeps its own attention
    if isinstance(model, str | os.PathLike):
        name = os.fspath(model)
        loaded = (DecoderOnly if is_decoder_only(name) else EncoderDecoder).load(name, sharing="expanded")
        model, tokenizer, sharing = loaded.model, loaded.text.tokenizer, "auto"
    elif tokenizer is None:
        raise ValueError("tokenizer: must be given with a model; got None")
    with left_as_found(model, tokenizer):
        _Collection(model, tokenizer, scorer, rows, output, settings, spread, sharing).run()
    return load_from_disk(str(output))


@dataclass
class _Collection:
    """One call of `collect`."""

    model: Any
    tokenizer: Any
    scorer: Any
    rows: Any
    output: Path
    settings: CollectionSettings
    spread: bool
    sharing: Sharing

    def __post_init__(self) -> None:
        self.documents, self.ground_truths = read_columns(self.rows)
        self.signature = getattr(self.scorer, "signature", type(self.scorer).__name__)
        size, count = self.settings.shard_rows, len(self.documents)
        self.shards = [range(start, min(start + size, count)) for start in range(0, count, size)]
        self.work = WorkFolder(self.output)

    def run(self) -> None:
        """Make the missing shards and publish the collection. Only rank 0 uses the disk; all ranks raise its errors."""
        job, missing = self._on_first(self._begin)
        if missing is None:
            return
        known = self._on_first(self._read_ground_truths)
        sampler = Sampler(self.model, self.tokenizer, self.settings, self.sharing)
        for number in missing:
            rows = self.shards[number]
            documents = [self.documents[row] for row in rows]
            samples = sampler.sample(list(zip(documents, rows, strict=True)), spread=self.spread)
            truths = [self.ground_truths[row] for row in rows]
            known_here = None if known is None else [known[row] for row in rows]
            scored = score_documents(
                self.scorer, documents, truths, samples, known_here, self.settings, spread=self.spread
            )
            if self._on_first(partial(self._write_shard, job, number, scored)):
                return
        self._on_first(partial(self._publish, job))

    def _begin(self) -> tuple[Job, list[int] | None]:
        """The job, and the numbers of the missing shards; None instead of numbers: the collection is published."""
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise durable.explained(
                error, f"{self.output.parent} cannot be made; the collection belongs there"
            ) from error
        job = self._job()
        if self.output.exists():
            if self._is_published(job):
                self.work.remove()
                return job, None
            raise FileExistsError(
                f"{self.output}: must be a collection of the same weights, texts and settings; it is not. "
                f"Name another folder, or delete it"
            )
        self.work.claim(job, joins=True)
        finished = self.work.finished(job, ENDING)
        missing = [number for number in range(len(self.shards)) if number not in finished]
        for number in finished:
            try:
                durable.read_sealed(self.work.shard(job, number, ENDING), len(self.shards[number]))
            except ValueError as error:
                logger.warning("%s; its documents are sampled and scored again", error)
                missing.append(number)
        return job, sorted(missing)

    def _is_published(self, job: Job) -> bool:
        """Whether this collection is complete, perhaps by another process that was started on the same output."""
        return self.output.exists() and published(self.output) == job.key

    def _job(self) -> Job:
        """The work to do, with everything that the result depends on."""
        digests = [
            digest([Row(self.ground_truths[row], self.documents[row], f"row {row}") for row in rows])
            for rows in self.shards
        ]
        plan = Plan(tuple(digests), len(self.documents), self.settings.shard_rows, "")
        settings = asdict(self.settings)
        del settings["shard_rows"], settings["token_budget"]  # They change no score. The plan has the first.
        weights = hashlib.sha256()
        hash_tensors(weights, sorted(self.model.state_dict().items()))
        return Job(plan, {"scorer": self.signature, "weights": weights.hexdigest()[:16], **settings})

    @property
    def _kept(self) -> Path:
        """The file of the ground truths' scores; its name has a digest of everything that they depend on."""
        key = hashlib.sha256(json.dumps([self.signature, self.settings.against]).encode())
        for texts in (self.documents, self.ground_truths):
            key.update(json.dumps(texts).encode())
        return self.output.parent / f"ground_truths-{key.hexdigest()[:16]}{ENDING}"

    def _read_ground_truths(self) -> list[float] | None:
        """The scores of an earlier collection; None if there are none, or their file is damaged."""
        if not self._kept.exists():
            return None
        try:
            values = durable.read_sealed(self._kept, len(self.documents))
            if not all(value is None or (type(value) in (int, float) and math.isfinite(value)) for value in values):
                raise ValueError(f"{self._kept}: must hold finite numbers and null alone")
        except ValueError as error:
            logger.warning("%s; the ground truths are scored again", error)
            return None
        return [math.nan if value is None else float(value) for value in values]

    def _write_shard(self, job: Job, number: int, scored: Sequence[ScoredDocument]) -> bool:
        """Write a finished shard. True if another process has published the collection, so that all work is done."""
        try:
            with self.work.advised():
                durable.write_sealed(self.work.shard(job, number, ENDING), [document.to_dict() for document in scored])
        except OSError:
            if self._is_published(job):  # the other process has removed the folder
                return True
            raise
        return False

    def _publish(self, job: Job) -> None:
        """Join the shards and publish them, unless another process does so at the same time."""
        try:
            self._join_shards(job)
        except OSError:
            if not self._is_published(job):
                raise
            self.work.remove()

    def _join_shards(self, job: Job) -> None:
        """Join the shards, select, and publish the whole data set in one step."""
        scored = [
            document
            for number, rows in enumerate(self.shards)
            for document in durable.read_sealed(self.work.shard(job, number, ENDING), len(rows))
        ]
        rows = Dataset.from_list(
            [
                {"document": document, "ground_truth": truth, **scores}
                for document, truth, scores in zip(self.documents, self.ground_truths, scored, strict=True)
            ],
            features=FEATURES,
        )
        ratios = {name: getattr(self.settings, name) for name in ("negative_ratio", "positive_ratio")}
        rows = reselect(rows, **ratios)
        if self._read_ground_truths() is None:
            with self.work.advised():
                durable.write_sealed(self._kept, [scores["ground_truth_score"] for scores in scored])
        draft = self.work.path / f"draft-{uuid.uuid4().hex[:8]}"  # after a kill it goes with the folder
        with self.work.advised():
            rows.save_to_disk(str(draft))
            # The sidecar comes first, so that a published data set always has it.
            durable.write_file(sidecar(self.output), (json.dumps(self._about(rows, job), indent=2) + "\n").encode())
            os.rename(draft, self.output)
        self.work.remove()

    def _about(self, rows: Dataset, job: Job) -> dict[str, Any]:
        """The content of the sidecar."""
        scores = [score for sample_scores in rows["sample_scores"] for score in sample_scores]
        truths = list(rows["ground_truth_score"])
        counts = {"documents": len(rows), "samples": len(scores), "selected": sum(rows["selected"])}
        undefined = {"undefined_samples": scores.count(None), "undefined_ground_truths": truths.count(None)}
        return {**counts, **undefined, "signature": self.signature, "settings": asdict(self.settings), "key": job.key}

    def _on_first(self, make: Callable[[], Result]) -> Result:
        """The result of `make`, made by rank 0, on every rank; without spreading, made by this process."""
        return on_first_rank(make, "collection stopped") if self.spread else make()


def read_columns(rows: Any) -> tuple[list[str], list[str]]:
    """The documents and the ground truths of a data set or a list of dicts.

    Raises TypeError or ValueError if it is neither, a column is missing, or a text is not a str.
    """
    names = ("document", "ground_truth")
    if (columns := getattr(rows, "column_names", None)) is not None and hasattr(rows, "__len__"):
        if missing := [name for name in names if name not in columns]:
            raise ValueError(f"rows: must have the columns document and ground_truth; got {columns}, no {missing[0]}")
        documents, ground_truths = (list(rows[name]) for name in names)
    elif isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
        for index, row in enumerate(rows):
            if missing := [name for name in names if name not in row]:
                raise ValueError(
                    f"rows[{index}]: must have the keys document and ground_truth; got {sorted(map(str, row))}, no "
                    f"{missing[0]}"
                )
        documents, ground_truths = ([row[name] for row in rows] for name in names)
    else:
        raise TypeError(f"rows: must be a datasets.Dataset or a list of dicts; got {type(rows).__name__}")
    check_texts(ground_truths, documents, ("ground_truth", "document"))
    return documents, ground_truths
