"""Products of float32 matrices on a CPU, by the faster of torch's two libraries.

torch multiplies float32 matrices by MKL. On the AMD processors that we measured, MKL reaches less than half of their
speed. torch also carries oneDNN, which it uses for bfloat16 and for convolutions. The products of both libraries are in
full float32, whatever precision the process has set. They differ by rounding.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEASURED_SHAPE = (128, 512, 512)  # rows, inner size and columns of the product that is timed
MEASURED_TIMES = 12  # close together, so that another program on the same core can disturb only some of them
CLEARLY_FASTER = 1.3  # times as fast; a small difference of two measurements must not decide
ROW_STEP = 32  # oneDNN keeps some 0.4 MB for every number of rows that it has met, so it gets multiples of this


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None, *, memory: Tensor | None = None) -> Tensor:
    """`hidden @ weight.T + bias` [..., V] of `hidden` [..., D], `weight` [V, D] and `bias` [V].

    Only products of plain float32 tensors on a CPU whose gradients are not recorded may be oneDNN's. All others are
    torch's own, and all are if `torch.backends.mkldnn.enabled` is False. torch writes the result into `memory` [N, V]
    if it is given, `hidden` is [N, D] and there is no bias; oneDNN does not.
    """
    suits = not torch.is_grad_enabled() and bool(torch.backends.mkldnn.enabled)
    if suits and all(_is_plain(part) for part in (hidden, weight, bias) if part is not None) and onednn_is_faster():
        return _onednn_linear(hidden, weight, bias)
    return F.linear(hidden, weight, bias) if memory is None else torch.mm(hidden, weight.T, out=memory)


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN is clearly the faster library on this CPU, by the shortest time of each for one product."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    rows, inner, columns = MEASURED_SHAPE
    factors = [torch.ones(shape, dtype=torch.float32, device="cpu") for shape in ((rows, inner), (columns, inner))]
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        usual, onednn = (
            min(_seconds(library, *factors) for _ in range(MEASURED_TIMES)) for library in (F.linear, _onednn_linear)
        )
    return usual > CLEARLY_FASTER * onednn


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is of float32, in a CPU's memory, and of no class that computes in its own way."""
    return tensor.dtype is torch.float32 and tensor.device.type == "cpu" and type(tensor) in (Tensor, nn.Parameter)


def _onednn_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rows = hidden.shape[:-1].numel()
    missing = -rows % ROW_STEP if rows > ROW_STEP else 0
    factor = F.pad(hidden.reshape(rows, -1), (0, 0, 0, missing)) if missing else hidden
    product: Tensor = torch.ops.mkldnn._linear_pointwise(factor, weight, bias, "none", [], "")
    return product[:rows].view(*hidden.shape[:-1], -1) if missing else product


def _seconds(library: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, weight: Tensor) -> float:
    began = time.perf_counter()
    library(hidden, weight)
    return time.perf_counter() - began
