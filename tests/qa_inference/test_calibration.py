from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qa_inference import calibration as calibrations
from qa_inference.calibration import Calibration, check_calibration, find_calibration, read_calibration

SETTINGS: dict[str, Any] = {
    "model": "embedded@0123456789ab", "format": "55a1347a", "groups": 60, "tokens": "all", "dtype": "float32",
    "device": "cpu", "version": "0.1.0",
}  # fmt: skip
MADE = Calibration("quals", {name: str(value) for name, value in SETTINGS.items()}, (-2.0, -1.0, 0.0), (0.1, 0.5, 0.9))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    path.write_text(MADE.to_json())
    return path


def test_the_map_is_linear_between_its_points_and_constant_beyond() -> None:
    found = [MADE.probability(score) for score in (-9, -2, -1.5, -1, -0.25, 0, 9)]
    assert found == pytest.approx([0.1, 0.1, 0.3, 0.5, 0.8, 0.9, 0.9])
    assert math.isnan(MADE.probability(math.nan))


def test_the_digest_is_of_the_map_and_its_settings(path: Path) -> None:
    assert read_calibration(path) == MADE and read_calibration(path).digest == MADE.digest
    others = [
        replace(MADE, probabilities=(0.1, 0.5, 0.8)),
        replace(MADE, settings={**MADE.settings, "groups": "20"}),
        replace(MADE, metric="qags"),
    ]
    assert len({MADE.digest, *(other.digest for other in others)}) == 4
    assert replace(MADE, about={"data": []}).digest == MADE.digest


def test_one_for_these_scores_is_taken(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_calibration(path, "quals", SETTINGS) == MADE
        # Where the checkpoint lies, the type and the device hardly change a score.
        here = SETTINGS | {"model": "/a/folder@0123456789ab", "dtype": "bfloat16", "device": "cuda", "version": "0.2.0"}
        assert find_calibration(str(path), "quals", here) == MADE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "embedded@ffffffffffff"}, "model is embedded@ffffffffffff, not embedded@0123456789ab"),
        ({"tokens": "answer"}, "tokens is answer, not all"),
        ({"format": "other", "tokens": "answer"}, "format is other, not 55a1347a and tokens is answer, not all"),
        ({"reader": "embedded@0123456789ab"}, "reader is embedded@0123456789ab, not unset"),
        ({"norm": "038eb9cf"}, "norm is 038eb9cf, not unset"),
    ],
)
def test_one_for_another_model_is_refused(changes: dict[str, Any], message: str, path: Path) -> None:
    with pytest.raises(ValueError, match=f"{message}. Make one for them: quals calibrate"):
        find_calibration(path, "quals", SETTINGS | changes)


def test_one_for_another_metric_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="metric is qags, not quals"):
        find_calibration(path, "qags", SETTINGS)


def test_one_for_another_search_is_taken_with_a_warning(path: Path) -> None:
    with pytest.warns(UserWarning, match="it was made with other settings: groups is 20, not 60. The probabilities"):
        assert find_calibration(path, "quals", SETTINGS | {"groups": 20}) == MADE


def test_the_one_that_ships_is_chosen_by_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = replace(MADE, settings={**MADE.settings, "tokens": "answer"}, probabilities=(0.2, 0.5, 0.8))
    monkeypatch.setattr(calibrations, "SHIPPED_FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"calibration 'embedded': must be made .*; here none ships with this package"):
        find_calibration("embedded", "quals", SETTINGS)
    for name, made in (("all", MADE), ("answer", answer)):
        (tmp_path / f"quals-{name}.json").write_text(made.to_json())
    assert find_calibration("embedded", "quals", SETTINGS) == MADE
    assert find_calibration("embedded", "quals", SETTINGS | {"tokens": "answer"}) == answer
    (tmp_path / "qags.json").write_text(replace(MADE, metric="qags").to_json())  # not named: it is another metric's
    with pytest.raises(ValueError, match="here model is new@1, not embedded@0123456789ab; or model is new@1"):
        find_calibration("embedded", "quals", SETTINGS | {"model": "new@1"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [0, -1, 1]}, "must hold as many scores as probabilities, both ascending"),
        ({"scores": [0, 1]}, "must hold as many"),
        ({"scores": [], "probabilities": []}, "must hold as many"),
        ({"probabilities": [0.1, 0.5, 1.5]}, "from 0 to 1; it does not"),
        ({"scores": ["a", 0, 1]}, "must be a calibration; ValueError"),
        ({"settings": None}, "must be a calibration; TypeError"),
    ],
)
def test_a_file_that_is_none_is_refused(change: dict[str, Any], message: str, path: Path) -> None:
    path.write_text(json.dumps(json.loads(MADE.to_json()) | change))
    with pytest.raises(ValueError, match=message):
        check_calibration("calibration", path)


def test_names_are_checked_before_the_work(path: Path, tmp_path: Path) -> None:
    for value in (None, "embedded", path, str(path)):
        check_calibration("calibration", value)
    for value in ("nowhere.json", tmp_path, 3, ""):
        with pytest.raises(ValueError, match="calibration: must be 'embedded' or the name of a file that"):
            check_calibration("calibration", value)
    path.write_text("{")
    with pytest.raises(ValueError, match="must be a calibration; JSONDecodeError"):
        check_calibration("calibration", path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"must be a calibration; KeyError: 'scores'. Make one: quals calibrate"):
        check_calibration("calibration", path)
