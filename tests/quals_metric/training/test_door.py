"""The public names of `quals_metric.training`, and that they cost nothing until they are used."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quals_metric.training as door


def test_every_public_name_is_where_it_is_said_to_be() -> None:
    assert set(door._HOMES) == set(door.__all__) <= set(dir(door)) and sorted(set(door.__all__)) == sorted(door.__all__)
    for name, home in door._HOMES.items():
        assert getattr(door, name) is getattr(importlib.import_module(f"quals_metric.training.{home}"), name)
    with pytest.raises(AttributeError, match="no_such_name"):
        door.no_such_name  # noqa: B018
    tree = ast.parse(Path(str(door.__file__)).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names if "quals_" in str(node.module)}
    assert seen == {name: f"quals_metric.training.{home}" for name, home in door._HOMES.items()}


def test_import_is_cheap(run_python: Callable[..., Any]) -> None:
    code = "import sys, quals_metric.training; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    assert run_python("-c", code).stdout.strip() == "[]"
