"""Averaging two checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertForQuestionAnswering

from recipes import average_checkpoints as recipe
from tests import tiny_readers


def test_the_weights_lie_between_and_the_folder_loads(tmp_path: Path) -> None:
    folders = [tiny_readers.save("bert", tmp_path / name) for name in ("old", "new")]
    model = BertForQuestionAnswering.from_pretrained(folders[1])
    with torch.no_grad():
        model.qa_outputs.weight += 1.0
    model.save_pretrained(folders[1])
    recipe.main([*map(str, folders), "--out", str(tmp_path / "mixed"), "--share", "0.25"])
    old, new, mixed = (BertForQuestionAnswering.from_pretrained(tmp_path / each) for each in ("old", "new", "mixed"))
    torch.testing.assert_close(mixed.qa_outputs.weight, 0.75 * old.qa_outputs.weight + 0.25 * new.qa_outputs.weight)
    assert {file.name for file in (tmp_path / "mixed").iterdir()} == {file.name for file in folders[1].iterdir()}
    assert len({file.stat().st_mode for file in (tmp_path / "mixed").iterdir()}) == 1
    with pytest.raises(SystemExit, match="must be between 0 and 1"):
        recipe.main([*map(str, folders), "--out", str(tmp_path / "mixed"), "--share", "2"])
