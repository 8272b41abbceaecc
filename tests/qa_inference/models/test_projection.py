"""The projection onto the vocabulary and what is read off it, against the library's plain functions."""

from __future__ import annotations

import pytest
import torch

from qa_inference.models import projection as projections
from qa_inference.models.projection import CappedProjection, Projection


def _projection(size: int, *, bias: bool, scale: float = 1.0) -> tuple[Projection, torch.Tensor]:
    """A projection from 24 to `size`, and 50 rows to project."""
    generator = torch.Generator().manual_seed(size)
    weight, hidden, offset = (torch.randn(*shape, generator=generator) for shape in ((size, 24), (50, 24), (size,)))
    return Projection(weight, offset if bias else None, scale), hidden


@pytest.mark.parametrize("size", [7, 40, 1_000, 30_001])
@pytest.mark.parametrize("count", [1, 5, 37])
@pytest.mark.parametrize("banned", [0, 1, 2])
def test_the_top_tokens_are_exact(size: int, count: int, banned: int) -> None:
    logits = 3 * torch.randn(6, size, generator=torch.Generator().manual_seed(1))
    expected = logits.log_softmax(-1)
    out = logits[0].topk(banned).indices.tolist()
    expected[:, out] = -torch.inf
    values, ids = Projection().top(logits.clone(), count, out)
    torch.testing.assert_close(values, expected.topk(min(count, size - banned)).values)
    torch.testing.assert_close(values, expected.gather(-1, ids))


def test_top_of_many_equal_logits_names_no_token_twice() -> None:
    _, ids = Projection().top(torch.zeros(3, 2_000), 40)
    assert all(len(set(row.tolist())) == 40 for row in ids)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("logits", [1, 2_000, 1 << 22])
@pytest.mark.parametrize(("few", "many"), [(1, 1), (64, 256), (64, 7)])  # the vocabulary whole, and in parts
def test_chunks_change_nothing(
    bias: bool, scale: float, logits: int, few: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CPU_LOGITS", logits), ("FEW_ROWS", few), ("MANY_ROWS", many)):
        monkeypatch.setattr(projections, name, value)
    projection, hidden = _projection(300, bias=bias, scale=scale)
    assert projection.weight is not None
    expected = scale * hidden @ projection.weight.T + (0 if projection.bias is None else projection.bias)
    expected = expected.log_softmax(-1)
    before = hidden.clone()
    values, ids = projection.top(hidden, 5, [3])
    targets = torch.arange(50)
    torch.testing.assert_close(values, expected.gather(-1, ids), atol=1e-5, rtol=1e-5)
    assert not (ids == 3).any()
    torch.testing.assert_close(projection.log_probs(hidden, targets), expected.gather(-1, targets[:, None])[:, 0])
    assert torch.equal(hidden, before)


def test_bent_logits_are_bent_in_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, hidden = _projection(300, bias=True)
    bent = CappedProjection(plain.weight, plain.bias, 1.0, 2.0)
    expected = (2 * (plain.logits(hidden) / 2).tanh()).log_softmax(-1)
    monkeypatch.setattr(projections, "CPU_LOGITS", 2_000)
    monkeypatch.setattr(projections, "MANY_ROWS", 40)
    values, ids = bent.top(hidden, 5)
    torch.testing.assert_close(values, expected.topk(5).values)
    torch.testing.assert_close(values, expected.gather(-1, ids))


def test_logits_may_stand_for_hidden_states() -> None:
    logits = torch.randn(9, 64, generator=torch.Generator().manual_seed(3))
    expected = logits.log_softmax(-1)
    values, ids = Projection().top(logits.clone(), 4)
    torch.testing.assert_close(values, expected.topk(4).values)
    targets = ids[:, 1]
    torch.testing.assert_close(Projection().log_probs(logits.clone(), targets), values[:, 1])


def test_extreme_and_half_precision_logits() -> None:
    for logits in (torch.tensor([[300.0, -300.0, 299.0]]), torch.tensor([[-500.0, -501.0, -502.0]])):
        expected = logits.log_softmax(-1)
        torch.testing.assert_close(Projection().log_probs(logits.clone(), torch.tensor([2])), expected[:, 2])
        half = logits.bfloat16()
        values, _ = Projection().top(half, 3)
        torch.testing.assert_close(values, half.float().log_softmax(-1).sort(descending=True).values)
