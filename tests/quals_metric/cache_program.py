"""What `test_cached.py` runs in two processes: `cache_program.py MODEL TEXTS.json FOLDER CACHE0 CACHE1`.

Rank R scores twice with the work spread and the cache of its number, and writes the results to `R.json`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from quals_metric import QualsConfig, QualsScorer


def main(model: str, texts: str, folder: str, *caches: str) -> None:
    """Score with caches that hold unlike things."""
    rank = int(os.environ["RANK"])
    summaries, sources = json.loads(Path(texts).read_text())
    settings = {"groups": 30, "min_new_tokens": 2, "max_new_tokens": 14, "device": "cpu"}
    scorer = QualsScorer(QualsConfig(model, cache=caches[rank], **settings))
    found = [scorer.score(summaries=summaries, sources=sources, spread=True).to_dict() for _ in range(2)]
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
