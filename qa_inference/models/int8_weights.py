"""Weights in 8 bits on disk: half the size of bfloat16, for a checkpoint that has to fit into a wheel.

A matrix is stored as int8 with one float32 scale per row, a weight of another shape as it is. Weights are dequantized
when they are loaded, so a model computes as any other does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE = "weights.int8.safetensors"
_SCALE = ".scale"


def is_stored_in_int8(folder: Path) -> bool:
    """Whether a folder has its weights in 8 bits."""
    return (folder / FILE).is_file()


def write_int8_weights(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write weights into a folder, matrices in 8 bits.

    A row's scale is its greatest magnitude divided by 127, so each number is off by at most half a scale.
    """
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.dim() != 2:
            stored[name] = weight.detach().float().contiguous()
            continue
        matrix = weight.detach().float()
        scale = matrix.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        stored[name] = (matrix / scale).round().to(torch.int8).contiguous()
        stored[name + _SCALE] = scale[:, 0].contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(stored, folder / FILE, {"format": "pt"})


def read_int8_weights(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Read the weights of a folder as numbers of a type.

    Raises OSError or `safetensors.SafetensorError` if the file cannot be read, KeyError if a matrix lacks its scale.
    """
    stored = load_file(folder / FILE)
    scales = {name for name in stored if name.endswith(_SCALE)}
    return {
        name: (weight.float() * stored[name + _SCALE][:, None] if weight.dtype == torch.int8 else weight).to(dtype)
        for name, weight in stored.items()
        if name not in scales
    }
