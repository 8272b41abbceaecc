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
from qa_inference.models.loading import LoadingOptions, choose_device, choose_dtype, load_pretrained
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


# ---- device and dtype -----------------------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.parametrize(
    ("local_rank", "expected"), [(None, "cuda"), ("1", "cuda:1"), ("2", "cuda"), ("-1", "cuda"), ("", "cuda")]
)
@pytest.mark.usefixtures("two_gpus")
def test_the_default_device(monkeypatch: pytest.MonkeyPatch, local_rank: str | None, expected: str) -> None:
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert choose_device() == torch.device(expected)


@pytest.mark.usefixtures("two_gpus")
def test_a_device_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"^device: must be .*; got 'cuda:2'\. Choose one of these: cuda \(2\), "):
        choose_device("cuda:2")
    with pytest.raises(ValueError, match="device: must be one that this machine has; got 'meta'"):
        choose_device("meta")
    with pytest.raises(ValueError, match=r"^device: must be a name such as 'cpu' or 'cuda:0'; got 'gpu'"):
        choose_device("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 0)
    assert choose_device() == torch.device("cpu")


def test_the_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    assert choose_dtype(None, cpu) is torch.float32
    for has_bfloat16, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has_bfloat16: has)
        assert choose_dtype(None, gpu) is expected
    assert choose_dtype("bfloat16", cpu) is choose_dtype(torch.bfloat16, cpu) is torch.bfloat16
    assert choose_dtype("float16", gpu) is torch.float16
    with pytest.raises(ValueError, match=r"^dtype: must be one of float32, bfloat16, float16; got 'fp16'"):
        choose_dtype("fp16", cpu)
    with pytest.raises(ValueError, match=r"^dtype: must be .*; got torch\.int64"):
        choose_dtype(torch.int64, cpu)
    with pytest.raises(ValueError, match=r"^dtype: must be float32 or bfloat16 on a CPU; got float16"):
        choose_dtype("float16", cpu)


@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_on_a_cpu_without_it_is_said_to_be_slow_once(
    native: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: native)
    loading._warn_of_slow_bfloat16.cache_clear()
    for dtype in ("float32", "bfloat16", torch.bfloat16):
        choose_dtype(dtype, torch.device("cpu"))
    said = [record.getMessage() for record in caplog.records]
    assert [("emulates bfloat16" in text) for text in said] == ([] if native else [True])


@pytest.mark.parametrize(("has_mkldnn", "supported"), [(True, True), (True, False), (False, True)])
def test_21_0_the_processor_is_asked_for_bfloat16(
    has_mkldnn: bool, supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_mkldnn)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    loading.cpu_has_bfloat16.cache_clear()
    try:
        assert loading.cpu_has_bfloat16() is (has_mkldnn and supported)
    finally:
        loading.cpu_has_bfloat16.cache_clear()


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_the_count_is_that_of_the_weights() -> None:
    for name in ("llama", "gemma3", "gpt2"):
        model, _ = tiny_causal.checkpoint(name)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        assert loading.parameter_bytes(AutoModelForCausalLM, model.config, torch.float32) == 4 * parameters
        assert loading.parameter_bytes(AutoModelForCausalLM, model.config, torch.bfloat16) == 2 * parameters


def test_a_quantized_checkpoint_is_not_counted() -> None:
    config = tiny_causal.checkpoint("llama")[0].config
    config.quantization_config = {"quant_method": "any"}
    assert loading.parameter_bytes(AutoModelForCausalLM, config, torch.float32) is None


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


def test_the_remedy_fits_the_case() -> None:
    loading.check_fits("m", 10**9, 10**9, torch.float32)
    loading.check_fits("m", 10**9, None, torch.float32)
    with pytest.raises(MemoryError, match=r"take 14\.5 GB in float32 and 3\.1 GB are free\. Use dtype bfloat16 \(half"):
        loading.check_fits("m", 14_500_000_000, 3_100_000_000, torch.float32)
    with pytest.raises(MemoryError, match=r"in bfloat16 and 3\.1 GB are free\. Use a smaller or a quantized model"):
        loading.check_fits("m", 7_250_000_000, 3_100_000_000, torch.bfloat16)


def test_what_a_container_leaves(tmp_path: Path) -> None:
    assert loading._container_bytes(tmp_path) is None
    for name, text in (("max", "5000\n"), ("current", "3000\n"), ("stat", "anon 7\ninactive_file 400\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert loading._container_bytes(tmp_path) == 2400
    (tmp_path / "memory.max").write_text("max\n")
    assert loading._container_bytes(tmp_path) is None


def test_this_machine_has_memory() -> None:
    free = loading.free_bytes(torch.device("cpu"))
    assert free is None or free > 2**20
