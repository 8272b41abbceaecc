"""Run a block of code and restore the state of the training after it.

Generating and scoring can change the mode of the model's parts, the random generators, whether gradients are recorded,
settings of the model and its tokenizer, and memory. Everything is restored, also after an error.
"""

from __future__ import annotations

import contextlib
import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

_DEVICES = (torch.cuda, torch.xpu)
_CHECKPOINTING = ("gradient_checkpointing", "_gradient_checkpointing_func")
_TOKENIZER_SETTINGS = ("padding_side", "truncation_side")


@contextlib.contextmanager
def left_as_found(model: torch.nn.Module, tokenizer: Any = None) -> Iterator[None]:
    """Run the block with `model` in evaluation mode and without gradients; afterwards restore everything.

    Restored are: train or evaluation mode of every submodule; gradient checkpointing; `use_cache`; the random
    generators of Python, NumPy, torch and the accelerators; whether gradients are recorded; the tokenizer's padding and
    truncation. The block's memory is released. The block does not run in inference mode: a tensor that a model keeps
    from such a pass (a table of positions that has grown) cannot be trained.

    Args:
        model: the model in training, unwrapped.
        tokenizer: the model's tokenizer, if the block uses it.
    """
    restores = [_modes(model), _settings(model), _random_generators()]
    if tokenizer is not None:
        restores.append(_tokenizer(tokenizer))
    gradients = torch.is_grad_enabled()
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        torch.set_grad_enabled(gradients)
        for restore in restores:
            restore()
        release_memory()


def release_memory() -> None:
    """Release the memory of accelerators that no object holds any more. A CPU's memory is released without this."""
    devices = _devices_in_use()
    if devices:
        gc.collect()  # the tensors of a failed call are in a reference cycle with its traceback
    for device in devices:
        device.empty_cache()


def _devices_in_use() -> list[Any]:
    """The kinds of accelerators that this process uses."""
    return [device for device in _DEVICES if device.is_available() and device.is_initialized()]


def _modes(model: torch.nn.Module) -> Callable[[], None]:
    """The mode of every submodule: a frozen part of a model may be in evaluation mode while the rest is trained."""
    modes = [(module, module.training) for module in model.modules()]

    def restore() -> None:
        for module, training in modes:
            module.training = training

    return restore


def _settings(model: torch.nn.Module) -> Callable[[], None]:
    """`use_cache` of every configuration in the model, and gradient checkpointing of every submodule."""
    configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    configs.append(getattr(model, "generation_config", None))
    owners = [(config, "use_cache") for config in configs]
    # The function too, because switching checkpointing off replaces the user's.
    owners += [(module, name) for module in model.modules() for name in _CHECKPOINTING]
    settings = [(owner, name, getattr(owner, name)) for owner, name in owners if hasattr(owner, name)]

    def restore() -> None:
        for owner, name, value in settings:
            setattr(owner, name, value)

    return restore


def _random_generators() -> Callable[[], None]:
    """The random generators of Python, NumPy and torch, and those of the accelerators in use."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = [(device, device.get_rng_state_all()) for device in _devices_in_use()]

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for device, states in devices:
            device.set_rng_state_all(states)

    return restore


def _tokenizer(tokenizer: Any) -> Callable[[], None]:
    """The sides on which a tokenizer pads and cuts, and the settings that a fast tokenizer keeps of its last call."""
    settings = {name: getattr(tokenizer, name) for name in _TOKENIZER_SETTINGS if hasattr(tokenizer, name)}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    truncation, padding = getattr(backend, "truncation", None), getattr(backend, "padding", None)

    def restore() -> None:
        for name, value in settings.items():
            if getattr(tokenizer, name) != value:
                setattr(tokenizer, name, value)
        if backend is not None:
            backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
            backend.no_padding() if padding is None else backend.enable_padding(**padding)

    return restore
