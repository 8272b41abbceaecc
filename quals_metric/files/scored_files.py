"""Read files that `quals score` wrote: their scores, their sources, and the sidecars that describe them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from quals_metric.files.tables import Source, has_text_cells, number_in, records, source_of_cell

SIDECAR = ".meta.json"


@dataclass(frozen=True)
class ScoreFile:
    """A file that `quals score` wrote: its scores (NaN: undefined), its sources if they were kept, its sidecar."""

    path: Path
    scores: tuple[float, ...]
    sources: tuple[Source, ...] | None
    about: Mapping[str, Any]

    @property
    def metric(self) -> str | None:
        """The metric of the scores; None if it is unknown."""
        return self.about.get("metric")


def read_comparable(
    paths: Sequence[str | Path], *, metric: str | None = None, source: str = "source"
) -> list[ScoreFile]:
    """Read files that `quals score` wrote, if all can be compared; see `compare_files`."""
    files: list[ScoreFile] = []
    for path in paths:
        files.append(read_scores(path, source))
        if len(files) > 1:
            check_metric(files[0], files[-1], metric)
            check_same(files[0], files[-1], source)
    return files


def read_scores(path: str | Path, source: str = "source") -> ScoreFile:
    """Read the column `score` of a file, and the column `source` if the file has it.

    Raises:
        ValueError: if a row has no score, or one that is neither a number nor null.
        OSError: if the file cannot be read.
    """
    path = Path(path)
    scores, sources, is_text = [], [], has_text_cells(path)
    for location, columns in records(path):
        scores.append(number_in(columns, "score", location, is_text=is_text, remedy="Was it written by `quals score`?"))
        sources.append(source_of_cell(columns.get(source), is_text))
    kept = [text for text in sources if text is not None]
    about = read_sidecar(path, len(scores))
    return ScoreFile(path, tuple(scores), tuple(kept) if kept and len(kept) == len(scores) else None, about)


def sidecar(output: Path) -> Path:
    """The small file beside an output that describes its scores: `OUTPUT.meta.json`."""
    return output.with_name(output.name + SIDECAR)


def read_sidecar(output: Path, rows: int | None = None) -> Mapping[str, Any]:
    """The content of the sidecar beside an output; empty if there is none, or if it describes another output.

    `rows` is the number of rows that the output has. A sidecar of another number is of the file that was there before
    it was edited. None: the number is not compared.

    Raises:
        ValueError: if the sidecar is not JSON.
        OSError: if it cannot be read.
    """
    try:
        about = json.loads(sidecar(output).read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{sidecar(output)}: must be JSON; {error}. Delete it, or score {output} again") from error
    if not isinstance(about, dict) or (rows is not None and about.get("rows") != rows):
        return {}
    return about


def check_metric(a: ScoreFile, b: ScoreFile, metric: str | None = None) -> None:
    """Raise ValueError if two files are known to be of different metrics, or of a metric other than `metric`."""
    known = [file.metric for file in (a, b) if file.metric is not None]
    if len({*known, *([] if metric is None else [str(metric)])}) > 1:
        wanted = "the same metric" if metric is None else metric
        metrics = ", ".join(f"{file.path} has those of {file.metric or 'an unknown one'}" for file in (a, b))
        raise ValueError(f"{a.path} and {b.path}: must be scores of {wanted}; {metrics}. Score both systems by it")


def check_same(a: ScoreFile, b: ScoreFile, source: str = "source") -> None:
    """Raise ValueError unless two files are of the same sources; warn if that or the signatures cannot be compared."""
    if len(a.scores) != len(b.scores):
        raise ValueError(
            f"{a.path} and {b.path}: must have the same rows; they have {len(a.scores)} and {len(b.scores)}. Score "
            f"both systems on the same sources"
        )
    digests = a.about.get("sources"), b.about.get("sources")
    if a.sources is not None and b.sources is not None:
        pairs = enumerate(zip_longest(a.sources, b.sources), 1)
        different = next((f"; row {number} differs" for number, (first, second) in pairs if first != second), None)
    elif None not in digests:
        different = None if digests[0] == digests[1] else ""
    else:
        different = None
        _warn(f"{a.path} and {b.path}: it is unknown if they have the same sources. Keep the column {source!r}")
    if different is not None:
        raise ValueError(
            f"{a.path} and {b.path}: must be scores of the same sources in the same order{different}. Score both "
            f"systems on the same sources"
        )
    _check_signatures(a, b)


def _check_signatures(a: ScoreFile, b: ScoreFile) -> None:
    signatures = [file.about.get("signature") for file in (a, b)]
    unknown = [str(file.path) for file, signature in zip((a, b), signatures, strict=True) if signature is None]
    if unknown:
        _warn(f"{' and '.join(unknown)}: the signature is unknown, as no {sidecar(Path('NAME')).name} beside it fits")
    elif signatures[0] != signatures[1]:
        _warn(
            f"the signatures differ, so the scores may not be comparable: {signatures[0]} of {a.path}, "
            f"{signatures[1]} of {b.path}"
        )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)
