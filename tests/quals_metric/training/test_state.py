"""After the block everything is as it was before, whatever happened in it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from quals_metric.training import state
from quals_metric.training.state import left_as_found
from tests import tiny


def _draws() -> tuple[Any, ...]:
    return random.random(), np.random.rand(), float(torch.rand(()))


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(fails: bool) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    model.train()
    model.model.encoder.eval()  # a frozen part
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache, model.generation_config.use_cache = False, False
    tokenizer.padding_side, tokenizer.truncation_side = "left", "left"
    tokenizer(["a b c", "a"], padding=True, truncation=True, max_length=4)
    backend = tokenizer.backend_tokenizer
    facts: Callable[[], Any] = lambda: (  # noqa: E731  (what is compared, in one place)
        [module.training for module in model.modules()],
        [getattr(module, "gradient_checkpointing", None) for module in model.modules()],
        model.config.use_cache, model.generation_config.use_cache, tokenizer.padding_side, tokenizer.truncation_side,
        backend.truncation, backend.padding, torch.is_grad_enabled(),
        [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
    )  # fmt: skip
    before = facts()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(11)
    expected = _draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(11)
    try:
        with left_as_found(model, tokenizer):
            assert not any(module.training for module in model.modules()) and not torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            assert _draws() == expected
            torch.set_grad_enabled(True)
            model.train()
            model.activation_checkpointing_disable()
            model.config.use_cache = model.generation_config.use_cache = True
            tokenizer.padding_side = tokenizer.truncation_side = "right"
            tokenizer(["a b c", "a"], padding="max_length", truncation=True, max_length=9)
            assert facts() != before
            if fails:
                raise LookupError("gone")
    except LookupError:
        assert fails
    assert facts() == before
    assert _draws() == expected
    model(**tokenizer(["a b"], return_tensors="pt"), labels=torch.tensor([[5, 6]])).loss.backward()  # gradients flow


def test_what_was_off_stays_off() -> None:
    """A tokenizer that neither cut nor padded is saved without either afterwards; evaluation mode stays."""
    model, tokenizer = tiny.checkpoint("t5")
    model.eval()
    with torch.no_grad(), left_as_found(model, tokenizer):
        tokenizer(["a b c", "a"], padding=True, truncation=True, max_length=4)
        torch.set_grad_enabled(True)
    assert tokenizer.backend_tokenizer.truncation is None and tokenizer.backend_tokenizer.padding is None
    assert not model.training and torch.is_grad_enabled()


@pytest.mark.parametrize("in_use", [False, True])
def test_an_accelerator(monkeypatch: pytest.MonkeyPatch, in_use: bool) -> None:
    """Stands for torch.cuda, which the machines of the tests do not have: the calls it would get."""

    class Device:
        states, calls = [b"begin"], 0

        def is_available(self) -> bool:
            return True

        def is_initialized(self) -> bool:
            return in_use

        def get_rng_state_all(self) -> list[bytes]:
            assert in_use
            return list(self.states)

        def set_rng_state_all(self, states: list[bytes]) -> None:
            self.states = states

        def empty_cache(self) -> None:
            self.calls += 1

    device = Device()
    monkeypatch.setattr(state, "_DEVICES", (device,))
    with contextlib.suppress(LookupError), left_as_found(torch.nn.Linear(2, 2)):
        device.states = [b"end"]
        raise LookupError
    assert device.states == ([b"begin"] if in_use else [b"end"]) and device.calls == int(in_use)
