"""Results of a model on disk, so that what was generated or scored once is not computed again.

An entry is a summary window's hypotheses, or the log-probabilities of one target on one source window. Its key is a
digest of the token ids, the search, the weights and whatever else changes a number; its value is plain numbers behind a
checksum. Nothing is pickled, and no path is read from the file: a foreign or damaged one can cost time, not run code.

This is the package's one door to diskcache (the extra `cache`): a SQLite file that processes of one machine share.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from qa_inference.decoding import DiverseBeamSearch
from qa_inference.models.encoder_decoder import ScoringRequest
from qa_inference.rows import Array, Hypothesis
from qa_inference.tokenization import Ids

try:
    import diskcache
except ImportError as error:
    raise ImportError("diskcache: must be installed for a cache. pip install 'quals-metric[cache]'") from error

Item = TypeVar("Item")
Value = TypeVar("Value")

_ENCODING = "2"  # changes with entries, and with what their keys are made of
_CHECKSUM = 16  # bytes
_TIMEOUT = 20.0  # seconds to wait for another process's transaction
_TROUBLE = (sqlite3.Error, diskcache.Timeout)


class _PlainDisk(diskcache.Disk):
    """Keys and values are bytes in the database's own rows: nothing is unpickled, no other file read or removed."""

    def put(self, key: bytes) -> tuple[memoryview, bool]:
        """A key as the database has it."""
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: bool) -> bytes:
        """A key as we have it."""
        return bytes(key) if isinstance(key, bytes) else b""

    def store(self, value: bytes, read: bool, key: Any = None) -> tuple[int, int, None, memoryview]:
        """A value's size outside the database, mode, file name and content."""
        return 0, diskcache.core.MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        """A value; nothing, which is no entry of ours, where a row says that it is anything but bytes."""
        return value if isinstance(value, bytes) else b""

    def remove(self, file_path: str) -> None:
        """Remove no file: no entry of ours has one, whatever a row says."""


class Asker(Protocol):
    """Whose results are kept: `EncoderDecoder`, or anything with its two operations, over one `model` of the library."""

    model: Any

    def generate(
        self, inputs: Sequence[Ids], search: DiverseBeamSearch, *, end_ids: Sequence[int] = ()
    ) -> list[list[Hypothesis]]:
        """The hypotheses of each input."""

    def log_likelihood(self, items: Sequence[ScoringRequest]) -> list[list[Array]]:
        """The token log-probabilities of each target of each item."""


class ResultCache:
    """A folder of results by key, the least recently used of which go when it is full.

    Processes of one machine may use one folder at once; the folder is no place on a network, where SQLite cannot lock.
    What cannot be read or written while it is used is computed, and said in one warning.

    Args:
        folder: made if it is not there.
        size: the most bytes of its file, beside which a log of a few MB may lie; the last process to open it says so
            for all.

    Raises:
        OSError: if the folder cannot be written to, or holds something else.
    """

    def __init__(self, folder: str | os.PathLike[str], size: int) -> None:
        self.folder = os.fspath(folder)
        self._warned = False
        settings = {"size_limit": size, "eviction_policy": "least-recently-used", "statistics": 0, "tag_index": 0}
        try:
            self._store = diskcache.Cache(self.folder, timeout=_TIMEOUT, disk=_PlainDisk, **settings)
        except Exception as error:  # a foreign file may hold anything, settings that cannot be set too
            raise OSError(
                f"cache {self.folder!r}: must be a folder to write to, empty or made by this package; opening it gave "
                f"{type(error).__name__}: {error}. Name another, or delete it"
            ) from error

    def complete(
        self,
        keys: Sequence[bytes],
        compute: Callable[[list[int]], list[Value]],
        pack: Callable[[Value], bytes],
        unpack: Callable[[bytes], Value],
    ) -> list[Value]:
        """The values of `keys`: those that are here, and for the others what `compute` gives, which is then kept.

        Args:
            keys: one per value.
            compute: takes the places in `keys` of those that are not here, in order, at least one; gives as many.
            pack: a value as bytes.
            unpack: the value again; raises ValueError if it cannot be one.
        """
        stored = self._attempt(self._store.get, keys)
        found = [
            None if data is None else self._open(key, data, unpack) for key, data in zip(keys, stored, strict=True)
        ]
        missing = [place for place, value in enumerate(found) if value is None]
        if missing:
            computed = compute(missing)
            sealed = [
                (keys[place], _seal(keys[place], pack(value))) for place, value in zip(missing, computed, strict=True)
            ]
            self._attempt(lambda entry: self._store.set(*entry), sealed)
            for place, value in zip(missing, computed, strict=True):
                found[place] = value
        return found  # type: ignore[return-value]  # none is None any more

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._store.close()

    def _attempt(self, operation: Callable[[Item], Any], items: Sequence[Item]) -> list[Any]:
        """What an operation gives for each item, in one transaction; None for those it fails on."""
        try:
            with self._store.transact():
                return [operation(item) for item in items]
        except _TROUBLE as error:
            self._warn(f"the file cannot be used ({type(error).__name__}: {error})")
            if len(items) == 1 or isinstance(error, diskcache.Timeout):
                return [None] * len(items)
        return [self._attempt(operation, [item])[0] for item in items]  # a damaged page costs what lies on it

    def _open(self, key: bytes, data: bytes, unpack: Callable[[bytes], Value]) -> Value | None:
        """A stored value; None if it is not what was stored."""
        try:
            if data != _seal(key, data[_CHECKSUM:]):
                raise ValueError("its checksum differs")
            return unpack(data[_CHECKSUM:])
        except ValueError as error:
            self._warn(f"an entry is damaged ({error})")
            return None

    def _warn(self, trouble: str) -> None:
        """Say once that something is wrong."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"cache {self.folder!r}: {trouble}; what it should hold is computed again. No more is said of this; "
                "if it comes back, delete the folder",
                stacklevel=2,
            )


class CachedModel:
    """The two operations of a question-answer generator, each result computed once.

    A result that was computed in another batch may differ by 1e-5, as without a cache; all else is the same. The model
    must not change while this is used.

    Args:
        model: computes what is not in the cache.
        cache: where the results are; processes with caches of their own, or none, may share the work of one map.
        settings: what else changes a number, say a signature.
    """

    def __init__(self, model: Asker, cache: ResultCache, settings: str) -> None:
        self._asker, self._cache, self.model = model, cache, model.model
        self._base = _digest(_ENCODING.encode(), settings.encode(), checkpoint_digest(self.model))

    def generate(
        self, inputs: Sequence[Ids], search: DiverseBeamSearch, *, end_ids: Sequence[int] = ()
    ) -> list[list[Hypothesis]]:
        """See `EncoderDecoder.generate`."""
        base = _digest(self._base, repr((search, tuple(end_ids))).encode())
        return self._cache.complete(
            [_digest(base, _packed_ids(ids)) for ids in inputs],
            lambda missing: self._asker.generate([inputs[i] for i in missing], search, end_ids=end_ids),
            pack_hypotheses,
            unpack_hypotheses,
        )

    def log_likelihood(self, items: Sequence[ScoringRequest]) -> list[list[Array]]:
        """See `EncoderDecoder.log_likelihood`; a target is looked up by itself, whatever others its source has."""
        places = [(i, j) for i, item in enumerate(items) for j in range(len(item.targets))]
        sources = [_digest(self._base, _packed_ids(item.source)) for item in items]

        def compute(missing: list[int]) -> list[Array]:
            asked: dict[int, list[Ids]] = {}
            for i, j in (places[place] for place in missing):
                asked.setdefault(i, []).append(items[i].targets[j])
            found = self._asker.log_likelihood(
                [ScoringRequest(items[i].source, targets) for i, targets in asked.items()]
            )
            return [array for arrays in found for array in arrays]

        keys = [_digest(sources[i], _packed_ids(items[i].targets[j])) for i, j in places]
        scored = iter(self._cache.complete(keys, compute, _pack_floats, _unpack_floats))
        return [[next(scored) for _ in item.targets] for item in items]


def checkpoint_digest(model: Any) -> bytes:
    """SHA-256 of a model's weights as they are in memory, and of its configurations; reads all of them once."""
    digest = hashlib.sha256()
    for config in (model.config, getattr(model, "generation_config", None)):
        settings = {} if config is None else config.to_dict()
        settings.pop("_name_or_path", None)  # where it lies
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if not tensor.is_meta:  # weights that are brought in as they are needed; the signature has their version
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.digest()


def pack_hypotheses(hypotheses: Sequence[Hypothesis]) -> bytes:
    """Hypotheses as bytes: their number, lengths [N] and ends [N], then all tokens and all log-probabilities."""
    parts: Iterable[Array] = (
        np.array([len(hypotheses), *(len(one.tokens) for one in hypotheses)], "<u4"),
        np.array([one.ended for one in hypotheses], np.uint8),
        *(one.tokens.astype("<i4") for one in hypotheses),
        *(one.log_probs.astype("<f4") for one in hypotheses),
    )
    return b"".join(part.tobytes() for part in parts)


def unpack_hypotheses(data: bytes) -> list[Hypothesis]:
    """What `pack_hypotheses` was given. Raises ValueError if `data` cannot be of it."""
    count = int(np.frombuffer(data, "<u4", 1)[0])
    lengths = np.frombuffer(data, "<u4", count, 4)
    ended = np.frombuffer(data, np.uint8, count, 4 + 4 * count)
    ends = lengths.cumsum(dtype=np.int64)
    total, start = int(ends[-1]) if count else 0, 4 + 5 * count
    if len(data) != start + 8 * total:
        raise ValueError(f"{count} hypotheses of {total} tokens do not take {len(data)} bytes")
    tokens = np.split(np.frombuffer(data, "<i4", total, start).astype(np.int64), ends[:-1])
    log_probs = np.split(np.frombuffer(data, "<f4", total, start + 4 * total).astype(np.float32), ends[:-1])
    return [Hypothesis(*one) for one in zip(tokens[:count], log_probs[:count], map(bool, ended), strict=True)]


def _pack_floats(values: Array) -> bytes:
    return values.astype("<f4").tobytes()


def _unpack_floats(data: bytes) -> Array:
    return np.frombuffer(data, "<f4").astype(np.float32)


def _packed_ids(ids: Ids) -> bytes:
    return np.asarray(ids).astype("<i4").tobytes()


def _seal(key: bytes, payload: bytes) -> bytes:
    """`payload` behind a checksum of it and its key."""
    return hashlib.blake2b(payload, digest_size=_CHECKSUM, key=key).digest() + payload


def _digest(*parts: bytes) -> bytes:
    """32 bytes for a sequence of bytes; the lengths are part of it, so that it matters where one ends."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
