"""Loading a checkpoint of any kind, and what is said when it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, T5ForConditionalGeneration, modeling_utils

from qa_inference.models import loading
from qa_inference.models.decoder_only import DecoderOnly
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions, load_pretrained
from qa_inference.models.reader import Reader
from tests import tiny, tiny_causal, tiny_readers, tiny_t5

CPU = LoadingOptions(device="cpu")


def test_a_checkpoint_is_loaded_whole(tmp_path: Path) -> None:
    folder = str(tiny.save("bart", tmp_path / "bart"))
    model, tokenizer = load_pretrained(
        AutoModelForSeq2SeqLM, "an encoder-decoder", folder, LoadingOptions(dtype="bfloat16")
    )
    assert model.config.is_encoder_decoder and model.dtype == torch.bfloat16
    assert len(tokenizer) == model.config.vocab_size


def test_a_head_that_is_not_tied_is_no_reason_for_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(modeling_utils.logger, "warning", warnings.append)
    folder = tiny_t5.save(tmp_path / "t5")
    model, _ = load_pretrained(AutoModelForSeq2SeqLM, "an encoder-decoder", str(folder), CPU)
    assert not warnings and type(model) is T5ForConditionalGeneration
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    assert model.decoder.embed_tokens.weight is model.shared.weight


def test_options_are_those_of_a_configuration() -> None:
    config = SimpleNamespace(
        revision="other", token="t", cache_dir=None, local_files_only=True, device="cpu", dtype=None
    )
    options = LoadingOptions.from_config(config, "abc")
    assert options == LoadingOptions("abc", "t", None, True, "cpu", None)
    assert options.hub() == {"revision": "abc", "token": "t", "local_files_only": True, "trust_remote_code": False}


@pytest.mark.parametrize("kind", ["an encoder-decoder", "a decoder-only model"])
def test_no_code_of_a_repository_is_run_and_nobody_is_asked(kind: str, tmp_path: Path) -> None:
    folder = tiny_causal.save("llama", tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "theirs",
        "auto_map": {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    head = AutoModelForSeq2SeqLM if kind == "an encoder-decoder" else AutoModelForCausalLM
    with pytest.raises(
        ValueError, match=rf"model '.*llama': must be a folder or a Hub name of {kind} with its tokenizer"
    ):
        load_pretrained(head, kind, str(folder), CPU)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("loader", [DecoderOnly, EncoderDecoder, Reader])
def test_what_does_not_fit_is_refused_before_it_is_read(
    loader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: dict[Any, Any] = {DecoderOnly: (tiny_causal, "llama"), EncoderDecoder: (tiny, "bart")}
    toys, name = saved.get(loader, (tiny_readers, "bert"))
    folder = toys.save(name, tmp_path / name)
    (folder / "model.safetensors").write_bytes(b"never read")
    monkeypatch.setattr(loading, "free_bytes", lambda device: 1000)
    with pytest.raises(
        MemoryError, match=rf"'.*{name}': its weights must fit into memory; they take 0\.0 GB in float32"
    ):
        loader.load(str(folder), CPU)
