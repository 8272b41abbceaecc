"""Cross-attention that keeps one copy of a source for all rows decoded from it.

An encoder-decoder layer computes the keys and values of its cross-attention from the encoder's output, with that
output's batch. The function registered here takes queries of more rows than there are sources and folds the rows of
one source into the query length, so that 60 hypotheses of a summary, or ten pairs scored on a source, read one copy
instead of ten or sixty. It uses the library's public registration only (`AttentionInterface`,
`AttentionMaskInterface`), and changes nothing where queries and keys have the same number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "shared_source"

_folded_calls = 0


def shared_source_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of `query` [S * R, H, T, D] over `key` and `value` [S, H, K, D]; R adjacent rows share a source.

    `attention_mask` [S, 1, T or 1, K] hides padding of the sources (True or 0: visible) and must not depend on the
    query's position, as a mask over an encoder's output never does. Returns [S * R, T, H, D].
    """
    rows, sources = query.shape[0], key.shape[0]
    if rows == sources:
        return sdpa_attention_forward(module, query, key, value, attention_mask, position_bias=position_bias, **kwargs)
    global _folded_calls
    _folded_calls += 1
    each, heads, length, width = rows // sources, *query.shape[1:]
    folded = query.view(sources, each, heads, length, width).transpose(1, 2).reshape(sources, heads, -1, width)
    if not getattr(module, "has_relative_attention_bias", True):
        position_bias = None  # T5's cross-attention passes zeros
    elif position_bias is not None:  # [1, H, T, K]; the same for every row
        position_bias = position_bias.repeat(1, 1, each, 1)
    if attention_mask is not None:
        attention_mask = attention_mask[:, :, :1]
    kwargs["is_causal"] = False
    kwargs["position_bias"] = position_bias
    output, _ = sdpa_attention_forward(module, folded, key, value, attention_mask, **kwargs)
    return output.view(sources, each, length, heads, width).flatten(0, 1), None


def switch_on(model: PreTrainedModel) -> str | None:
    """Let `model` use the shared-source attention; returns the name of the implementation it had before.

    Meant for models that only infer here, never for one that is being trained.
    """
    AttentionInterface.register(NAME, shared_source_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    return str(before) if before is not None else None


@contextmanager
def counting() -> Iterator[list[int]]:
    """Count the folded calls inside the block: the list's one number is right once the block is left."""
    before, count = _folded_calls, [0]
    yield count
    count[0] = _folded_calls - before
