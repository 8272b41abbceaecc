"""What QUALS asks of claims: the question-answer pairs of every claim's text, by a checkpoint's own search.

    python -m recipes.claim_pairs --claims runs/claims.jsonl.gz --out runs/pairs.jsonl --groups 30 --most 8

Reads groups of `recipes.claims`, a text once; texts that the output has already are left out, so a killed run goes on.
A row of the output is `text, pairs, answers`: a pair's token ids, with separator and end, and where its answer begins.
The claims of a group with its true ones first; groups in a random order, those of each set spread evenly, so that
training can begin on the first part.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from quals_metric import QualsConfig, QualsScorer
from recipes import claims

BATCH = 64  # texts searched at a time


def order(paths: Sequence[str], seed: int = 0) -> list[str]:
    """All claims' texts, each once, the sets interleaved; a twin (`recipes.edit_claims`) has its claim's pairs."""
    by_set = defaultdict(list)
    for path in paths:
        for group in claims.read(Path(path)):
            by_set[group["set"]].append(group)
    ranked = []
    for groups in by_set.values():
        random.Random(seed).shuffle(groups)
        ranked += [(place / len(groups), group) for place, group in enumerate(groups)]
    ranked.sort(key=lambda item: item[0])
    return [*dict.fromkeys(c["text"] for _, group in ranked for c in group["claims"] if "old" not in c)]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--groups", type=int, default=30, help="of the search")
    parser.add_argument("--most", type=int, default=8, help="about how many pairs of a claim")
    parser.add_argument("--dtype", default=None, help="default: the scorer's")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    known = {row["text"] for row in claims.read(args.out)} if args.out.exists() else set()
    texts = [text for text in order(args.claims) if text not in known]
    scorer = QualsScorer(QualsConfig(model=args.model, groups=args.groups, max_pairs=args.most, dtype=args.dtype))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with args.out.open("a", encoding="utf-8") as lines:
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            for text, pairs in scorer.generate_pairs(batch).items():
                row = {"text": text, "pairs": [p.tokens.tolist() for p in pairs],
                       "answers": [int(p.answer_start) for p in pairs]}  # fmt: skip
                print(json.dumps(row, ensure_ascii=False), file=lines, flush=True)
            passed = time.monotonic() - began
            print(f"{start + len(batch):,} of {len(texts):,}, {(start + len(batch)) / passed:.1f} a second", flush=True)
            if args.minutes and passed > args.minutes * 60:
                break


if __name__ == "__main__":
    main()
