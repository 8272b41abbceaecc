"""Whether a model's weights fit into the memory of a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qa_inference.models.devices import dtype_name

_CGROUP = Path("/sys/fs/cgroup")


def parameter_bytes(task_class: Any, config: Any, dtype: torch.dtype) -> int | None:
    """The size of a model's weights in `dtype`, in bytes; None for a quantized checkpoint, whose size is unknown.

    The parameters are counted on a model without weights, which `task_class` makes from `config`.
    """
    if getattr(config, "quantization_config", None) is not None:
        return None
    with torch.device("meta"):
        model: Any = task_class.from_config(config)
    return int(dtype.itemsize * sum(parameter.numel() for parameter in model.parameters()))


def free_bytes(device: torch.device) -> int | None:
    """The memory that a process can still allocate on `device`, in bytes; None where it is unknown."""
    if device.type == "cuda":
        stats = torch.cuda.memory_stats(device)  # torch keeps memory that it does not use, and reuses it
        unused = stats.get("reserved_bytes.all.current", 0) - stats.get("allocated_bytes.all.current", 0)
        return int(torch.cuda.mem_get_info(device)[0]) + int(unused)
    if device.type != "cpu":
        return None
    return min((count for count in (_machine_bytes(), _container_bytes()) if count is not None), default=None)


def check_fits(name: str, needed: int, free: int | None, dtype: torch.dtype) -> None:
    """Raise MemoryError if weights of `needed` bytes do not fit into `free` bytes."""
    if free is None or needed <= free:
        return
    smaller = "dtype bfloat16 (half of it), " if dtype is torch.float32 else ""
    raise MemoryError(
        f"model {name!r}: its weights must fit into memory; they take {needed / 1e9:.1f} GB in "
        f"{dtype_name(dtype)} and {free / 1e9:.1f} GB are free. Use {smaller}a smaller or a quantized "
        f"model, or, if it is decoder-only, a device_map"
    )


def _machine_bytes() -> int | None:
    """The memory that Linux reports as available; None on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _container_bytes(folder: Path = _CGROUP) -> int | None:
    """The memory left below a control group's limit; None without a limit. File caches count as free memory."""
    try:
        limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    cached = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return None if limit == "max" else max(0, int(limit) - int(used) + cached)
