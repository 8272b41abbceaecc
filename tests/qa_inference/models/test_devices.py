"""The device and the floating-point type that are chosen."""

from __future__ import annotations

import pytest
import torch

from qa_inference.models import devices
from qa_inference.models.devices import choose_device, choose_dtype


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.parametrize(
    ("local_rank", "expected"), [(None, "cuda"), ("1", "cuda:1"), ("2", "cuda:0"), ("-1", "cuda"), ("", "cuda")]
)
@pytest.mark.usefixtures("two_gpus")
def test_the_default_device(monkeypatch: pytest.MonkeyPatch, local_rank: str | None, expected: str) -> None:
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert choose_device() == choose_device("cuda") == torch.device(expected)
    assert choose_device("cuda:1") == torch.device("cuda:1") and choose_device("cpu") == torch.device("cpu")


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
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: native)
    devices._warn_of_slow_bfloat16.cache_clear()
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
    devices.cpu_has_bfloat16.cache_clear()
    try:
        assert devices.cpu_has_bfloat16() is (has_mkldnn and supported)
    finally:
        devices.cpu_has_bfloat16.cache_clear()
