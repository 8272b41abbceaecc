"""Every library is behind its extra."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("library", "extra"), [("inspect_ai", "inspect"), ("lighteval", "lighteval"), ("torchmetrics", "torchmetrics")]
)
def test_the_gate_names_the_command(library: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"quals_metric.integrations.{library}"
    for name in [name for name in sys.modules if name.partition(".")[0] == library or name == file]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{library}: must be installed .*pip install 'quals-metric\[{extra}\]'"):
        importlib.import_module(file)
