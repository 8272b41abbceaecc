"""Score files: rows are read, scored and written in shards that survive a killed process.

Beside the output a run writes `OUTPUT.meta.json`: the signature, the counts, the mean, and a digest of the sources.
This is a file of its own because the signature is as long as a row and the same for all rows. Reports and comparisons
read it with `scored_files.read_sidecar`.

Several processes (`RANK` and `WORLD_SIZE`, as `accelerate launch` sets them) share the shards and nothing else. Each
of n processes takes every n-th shard, then those left by the others, in random order. No process waits for another,
but one: with `overwrite`, the others wait at most a minute for rank 0 to begin anew. So losing one costs only time.
Rank 0 joins the shards when all are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import json
import math
import os
import random
import shutil
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from qa_inference.metric_base.key import of_passages
from qa_inference.metric_base.results import CorpusResult, ScoredSummary, check_threshold, json_ready
from qa_inference.metric_base.texts import texts_of_scorer
from quals_metric.files import durable
from quals_metric.files.groups import GroupScores, facts_of_scores, groups_of
from quals_metric.files.scored_files import read_sidecar, sidecar
from quals_metric.files.scored_rows import Format, format_of, scored_row
from quals_metric.files.shards import Job, ShardReader, WorkFolder, make_plan, published
from quals_metric.files.tables import STANDARD_INPUT, Row, Rows, Table, count_rows
from quals_metric.metrics import metric_spec

SHARD_ROWS = 128

_PATIENCE = 60.0  # seconds that a process waits for rank 0 to begin anew what is finished
_ATTEMPTS = 3  # the most times that a damaged shard is scored

OnShard = Callable[[int, int], None]


class Scorer(Protocol):
    """A scorer of any metric: `QualsScorer`, `QagsScorer`, or another that has a signature and gives such results.

    One whose summaries have a probability has a `calibration` with an `origin`.
    """

    @property
    def signature(self) -> str:
        """One line that names everything a number depends on."""

    def score(self, *, summaries: Sequence[str], sources: Sequence[str]) -> CorpusResult[ScoredSummary]:
        """The scores of some summaries."""


@dataclass(frozen=True)
class FileScores:
    """A summary of the scores written: `score` is the mean of the defined ones, with its 95 % interval [low, high].

    `unsupported_rate` is the share of the summaries with a score that have an answer below `threshold`. `groups` are
    the scores of the rows with each value of the column `by`; "": none. `calibration` says what the probabilities were
    made from; "": the rows have none.
    """

    output: Path
    metric: str
    rows: int
    score: float
    low: float
    high: float
    score_01: float
    num_undefined: int
    num_windowed_summaries: int
    num_windowed_sources: int
    signature: str
    threshold: float
    unsupported_rate: float
    by: str = ""
    groups: tuple[GroupScores, ...] = ()
    calibration: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict for JSON. An undefined number is None."""
        plain: dict[str, Any] = json_ready({**asdict(self), "output": str(self.output)})
        return plain


def score_files(
    rows: Rows,
    output: str | os.PathLike[str],
    load: Callable[[], Scorer],
    *,
    metric: str = "quals",
    pairs: bool = False,
    calibrated: bool = False,
    spans: bool = False,
    threshold: float | None = None,
    shard_rows: int = SHARD_ROWS,
    overwrite: bool = False,
    accept_finished: bool = False,
    on_shard: OnShard | None = None,
) -> FileScores | None:
    """Score every row and write a row for each, in order: kept columns, score, score_01, num_pairs, note, pairs.

    For QAGS, the columns of the pairs are `num_questions` and `questions`. With `spans`, the columns `sentences` and
    `spans` come before the pairs.

    The whole input is read first, so an invalid line stops the work before it begins. Finished shards are kept in
    `OUTPUT.unfinished`. A killed run continues from there when the same call is made again, with any number of
    processes, and its output is the same to the byte as that of a run that was not killed. A shard carries a digest,
    which is checked before the output is published; a damaged shard is scored again, with a warning.

    Args:
        rows: `Table` or `TextFiles`.
        output: a path that ends in .jsonl, .parquet or .csv.
        load: makes the scorer, for example `QualsScorer`; called after the input has been read and is valid.
        metric: the metric that the scorer computes, a name in `METRICS`.
        pairs: whether the pairs or questions behind each score are written.
        calibrated: whether the scorer that is loaded has a calibration. Each row then has a `probability`, after
            `score_01`.
        spans: whether the sentences and the unsupported spans of each summary are written.
        threshold: the score below which an answer is unsupported; None: the metric's (`MetricSpec.threshold`).
        shard_rows: how many rows are scored and written at once; a killed process loses at most these.
        overwrite: whether an existing output is replaced, once the new one is whole.
        accept_finished: whether an existing output of the same job is accepted as it is, instead of refused.
        on_shard: called as `on_shard(done, total)` with numbers of rows: before the first shard, after each batch of a
            scorer that takes `on_batch`, and after each shard.

    Returns:
        A summary of the scores written; None on a process that is not rank 0.

    Raises:
        FileExistsError: if the output exists, and neither `overwrite` nor `accept_finished` allows that.
        TypeError: if a summary or source is not text; it names line and column.
        ValueError: if a line is invalid, the input changes meanwhile, there is unfinished work of another job, the
            threshold is NaN, or `calibrated` is wrong.
        OSError: if something cannot be read or written; finished shards stay.

    Warns:
        UserWarning: if a finished shard is damaged and scored again.
    """
    output = Path(output)
    rank, _ = rank_and_size()
    work = WorkFolder(output)
    spec = metric_spec(metric)
    threshold = spec.threshold if threshold is None else threshold
    check_threshold(threshold)
    written = spec.summary_type().columns(pairs=pairs, spans=spans, calibrated=calibrated)
    form = format_of(output, rows.paths if rows.keep else (), pairs, written)
    _check_output(output, rows)
    if output.exists() and not overwrite and not work.path.exists() and not accept_finished:
        if rank:
            return None  # published before this process began; or an error, which rank 0 raises
        raise FileExistsError(_exists(output))
    work.create()
    try:
        with _readable_twice(rows, work) as kept:
            plan = make_plan(kept, shard_rows, form.learn, spec.summary_type().columns(True, spans, calibrated))
            form.check()
            scorer = load()
            calibration = _calibration_of(scorer, calibrated)
            settings = {
                "metric": metric,
                "signature": of_passages(scorer.signature) if plan.has_contexts else scorer.signature,
                "format": form.ending,
                "pairs": pairs,
                "spans": spans,
                "threshold": threshold,
                "columns": rows.keep,
                "by": rows.by,
            }
            job = Job(plan, settings)
            if not _claim(job, work, overwrite):
                return None if rank else _published_scores(job, output)
            return _ScoringRun(job, work, form, calibration).complete(scorer, ShardReader(kept, plan), on_shard)
    finally:
        work.leave()


def rank_and_size() -> tuple[int, int]:
    """The rank of this process and the number of processes, from `RANK` and `WORLD_SIZE`; (0, 1) if they are unset.

    Raises:
        ValueError: if they are not such numbers.
    """
    rank, size = (os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ValueError(
            f"RANK and WORLD_SIZE: RANK must be an integer from 0 to WORLD_SIZE - 1; got {rank!r} and {size!r}. "
            f"A launcher sets both; without one, unset them"
        )
    return int(rank), int(size)


def _calibration_of(scorer: Scorer, calibrated: bool) -> str:
    """The origin of the scorer's calibration; "": it has none. Raises ValueError if `calibrated` is wrong."""
    calibration = getattr(scorer, "calibration", None)
    if (calibration is not None) != calibrated:
        has = "has none" if calibration is None else "has one"
        raise ValueError(
            f"calibrated: must say whether the scorer has a calibration; got {calibrated}, and the scorer {has}. Pass "
            f"calibrated={not calibrated}, or load another scorer"
        )
    return "" if calibration is None else str(calibration.origin)


@contextlib.contextmanager
def _readable_twice(rows: Rows, work: WorkFolder) -> Iterator[Rows]:
    """The rows, for one pass that plans and one that scores: standard input is kept in a file of the work folder.

    Raises:
        ValueError: if there are several processes: only one of them has the input.
        OSError: if the file cannot be written.
    """
    if not isinstance(rows, Table) or rows.paths != (STANDARD_INPUT,):
        yield rows
        return
    if rank_and_size()[1] > 1:
        raise ValueError("-: standard input can be read by one process only; save it to a file and name the file")
    path = work.path / f"input-{uuid.uuid4().hex[:8]}.jsonl"
    try:
        try:
            with path.open("xb") as file:
                if sys.stdin is None:  # closed by whoever started this process
                    raise ValueError("-: standard input is closed. Send JSON lines to it, or name a file")
                shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            raise durable.explained(error, f"standard input cannot be kept in {path}") from error
        yield replace(rows, paths=(path,), title="standard input")
    finally:
        path.unlink(missing_ok=True)


def _claim(job: Job, work: WorkFolder, overwrite: bool) -> bool:
    """Take the work folder for a job; False if another process has published the job since this one began.

    Raises FileExistsError if the output is another job's and must not be replaced.
    """
    if work.output.exists() and not overwrite:
        if published(work.output) != job.key:
            raise FileExistsError(_exists(work.output))
        if not work.is_open:
            return False
    return work.claim(job, joins=rank_and_size()[0] == 0, patience=_PATIENCE if overwrite else 0.0)


@dataclass(frozen=True)
class _ScoringRun:
    """A scoring job with the folder in which it is done."""

    job: Job
    work: WorkFolder
    form: Format
    calibration: str

    def complete(self, scorer: Scorer, reader: ShardReader, on_shard: OnShard | None) -> FileScores | None:
        """Score the missing shards. Rank 0 then publishes the job; other processes return None.

        1. Score what no other process has scored.
        2. Discard the shards that are damaged. If there are some, score these too.
        3. Join the shards.
        """
        rank, size = rank_and_size()
        with self.work.advised():
            for _ in range(_ATTEMPTS):
                for shard, rows in self.missing(reader, rank, size, on_shard):
                    self.finish(shard, rows, self.score(scorer, rows, on_shard))
                if rank:
                    return None
                try:
                    if not self.discard_damaged():
                        return self.join()
                except FileNotFoundError:
                    if self.work.is_open:
                        raise
                    if published(self.work.output) != self.job.key:
                        raise FileNotFoundError(f"{self.work.path}: was removed while its shards were scored") from None
                    return _published_scores(self.job, self.work.output)  # a process of another launch was faster
            raise OSError(f"{self.work.path}: its shards are damaged whenever they are written. Check the disk")

    def missing(
        self, reader: ShardReader, rank: int, size: int, on_shard: OnShard | None
    ) -> Iterator[tuple[int, list[Row]]]:
        """The shards for this process to score, each with its rows, until all are there or the job is published."""
        plan = self.job.plan
        finished = self._finished()
        left = [shard for shard in range(len(plan.shards)) if shard not in finished]
        if on_shard is not None:
            on_shard(self._done(), plan.num_rows)
        others = [shard for shard in left if shard % size != rank]
        random.Random(rank).shuffle(others)  # another order in each process, so that two seldom do the same shard
        for shard in [shard for shard in left if shard % size == rank] + others:
            if self.work.is_open and not self._path(shard).exists():
                yield shard, reader.read(shard)
                if on_shard is not None and self.work.is_open:
                    on_shard(self._done(), plan.num_rows)

    def score(self, scorer: Scorer, rows: Sequence[Row], on_shard: OnShard | None) -> CorpusResult[ScoredSummary]:
        """The result of a shard's rows. `on_shard` is called after each batch, if the scorer reports its batches."""
        texts = {"summaries": [row.summary for row in rows], **texts_of_scorer([row.source for row in rows])}
        if on_shard is not None and "on_batch" in inspect.signature(scorer.score).parameters:
            done, total = self._done(), self.job.plan.num_rows
            texts["on_batch"] = lambda part, whole: on_shard(done + len(rows) * part // max(1, whole), total)
        return scorer.score(**texts)

    def finish(self, shard: int, rows: Sequence[Row], result: CorpusResult[ScoredSummary]) -> None:
        """Write a shard: first the numbers that the mean and the counts need, then the rows, which mark it as done.

        The numbers are sealed, and hold a digest of the rows' file.
        """
        pairs, spans, threshold = (self.job.settings[name] for name in ("pairs", "spans", "threshold"))
        scored = [summary.with_text(row.summary) for row, summary in zip(rows, result.summaries, strict=True)]
        numbers = {
            "scores": result.scores,
            "unsupported": [bool(summary.spans(threshold)) for summary in scored],
            "groups": [row.group for row in rows],
            "scores_01": [summary.score_01 for summary in result.summaries],
            "num_windowed_summaries": result.num_windowed_summaries,
            "num_windowed_sources": result.num_windowed_sources,
        }
        written = [
            scored_row(row.columns, summary, pairs, threshold if spans else None)
            for row, summary in zip(rows, scored, strict=True)
        ]
        content = io.BytesIO()
        self.form.shard(written, content)
        numbers = json_ready(numbers) | {"rows": len(rows), "digest": hashlib.sha256(content.getvalue()).hexdigest()}
        try:
            durable.write_sealed(self._path(shard, ".json"), [numbers])
            durable.write_file(self._path(shard), content.getvalue())
        except FileNotFoundError:
            if self.work.is_open:
                raise
            # Another process has scored this shard too, and rank 0 has published the job.

    def discard_damaged(self) -> int:
        """Remove finished shards that differ from what was written, with a warning; return how many there were.

        Raises FileNotFoundError if the folder is gone.
        """
        damaged = [shard for shard in range(len(self.job.plan.shards)) if not self._is_whole(shard)]
        for shard in damaged:
            first, last = self.job.plan.numbers(shard)
            path = self._path(shard)
            warnings.warn(f"{path}: is damaged; rows {first} to {last} are scored again", UserWarning, stacklevel=4)
            path.unlink(missing_ok=True)
        return len(damaged)

    def _is_whole(self, shard: int) -> bool:
        """Whether a shard's two files are as they were written."""
        first, last = self.job.plan.numbers(shard)
        try:
            numbers = self._numbers(shard)
            with self._path(shard).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return bool(numbers["digest"] == digest and numbers["rows"] == last - first + 1)
        except FileNotFoundError:
            if not self.work.is_open:
                raise
            return False
        except ValueError:
            return False

    def join(self) -> FileScores:
        """Put the shards together as the output, with its sidecar, and remove the folder."""
        shards = range(len(self.job.plan.shards))
        numbers = [self._numbers(shard) for shard in shards]
        scores, scores_01 = _floats(numbers, "scores"), _floats(numbers, "scores_01")
        unsupported, names = ([value for part in numbers for value in part[key]] for key in ("unsupported", "groups"))
        summary = FileScores(
            output=self.work.output,
            metric=self.job.settings["metric"],
            rows=len(scores),
            **facts_of_scores(scores, scores_01, unsupported, names, self.job.settings["by"]),
            num_undefined=sum(map(math.isnan, scores)),
            num_windowed_summaries=sum(part["num_windowed_summaries"] for part in numbers),
            num_windowed_sources=sum(part["num_windowed_sources"] for part in numbers),
            signature=self.job.settings["signature"],
            threshold=self.job.settings["threshold"],
            calibration=self.calibration,
        )
        about = {name: value for name, value in summary.to_dict().items() if name != "output"}
        about |= {"sources": self.job.plan.sources, "key": self.job.key}
        text = json.dumps(about, indent=2) + "\n"
        with durable.replacing(self.work.output, drafts=self.work.path) as file:
            self.form.join(map(self._path, shards), file)
            # The sidecar comes first, so that a published output has one. A run killed in between joins anew.
            durable.write_file(sidecar(self.work.output), text.encode(), drafts=self.work.path)
        self.work.remove()
        return summary

    def _numbers(self, shard: int) -> Any:
        """The numbers of a shard. Raises ValueError if their file is damaged."""
        (numbers,) = durable.read_sealed(self._path(shard, ".json"), 1)
        return numbers

    def _path(self, shard: int, ending: str | None = None) -> Path:
        return self.work.shard(self.job, shard, ending or self.form.ending)

    def _finished(self) -> set[int]:
        return self.work.finished(self.job, self.form.ending)

    def _done(self) -> int:
        """How many rows are in finished shards, of all processes."""
        bounds = map(self.job.plan.numbers, self._finished())
        return sum(last - first + 1 for first, last in bounds)


def _published_scores(job: Job, output: Path) -> FileScores:
    """The summary of a job's published output, from its sidecar.

    Raises FileExistsError if the output was edited since, so that the sidecar does not describe it.
    """
    about = read_sidecar(output, count_rows(output))
    if about.get("key") != job.key:
        raise FileExistsError(_exists(output))
    names = [field.name for field in fields(FileScores) if field.name != "output" and field.name in about]
    values: dict[str, Any] = {name: math.nan if about[name] is None else about[name] for name in names}
    values["groups"] = groups_of(about)
    return FileScores(output, **values)


def _floats(numbers: Sequence[dict[str, Any]], name: str) -> list[float]:
    """The numbers of all shards under `name` as one list; an undefined number is NaN."""
    return [math.nan if value is None else value for part in numbers for value in part[name]]


def _check_output(output: Path, rows: Rows) -> None:
    """Raise unless the output can be written without touching the input."""
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output}: its folder must exist; {output.parent} does not. Make it first")
    if output.is_dir():
        raise IsADirectoryError(f"{output}: must be the name of a file; it is a folder. Name a file in it")
    if output.exists() and any(path.exists() and path.samefile(output) for path in rows.paths):
        raise ValueError(f"{output}: the output must not be one of the inputs. Name another file")


def _exists(output: Path) -> str:
    return f"{output}: there is a file of that name, and it is kept. Name another output, or replace it: --overwrite"
