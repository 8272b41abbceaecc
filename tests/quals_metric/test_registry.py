from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quals_metric.metrics import METRICS
from quals_metric.registry import register, script, unregister

ROOT = Path(__file__).parents[2]
LOAD = 'import evaluate; metric = evaluate.load("quals"); print(type(metric).__module__, metric.name, metric.data_dir)'


def folder_in(modules: Path, name: str = "quals") -> Path:
    return modules / "evaluate_modules" / "metrics" / f"evaluate-metric--{name}"


@pytest.fixture
def no_model(tmp_path: Path) -> dict[str, str]:
    """A start-up file that keeps a process from loading a model: these tests are about finding the class."""
    start = tmp_path / "start"
    start.mkdir()
    text = "import quals_metric.scorer\nquals_metric.scorer.load_model = lambda config: None\n"
    text += "quals_metric.scorer.QualsScorer = lambda config, model, searcher: None\n"
    text += "import qags_metric.metric\n"
    text += "qags_metric.metric._scorer = lambda config: None\n"
    (start / "sitecustomize.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(start), str(Path(register.__code__.co_filename).parents[1])])}


@pytest.mark.parametrize("name", METRICS)
def test_the_space_carries_the_same_script(name: str) -> None:
    assert (ROOT / "spaces" / name / f"{name}.py").read_bytes() == script(name).encode()


def test_a_folder_as_evaluate_expects_it(tmp_path: Path) -> None:
    path, _ = register(tmp_path)
    assert path.parent.parent == folder_in(tmp_path)
    assert len(path.parent.name) == 64
    assert path.read_text() == script("quals")
    assert {child.name for child in folder_in(tmp_path).iterdir()} == {"__init__.py", path.parent.name}


def test_again_replaces_the_older_script(tmp_path: Path) -> None:
    older = folder_in(tmp_path) / ("0" * 64)
    older.mkdir(parents=True)
    (older / "quals.py").write_text("old")
    first, _ = register(tmp_path)
    first.write_text("spoilt")
    os.utime(first, (0, 0))
    second, _ = register(tmp_path)
    assert second == first
    assert second.read_text() == script("quals")
    assert second.stat().st_mtime > 0
    assert not older.exists()


def test_unregister(tmp_path: Path) -> None:
    assert unregister(tmp_path) == []
    register(tmp_path)
    assert unregister(tmp_path) == [folder_in(tmp_path, name) for name in METRICS]
    assert unregister(tmp_path) == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "evaluate_modules").write_text("")
    with pytest.raises(OSError, match="evaluate_modules"):
        register(tmp_path)


def test_load_by_bare_name_in_a_new_process(
    run_python: Callable[..., Any], no_model: dict[str, str], tmp_path: Path
) -> None:
    assert "FileNotFoundError" in run_python("-c", LOAD, **no_model).stderr

    written = run_python("-m", "quals_metric", "register")
    assert written.returncode == 0, written.stderr
    folders = [str(folder_in(tmp_path / "hf" / "modules", name)) for name in METRICS]
    assert [str(Path(line.removeprefix("wrote ")).parents[1]) for line in written.stdout.splitlines()] == folders

    for name, spec in METRICS.items():
        module = spec.evaluate_class.partition(":")[0]
        after = run_python("-c", LOAD.replace("quals", name), **no_model)
        assert after.stdout.split()[:2] == [module, name], after.stderr

    removed = run_python("-m", "quals_metric", "unregister")
    assert removed.stdout.splitlines() == [f"removed {folder}" for folder in folders]


def test_another_modules_cache(run_python: Callable[..., Any], no_model: dict[str, str], tmp_path: Path) -> None:
    modules = {"HF_MODULES_CACHE": str(tmp_path / "other")}
    code = f"import quals_metric; print(*quals_metric.register()); {LOAD}"
    where, loaded = run_python("-c", code, **no_model, **modules).stdout.splitlines()
    assert where.startswith(str(folder_in(tmp_path / "other")))
    assert loaded.startswith("quals_metric.metric quals")


@pytest.fixture
def dead_address() -> Iterator[str]:
    """An address of this machine at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: connections are refused
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_load_when_the_hub_cannot_be_reached(
    run_python: Callable[..., Any], no_model: dict[str, str], dead_address: str, tmp_path: Path
) -> None:
    register(tmp_path / "hf" / "modules")
    online = {"HF_EVALUATE_OFFLINE": "0", "HF_HUB_OFFLINE": "0", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    online |= {"HF_ENDPOINT": dead_address}
    after = run_python("-c", LOAD, **no_model, **online)
    assert after.stdout.startswith("quals_metric.metric quals"), after.stderr


def test_a_folder_of_that_name_goes_first_and_works_too(
    run_python: Callable[..., Any], no_model: dict[str, str], tmp_path: Path
) -> None:
    register(tmp_path / "hf" / "modules")
    shutil.copytree(ROOT / "spaces" / "quals", tmp_path / "elsewhere" / "quals")
    after = run_python("-c", LOAD, **no_model)
    assert after.stdout.startswith("quals_metric.metric quals"), after.stderr
    assert "cached version" not in after.stderr
