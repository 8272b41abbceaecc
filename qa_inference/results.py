"""What the results of both metrics share: input checks, signatures, means that know of undefined values, JSON."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

NAMES = ("summaries", "sources")


def check_texts(summaries: Sequence[str], sources: Sequence[str], names: tuple[str, str] = NAMES) -> None:
    """Raise TypeError or ValueError unless both are non-empty sequences of str of the same length.

    `names` are what the caller's user knows the two by.
    """
    for name, texts in zip(names, (summaries, sources), strict=True):
        if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
            raise TypeError(
                f"{name}: must be a list of str; got {type(texts).__name__}. Put a single text into a list: [text]"
            )
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(
                    f"{name}[{index}]: must be str; got {type(text).__name__} ({text!r:.40}). Pass '' for a missing "
                    f"text: its score is then undefined (NaN)"
                )
    if len(summaries) != len(sources):
        raise ValueError(
            f"{' and '.join(names)}: must be of the same length; got {len(summaries)} and {len(sources)}. Give each "
            f"summary its own source, repeating a source that has several"
        )
    if not summaries:
        raise ValueError(f"{names[0]}: must not be empty; got 0 texts. Pass at least one summary and its source")


def mean(values: Iterable[float]) -> float:
    """The mean of the defined values; NaN if none is."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def plain(value: Any) -> Any:
    """`value` as JSON has it: undefined numbers become None, tuples lists; dicts and lists are walked."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def signature(metric: str, settings: Mapping[str, object]) -> str:
    """One line that names everything a number depends on, as sacreBLEU's: `metric|key:value|…`."""
    parts = {**settings, **{name: installed_version(name) for name in ("torch", "transformers", "tokenizers")}}
    return "|".join([metric, *(f"{key}:{value}" for key, value in parts.items())])


def short_signature(long: str) -> str:
    """The same line with one or two letters for every key, as sacreBLEU's short form."""
    metric, *parts = long.split("|")
    pairs = (part.split(":", 1) for part in parts)
    return "|".join([metric, *(f"{_SHORT_KEYS.get(key, key)}:{value}" for key, value in pairs)])


_SHORT_KEYS = {
    "model": "m", "format": "f", "groups": "g", "strength": "s", "tokens": "t", "length": "l", "pairs": "p",
    "window": "w", "attention": "a", "dtype": "d", "device": "dv", "version": "v", "torch": "to",
    "transformers": "tf", "tokenizers": "tk",
}  # fmt: skip


def installed_version(distribution: str) -> str:
    """The installed version of a distribution; "unknown" in a source tree that is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def fingerprint(folder: Path) -> str:
    """The first 12 hex digits of the SHA-256 over a checkpoint folder's weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json", ".model", ".txt"):
            digest.update(path.name.encode())
            with path.open("rb") as data:
                digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()[:12]
