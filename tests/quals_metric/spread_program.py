"""What `test_spread.py` runs in two processes: `spread_program.py MODEL TEXTS.json FOLDER`; rank R writes `R.json`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from quals_metric import QualsConfig, QualsScorer


def main(model: str, texts: str, folder: str) -> None:
    """Score with the work spread: all texts, fewer than there are processes, and texts that differ between them."""
    rank = os.environ["RANK"]
    summaries, sources = json.loads(Path(texts).read_text())
    scorer = QualsScorer(QualsConfig(model, groups=30, min_new_tokens=2, max_new_tokens=14, device="cpu"))
    whole = scorer.score(summaries=summaries, sources=sources, spread=True)
    single = scorer.score(summaries=summaries[:1], sources=sources[:1], spread=True)
    alone = scorer.score(summaries=summaries, sources=sources) if rank == "1" else None  # one rank only: no hang
    try:
        scorer.score(summaries=[f"Rank {rank} is here."], sources=sources[:1], spread=True)
        refused = ""
    except ValueError as error:
        refused = str(error)
    found = {
        "whole": whole.to_dict(),
        "single": single.to_dict(),
        "alone": alone and alone.to_dict(),
        "refused": refused,
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
