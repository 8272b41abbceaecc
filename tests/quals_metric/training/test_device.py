"""Summaries and losses of a model on a CUDA device that is only pretended."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quals_metric.training.conseq import conseq_loss
from quals_metric.training.generation import GenerationSettings, generate_summaries
from tests import device, tiny, tiny_causal


@pytest.mark.parametrize("name", ["bart", "t5", "llama"])
def test_summaries_are_those_of_the_cpu(name: str) -> None:
    make: Any = tiny_causal.checkpoint if name in tiny_causal.ARCHITECTURES else tiny.checkpoint
    settings = GenerationSettings(num_beams=3, max_new_tokens=10)
    expected = generate_summaries(*make(name), tiny.CORPUS, settings)
    with device.pretended():
        model, tokenizer = make(name)
        assert generate_summaries(model.to("cuda:0"), tokenizer, tiny.CORPUS, settings) == expected


def test_the_loss_is_that_of_the_cpu() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 5, 30), torch.randint(0, 30, (4, 5))
    labels[0, 3:] = -100
    given = (logits, labels, torch.tensor([0, 1, 0, 1]), torch.tensor([1.0, 2.0, 1.0, 0.5]))
    expected = conseq_loss(*given, label_smoothing=0.1).mean
    with device.pretended():
        found = conseq_loss(*(tensor.to("cuda:0") for tensor in given), label_smoothing=0.1).mean
        assert found.device.type == "cuda" and found.item() == expected.item()
