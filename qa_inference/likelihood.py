"""Teacher-forced token log-probabilities from logits. torch only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of each target token in nats, float32, [..., T].

    `logits` [..., T, V] are those of the step that predicts the token, in any floating type; `targets` [..., T] are
    ids. Computed in float32.
    """
    losses = cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none")
    return -losses.view(targets.shape)


def shift_targets(prefix: Tensor, targets: Tensor) -> Tensor:
    """The decoder's input that predicts `targets` [N, T] after `prefix` [P]: the prefix and all but the last target."""
    return torch.cat([prefix.expand(len(targets), -1), targets[:, :-1]], 1)
