"""Modules for CPUs against the library's, and where they take their place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.models.t5.modeling_t5 import T5LayerNorm

from qa_inference.models import _bfloat16_attention as attention
from qa_inference.models._cpu_modules import Float32Linear, use_fast_modules
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions
from tests import tiny

WIDTH = 64


def _replaced(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """What takes the place of a module in a model on a CPU."""
    model = nn.Sequential(nn.Linear(1, 1), module).to(dtype)
    use_fast_modules(model)
    assert model[1] is not module
    return model[1]


def _errors(result: Tensor, exact: Tensor, dtype: torch.dtype) -> Tensor:
    assert result.dtype is dtype
    return (result.double() - exact).abs()


@torch.inference_mode()
def test_gelu_is_nearer_to_the_exact_one_for_every_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "cpu_has_bfloat16", lambda: True)
    module = NewGELUActivation()
    numbers = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)
    numbers = numbers[numbers.abs() < 100]
    exact = module(numbers.double())
    replaced = _replaced(module, torch.bfloat16)
    errors = [_errors(each(numbers), exact, torch.bfloat16) for each in (replaced, module)]
    assert errors[0].max() < errors[1].max()
    for low in range(-4, 3):  # each interval of length 1 where GELU bends
        inside = (numbers >= low) & (numbers < low + 1)
        assert errors[0][inside].mean() < errors[1][inside].mean()


@pytest.mark.parametrize(("dtype", "native"), [(torch.float32, True), (torch.float32, False), (torch.bfloat16, False)])
@torch.inference_mode()
def test_elsewhere_gelu_keeps_the_formula(dtype: torch.dtype, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "cpu_has_bfloat16", lambda: native)
    module = NewGELUActivation()
    numbers = torch.linspace(-9, 9, 10001).to(dtype)
    errors = _errors(_replaced(module, dtype)(numbers), module(numbers.double()), dtype)
    assert (errors <= torch.finfo(dtype).eps * (1 + numbers.double().abs())).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_norm_is_as_near_to_the_exact_one_or_nearer(dtype: torch.dtype) -> None:
    module = T5LayerNorm(WIDTH, eps=0.1).requires_grad_(False)
    module.weight.copy_(torch.rand(WIDTH, generator=torch.Generator().manual_seed(0)) + 0.5)
    hidden = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = hidden.clone()
    replaced = _replaced(module, dtype)
    assert replaced.weight is module.weight
    numbers = hidden.double()
    exact = numbers * torch.rsqrt(numbers.square().mean(-1, keepdim=True) + 0.1) * module.weight.double()
    recorded = _errors(replaced(hidden), exact, dtype)
    with torch.inference_mode():
        own, library = (_errors(each(hidden), exact, dtype) for each in (replaced, module))
    assert torch.equal(hidden, before)
    for errors in (own, recorded):
        assert errors.mean() < (1 if dtype is torch.bfloat16 else 1.2) * library.mean()


@torch.inference_mode()
def test_the_norm_has_the_type_of_its_weight_as_the_library_has() -> None:
    for weights, numbers in ((torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)):
        module = T5LayerNorm(WIDTH).to(weights)
        hidden = torch.ones(2, WIDTH, dtype=numbers)
        assert _replaced(module, weights)(hidden).dtype is module(hidden).dtype is weights


def test_a_linear_layer_keeps_its_gradients_and_its_name() -> None:
    class OwnForward(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return input

    model = nn.Sequential(nn.Linear(WIDTH, 3), OwnForward(3, 3))
    before, hidden = model.state_dict(), torch.ones(2, WIDTH)
    expected = model(hidden)
    use_fast_modules(model)
    assert [type(module) for module in model] == [Float32Linear, OwnForward]
    assert model.state_dict().keys() == before.keys()
    torch.testing.assert_close(model(hidden), expected)
    model(hidden).sum().backward()
    assert model[0].weight.grad is not None
    with torch.inference_mode():
        torch.testing.assert_close(model(hidden), expected)


def test_a_model_on_another_device_keeps_its_modules() -> None:
    model = nn.Sequential(nn.Linear(1, 1), NewGELUActivation(), T5LayerNorm(WIDTH)).to("meta")
    before = [type(module) for module in model]
    use_fast_modules(model)
    assert [type(module) for module in model] == before


@pytest.mark.parametrize("family", ["t5", "mt5"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_only_a_model_that_is_loaded_has_them(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    given, tokenizer = tiny.checkpoint(family)
    before = given.to(dtype).state_dict()
    EncoderDecoder(given, tokenizer)
    kinds = {type(module).__name__ for module in given.modules()}
    assert {"Linear", f"{family.upper()}LayerNorm"} <= kinds and "Float32Linear" not in kinds
    given.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    options = LoadingOptions(device="cpu", dtype=str(dtype).removeprefix("torch."))
    network = EncoderDecoder.load(str(tmp_path), options).model
    kinds = {type(module).__name__ for module in network.modules()}
    assert {"Float32Linear", "RootMeanSquareNorm"} <= kinds and not {"Linear", f"{family.upper()}LayerNorm"} & kinds
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
