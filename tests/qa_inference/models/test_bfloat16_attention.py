"""Attention in bfloat16 against torch's own in float32, and the choice between the two."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qa_inference.models import _bfloat16_attention as attention
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.shared_rows import ScoringRequest
from tests import tiny

ROWS, HEADS, LENGTH, COUNT, WIDTH = 3, 4, 5, 7, 8
SCALING = 0.5
LENGTHS = torch.tensor([7, 4, 6])
PADDING = (torch.arange(COUNT) < LENGTHS[:, None])[:, None, None]  # [N, 1, 1, K]
OF_QUERIES = torch.ones(1, 1, LENGTH, COUNT, dtype=torch.bool).tril(2)


def _tensors(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(ROWS, HEADS, count, WIDTH) for count in (LENGTH, COUNT, COUNT)]
    return [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]


def _bias(rows: int) -> Tensor:
    """A bias [rows, H, T, K] in T5's layout: heads last in memory."""
    values = torch.randn(rows, LENGTH, COUNT, HEADS, generator=torch.Generator().manual_seed(1))
    return (3 * values).bfloat16().permute(0, 3, 1, 2)


BIASES = pytest.mark.parametrize("bias", [None, _bias(1), _bias(ROWS)], ids=["no bias", "one bias", "biases of rows"])


def _expected(tensors: list[Tensor], visible: Tensor | None, bias: Tensor | None = None) -> Tensor:
    floats = [tensor.float() for tensor in tensors]
    mask = visible
    if bias is not None:
        mask = bias.float() if visible is None else bias.float().masked_fill(~visible, -torch.inf)
    return F.scaled_dot_product_attention(*floats, mask, scale=SCALING).transpose(1, 2)


@pytest.mark.parametrize(
    "visible",
    [None, PADDING, PADDING.expand(-1, -1, LENGTH, -1), OF_QUERIES, PADDING & OF_QUERIES],
    ids=["all", "padding", "expanded padding", "of queries", "both"],
)
@pytest.mark.parametrize("room", [1, 100, 1 << 21])
@BIASES
def test_it_agrees_with_float32(
    visible: Tensor | None, room: int, bias: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", room)
    tensors = _tensors()
    attended = attention.bfloat16_attention(*tensors, visible, SCALING, bias)
    assert attended is not None and attended.dtype is torch.bfloat16
    torch.testing.assert_close(attended.float(), _expected(tensors, visible, bias), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("visible", [None, PADDING], ids=["all", "padding"])
@pytest.mark.parametrize("room", [1, HEADS * COUNT * WIDTH * 2, 1 << 17])
@pytest.mark.parametrize("factor", [1.0, 100.0, -100.0], ids=["usual", "overflow", "underflow"])
@BIASES
def test_one_query_agrees_with_float32(
    visible: Tensor | None, room: int, factor: float, bias: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "NUMBERS_AT_ONCE", room)
    query, key, value = _tensors()
    tensors = [factor * query[:, :, :1], key.abs() + 1, value]
    bias = None if bias is None else bias[:, :, :1]
    attended = attention.one_query_attention(*tensors, visible, SCALING, bias)
    assert attended.dtype is torch.bfloat16
    torch.testing.assert_close(attended.float(), _expected(tensors, visible, bias), atol=0.01, rtol=0.01)


@pytest.mark.parametrize("factor", [100.0, -100.0], ids=["overflow", "underflow"])
@pytest.mark.parametrize("visible", [None, PADDING, PADDING & OF_QUERIES], ids=["all", "padding", "both"])
@BIASES
def test_a_query_with_extreme_scores_is_asked_again(factor: float, visible: Tensor | None, bias: Tensor | None) -> None:
    query, key, value = _tensors()
    key = key.abs() + 1  # so that all scores of the query are high, or all are low
    query[1, 2, 3] = factor
    attended = attention.bfloat16_attention(query, key, value, visible, SCALING, bias)
    assert attended is not None
    expected = _expected([query, key, value], visible, bias)
    torch.testing.assert_close(attended.float(), expected, atol=0.03, rtol=0.03)


def test_a_query_with_an_extreme_bias_is_asked_again() -> None:
    tensors = _tensors()
    bias = _bias(1)
    bias[0, 1, 2] += 200  # the softmax does not change; the sum of the exponentials overflows
    attended = attention.bfloat16_attention(*tensors, PADDING, SCALING, bias)
    assert attended is not None
    torch.testing.assert_close(attended.float(), _expected(tensors, PADDING, bias), atol=0.03, rtol=0.03)


def test_many_extreme_queries_are_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = _tensors()
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 8)
    monkeypatch.setattr(attention, "cpu_has_bfloat16", lambda: True)
    extreme = 100 * query
    assert attention.bfloat16_attention(extreme, key, value, None, SCALING) is None
    module: Any = SimpleNamespace(is_causal=False)
    attended, _ = attention.attention_forward(module, extreme, key, value, None, scaling=SCALING)
    torch.testing.assert_close(attended.float(), _expected([extreme, key, value], None), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("visible", [None, PADDING], ids=["causal", "padding"])
@pytest.mark.parametrize("bias", [_bias(1), _bias(ROWS)], ids=["one bias", "biases of rows"])
def test_a_bias_of_positions_gives_the_same_with_and_without_it(
    visible: Tensor | None, bias: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = SimpleNamespace(is_causal=visible is None)
    query, key, value = _tensors()
    tensors = [query, key[:, :, :LENGTH], value[:, :, :LENGTH]]
    visible = None if visible is None else visible[..., :LENGTH]
    results = []
    for native in (True, False):
        monkeypatch.setattr(attention, "cpu_has_bfloat16", lambda native=native: native)
        attended, _ = attention.attention_forward(
            module, *tensors, visible, scaling=SCALING, position_bias=bias[..., :LENGTH]
        )
        results.append(attended)
    assert not torch.equal(*results)  # one of them was computed in another way
    torch.testing.assert_close(*results, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("is_causal", [True, False])
def test_the_library_has_what_does_not_suit(is_causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(attention, "bfloat16_attention", lambda *arguments: calls.append(arguments))
    one_query_attention, calls_of_one = attention.one_query_attention, []

    def counted(*arguments: Any) -> Tensor:
        calls_of_one.append(arguments)
        return one_query_attention(*arguments)

    monkeypatch.setattr(attention, "one_query_attention", counted)
    module: Any = SimpleNamespace(is_causal=is_causal)
    query, key, value = _tensors()
    for native in (True, False):
        monkeypatch.setattr(attention, "cpu_has_bfloat16", lambda native=native: native)
        for tensors in ([query, key, value], [query[:, :, :1], key, value]):
            attended, _ = attention.attention_forward(module, *tensors, None, scaling=SCALING)
            assert attended.dtype is torch.bfloat16
        floats = [tensor.float() for tensor in (query, key, value)]
        attention.attention_forward(module, *floats, None, scaling=SCALING)
        attention.attention_forward(module, query, key, value, PADDING.to(query.dtype), scaling=SCALING)
    assert len(calls) == len(calls_of_one) == 1  # bfloat16 on a processor that multiplies it, a mask of true and false
    visible = calls[0][3]
    assert (visible is None) is not is_causal
    if is_causal:
        assert visible.sum() == LENGTH * (LENGTH + 1) / 2


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_model_gives_the_same_with_and_without_it(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = []
    requests = [ScoringRequest([5, 9, 30, 11, 3], [[9, 12, 4], [30, 7]]), ScoringRequest([5, 3], [[8, 8, 4]])]
    for native in (True, False):
        monkeypatch.setattr(attention, "cpu_has_bfloat16", lambda native=native: native)
        network, tokenizer = tiny.checkpoint(family)
        model = EncoderDecoder(network.bfloat16(), tokenizer)
        assert model.shared
        scores.append(torch.cat([torch.tensor(a) for arrays in model.log_likelihood(requests) for a in arrays]))
    assert not torch.equal(*scores)  # one of them was computed in another way
    torch.testing.assert_close(*scores, atol=0.1, rtol=0.05)
