"""Modules that a CPU computes faster, in place of those of transformers; for inference only.

Linear layers in float32 use the faster of torch's libraries. T5's norm and its GELU, which GPT-2 has too, pass over
their numbers five to eight times, and in bfloat16 round them after each pass. Those here pass over them one to four
times. Their results differ by rounding, and are as near to the exact ones or nearer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import NewGELUActivation
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from qa_inference.models import _float32_products
from qa_inference.models._bfloat16_attention import is_native_bfloat16


class Float32Linear(nn.Linear):
    """A linear layer that multiplies float32 matrices by `_float32_products.linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """`input` [..., D] to [..., V]."""
        return _float32_products.linear(input, self.weight, self.bias)


class RootMeanSquareNorm(nn.Module):
    """`weight * hidden / sqrt(mean(hidden ** 2) + eps)`, computed in float32 and rounded once."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, hidden: Tensor) -> Tensor:
        """`hidden` [..., D] to the same shape, in the type of the weight."""
        if torch.is_grad_enabled():
            return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)
        numbers = hidden.float()
        length = torch.linalg.vector_norm(numbers, dim=-1, keepdim=True)
        scale = (length.square() / hidden.shape[-1] + self.eps).rsqrt()
        numbers = numbers * scale if numbers is hidden else numbers.mul_(scale)
        return numbers.mul_(self.weight).to(self.weight.dtype)


def use_fast_modules(model: nn.Module) -> None:
    """Replace modules of `model` if it is on a CPU."""
    first = next(model.parameters())
    if first.device.type != "cpu":
        return
    # In bfloat16, GELU itself is the fastest. The formula that stands for it is within 0.0005 of it, and the rounding
    # of the formula's steps is farther away. In float32, the formula is computed in one pass.
    formula = "none" if is_native_bfloat16(first) else "tanh"
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:  # not a subclass, which may have another `forward`
            module.__class__ = Float32Linear
        elif isinstance(module, NewGELUActivation):
            model.set_submodule(name, nn.GELU(formula))
        elif isinstance(module, T5LayerNorm | MT5LayerNorm):
            model.set_submodule(name, RootMeanSquareNorm(module.weight, module.variance_epsilon))
