"""The device and the floating-point type that a model computes in."""

from __future__ import annotations

import functools
import logging
import os

import torch

logger = logging.getLogger(__name__)

_ACCELERATORS = ("cuda", "xpu")
DTYPES_BY_NAME = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The device to compute on.

    Args:
        device: a device of this machine; None: the first kind that exists of CUDA, XPU and CPU. If no number is given,
            `LOCAL_RANK`, which a launcher sets, chooses among several devices. Processes beyond their number share
            them evenly.

    Raises:
        ValueError: if `device` is not the name of a device of this machine.
    """
    if device is None:
        return _of_this_process(next((kind for kind in _ACCELERATORS if _num_devices(kind)), "cpu"))
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: must be a name such as 'cpu' or 'cuda:0'; got {device!r}. Correct it") from error
    if (chosen.index or 0) >= _num_devices(chosen.type):
        present = [f"{kind} ({_num_devices(kind)})" for kind in ("cuda", "xpu", "mps", "cpu") if _num_devices(kind)]
        raise ValueError(
            f"device: must be one that this machine has; got '{chosen}'. Choose one of these: {', '.join(present)}"
        )
    return chosen if ":" in str(chosen) else _of_this_process(chosen.type)


def _of_this_process(kind: str) -> torch.device:
    """The device of a kind that `LOCAL_RANK` chooses; without it, or for a CPU, the kind's default."""
    rank = os.environ.get("LOCAL_RANK", "")
    is_chosen = kind in _ACCELERATORS and rank.isdecimal()
    return torch.device(kind, int(rank) % _num_devices(kind)) if is_chosen else torch.device(kind)


def _num_devices(kind: str) -> int:
    count = getattr(getattr(torch, kind, None), "device_count", None)
    return 0 if count is None else int(count())


@functools.cache
def cpu_has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 itself; emulation takes several times as long."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@functools.cache
def _warn_of_slow_bfloat16() -> None:
    logger.warning("This CPU emulates bfloat16; float32 uses more memory but is much faster.")


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The floating-point type to compute in on `device`; warns once in the log if the CPU emulates bfloat16.

    Args:
        dtype: "float32", "bfloat16", "float16" or the torch type; None: bfloat16 on a CUDA device that computes in it,
            else float32.
        device: where the model computes.

    Raises:
        ValueError: if `dtype` is another type, or float16 on a CPU.
    """
    if dtype is None:
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    chosen = DTYPES_BY_NAME.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in DTYPES_BY_NAME.values():
        raise ValueError(f"dtype: must be one of {', '.join(DTYPES_BY_NAME)}; got {dtype!r}. Choose one of these")
    if chosen is torch.float16 and device.type == "cpu":
        raise ValueError("dtype: must be float32 or bfloat16 on a CPU; got float16. Choose one of these, or a GPU")
    if chosen is torch.bfloat16 and device.type == "cpu" and not cpu_has_bfloat16():
        _warn_of_slow_bfloat16()
    return chosen


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a type as the option `dtype` has it, for example "float32"."""
    return str(dtype).removeprefix("torch.")
