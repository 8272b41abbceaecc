"""What tests of several packages share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: threads of several processes wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"

import evaluate
import hypothesis
import pytest

import quals_metric
from tests import PATIENCE

Run = Callable[..., subprocess.CompletedProcess[str]]

# The load of the machine decides nothing: by default an example fails after 200 ms, and slow drawing is an error.
hypothesis.settings.register_profile("no clock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("no clock")


@pytest.fixture
def run_python(tmp_path: Path) -> Run:
    """Run Python in a new process and an empty folder, with every Hugging Face cache in a temporary one, offline.

    The process imports the packages from where this one did, be that the checkout or an installed wheel.
    """
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment = kept | {
            "HF_HOME": str(tmp_path / "hf"),
            "HF_EVALUATE_OFFLINE": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(quals_metric.__file__).parents[1]),
            **variables,
        }
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    return run


@pytest.fixture
def own_evaluate_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep evaluate's files and scripts out of the user's cache, and what it imported from one test out of the next.

    It puts its cache of scripts on the path and imports from it as the package `evaluate_modules`.
    """
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "metrics"))
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("evaluate.module.config.HF_METRICS_CACHE", str(tmp_path / "metrics"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    _forget_scripts()
    yield
    _forget_scripts()


def _forget_scripts() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
        del sys.modules[name]
