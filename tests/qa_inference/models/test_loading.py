"""Loading a checkpoint of any kind, and what is said when it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForQuestionAnswering, AutoModelForSeq2SeqLM

from qa_inference.models.loading import load_pretrained
from tests import tiny, tiny_causal


def test_a_checkpoint_is_loaded_whole(tmp_path: Path) -> None:
    folder = str(tiny.save("bart", tmp_path / "bart"))
    model, tokenizer, missing = load_pretrained(AutoModelForSeq2SeqLM, "an encoder-decoder", folder, dtype="bfloat16")
    assert model.config.is_encoder_decoder and model.dtype == torch.bfloat16 and missing == []
    assert len(tokenizer) == model.config.vocab_size


def test_missing_weights_are_told(tmp_path: Path) -> None:
    """Of another task's head; the library would make one of random weights and say so in a log."""
    folder = str(tiny.save("bart", tmp_path / "bart"))
    _, _, missing = load_pretrained(AutoModelForQuestionAnswering, "a reader", folder, device="cpu")
    assert missing == ["qa_outputs.bias", "qa_outputs.weight"]


def test_the_check_comes_before_the_weights(tmp_path: Path) -> None:
    """What it raises for want of memory is not taken for a broken checkpoint; it sees what is about to be loaded."""
    folder = tiny_causal.save("llama", tmp_path / "llama")
    (folder / "model.safetensors").unlink()
    seen: list[Any] = []

    def check(config: Any, dtype: torch.dtype, device: torch.device) -> None:
        seen.append((config.model_type, dtype, device.type))
        raise MemoryError("too large")

    with pytest.raises(MemoryError, match=r"^too large$"):
        load_pretrained(AutoModelForCausalLM, "a model", str(folder), device="cpu", dtype="bfloat16", check=check)
    assert seen == [("llama", torch.bfloat16, "cpu")]


@pytest.mark.parametrize("kind", ["an encoder-decoder", "a decoder-only model"])
def test_no_code_of_a_repository_is_run_and_nobody_is_asked(kind: str, tmp_path: Path) -> None:
    folder = tiny_causal.save("llama", tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "theirs",
        "auto_map": {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    head = AutoModelForSeq2SeqLM if kind == "an encoder-decoder" else AutoModelForCausalLM
    with pytest.raises(
        ValueError, match=rf"model '.*llama': must be a folder or a Hub name of {kind} with its tokenizer"
    ):
        load_pretrained(head, kind, str(folder), device="cpu")
    assert not (tmp_path / "ran").exists()
