"""Makes `evaluate.load("quals")` and `evaluate.load("qags")` find the installed package, with and without a network.

evaluate looks for a bare name in the current folder, on the Hub, and last in its own cache of modules:
`<modules cache>/evaluate_modules/metrics/evaluate-metric--quals/<64 hex digits>/quals.py`, where the youngest script
wins. A registration is the thin script of `spaces/quals/quals.py`, written there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import evaluate.config

from quals_metric.metrics import METRICS, metric_spec

_SCRIPT = '''"""The metric {title} for evaluate: the class is in the package quals-metric, this file only names it."""

from {module} import {title}

__all__ = ["{title}"]
'''


def script(name: str) -> str:
    """The text of a metric's module script; a Space and a registration carry the same bytes."""
    module, _, title = metric_spec(name).evaluate_class.partition(":")
    return _SCRIPT.format(module=module, title=title)


def register(folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """Let `evaluate.load("quals")` and `evaluate.load("qags")` find this package in later processes.

    Those processes must use the same modules cache.

    `folder` is the modules cache; None: evaluate's own, `HF_MODULES_CACHE`. An older registration is replaced, and a
    reader never sees half a script. Returns the scripts' paths. Raises `OSError` if the folder cannot be written.
    """
    return [_write(name, script(name), _cache(name, folder)) for name in METRICS]


def unregister(folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """Remove the registrations. Returns the removed folders."""
    removed = [cache for cache in (_cache(name, folder) for name in METRICS) if cache.is_dir()]
    for cache in removed:
        shutil.rmtree(cache)
    return removed


def _cache(name: str, folder: str | os.PathLike[str] | None) -> Path:
    """The folder where evaluate keeps the scripts of a canonical metric, in one folder per content."""
    modules = Path(evaluate.config.HF_MODULES_CACHE if folder is None else folder).expanduser()
    package: str = evaluate.config.MODULE_NAME_FOR_DYNAMIC_MODULES
    return modules / package / "metrics" / f"evaluate-metric--{name}"


def _write(name: str, text: str, cache: Path) -> Path:
    """Put the script in place in one step, then remove the older scripts."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    cache.mkdir(parents=True, exist_ok=True)
    for package in (cache.parents[2], cache.parents[1], cache.parent, cache):
        (package / "__init__.py").touch()
    # evaluate reads folders whose name has 64 characters; this one has fewer until it is complete.
    with tempfile.TemporaryDirectory(prefix="new-", dir=cache) as draft:
        complete = Path(draft, digest)
        complete.mkdir()
        (complete / "__init__.py").touch()
        (complete / f"{name}.py").write_bytes(text.encode())
        older = [child for child in cache.iterdir() if len(child.name) == len(digest) and child.name != digest]
        try:
            complete.rename(cache / digest)
        except OSError:  # this very script was registered before: make it the youngest
            os.replace(complete / f"{name}.py", cache / digest / f"{name}.py")
    for child in older:
        shutil.rmtree(child, ignore_errors=True)
    return cache / digest / f"{name}.py"
