"""How the rows of a decoder-only model continue a prefix: a probe finds what gives the bare model's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qa_inference.models import prefix_attention
from qa_inference.models.decoder import to_device
from qa_inference.models.encoder_decoder import PROBE_TOLERANCE, Sharing
from qa_inference.models.prefix_decoder import PrefixDecoder, PrefixRows

CONTEXTS = (list(range(3, 9)), [3, 4, 7])  # of unlike length, and with a common beginning
ROWS = [[5, 3, 4], [6, 8, 3], [7, 7, 5]]
PARTS = ([2, 1], [1, 2])  # how many tokens are appended at once: many after none, and after some


@torch.inference_mode()
def choose_sharing(decoder: PrefixDecoder, sharing: Sharing) -> str:
    """Find the decoder's projection, and let its rows share a prefix if that is asked for and changes nothing.

    Returns why not, where `sharing` is "auto" and it does; "" else. Raises ValueError if "shared" is impossible, or if
    the model gives other numbers when it goes on from what it has read than when it reads all at once.
    """
    model = decoder.model
    before = getattr(model.config, "_attn_implementation", None)
    expected = [_bare(model, context, decoder.device) for context in CONTEXTS]
    decoder.find_projection(torch.tensor([CONTEXTS[0]], device=decoder.device), _tolerance(model))
    why = ""
    if sharing != "expanded":
        why = _tried(decoder, expected, shared=True)
        if not why:
            return ""
        if sharing == "shared":
            raise ValueError(
                f"model {type(model).__name__}: cannot share a source between rows ({why}); "
                f'use sharing="auto" or "expanded"'
            )
        if before is not None:
            model.set_attn_implementation(before)
    if wrong := _tried(decoder, expected, shared=False):
        raise ValueError(
            f"model {type(model).__name__}: must be able to go on from what it has read; {wrong}. Use a model with "
            f"plain attention"
        )
    return why


def _bare(model: Any, context: list[int], device: torch.device) -> Tensor:
    """What the model as it was loaded says of the rows after a context, without a cache: logits [R, T, V]."""
    ids = torch.tensor([context + row for row in ROWS], device=device)
    logits: Tensor = model(input_ids=ids, use_cache=False, return_dict=True).logits
    return logits[:, -len(ROWS[0]) :].float()


def _tried(decoder: PrefixDecoder, expected: list[Tensor], *, shared: bool) -> str:
    """Let the decoder read and go on in one of the two ways; what is wrong with it, "" for nothing."""
    decoder.shared = shared
    decoder.forget()
    try:
        if shared:
            prefix_attention.switch_on(decoder.model)
        with prefix_attention.counting() as folded:
            worst = max(_distance(decoder, parts, expected) for parts in PARTS)
    except Exception as error:  # an architecture may fail anywhere inside its own attention
        wrong = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    else:
        largest = max(1.0, *(float(logits.abs().max()) for logits in expected))
        allowed = _tolerance(decoder.model) * largest
        wrong = "" if worst <= allowed else f"going on and reading all at once differ by {worst:.1e}"
        if shared and not folded[0]:
            wrong = "the model's attention does not use the registered function"
    decoder.forget()
    decoder.shared = shared and not wrong
    return wrong


def _distance(decoder: PrefixDecoder, parts: list[int], expected: list[Tensor]) -> float:
    """The largest difference from the expected logits if rows are appended in parts of so many tokens."""
    rows = PrefixRows(decoder, decoder.read(CONTEXTS))
    ids = np.split(np.array(ROWS * len(CONTEXTS)), np.cumsum(parts)[:-1], axis=1)
    hidden = torch.cat([rows.append(to_device(part, decoder.device)) for part in ids], 1)
    logits = decoder.projection.logits(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
    return float((logits.float() - torch.cat(expected).to(logits.device)).abs().max())


def _tolerance(model: Any) -> float:
    """How far two ways to the same numbers may lie apart, as a share of the largest."""
    return PROBE_TOLERANCE * (1 if model.dtype == torch.float32 else 500)
