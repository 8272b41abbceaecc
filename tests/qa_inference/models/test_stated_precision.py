"""What the process has set about precision changes no number, and is as it was afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import torch

from qa_inference.decoding import DiverseBeamSearch
from qa_inference.models.decoder_only import DecoderOnly
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.inference import stated_precision
from qa_inference.models.reader import Reader
from qa_inference.models.shared_rows import ScoringRequest
from tests import tiny, tiny_causal, tiny_readers

CPU = torch.device("cpu")
INPUTS = [[5, 9, 30, 11, 3], [8, 21, 14]]


@contextmanager
def _legacy(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    yield
    torch.set_float32_matmul_precision(before)


@contextmanager
def _newer() -> Iterator[None]:
    backend = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    if not hasattr(backend, "fp32_precision"):
        pytest.skip("this torch has one setting for all libraries")
    before, backend.fp32_precision = backend.fp32_precision, "bf16"
    yield
    backend.fp32_precision = before


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "medium": lambda: _legacy("medium"),
    "newer": _newer,
}
every_state = pytest.mark.parametrize("state", STATES)


def _numbers(kind: str) -> list[list[float]]:
    """All that a model made now computes, search and likelihoods, or spans."""
    if kind == "reader":
        reader = Reader(*tiny_readers.checkpoint("bert"))
        (spans,) = reader.spans(reader.windows("Who beat Klitschko?", tiny.CORPUS[0]))
        return [spans.scores.tolist(), [spans.null_score]]
    model: Any = (
        EncoderDecoder(*tiny.checkpoint("bart")) if kind == "bart" else DecoderOnly(*tiny_causal.checkpoint("llama"))
    )
    assert model.shared and model.decoder.projection.weight is not None
    found = model.generate(INPUTS, DiverseBeamSearch(4, 0.5, 2, 8))
    requests = [ScoringRequest(ids, [h.tokens for h in hs]) for ids, hs in zip(INPUTS, found, strict=True)]
    likelihoods = model.log_likelihood(requests)
    return [h.log_probs.tolist() for hs in found for h in hs] + [a.tolist() for arrays in likelihoods for a in arrays]


@every_state
@pytest.mark.parametrize("kind", ["bart", "llama", "reader"])
def test_21_a1_numbers_do_not_depend_on_the_state_of_the_process(kind: str, state: str) -> None:
    expected = _numbers(kind)
    with STATES[state]():
        assert _numbers(kind) == expected


@every_state
def test_21_a1_the_state_is_left_as_found(state: str) -> None:
    factor = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    with STATES[state]():
        outside = factor @ factor
        before = (torch.is_autocast_enabled("cpu"), torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]
        with suppress(KeyError), stated_precision(CPU):
            assert not torch.is_autocast_enabled("cpu")
            inside = factor @ factor
            raise KeyError
        assert (torch.is_autocast_enabled("cpu"), torch.backends.mkldnn.matmul.fp32_precision) == before  # type: ignore[attr-defined]
        assert torch.equal(factor @ factor, outside)
    assert inside.dtype is torch.float32
    np.testing.assert_array_equal(inside, factor @ factor)


def test_21_a1_the_precision_inside_is_the_highest() -> None:
    with _legacy("medium"):
        with stated_precision(CPU):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
