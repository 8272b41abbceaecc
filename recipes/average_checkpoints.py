"""Average two checkpoints, one trained on from the other or both from a third: it mostly keeps the strengths of both.

    python -m recipes.average_checkpoints OLD NEW --out runs/reader/averaged [--share 0.5]

`--share` is the share of NEW. Both must have the same architecture and vocabulary. All other files are copied from NEW.
The result is a plain `from_pretrained` folder in the floating-point type of NEW.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

WEIGHTS = "model.safetensors"


def average(old: Path, new: Path, share: float, out: Path) -> None:
    """Write `share` of the weights of `new` and the rest of `old` to `out`, computed in float32."""
    if not 0 <= share <= 1:
        raise SystemExit(f"--share: must be between 0 and 1; got {share}")
    with safe_open(old / WEIGHTS, "pt") as first, safe_open(new / WEIGHTS, "pt") as second:
        if set(first.keys()) != set(second.keys()):
            raise SystemExit(f"{old} and {new}: must have the same weights; their names differ")
        pairs = {name: (first.get_tensor(name), second.get_tensor(name)) for name in second.keys()}  # noqa: SIM118
        for name, (a, b) in pairs.items():
            if a.shape != b.shape:
                raise SystemExit(f"{name}: must have one shape; it has {tuple(a.shape)} and {tuple(b.shape)}")
        mixed = {name: (a.float().lerp(b.float(), share)).to(b.dtype) for name, (a, b) in pairs.items()}
        metadata = second.metadata()
    out.mkdir(parents=True, exist_ok=True)
    for file in new.iterdir():
        if file.is_file() and file.name != WEIGHTS:
            shutil.copyfile(file, out / file.name)
    save_file(mixed, out / WEIGHTS, metadata)
    shutil.copymode(out / "config.json", out / WEIGHTS)  # safetensors leaves it to its owner alone


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.5)
    args = parser.parse_args(argv)
    average(args.old, args.new, args.share, args.out)


if __name__ == "__main__":
    main()
