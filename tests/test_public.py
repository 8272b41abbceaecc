from __future__ import annotations

import ast
import importlib
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.quals_metric.integrations import stand_ins

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


PARTS = ("app", "integrations", "report", "study", "training")
LAZY = ("quals_metric", "qags_metric", *(f"quals_metric.{part}" for part in PARTS))


@pytest.fixture(autouse=True, scope="module")
def libraries() -> Iterator[None]:
    """Stand-ins for the libraries that cannot be installed beside the pinned versions."""
    with stand_ins.integration("inspect_ai"), stand_ins.integration("lighteval"):
        yield


@pytest.mark.parametrize("package", [*PACKAGES, *LAZY[2:]])
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    names = getattr(module, "__all__", [])
    assert sorted(set(names)) == sorted(names)
    assert set(names) <= set(dir(module))
    for name in names:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("package", LAZY)
def test_public_names_are_in_their_files(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module._HOMES) == set(module.__all__) - {"__version__"}
    for name, home in module._HOMES.items():
        assert getattr(module, name) is getattr(importlib.import_module(f"{package}.{home}"), name)
    # What a type checker sees is what __getattr__ gives.
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "__future__"]
    ours = [node for node in imports if str(node.module).startswith(package)]
    seen = {alias.name: node.module for node in ours for alias in node.names}
    assert seen == {name: f"{package}.{home}" for name, home in module._HOMES.items()}


def test_import_is_cheap(run_python: Callable[..., Any]) -> None:
    code = f"import sys, {', '.join(LAZY)}; "
    code += "print(sorted({'torch', 'transformers', 'evaluate', 'numpy'} & set(sys.modules)))"
    result = run_python("-c", code)
    assert result.stdout.strip() == "[]", result.stderr


def test_one_version() -> None:
    import quals_metric

    version = quals_metric.__version__
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for space, extra in (("quals", ""), ("qags", "[qags-en]")):
        lines = (ROOT / "spaces" / space / "requirements.txt").read_text(encoding="utf-8").splitlines()
        assert f"quals-metric{extra}>={version}" in lines
