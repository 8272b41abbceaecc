"""A collection: samples of every training document, all scores and the selection, as a data set on the disk."""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset, Features, List, Value, load_from_disk

from qa_inference.distributed import processes
from qa_inference.metric_base import check_texts
from qa_inference.models.decoder_only import DecoderOnly, is_decoder_only
from qa_inference.models.encoder_decoder import EncoderDecoder, Sharing
from quals_metric.files import durable
from quals_metric.files.shards import Job, Plan, WorkFolder, digest, published, sidecar
from quals_metric.files.tables import Row
from quals_metric.training.candidates import CollectionSettings, Sampler, score
from quals_metric.training.selection import reselect
from quals_metric.training.state import left_as_found

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

Made = TypeVar("Made")


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
    """Sample, score and select, and save the result as a data set; give it back.

    Finished shards are kept in `OUTPUT.unfinished`; asked again for the same, a collection that was killed goes on from
    there, and one that is finished is read. The ground truths' scores are kept in the folder of `output`
    (`ground_truths-….jsonl`) for every further collection of the same rows with the same scorer. `OUTPUT.meta.json`
    has the signature and the counts.

    Args:
        model: a checkpoint's folder or Hub name; or a model, which is afterwards as it was, random generators too.
        scorer: `QualsScorer`, or anything with a `signature` and such a `score` (with its `spread`, if that is used).
        rows: a data set with the columns `document` and `ground_truth`.
        output: the folder to save to; one that all processes see.
        settings: None: the defaults.
        tokenizer: of a model that is given as such.
        spread: False: this process does all the work. True: all processes call and share it.

    Returns:
        One row per document: `document`, `ground_truth`, `samples`, `sample_scores`, `ground_truth_score` (undefined:
        None) and the columns of `selection.reselect`.

    Raises:
        FileExistsError: if `output` exists and is another collection.
        ValueError: if there are no rows, or an unfinished collection in the way differs from this one.
        OSError: if something cannot be read or written; finished shards stay.
    """
    settings, output = settings or CollectionSettings(), Path(output)
    sharing: Sharing = "expanded"  # what is being trained keeps its own attention
    if isinstance(model, str | os.PathLike):
        name = os.fspath(model)
        loaded = (DecoderOnly if is_decoder_only(name) else EncoderDecoder).load(name, sharing="expanded")
        model, tokenizer, sharing = loaded.model, loaded.text.tokenizer, "auto"
    elif tokenizer is None:
        raise ValueError("tokenizer: must be given with a model; got None")
    with left_as_found(model, tokenizer):
        _Task(model, tokenizer, scorer, rows, output, settings, spread, sharing).run()
    return load_from_disk(str(output))


@dataclass
class _Task:
    """One collection."""

    model: Any
    tokenizer: Any
    scorer: Any
    rows: Any
    output: Path
    settings: CollectionSettings
    spread: bool
    sharing: Sharing

    def __post_init__(self) -> None:
        self.documents, self.ground_truths = list(self.rows["document"]), list(self.rows["ground_truth"])
        check_texts(self.ground_truths, self.documents, ("ground_truth", "document"))
        self.signature = getattr(self.scorer, "signature", type(self.scorer).__name__)
        size, count = self.settings.shard_rows, len(self.documents)
        self.shards = [range(start, min(start + size, count)) for start in range(0, count, size)]
        self.work = WorkFolder(self.output)

    def run(self) -> None:
        """Do what is not done yet. What touches the disk does rank 0, and all learn how it went."""
        job, missing = self._on_first(self._begin)
        if missing is None:
            return
        known = self._on_first(self._read_ground_truths)
        sampler = Sampler(self.model, self.tokenizer, self.settings, self.sharing)
        for number in missing:
            places = self.shards[number]
            documents = [self.documents[place] for place in places]
            samples = sampler.sample([(self.documents[place], place) for place in places], spread=self.spread)
            truths = [self.ground_truths[place] for place in places]
            already = None if known is None else [known[place] for place in places]
            found = score(self.scorer, documents, truths, samples, already, self.settings, spread=self.spread)
            lines = [json.dumps(one.to_dict()) for one in found]
            self._on_first(partial(self._write, self.work.shard(job, number, ENDING), lines))
        self._on_first(partial(self._publish, job))

    def _begin(self) -> tuple[Job, list[int] | None]:
        """The job, and the numbers of the shards that are missing; None for those: it is published."""
        job = self._job()
        if self.output.exists():
            if published(self.output) == job.key:
                self.work.remove()
                return job, None
            raise FileExistsError(
                f"{self.output}: there is another collection, of other weights, texts or settings, and it is kept. "
                f"Name another folder, or delete it"
            )
        self.work.claim(job, joins=True)
        finished = self.work.finished(job, ENDING)
        return job, [number for number in range(len(self.shards)) if number not in finished]

    def _job(self) -> Job:
        """What is to be done, with all that the result depends on."""
        parts = []
        for places in self.shards:
            rows = [Row(self.ground_truths[i], self.documents[i], f"row {i}") for i in places]
            parts.append(digest(rows))
        plan = Plan(tuple(parts), len(self.documents), self.settings.shard_rows, "")
        chosen = asdict(self.settings)
        del chosen["shard_rows"], chosen["token_budget"]  # they change no score; the plan has the first
        return Job(plan, {"scorer": self.signature, "weights": _weights(self.model), **chosen})

    @property
    def _kept(self) -> Path:
        """The file of the ground truths' scores; its name says what they depend on."""
        found = hashlib.sha256(json.dumps([self.signature, self.settings.against]).encode())
        for texts in (self.documents, self.ground_truths):
            found.update(json.dumps(texts).encode())
        return self.output.parent / f"ground_truths-{found.hexdigest()[:16]}{ENDING}"

    def _read_ground_truths(self) -> list[float] | None:
        if not self._kept.exists():
            return None
        lines = self._kept.read_text(encoding="utf-8").splitlines()
        return [math.nan if value is None else float(value) for value in map(json.loads, lines)]

    def _write(self, path: Path, lines: Sequence[str]) -> None:
        with self.work.advised():
            durable.write(path, "".join(f"{line}\n" for line in lines).encode())

    def _publish(self, job: Job) -> None:
        """Put the shards together, select, and let the data set appear whole."""
        paths = [self.work.shard(job, number, ENDING) for number in range(len(self.shards))]
        found = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
        texts = zip(self.documents, self.ground_truths, strict=True)
        data = [{"document": document, "ground_truth": truth} for document, truth in texts]
        rows = Dataset.from_list([one | more for one, more in zip(data, found, strict=True)], features=FEATURES)
        ratios = {name: getattr(self.settings, name) for name in ("negative_ratio", "positive_ratio")}
        rows = reselect(rows, **ratios)
        if not self._kept.exists():
            self._write(self._kept, [json.dumps(one["ground_truth_score"]) for one in found])
        draft = self.work.path / f"draft-{uuid.uuid4().hex[:8]}"  # what a kill leaves goes with the folder
        with self.work.advised():
            rows.save_to_disk(str(draft))
            # Before the data set, so that a published one has it; what is killed in between is put together anew.
            durable.write(sidecar(self.output), (json.dumps(self._about(rows, job), indent=2) + "\n").encode())
            os.rename(draft, self.output)
        self.work.remove()

    def _about(self, rows: Dataset, job: Job) -> dict[str, Any]:
        """What the sidecar says."""
        scores = [value for one in rows["sample_scores"] for value in one]
        truths = list(rows["ground_truth_score"])
        counts = {"documents": len(rows), "samples": len(scores), "selected": sum(rows["selected"])}
        undefined = {"undefined_samples": scores.count(None), "undefined_ground_truths": truths.count(None)}
        return {**counts, **undefined, "signature": self.signature, "settings": asdict(self.settings), "key": job.key}

    def _on_first(self, make: Callable[[], Made]) -> Made:
        """What `make` gives on rank 0, on every rank; its error too. Without spreading: on this process."""
        if not self.spread or processes().num_processes == 1:
            return make()
        value, error = None, None
        if processes().is_main_process:
            try:
                value = make()
            except Exception as caught:
                error = caught
        told: list[Any] = [(value, None if error is None else f"{type(error).__name__}: {error}")]
        broadcast_object_list(told)
        if error is not None:
            raise error
        value, failure = told[0]
        if failure is not None:
            raise RuntimeError(f"collection stopped because rank 0 raised {failure}")
        return value  # type: ignore[no-any-return]  # it came as a pickle


def _weights(model: Any) -> str:
    """A digest of a model's weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        found.update(plain.flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:16]
