"""A toy T5 with two separate embeddings, as `recipes.fetch_t5` writes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import T5Config, T5ForConditionalGeneration

from recipes import fetch_t5
from tests import tiny

SIZES = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}


def description() -> dict[str, Any]:
    """A Unigram tokenizer of single characters and some words, with five sentinels at the end."""
    words = sorted({word for text in tiny.CORPUS for word in text.split()})
    letters = sorted({letter for text in tiny.CORPUS for letter in text if letter != " "} | set("Whowereit?,."))
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in words), *letters, *map(str, range(10))]
    pieces = [*dict.fromkeys(pieces), *(f"<extra_id_{number}>" for number in range(4, -1, -1))]
    backend = Tokenizer(models.Unigram([(piece, -float(len(piece) < 3)) for piece in pieces], unk_id=2))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    backend.add_special_tokens(["<pad>", "</s>", "<unk>", *(f"<extra_id_{number}>" for number in range(5))])
    return dict(json.loads(backend.to_str()))


def save(folder: Path) -> Path:
    """Write the checkpoint, and return its folder."""
    tokenizer = description()
    config = fetch_t5.CONFIG | SIZES | {"vocab_size": len(tokenizer["model"]["vocab"]) + 3}
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**{k: v for k, v in config.items() if k != "architectures"}))
    weights = {name: value.numpy() for name, value in model.state_dict().items() if "embed_tokens" not in name}
    weights["lm_head.weight"] = np.random.default_rng(0).normal(size=weights["shared.weight"].shape).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch_t5, "CONFIG", config)
        fetch_t5.write(weights, tokenizer, folder)
    return folder
