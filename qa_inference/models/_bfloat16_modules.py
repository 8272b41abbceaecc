"""Modules that a CPU computes faster in bfloat16, in place of T5's own.

T5's modules pass over their numbers five to eight times, and round them to bfloat16 after each pass. Those here pass
over them once or twice. Their results differ by rounding, and are nearer to the exact ones.
"""

from __future__ import annotations

from torch import nn
from transformers.activations import NewGELUActivation
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from qa_inference.models._bfloat16_attention import is_native_bfloat16


def use_fast_modules(model: nn.Module) -> None:
    """Replace modules of `model`, if it is in bfloat16 on a CPU that multiplies it; for inference only."""
    if not is_native_bfloat16(next(model.parameters())):
        return
    for name, module in list(model.named_modules()):
        if isinstance(module, NewGELUActivation):
            # GELU itself. The module's formula is within 0.0005 of it, and the rounding of its steps is farther away.
            model.set_submodule(name, nn.GELU())
        elif isinstance(module, T5LayerNorm | MT5LayerNorm) and is_native_bfloat16(module.weight):
            norm = nn.RMSNorm(module.weight.shape, module.variance_epsilon)
            norm.weight = module.weight
            model.set_submodule(name, norm)
