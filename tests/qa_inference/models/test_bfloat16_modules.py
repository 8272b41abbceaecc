"""Modules for bfloat16 against the library's, and where they take their place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.models.t5.modeling_t5 import T5LayerNorm

from qa_inference.models import _bfloat16_attention as attention
from qa_inference.models._bfloat16_modules import use_fast_modules
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions
from tests import tiny

WIDTH = 64


def _replaced(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """What takes the place of a module in a model of bfloat16 on a CPU that multiplies it."""
    monkeypatch.setattr(attention, "cpu_has_bfloat16", lambda: True)
    model = nn.Sequential(nn.Linear(1, 1), module).bfloat16()
    use_fast_modules(model)
    assert model[1] is not module
    return model[1]


def _errors(result: Tensor, exact: Tensor) -> Tensor:
    assert result.dtype is torch.bfloat16
    return (result.double() - exact).abs()


@torch.inference_mode()
def test_gelu_is_nearer_to_the_exact_one_for_every_number(monkeypatch: pytest.MonkeyPatch) -> None:
    module = NewGELUActivation()
    numbers = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)
    numbers = numbers[numbers.abs() < 100]
    exact = module(numbers.double())
    errors = [_errors(each(numbers), exact) for each in (_replaced(module, monkeypatch), module)]
    assert errors[0].max() < errors[1].max()
    for low in range(-4, 3):  # each interval of length 1 where GELU bends
        inside = (numbers >= low) & (numbers < low + 1)
        assert errors[0][inside].mean() < errors[1][inside].mean()


@torch.inference_mode()
def test_the_norm_is_nearer_to_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = T5LayerNorm(WIDTH, eps=0.1)
    module.weight.copy_(torch.rand(WIDTH, generator=torch.Generator().manual_seed(0)) + 0.5)
    hidden = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(1)).bfloat16()
    replaced = _replaced(module, monkeypatch)
    assert replaced.weight is module.weight
    numbers = hidden.double()
    exact = numbers * torch.rsqrt(numbers.square().mean(-1, keepdim=True) + 0.1) * module.weight.double()
    errors = [_errors(each(hidden), exact) for each in (replaced, module)]
    assert errors[0].mean() < errors[1].mean()


@pytest.mark.parametrize("family", ["t5", "mt5"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("native", [True, False])
def test_only_bfloat16_on_a_cpu_that_multiplies_it_has_them(
    family: str, dtype: torch.dtype, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "cpu_has_bfloat16", lambda: native)
    given, tokenizer = tiny.checkpoint(family)
    before = given.to(dtype).state_dict()
    EncoderDecoder(given, tokenizer)
    assert not any(isinstance(module, nn.RMSNorm) for module in given.modules())
    given.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    options = LoadingOptions(device="cpu", dtype=str(dtype).removeprefix("torch."))
    network = EncoderDecoder.load(str(tmp_path), options).model
    kinds = {type(module).__name__ for module in network.modules()}
    assert ("RMSNorm" in kinds) is (native and dtype is torch.bfloat16)
    assert (f"{family.upper()}LayerNorm" in kinds) is not ("RMSNorm" in kinds)
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
