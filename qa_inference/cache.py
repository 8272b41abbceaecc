"""Generated pairs and likelihoods on disk, so that each is computed once.

An entry holds the hypotheses of one summary window, or the log-probabilities of one target on one source window. Its
key is a digest of the token ids, the search, the weights and everything else that changes a number. Its value is plain
numbers behind a checksum. Nothing is pickled and no path is read from the file, so a foreign or damaged file runs no
code, and the time that it can take is bounded. The checksum finds damage, not forgery: whoever can write to the folder
can forge scores.

This is the only file that uses diskcache (the extra `cache`): a SQLite file that the processes of one machine share.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from qa_inference.decoding import Array, DiverseBeamSearch, Hypothesis
from qa_inference.distributed import hash_tensors
from qa_inference.models.shared_rows import ScoringRequest
from qa_inference.tokenization import Ids

try:
    import diskcache
except ImportError as error:
    raise ImportError("diskcache: must be installed for a cache. pip install 'quals-metric[cache]'") from error

Item = TypeVar("Item")
Value = TypeVar("Value")

_ENCODING = "2"  # the version of the entries and of their keys; part of every key
_CHECKSUM = 16  # bytes
_TIMEOUT = 10.0  # seconds to wait for another process's transaction
_LONGEST = 10.0  # seconds that a transaction of our own may take
_PAUSE = 600.0  # seconds for which a file is not used after either of these
_LARGEST = 2**24  # bytes of an entry; 60 hypotheses of 60 tokens take 30,000
_TROUBLE = (sqlite3.Error, diskcache.Timeout)


class _PlainDisk(diskcache.Disk):
    """Keys and values are bytes in the database's own rows: it unpickles nothing and uses no other file."""

    def put(self, key: bytes) -> tuple[memoryview, bool]:
        """A key in the form that the database stores."""
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: bool) -> bytes:
        """A stored key as bytes."""
        return bytes(key) if isinstance(key, bytes) else b""

    def store(self, value: bytes, read: bool, key: Any = None) -> tuple[int, int, None, memoryview]:
        """A value's size outside the database, mode, file name and content."""
        return 0, diskcache.core.MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        """A stored value; b"" where the row holds anything but bytes, which no entry of ours does."""
        return value if isinstance(value, bytes) else b""

    def remove(self, file_path: str) -> None:
        """Remove nothing: no entry of ours has a file, whatever its row claims."""


class _BoundedCache(diskcache.Cache):
    """A cache that stops a statement after its `deadline` and reads no large value, whatever the file holds.

    Without a bound a trigger in a foreign file may run for ever.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.deadline = time.monotonic() + _LONGEST
        super().__init__(*arguments, **settings)

    @property
    def _con(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._con
        connection.set_progress_handler(lambda: time.monotonic() > self.deadline, 10_000)  # instructions between calls
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST)
        return connection


class Asker(Protocol):
    """The model whose results are kept: `EncoderDecoder`, or anything with its two operations over one `model`."""

    model: Any

    def generate(
        self, inputs: Sequence[Ids], search: DiverseBeamSearch, *, end_ids: Sequence[int] = ()
    ) -> list[list[Hypothesis]]:
        """The hypotheses of each input."""

    def log_likelihood(self, items: Sequence[ScoringRequest]) -> list[list[Array]]:
        """The token log-probabilities of each target of each item."""


class ResultCache:
    """A folder of results by key; a full one drops the results that were used least recently.

    Several processes of one machine may use one folder at once. The folder must not lie on a network, where SQLite
    cannot lock. Whoever can write to the folder can forge scores, so a folder that is made here is its owner's alone
    (mode 700).

    A result that cannot be read or written is computed; one warning reports it. While another process locks the file,
    or after a transaction that takes too long, the file is not used for ten minutes.

    Args:
        folder: the folder; it is made if it does not exist.
        size: the most bytes of its file; a log of a few MB may lie beside it. The process that opened the folder last
            sets the size for all.

    Raises:
        OSError: if the folder cannot be written to, or holds something else.
    """

    def __init__(self, folder: str | os.PathLike[str], size: int) -> None:
        self.folder = os.fspath(folder)
        self._warned, self._paused_until = False, -math.inf
        settings = {"size_limit": size, "eviction_policy": "least-recently-used", "statistics": 0, "tag_index": 0}
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            self._store = _BoundedCache(self.folder, timeout=_TIMEOUT, disk=_PlainDisk, **settings)
        except Exception as error:  # a foreign file may hold anything, also settings that cannot be set
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
        """The values of `keys`: stored ones are read; `compute` makes the others, which are then stored.

        Args:
            keys: a key for every value.
            compute: takes the positions in `keys` of the missing values, in order, at least one; returns as many.
            pack: a value as bytes.
            unpack: the value from its bytes; raises ValueError if they cannot hold a value.
        """
        # 1. Read what is stored.
        stored = self._attempt(self._store.get, keys)
        values = [
            None if data is None else self._open(key, data, unpack) for key, data in zip(keys, stored, strict=True)
        ]
        missing = [position for position, value in enumerate(values) if value is None]
        if not missing:
            return values  # type: ignore[return-value]  # none is None
        # 2. Compute the rest, and store it.
        for position, value in zip(missing, compute(missing), strict=True):
            values[position] = value
        entries = [(keys[position], _seal(keys[position], pack(values[position]))) for position in missing]  # type: ignore[arg-type]  # none is None any more
        self._attempt(lambda entry: self._store.set(*entry), entries)
        return values  # type: ignore[return-value]

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._store.close()

    def _attempt(self, operation: Callable[[Item], Any], items: Sequence[Item]) -> list[Any]:
        """The operation's result for every item, in one transaction; None where it fails."""
        begin = time.monotonic()
        if begin < self._paused_until:
            return [None] * len(items)
        self._store.deadline = begin + _LONGEST
        try:
            with self._store.transact():
                return [operation(item) for item in items]
        except _TROUBLE as error:
            end = time.monotonic()
            if isinstance(error, diskcache.Timeout):
                self._pause(end, "another process locks the file")
            elif end > self._store.deadline:
                self._pause(end, f"a transaction takes more than {_LONGEST:.0f} seconds")
            else:
                self._warn(f"the file cannot be used ({type(error).__name__}: {error})")
            if len(items) == 1 or end < self._paused_until:
                return [None] * len(items)
        return [self._attempt(operation, [item])[0] for item in items]  # a damaged page loses only its own entries

    def _pause(self, now: float, trouble: str) -> None:
        """Stop using the file for a while: waiting again at every call would cost more than the cache saves."""
        self._paused_until = now + _PAUSE
        self._warn(f"{trouble}, so the file is not used for {_PAUSE / 60:.0f} minutes")

    def _open(self, key: bytes, data: bytes, unpack: Callable[[bytes], Value]) -> Value | None:
        """A stored value; None if the data is damaged."""
        try:
            if data != _seal(key, data[_CHECKSUM:]):
                raise ValueError("its checksum differs")
            return unpack(data[_CHECKSUM:])
        except ValueError as error:
            self._warn(f"an entry is damaged ({error})")
            return None

    def _warn(self, trouble: str) -> None:
        """Warn, but only once for this object."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"cache {self.folder!r}: {trouble}; missing results are computed again. Further cache errors are "
                f"suppressed. If this recurs, delete the folder",
                stacklevel=2,
            )


class CachedModel:
    """The two operations of a question-answer generator, each result computed once.

    A result that was computed in another batch may differ by 1e-5, as without a cache; nothing else differs. The model
    must not change while this object is used.

    Args:
        model: computes the results that are not in the cache.
        cache: stores the results; processes with caches of their own, or none, may share the work of one map.
        settings: everything else that changes a number, as text.
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
        """See `EncoderDecoder.log_likelihood`; a target's key does not depend on the other targets of its source."""
        # 1. One key for every target: of its source i and its own ids j.
        targets = [(i, j) for i, item in enumerate(items) for j in range(len(item.targets))]
        sources = [_digest(self._base, _packed_ids(item.source)) for item in items]
        keys = [_digest(sources[i], _packed_ids(items[i].targets[j])) for i, j in targets]

        # 2. The missing targets of a source are scored together. They come in the order of the sources, so the arrays
        #    come back in the order of the missing keys.
        def compute(missing: list[int]) -> list[Array]:
            by_source: dict[int, list[Ids]] = {}
            for i, j in (targets[position] for position in missing):
                by_source.setdefault(i, []).append(items[i].targets[j])
            requests = [ScoringRequest(items[i].source, unscored) for i, unscored in by_source.items()]
            return [array for arrays in self._asker.log_likelihood(requests) for array in arrays]

        # 3. The flat list of arrays becomes one list for every source.
        scored = iter(self._cache.complete(keys, compute, _pack_floats, _unpack_floats))
        return [[next(scored) for _ in item.targets] for item in items]


def checkpoint_digest(model: Any) -> bytes:
    """SHA-256 of a model's weights in memory and of its configurations; reads all of them once."""
    digest = hashlib.sha256()
    for config in (model.config, getattr(model, "generation_config", None)):
        settings = {} if config is None else config.to_dict()
        settings.pop("_name_or_path", None)  # the folder, which changes no number
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    # Weights that are loaded only when they are needed are not read; the signature has their version.
    hash_tensors(digest, (*model.named_parameters(), *model.named_buffers()))
    return digest.digest()


def pack_hypotheses(hypotheses: Sequence[Hypothesis]) -> bytes:
    """N hypotheses as bytes: N, lengths [N], flags of ended ones [N], all tokens, all log-probabilities."""
    parts: Iterable[Array] = (
        np.array([len(hypotheses), *(len(hypothesis.tokens) for hypothesis in hypotheses)], "<u4"),
        np.array([hypothesis.ended for hypothesis in hypotheses], np.uint8),
        *(hypothesis.tokens.astype("<i4") for hypothesis in hypotheses),
        *(hypothesis.log_probs.astype("<f4") for hypothesis in hypotheses),
    )
    return b"".join(part.tobytes() for part in parts)


def unpack_hypotheses(data: bytes) -> list[Hypothesis]:
    """The hypotheses that `pack_hypotheses` packed. Raises ValueError if `data` cannot hold any."""
    # 1. The header: N in 4 bytes, N lengths of 4 bytes, N flags of 1 byte.
    count = int(np.frombuffer(data, "<u4", 1)[0])
    lengths = np.frombuffer(data, "<u4", count, 4)
    ended = np.frombuffer(data, np.uint8, count, 4 + 4 * count)
    # 2. The content: 4 bytes for every token, and 4 for its log-probability.
    ends = lengths.cumsum(dtype=np.int64)
    total, start = int(ends[-1]) if count else 0, 4 + 5 * count
    if len(data) != start + 8 * total:
        raise ValueError(f"{count} hypotheses of {total} tokens do not take {len(data)} bytes")
    tokens = np.split(np.frombuffer(data, "<i4", total, start).astype(np.int64), ends[:-1])
    log_probs = np.split(np.frombuffer(data, "<f4", total, start + 4 * total).astype(np.float32), ends[:-1])
    # 3. Without hypotheses `np.split` still gives one, empty array: it is left out.
    return [Hypothesis(*parts) for parts in zip(tokens[:count], log_probs[:count], map(bool, ended), strict=True)]


def _pack_floats(values: Array) -> bytes:
    return values.astype("<f4").tobytes()


def _unpack_floats(data: bytes) -> Array:
    return np.frombuffer(data, "<f4").astype(np.float32)


def _packed_ids(ids: Ids) -> bytes:
    return np.asarray(ids).astype("<i4").tobytes()


def _seal(key: bytes, payload: bytes) -> bytes:
    """`payload` behind a checksum of the payload and its key."""
    return hashlib.blake2b(payload, digest_size=_CHECKSUM, key=key).digest() + payload


def _digest(*parts: bytes) -> bytes:
    """SHA-256 of a sequence of byte strings and of their lengths: the same bytes cut elsewhere give another digest."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
