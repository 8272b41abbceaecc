"""Whether weights fit into memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from qa_inference.models import memory
from tests import tiny_causal


def test_the_count_is_that_of_the_weights() -> None:
    for name in ("llama", "gemma3", "gpt2"):
        model, _ = tiny_causal.checkpoint(name)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        assert memory.parameter_bytes(AutoModelForCausalLM, model.config, torch.float32) == 4 * parameters
        assert memory.parameter_bytes(AutoModelForCausalLM, model.config, torch.bfloat16) == 2 * parameters


def test_a_quantized_checkpoint_is_not_counted() -> None:
    config = tiny_causal.checkpoint("llama")[0].config
    config.quantization_config = {"quant_method": "any"}
    assert memory.parameter_bytes(AutoModelForCausalLM, config, torch.float32) is None


def test_the_remedy_fits_the_case() -> None:
    memory.check_fits("m", 10**9, 10**9, torch.float32)
    memory.check_fits("m", 10**9, None, torch.float32)
    with pytest.raises(MemoryError, match=r"take 14\.5 GB in float32 and 3\.1 GB are free\. Use dtype bfloat16 \(half"):
        memory.check_fits("m", 14_500_000_000, 3_100_000_000, torch.float32)
    with pytest.raises(MemoryError, match=r"in bfloat16 and 3\.1 GB are free\. Use a smaller or a quantized model"):
        memory.check_fits("m", 7_250_000_000, 3_100_000_000, torch.bfloat16)


def test_what_a_container_leaves(tmp_path: Path) -> None:
    assert memory._container_bytes(tmp_path) is None
    for name, text in (("max", "5000\n"), ("current", "3000\n"), ("stat", "anon 7\ninactive_file 400\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory._container_bytes(tmp_path) == 2400
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._container_bytes(tmp_path) is None


def test_this_machine_has_memory() -> None:
    free = memory.free_bytes(torch.device("cpu"))
    assert free is None or free > 2**20
