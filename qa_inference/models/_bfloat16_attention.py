"""Attention in bfloat16 for CPUs that multiply it: twice as fast as the library's there.

The library's kernel for CPUs computes scores and their softmax in float32, at the speed of float32. Here both products
are those of bfloat16 matrices, the exponentials are taken in place, and the sum by which they are divided comes from
the second product. Scores are rounded to bfloat16, as in the library's "eager" attention. A softmax usually subtracts
the largest score first. In a floating-point type that changes no relative precision; it only prevents overflow. So it
is left out, and the few queries whose sums come near overflow or underflow are answered by torch's own function. A bias
of positions, as T5 has, is in the scores' memory before the first product is added to it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from qa_inference.models.devices import cpu_has_bfloat16

SCORES_AT_ONCE = 1 << 21  # scores that exist at a time: 4 MB, which stay near the processor
NUMBERS_AT_ONCE = 1 << 17  # numbers of keys that exist in float32 at a time: 512 KB
SAFE_SUM = 1e30  # sums of exponentials between 1 / SAFE_SUM and SAFE_SUM are far from overflow and underflow


def is_native_bfloat16(tensor: Tensor) -> bool:
    """Whether `tensor` is of bfloat16, on a CPU that multiplies it."""
    return tensor.dtype is torch.bfloat16 and tensor.device.type == "cpu" and cpu_has_bfloat16()


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The library's attention of `query` [N, H, T, D] over `key` and `value` [N, H, K, D], and ours where it suits.

    Returns [N, T, H, D].
    """
    length, count = query.shape[2], key.shape[2]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    is_plain = kwargs.get("softcap") is None and query.shape[:2] == key.shape[:2]
    suits = is_plain and (attention_mask is None or attention_mask.dtype is torch.bool) and is_native_bfloat16(query)
    if suits and length == 1:
        return one_query_attention(query, key, value, attention_mask, scale, position_bias), None
    if suits:
        is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        visible = attention_mask
        if visible is None and is_causal:
            visible = torch.ones(1, 1, length, count, dtype=torch.bool).tril()
        if (attended := bfloat16_attention(query, key, value, visible, scale, position_bias)) is not None:
            return attended, None
    kwargs |= {"scaling": scaling, "is_causal": is_causal, "position_bias": position_bias}
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def one_query_attention(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, scaling: float, bias: Tensor | None = None
) -> Tensor:
    """Attention of `query` [N, H, 1, D], in float32: products this small gain nothing from bfloat16.

    The other arguments are those of `bfloat16_attention`, with T = 1. Returns [N, 1, H, D].
    """
    rows, heads, count, _ = key.shape
    attended = torch.empty_like(query)
    mask = None if visible is None else torch.where(visible, 0.0, -torch.inf)
    biases = [addend.expand(rows, heads, 1, count) for addend in (bias, mask) if addend is not None]
    size = max(1, min(NUMBERS_AT_ONCE // key[0].numel(), rows))
    memory = torch.empty(size, *key.shape[1:], dtype=torch.float32)  # of keys, then of values
    for start in range(0, rows, size):
        part = slice(start, min(start + size, rows))
        numbers = memory[: part.stop - start]
        scores = (scaling * query[part].float()) @ numbers.copy_(key[part]).mT
        for addend in biases:
            scores += addend[part]
        attended[part] = scores.softmax(-1) @ numbers.copy_(value[part])
    return attended.transpose(1, 2)


def bfloat16_attention(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, scaling: float, bias: Tensor | None = None
) -> Tensor | None:
    """Attention of `query` [N, H, T, D] over `key` and `value` [N, H, K, D]; None if many of its sums are unsafe.

    `visible` [N or 1, 1, T or 1, K] tells the keys that a query sees; None: all. `bias` [N or 1, H, T, K] is added to
    the scores after scaling. Returns [N, T, H, D].
    """
    rows, heads, length, width = query.shape
    count, batch = key.shape[2], rows * heads
    # 1. Heads join the batch: [B, T, D] and [B, K, D], B = N * H. Each value gets a last number 1: [B, K, D + 1].
    query, key = (tensor.reshape(batch, -1, width) for tensor in (query, key))
    value = torch.cat([value, value.new_ones(1).expand(rows, heads, count, 1)], -1)
    # 2. Keys that no query sees have values of 0, the last number too, so their weights do not matter. Other masks
    #    are a bias of minus infinity. One bias for all rows stays one: [H or B, T, K].
    if visible is not None and (visible == visible[:, :, :1]).all():
        value *= visible[:, :, 0, :, None]
    elif visible is not None:
        bias = torch.where(visible, query.new_zeros(()) if bias is None else bias, -torch.inf)
    if bias is not None:
        bias = bias.expand(-1, heads, length, count).reshape(-1, length, count)
    value = value.view(batch, count, width + 1)
    # 3. As many of the batch at a time as fit: weights exp(scaling * query @ key.T + bias), [b, T, K]; then the sums
    #    of the weighted values and, in the last column, of the weights, [B, T, D + 1].
    size = max(1, min(SCORES_AT_ONCE // (length * count), batch))
    memory, sums = query.new_empty(size, length, count), query.new_empty(batch, length, width + 1)
    for start in range(0, batch, size):
        part = slice(start, min(start + size, batch))
        weights = memory[: part.stop - start]
        if bias is not None:
            torch.index_select(bias, 0, torch.arange(part.start, part.stop) % len(bias), out=weights)
        beta = 0 if bias is None else 1
        torch.baddbmm(weights, query[part], key[part].mT, beta=beta, alpha=scaling, out=weights).exp_()
        torch.bmm(weights, value[part], out=sums[part])
    # 4. Divide one by the other. Queries [U] with unsafe sums (overflow may have made them NaN) are asked again.
    totals = sums[..., width]
    attended = sums[..., :width] / totals[..., None]
    items, places = (~((totals > 1 / SAFE_SUM) & (totals < SAFE_SUM))).nonzero(as_tuple=True)
    if len(items) * count > SCORES_AT_ONCE // width:
        return None
    if len(items):
        seen = None
        if visible is not None:
            seen = visible.expand(rows, 1, length, count)[items // heads, :, places]
        if bias is not None:
            biases = bias[items % len(bias), places][:, None]
            seen = biases if seen is None else biases.masked_fill(~seen, -torch.inf)
        asked = query[items, places][:, None]
        again = F.scaled_dot_product_attention(asked, key[items], value[items, :, :width], seen, scale=scaling)
        attended[items, places] = again[:, 0]
    # 5. Heads part from the batch.
    return attended.view(rows, heads, length, width).transpose(1, 2)
