"""A long job in shards: the plan, the finished shards, and the folder beside the output that holds them.

A shard is a run of rows that are scored and written together. It is done when its file exists. The name of the file
contains the job, so neither a killed process nor one with other settings can leave a wrong shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from qa_inference.checks import integer_from
from quals_metric.files import durable
from quals_metric.files.groups import check_groups
from quals_metric.files.scored_files import read_sidecar
from quals_metric.files.scored_rows import json_text
from quals_metric.files.tables import Row, Rows

UNFINISHED = ".unfinished"

_DIGITS = 9  # digits of a shard's number in its name


@dataclass(frozen=True)
class Plan:
    """The rows to score: a digest of every shard, in order, and a digest of all sources.

    `has_contexts`: some source is more than one passage with a text.
    """

    shards: tuple[str, ...]
    num_rows: int
    shard_rows: int
    sources: str
    has_contexts: bool = False

    def numbers(self, shard: int) -> tuple[int, int]:
        """The first and the last row of a shard, counted from 1."""
        return shard * self.shard_rows + 1, min((shard + 1) * self.shard_rows, self.num_rows)


def make_plan(
    rows: Rows,
    shard_rows: int,
    see: Callable[[Sequence[Row]], None] = lambda rows: None,
    written: Collection[str] = (),
) -> Plan:
    """Read all rows once and plan the shards; `see` is called with the rows of every shard.

    `written` are the names of the columns that will be written beside the kept ones.

    Raises:
        TypeError: if a summary or source is not text.
        ValueError: if there are no rows, one cannot be read, a kept column has the name of a written one, or there are
            too many groups.
    """
    integer_from(1)("shard_rows", shard_rows)
    shards, count, sources, stream, has_contexts = [], 0, hashlib.sha256(), rows.read(), False
    groups: set[str] = set()
    while part := list(islice(stream, shard_rows)):
        for row in part:
            if taken := [name for name in written if name in row.columns]:
                raise ValueError(
                    f"{row.location}: a column that is kept must not be named as one that is written; got "
                    f"{taken[0]!r}. Rename it, or do not keep the columns"
                )
            sources.update(json.dumps(row.source).encode() + b"\n")
            has_contexts = has_contexts or sum(bool(passage.strip()) for passage in row.passages) > 1
            groups.add(row.group)
        check_groups(groups, rows.by)
        shards.append(digest(part))
        see(part)
        count += len(part)
    if not count:
        raise ValueError(f"{rows.name}: must hold at least one row; there is none")
    return Plan(tuple(shards), count, shard_rows, sources.hexdigest(), has_contexts)


def digest(rows: Sequence[Row]) -> str:
    """SHA-256 of the rows' texts, columns and groups."""
    total = hashlib.sha256()
    for row in rows:
        content = [row.summary, row.source, dict(row.columns), *([row.group] if row.group else [])]
        total.update(json_text(content, row.location).encode() + b"\n")
    return total.hexdigest()


class ShardReader:
    """Reads the rows of any shard: onwards from the last one, or from the start for an earlier one."""

    def __init__(self, rows: Rows, plan: Plan) -> None:
        self._rows, self._plan = rows, plan
        self._stream, self._next = rows.read(), 0

    def read(self, shard: int) -> list[Row]:
        """The rows of a shard.

        Raises:
            ValueError: if they differ from those of the plan.
        """
        if shard < self._next:
            self._stream, self._next = self._rows.read(), 0
        skipped = (shard - self._next) * self._plan.shard_rows
        rows = list(islice(self._stream, skipped, skipped + self._plan.shard_rows))
        self._next = shard + 1
        if digest(rows) != self._plan.shards[shard]:
            first, last = self._plan.numbers(shard)
            raise ValueError(
                f"{self._rows.name}: must not change while it is scored; rows {first} to {last} "
                f"did. Put the input back as it was and give the same command again, or score it anew"
            )
        return rows


@dataclass(frozen=True)
class Job:
    """A plan with the settings that its scores depend on; `key` is a digest of both."""

    plan: Plan
    settings: Mapping[str, Any]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The plan and the settings, which a restarted run compares with its own."""
        plan = self.plan
        return {"settings": dict(self.settings), "shard_rows": plan.shard_rows, "shards": list(plan.shards)}

    @cached_property
    def key(self) -> str:
        """A digest of the manifest: equal for equal jobs only."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()


class WorkFolder:
    """The folder beside an output that holds finished shards until all are there."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(output.name + UNFINISHED)
        self._manifest = self.path / "manifest.json"
        self._before = _version_of(output)

    def create(self) -> None:
        """Make the folder, unless it is there.

        Raises:
            OSError: if it cannot be made.
        """
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            reason = f"{self.path} cannot be made; it would keep finished parts until {self.output.name} is whole"
            raise durable.explained(error, reason) from error

    def claim(self, job: Job, joins: bool, patience: float = 0.0) -> bool:
        """Take the folder for a job; False if the job is finished and published.

        Args:
            job: the job to do.
            joins: True for the process that publishes the output. The others check whether it is published already.
            patience: how many seconds the others wait for that process if the job is published. A job that is to be
                done again is published from the start.

        Raises:
            ValueError: if the folder holds another job's shards.
            OSError: if it cannot be written.
        """
        while True:
            if not self.is_open:
                if not joins and published(self.output) == job.key:
                    if self._is_opened(patience):
                        continue
                    self.leave()
                    return False
                self.create()
                durable.write_file(self._manifest, json.dumps(job.manifest, indent=1).encode())
                if not joins and published(self.output) == job.key:  # published between the two lines above
                    self.remove()
                    return False
            with contextlib.suppress(FileNotFoundError):  # published and removed just now
                manifest = _read_manifest(self._manifest)
                break
        if manifest != job.manifest:
            raise ValueError(
                f"{self.path}: holds an unfinished scoring that differs in {_difference(manifest, job.manifest)}. Give "
                f"the command it was begun with to finish it, choose another output, or delete the folder to start anew"
            )
        return True

    def _is_opened(self, patience: float) -> bool:
        """Whether another process begins the job within so many seconds, before it publishes a new output."""
        end = time.monotonic() + patience
        while not self.is_open and time.monotonic() < end and _version_of(self.output) == self._before:
            time.sleep(0.05)
        return self.is_open

    @property
    def is_open(self) -> bool:
        """Whether the job is unfinished: its manifest exists."""
        return self._manifest.exists()

    def finished(self, job: Job, ending: str) -> set[int]:
        """The numbers of the finished shards; none if the folder is gone."""
        suffix = self.shard(job, 0, ending).name[_DIGITS:]
        with contextlib.suppress(FileNotFoundError):
            numbers = (name.removesuffix(suffix) for name in os.listdir(self.path) if name.endswith(suffix))
            return {int(number) for number in numbers if number.isdecimal()}
        return set()

    def shard(self, job: Job, number: int, ending: str) -> Path:
        """The file of a finished shard."""
        return self.path / f"{number:0{_DIGITS}}-{job.key[:16]}{ending}"

    def leave(self) -> None:
        """Remove the folder if it is empty."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def remove(self) -> None:
        """Remove the folder with its contents. For other processes it disappears at once."""
        grave = self.path.with_name(f".{self.path.name[:100]}-{uuid.uuid4().hex[:8]}")
        with contextlib.suppress(OSError):
            os.rename(self.path, grave)
            shutil.rmtree(grave, ignore_errors=True)

    @contextlib.contextmanager
    def advised(self) -> Iterator[None]:
        """Add to an error of writing which parts are kept and what to do."""
        try:
            yield
        except OSError as error:
            remedy = "Put it right and give the same command again"
            if self.path.exists():
                remedy += f": finished parts are kept in {self.path}"
            raise durable.explained(error, "", remedy) from error


def published(output: Path) -> str | None:
    """The key of the job whose sidecar is beside an output; None if no sidecar can be read."""
    with contextlib.suppress(OSError, ValueError):
        return read_sidecar(output).get("key")
    return None


def _version_of(path: Path) -> tuple[int, int] | None:
    """The identity and the time of a file, which change when the file is replaced; None if there is no file."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns
    return None


def _read_manifest(path: Path) -> Mapping[str, Any]:
    """The manifest in a file. Raises ValueError if the file holds no manifest."""
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: must be JSON; {error}. Delete its folder to start anew") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("settings", {}), dict):
        raise ValueError(f"{path}: must be a JSON object with settings. Delete its folder to start anew")
    return manifest


def _difference(begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first difference between two manifests, in words."""
    old, new = begun.get("settings", {}), wanted["settings"]
    for name in new:
        if old.get(name) != new[name]:
            return f"{name} ({old.get(name)!r} then, {new[name]!r} now)"
    if begun.get("shard_rows") != wanted["shard_rows"]:
        return f"shard_rows ({begun.get('shard_rows')} then, {wanted['shard_rows']} now)"
    return "its input: the rows are not the same"
