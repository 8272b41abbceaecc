"""The key of a result: everything that a number depends on. The signature shows it, the cache hashes its model part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ResultKey:
    """Everything that a result depends on, as named settings in the order of the signature.

    `choice` names the settings that a log-probability of the model does not depend on: those of the search, and those
    that say which of its results count. Runs that differ in these settings alone share cached results of the model.
    """

    metric: str
    settings: Mapping[str, object]
    choice: frozenset[str] = frozenset()

    def signature(self) -> str:
        """Everything that a number depends on in one line, in the form of sacreBLEU: `metric|key:value|…`."""
        return "|".join([self.metric, *(f"{name}:{value}" for name, value in self._all().items())])

    def model_part(self, **settings: object) -> str:
        """The settings that a model's log-probabilities depend on, as JSON, for the key of a cache.

        Args:
            settings: the settings that differ for this model, for example the `dtype` of a copy that searches.
        """
        of_model = {name: str(value) for name, value in self._all().items() if name not in self.choice}
        return json.dumps([self.metric, of_model | {name: str(value) for name, value in settings.items()}])

    def _all(self) -> dict[str, object]:
        libraries = {name: installed_version(name) for name in ("torch", "transformers", "tokenizers")}
        return {**self.settings, **libraries}


def of_passages(signature: str) -> str:
    """The signature of scores against several passages, of which every question takes the best."""
    return f"{signature}|passages:best"


def installed_version(distribution: str) -> str:
    """The installed version of a distribution; "unknown" in a source tree that is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def checkpoint_version(name: str, model: Any, file: str | None = None) -> str:
    """A short identifier of a loaded model's weights: the fingerprint of a folder, or the commit on the Hub.

    For weights in one `file`, it is the file's name after the commit or, in a folder, after the first 12 hex digits of
    the file's SHA-256.
    """
    folder = Path(name)
    if file is not None:
        if not (folder / file).is_file():
            return f"{getattr(model.config, '_commit_hash', None) or 'unknown'}/{file}"
        with (folder / file).open("rb") as data:
            return f"{hashlib.file_digest(data, 'sha256').hexdigest()[:12]}/{file}"
    return fingerprint(folder) if folder.is_dir() else getattr(model.config, "_commit_hash", None) or "unknown"


def fingerprint(folder: Path) -> str:
    """The first 12 hex digits of the SHA-256 over a checkpoint folder's weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json", ".model", ".txt"):
            digest.update(path.name.encode())
            with path.open("rb") as data:
                digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()[:12]


def short_digest(value: object) -> str:
    """The first 8 hex digits of the SHA-256 of `repr(value)`, for a setting that is too long to show."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]
