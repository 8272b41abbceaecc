"""A CUDA device for machines that have none: it computes on the CPU, and as a GPU takes no tensors from there.

    with device.pretended() as gpu:
        scorer = QualsScorer(QualsConfig(device="cuda:0", dtype="float32"))
        scorer.score(…)
    gpu.waits  # what made the CPU wait for the device, and how often

Tensors on it are of a class of their own, around a tensor on the CPU. Every operation is caught where torch dispatches
it: one that mixes tensors of both places raises as on a GPU (tensors of no dimension may be mixed there too), the
others are computed and give tensors of the same place. What a GPU does otherwise, its kernels, streams, memory and
speed, is not pretended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

aten = torch.ops.aten
BETWEEN = (aten._to_copy.default, aten.copy_.default, aten.to.other)
"""Operations that copy from one place to the other."""
PINNED = (aten.pin_memory.default, aten._pin_memory.default)
GPU = torch.device("cuda:0")
CPU = torch.device("cpu")


class OnDevice(Tensor):
    """A tensor on the device; `held` has its numbers."""

    held: Tensor
    gpu: Gpu

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor, gpu: Gpu) -> OnDevice:
        shape: dict[str, Any] = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        with torch.inference_mode(False):  # else views of what was made outside of it could not be made inside
            made: OnDevice = Tensor._make_wrapper_subclass(cls, held.size(), **shape, device=GPU)
        made.held, made.gpu = held, gpu
        return made

    def __tensor_flatten__(self) -> tuple[list[str], Gpu]:  # lets modules move with their tied weights
        return ["held"], self.gpu

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], gpu: Gpu, size: Any, stride: Any) -> OnDevice:
        return OnDevice(inner["held"], gpu)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: called on a device that is pretended no more")

    # torch's own of these ask the device for its driver

    def __getitem__(self, index: Any) -> OnDevice:
        return OnDevice(self.held[self._places(index)], self.gpu)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, Tensor) and not isinstance(value, OnDevice) and value.dim():
            raise RuntimeError("a part of a tensor on the device cannot be set to one on the CPU")
        self.held[self._places(index)] = _held(value)

    def __invert__(self) -> Tensor:
        return torch.bitwise_not(self)

    def contiguous(self, **kwargs: Any) -> Tensor:
        return OnDevice(self.held.contiguous(**kwargs), self.gpu)

    def _places(self, index: Any) -> Any:
        """An index of tensors on the CPU; what a GPU would wait for is counted."""
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if isinstance(part, OnDevice):
                self.gpu.waits["boolean index"] += part.dtype == torch.bool
            elif isinstance(part, Tensor | list) and len(part):
                self.gpu.waits["index from the CPU"] += 1
        return tuple(map(_held, parts)) if isinstance(index, tuple) else _held(index)


def _waiting(name: str) -> Callable[..., Any]:
    """A method that reads numbers off the device."""

    def read(self: OnDevice, *args: Any) -> Any:
        self.gpu.waits[name] += 1
        return getattr(self.held, name)(*args)

    return read


for _name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__"):
    setattr(OnDevice, _name, _waiting(_name))


class Gpu(TorchDispatchMode):
    """Catches operations; `waits` counts what made the CPU wait, by its kind."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in PINNED:
            return args[0]
        leaves = list(tree_iter((args, kwargs)))
        there = [x for x in leaves if isinstance(x, OnDevice)]
        here = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, OnDevice)]
        devices = [x for x in leaves if isinstance(x, torch.device)]
        goes_there = devices[0].type == GPU.type if devices else bool(there)
        if func is aten._has_compatible_shallow_copy_type.default:
            return len({isinstance(x, OnDevice) for x in args}) == 1
        if there and any(x.dim() for x in here) and func not in BETWEEN:
            raise RuntimeError(f"{func}: found tensors on two devices, {GPU} and the CPU")
        if there and (not goes_there or func is aten.nonzero.default):
            self.waits[str(func)] += 1
        found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if not goes_there:
            return found
        known = {id(x.held): x for x in there}  # what an operation changed and gives back stays the same object

        def wrapped(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return known[id(value)] if id(value) in known else OnDevice(value, self)

        return tree_map(wrapped, found)


def _held(value: Any) -> Any:
    """What is computed with: the numbers of a tensor, and the CPU instead of the device."""
    if isinstance(value, OnDevice):
        return value.held
    return CPU if isinstance(value, torch.device) and value.type == GPU.type else value


@contextmanager
def pretended() -> Iterator[Gpu]:
    """A machine with one CUDA device, as long as the block lasts."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(…, device=…)` is made on the CPU first, and then moved
    try:
        with (
            mock.patch.object(torch.cuda, "_lazy_init", return_value=None),
            mock.patch.object(torch.cuda, "device_count", return_value=1),
            mock.patch.object(torch.cuda, "is_bf16_supported", return_value=True),
            mock.patch.object(torch.cuda, "mem_get_info", return_value=(1 << 34, 1 << 34)),
            Gpu() as gpu,
        ):
            yield gpu
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
