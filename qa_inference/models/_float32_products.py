"""Products of float32 matrices on a CPU, by the faster of torch's two libraries.

torch multiplies float32 matrices by MKL, which runs at less than half of its speed on processors that are not Intel's.
torch also carries oneDNN, which it uses for bfloat16 and for convolutions. Its products of float32 matrices are in full
float32 too, whatever precision the process has set.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MEASURED_SHAPE = (128, 512, 512)  # rows, inner size and columns of the product that is timed
MEASURED_TIMES = 12  # in a row, so that a program that takes turns with this one interrupts only some of them
ROW_STEP = 32  # oneDNN keeps some 0.4 MB for every number of rows that it has met, so it gets multiples of this
CLEARLY_FASTER = 1.3  # times as fast; the choice does not depend on the small differences of two measurements


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """`hidden @ weight.T + bias` [..., V] of `hidden` [..., D], `weight` [V, D] and `bias` [V].

    Products of another type or on another device, and those whose gradients are recorded, are torch's own. `out`
    [N, V] is memory that torch may use for the result if `hidden` is [N, D] and there is no bias.
    """
    in_float32 = hidden.dtype is torch.float32 and weight.dtype is torch.float32 and hidden.device.type == "cpu"
    if in_float32 and not torch.is_grad_enabled() and onednn_is_faster():
        return _onednn_linear(hidden, weight, bias)
    return F.linear(hidden, weight, bias) if out is None else torch.mm(hidden, weight.T, out=out)


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN is clearly the faster library on this CPU, by the shortest time of each for one product."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    rows, inner, columns = MEASURED_SHAPE
    factors = torch.ones(rows, inner), torch.ones(columns, inner)
    with torch.inference_mode():
        usual, onednn = (
            min(_seconds(library, *factors) for _ in range(MEASURED_TIMES)) for library in (F.linear, _onednn_linear)
        )
    return usual > CLEARLY_FASTER * onednn


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
