"""A calibration: a map from scores to the probability that people call a summary consistent.

It belongs to the scores of one metric, one model and one way of scoring. `quals calibrate` makes it from labelled
summaries. This file reads and applies it; it needs nothing but numpy.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

SHIPPED = "embedded"
SHIPPED_FOLDER = Path(__file__).parent / "checkpoints" / "calibrations"

# Settings of a signature that decide the scale of the scores: a calibration for other values is refused.
DECISIVE = ("model", "reader", "format", "tokens", "norm")
# Settings that hardly change a score: other values are accepted in silence. Any other difference gives a warning.
MINOR = ("attention", "dtype", "search", "device", "version", "finder")


@dataclass(frozen=True)
class Calibration:
    """A map from scores to probabilities.

    Attributes:
        metric: the name of the metric.
        settings: the settings of the scores that it was made from, by name, as in their signature.
        scores: the scores at which the map is given, ascending. Between them it is linear; beyond them it is constant.
        probabilities: the probability at each of them.
        about: the data that it was made from, and its measured reliability.
    """

    metric: str
    settings: Mapping[str, str]
    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The first 8 hex digits of the SHA-256 of the map and its settings, for a signature."""
        values = [self.metric, dict(self.settings), list(self.scores), list(self.probabilities)]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def origin(self) -> str:
        """The labels that it was made from, and what its probabilities hold for, in sentences for people."""
        data = self.about.get("data")
        sets = [data_set for data_set in data if isinstance(data_set, Mapping)] if isinstance(data, list) else []
        labels, consistent = (
            sum(_count(data_set.get(name)) for data_set in sets) for name in ("summaries", "consistent")
        )
        if not labels:
            return f"Calibration {self.digest}. Its file does not say which labels it was made from."
        names = "; ".join(str(data_set.get("name", "")) for data_set in sets)
        return (
            f"Calibration {self.digest} was made from {labels:,} labelled summaries, of which {consistent:,} are "
            f"consistent ({names}). The probabilities hold only for summaries like these."
        )

    def probability(self, score: float) -> float:
        """The probability that people call a summary with this score consistent; NaN if the score is undefined."""
        import numpy as np

        return float(np.interp(score, self.scores, self.probabilities))

    def differences(self, settings: Mapping[str, object], names: tuple[str, ...]) -> list[str]:
        """The settings among `names` that differ from those that the calibration was made for, in words."""
        here = {name: str(settings[name]) for name in names if name in settings}
        return [
            f"{name} is {here.get(name, 'unset')}, not {self.settings.get(name, 'unset')}"
            for name in names
            if _compared(name, here.get(name)) != _compared(name, self.settings.get(name))
        ]

    def to_json(self) -> str:
        """The calibration as the text of a file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def read_calibration(path: Path) -> Calibration:
    """Read a calibration from a file.

    Raises:
        ValueError: if the file is no calibration.
        OSError: if it cannot be read.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        scores, probabilities = (tuple(map(float, values[name])) for name in ("scores", "probabilities"))
        calibration = Calibration(
            str(values["metric"]), dict(values["settings"]), scores, probabilities, dict(values["about"])
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{path}: must be a calibration; {type(error).__name__}: {error}. Make one: quals calibrate"
        ) from error
    is_map = len(scores) == len(probabilities) > 0 and all(map(math.isfinite, scores)) and _is_ascending(scores)
    if not is_map or not _is_ascending(probabilities) or not all(0 <= value <= 1 for value in probabilities):
        raise ValueError(
            f"{path}: must hold as many scores as probabilities, both ascending, the second from 0 to 1; it does not. "
            f"Make it anew: quals calibrate"
        )
    return calibration


def check_calibration(name: str, value: Any) -> None:
    """A check of an option: the value is None, "embedded", or the name of a calibration file that can be read."""
    if value is None or value == SHIPPED:
        return
    if not isinstance(value, str | os.PathLike) or not Path(value).is_file():
        raise ValueError(
            f"{name}: must be {SHIPPED!r} or the name of a file that `quals calibrate` wrote; got {value!r}"
        )
    read_calibration(Path(value))


def calibration_digest(name: str | os.PathLike[str] | None) -> str:
    """The digest of a calibration file that an option names; "": it names no file, or one that ships."""
    if not isinstance(name, str | os.PathLike) or name == SHIPPED or not Path(name).is_file():
        return ""  # what is no name is refused where the option is checked
    return read_calibration(Path(name)).digest


def find_calibration(name: str | os.PathLike[str], metric: str, settings: Mapping[str, object]) -> Calibration:
    """The calibration that an option names, for scores of a metric with some settings.

    Raises:
        ValueError: if it was made for another metric, model or kind of score.

    Warns:
        UserWarning: if it was made with other settings of less weight, for example another number of groups.
    """
    paths = sorted(SHIPPED_FOLDER.glob("*.json")) if name == SHIPPED else [Path(name)]
    calibrations = [read_calibration(path) for path in paths]
    of_the_metric = [calibration for calibration in calibrations if calibration.metric == metric]
    problems = []
    for calibration in of_the_metric:
        differences = calibration.differences(settings, DECISIVE)
        if not differences:
            break
        problems.append(" and ".join(differences))
    else:
        if not of_the_metric:
            problems = [f"metric is {metric}, not {calibration.metric}" for calibration in calibrations]
        raise ValueError(
            f"calibration {os.fspath(name)!r}: must be made for the scores that it is used on; here "
            f"{'; or '.join(problems) or 'none ships with this package'}. Make one for them: quals calibrate"
        )
    others = dict.fromkeys(name for name in (*settings, *calibration.settings) if name not in DECISIVE + MINOR)
    if different := calibration.differences(settings, tuple(others)):
        warnings.warn(
            f"calibration {os.fspath(name)!r}: it was made with other settings: {', '.join(different)}. The "
            f"probabilities may be off; quals calibrate makes one for these settings",
            UserWarning,
            stacklevel=3,
        )
    return calibration


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _compared(name: str, value: str | None) -> str | None:
    """A setting as it is compared: of a checkpoint the fingerprint alone, wherever it lies."""
    return value.rpartition("@")[2] if value is not None and name in ("model", "reader") else value


def _is_ascending(values: tuple[float, ...]) -> bool:
    return all(low <= high for low, high in pairwise(values))
