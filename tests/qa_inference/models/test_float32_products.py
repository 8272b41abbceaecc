"""Products of float32 matrices by either library, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from qa_inference.models import _float32_products as products
from qa_inference.models.inference import stated_precision

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
needs_onednn = pytest.mark.skipif(not HAS_ONEDNN, reason="this torch has no oneDNN")


@pytest.fixture(params=[pytest.param(True, marks=needs_onednn), False], ids=["oneDNN", "torch"])
def chosen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Each library in turn, whichever is faster here."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param)
    return bool(request.param)


class OwnTensor(torch.Tensor):
    """Weights that another library stores in its own way."""


def _numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("shape", [(7, 32), (1, 32), (2, 3, 32), (0, 32), (4, 0, 32), (33, 32), (3, 21, 32), (64, 32)])
@pytest.mark.parametrize("with_bias", [True, False])
@torch.inference_mode()
def test_every_shape_has_the_product_in_full_float32(shape: tuple[int, ...], with_bias: bool) -> None:
    hidden, weight = _numbers(*shape), _numbers(50, 32)
    bias = _numbers(50) if with_bias else None
    exact = hidden.double() @ weight.double().T + (0 if bias is None else bias.double())
    with stated_precision(torch.device("cpu")):
        result = products.linear(hidden, weight, bias)
    assert result.shape == (*shape[:-1], 50) and result.dtype is torch.float32
    torch.testing.assert_close(result.double(), exact, atol=1e-4, rtol=1e-5)


@needs_onednn
@pytest.mark.parametrize("precision", ["high", "medium"])
@torch.inference_mode()
def test_a_lower_precision_of_the_process_does_not_change_the_scores_product(precision: str) -> None:
    hidden, weight = _numbers(64, 512), _numbers(96, 512)
    expected = products._onednn_linear(hidden, weight)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with stated_precision(torch.device("cpu")):
            assert torch.equal(products._onednn_linear(hidden, weight), expected)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("chosen")
@torch.inference_mode()
def test_factors_may_be_views() -> None:
    hidden, weight = _numbers(6, 4, 64).transpose(0, 1)[..., ::2], _numbers(90, 32)[20:70]
    torch.testing.assert_close(products.linear(hidden, weight), F.linear(hidden.contiguous(), weight))


@torch.inference_mode()
def test_torch_writes_into_the_memory_that_is_offered(chosen: bool) -> None:
    memory = torch.zeros(5, 50)
    result = products.linear(_numbers(5, 32), _numbers(50, 32), memory=memory)
    torch.testing.assert_close(result, F.linear(_numbers(5, 32), _numbers(50, 32)))
    assert (result.data_ptr() == memory.data_ptr()) is not chosen


def test_only_float32_without_gradients_asks_which_library_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: pytest.fail("asked"))
    weight = _numbers(50, 32).requires_grad_()
    products.linear(_numbers(5, 32), weight).sum().backward()
    assert weight.grad is not None
    with torch.inference_mode():
        for dtype in (torch.bfloat16, torch.float64):
            hidden, other = _numbers(5, 32).to(dtype), _numbers(50, 32).to(dtype)
            assert torch.equal(products.linear(hidden, other), F.linear(hidden, other))
        products.linear(_numbers(5, 32), _numbers(50, 32).to("meta"))
        own = products.linear(_numbers(5, 32), _numbers(50, 32).as_subclass(OwnTensor))
        assert type(own) is OwnTensor
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
        products.linear(_numbers(5, 32), _numbers(50, 32))


@needs_onednn
@torch.inference_mode()
def test_onednn_meets_few_numbers_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    met = set()
    library = torch.ops.mkldnn._linear_pointwise

    def counted(hidden: torch.Tensor, *args: object) -> torch.Tensor:
        met.add(hidden.shape[:-1].numel())
        product: torch.Tensor = library(hidden, *args)
        return product

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    weight = _numbers(6, 8)
    for rows in range(300):
        hidden = _numbers(rows, 8)
        torch.testing.assert_close(products._onednn_linear(hidden, weight), F.linear(hidden, weight))
    assert met == {*range(33), *range(64, 321, 32)}


@needs_onednn
@pytest.mark.parametrize(("onednn", "faster"), [(1.0, True), (1.5, True), (2.0, False), (6.0, False)])
def test_onednn_has_to_be_clearly_faster(onednn: float, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own library takes 2; now and then another program takes the processor away from either."""
    interrupted = iter([9.0, 0, 0, 9.0, 0, 9.0] * 4)
    monkeypatch.setattr(
        products, "_seconds", lambda library, *_: (2.0 if library is F.linear else onednn) + next(interrupted)
    )
    assert products.onednn_is_faster.__wrapped__() is faster


@needs_onednn
def test_the_choice_is_measured_on_float32_whatever_the_caller_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, measured = products._seconds, []

    def watched(library: Callable[..., torch.Tensor], hidden: torch.Tensor, weight: torch.Tensor) -> float:
        measured.append((hidden.dtype, weight.device.type, library(hidden, weight).dtype))
        return seconds(library, hidden, weight)

    monkeypatch.setattr(products, "_seconds", watched)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"), torch.autocast("cpu"):
            assert products.onednn_is_faster.__wrapped__() in (True, False)
    finally:
        torch.set_default_dtype(torch.float32)
    assert set(measured) == {(torch.float32, "cpu", torch.float32)}


@pytest.mark.parametrize("missing", ["library", "operation"])
def test_a_torch_without_onednn_multiplies_by_its_own_library(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: missing != "library")
    if missing == "operation":
        monkeypatch.setattr(products.torch.ops, "mkldnn", object())
    assert products.onednn_is_faster.__wrapped__() is False
