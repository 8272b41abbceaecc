"""What the results of both metrics share: input checks, signatures, means that know of undefined values, readings."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("summaries", "sources")


class ScoredSummary:
    """A summary's score with the questions behind it, whichever metric it is of: what every such score offers.

    `metric` is the metric's name, `asked_as` that of the field with the questions; `score` is NaN if undefined, with
    the reason in `note`.
    """

    metric: ClassVar[str]
    asked_as: ClassVar[str]
    score: float
    note: str

    @property
    def score_01(self) -> float:
        """A monotone view between 0 and 1: `exp(min(score, 0))`; NaN if undefined."""
        return math.exp(min(self.score, 0.0)) if not math.isnan(self.score) else math.nan

    @property
    def asked(self) -> tuple[Any, ...]:
        """The questions behind the score."""
        found: tuple[Any, ...] = getattr(self, self.asked_as)
        return found

    @property
    def items(self) -> tuple[Any, ...]:
        """The questions behind the score, each with `question`, `answer` and `score`."""
        return self.asked

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """The names of what `row` holds."""
        return ("score", "score_01", f"num_{cls.asked_as}", "note", cls.asked_as)

    def row(self, pairs: bool = True) -> dict[str, Any]:
        """The score, its 0-to-1 view, the number of questions, the note and, if `pairs`, the questions as dicts."""
        asked = [asdict(one) for one in self.asked] if pairs else []
        values = (self.score, self.score_01, len(self.asked), self.note, asked)
        return dict(list(zip(self.columns(), values, strict=True))[: None if pairs else -1])


Summary_co = TypeVar("Summary_co", bound=ScoredSummary, covariant=True)


@dataclass(frozen=True)
class CorpusResult(Generic[Summary_co]):
    """The scores of a corpus. Undefined summaries have NaN, are left out of the means and counted.

    `signature` names all that could change a number; `num_windowed_summaries` and `num_windowed_sources` count the
    distinct texts that were longer than a model's window.
    """

    kind: ClassVar[type[ScoredSummary]] = ScoredSummary

    summaries: tuple[Summary_co, ...]
    signature: str
    num_windowed_summaries: int = 0
    num_windowed_sources: int = 0

    @property
    def short_signature(self) -> str:
        """`signature` with abbreviated keys, for a table's footnote."""
        return short_signature(self.signature)

    @property
    def scores(self) -> list[float]:
        """The score of every summary; NaN: undefined."""
        return [summary.score for summary in self.summaries]

    @property
    def score(self) -> float:
        """The mean over the defined summaries; NaN if there is none."""
        return mean(self.scores)

    @property
    def score_01(self) -> float:
        """The mean of the summaries' 0-to-1 views."""
        return mean(summary.score_01 for summary in self.summaries)

    @property
    def num_undefined(self) -> int:
        """How many summaries have no score."""
        return sum(math.isnan(score) for score in self.scores)

    def to_dict(self, pairs: bool = True) -> dict[str, Any]:
        """The result as JSON has it (undefined: None), with or without the questions and answers."""
        fields = ("score", "score_01", "num_undefined", "num_windowed_summaries", "num_windowed_sources", "signature")
        whole = {name: getattr(self, name) for name in fields}
        found: dict[str, Any] = plain({**whole, "summaries": [summary.row(pairs) for summary in self.summaries]})
        return found

    def to_pandas(self) -> pd.DataFrame:
        """One row per summary: score, score_01, the number of questions, note, and the questions. Needs pandas."""
        import pandas as pd

        columns = list(self.kind.columns())
        return pd.DataFrame([list(summary.row().values()) for summary in self.summaries], columns=columns)


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
    "transformers": "tf", "tokenizers": "tk", "reader": "r", "reading": "rw", "finder": "n", "candidates": "c",
    "beams": "b", "hypotheses": "h", "questions": "q", "exact": "e",
}  # fmt: skip


def installed_version(distribution: str) -> str:
    """The installed version of a distribution; "unknown" in a source tree that is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def checkpoint_version(name: str, model: Any, file: str | None = None) -> str:
    """What says which weights a loaded `model` has: a folder's fingerprint, or the commit that came from the Hub.

    If all came from one `file` of it, that file's name and, in a folder, the first 12 hex digits of its SHA-256.
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
