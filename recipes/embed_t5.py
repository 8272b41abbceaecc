"""Write a trained T5 as the package embeds it: only the vocabulary that English text uses, weights in 8 bits.

    python -m recipes.embed_t5 runs/t5/checkpoint --texts DATA/*/*.jsonl.gz --out qa_inference/checkpoints/qagen

`--texts` are JSON lines; an entry of the vocabulary stays if one of their strings uses it, or if it is one character.
Text that uses another entry is spelled by shorter ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from qa_inference.models.int8_weights import write_int8_weights
from recipes.annotated import read_rows
from recipes.t5_training import MARKS, write_tokenizer

BY_ENTRY = ("shared.weight", "lm_head.weight")  # a row for each entry of the vocabulary


def strings(value: Any) -> list[str]:
    """All strings inside a JSON value."""
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in inside for text in strings(part)]


def kept_entries(description: dict[str, Any], texts: Iterable[str]) -> list[int]:
    """The ids of a Unigram vocabulary that texts use, of all single characters, and of the special tokens."""
    tokenizer = Tokenizer.from_str(json.dumps({**description, "truncation": None, "padding": None}))
    used = {0, 1, 2}
    for text in set(texts):
        used.update(tokenizer.encode(text, add_special_tokens=False).ids)
    pieces = [piece for piece, _ in description["model"]["vocab"]]
    used.update(index for index, piece in enumerate(pieces) if len(piece.removeprefix("▁")) < 2)
    return sorted(i for i in used if not pieces[i].startswith("<extra_id_") and pieces[i] not in MARKS)


def smaller(description: dict[str, Any], kept: Sequence[int]) -> tuple[dict[str, Any], list[int]]:
    """A tokenizer's description with the entries `kept` and the marks behind them, and each entry's old id."""
    pieces = description["model"]["vocab"]
    old = {piece: index for index, (piece, _) in enumerate(pieces)}
    vocabulary = [*(pieces[index] for index in kept), *([mark, 0.0] for mark in MARKS)]
    changed = {**description, "model": {**description["model"], "vocab": vocabulary}}
    return changed, [*kept, *(old[mark] for mark in MARKS)]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--texts", nargs="+", required=True, help="JSON lines that say which entries stay")
    options = parser.parse_args(argv)
    description = json.loads((options.checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    kept = kept_entries(description, (t for name in options.texts for row in read_rows(name) for t in strings(row)))
    smaller_one, origin = smaller(description, kept)
    weights = load_file(options.checkpoint / "model.safetensors")
    weights |= {name: weights[name][torch.tensor(origin)] for name in BY_ENTRY}
    write_int8_weights(weights, options.out)
    config = json.loads((options.checkpoint / "config.json").read_text(encoding="utf-8"))
    config |= {"vocab_size": len(origin), "tie_word_embeddings": False}
    config.pop("_name_or_path", None)  # where it was trained from
    (options.out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(smaller_one, options.out)
    print(f"{options.out}: {len(origin):,} of {len(description['model']['vocab']):,} entries")


if __name__ == "__main__":
    main()
