"""Whether a model fits into memory, said before its weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

_CGROUP = Path("/sys/fs/cgroup")


def parameter_bytes(config: Any, dtype: torch.dtype) -> int | None:
    """How many bytes the weights of a decoder-only model take in `dtype`; None if it is stored quantized.

    Counted on a model without weights, made from `config`.
    """
    if getattr(config, "quantization_config", None) is not None:
        return None
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    return int(dtype.itemsize * sum(parameter.numel() for parameter in model.parameters()))


def free_bytes(device: torch.device) -> int | None:
    """The memory a process may still take on `device`, in bytes; None where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    return min((found for found in (_machine(), _container()) if found is not None), default=None)


def check_fits(name: str, needed: int, free: int | None, dtype: torch.dtype) -> None:
    """Raise MemoryError if weights of `needed` bytes do not fit into `free` ones."""
    if free is None or needed <= free:
        return
    smaller = "dtype bfloat16 (half of it), " if dtype is torch.float32 else ""
    raise MemoryError(
        f"model {name!r}: its weights must fit into memory; they take {_gigabytes(needed)} in "
        f"{str(dtype).removeprefix('torch.')} and {_gigabytes(free)} are free. Use {smaller}a smaller or a quantized "
        f"model, or a device_map"
    )


def _machine() -> int | None:
    """What Linux says is available; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _container(folder: Path = _CGROUP) -> int | None:
    """What a control group leaves; None where there is none, or no limit. File caches, which give way, are free."""
    try:
        limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        cached = next(
            (int(line.split()[1]) for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
             if line.startswith("inactive_file ")), 0
        )  # fmt: skip
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used) + cached)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
