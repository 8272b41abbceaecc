"""Teacher-forced token log-probabilities from logits. torch only."""

from __future__ import annotations

import torch
from torch import Tensor


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each target token in nats, float32, [..., T].

    `logits` [..., T, V] are those of the step that predicts the token, in any floating type; `targets` [..., T] are
    ids. Computed in float32 and without a second array of the size of `logits` where they are float32 already.
    """
    logits = logits.float()
    return logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(-1)


def shift_targets(prefix: Tensor, targets: Tensor) -> Tensor:
    """The decoder's input that predicts `targets` [N, T] after `prefix` [P]: the prefix and all but the last target."""
    return torch.cat([prefix.expand(len(targets), -1), targets[:, :-1]], 1)
