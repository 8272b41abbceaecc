"""The positions of the parts of a model, as the configurations of the library give them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import BartConfig, LEDConfig, T5Config, XLNetConfig

from qa_inference.models.loading import count_positions, input_limit


@pytest.mark.parametrize(
    ("config", "encoder", "decoder"),
    [
        (BartConfig(max_position_embeddings=100), 100, 100),
        (LEDConfig(), 16384, 1024),
        (T5Config(), None, None),
        (XLNetConfig(), None, None),  # it gives -1
    ],
)
def test_the_positions_of_a_part(config: Any, encoder: int | None, decoder: int | None) -> None:
    model = SimpleNamespace(config=config)
    assert (count_positions(model, "encoder"), count_positions(model, "decoder")) == (encoder, decoder)
    assert input_limit(model, SimpleNamespace(model_max_length=10**30)) == encoder
    assert input_limit(model, SimpleNamespace(model_max_length=50)) == 50
