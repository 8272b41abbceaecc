"""What `test_collector.py` runs in two processes: `collector_program.py FOLDER`, one spread collection.

Every rank writes what it got as `R.json`, and how it fared when rank 0 could not write.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from quals_metric.training.collection import collect
from tests import tiny
from tests.quals_metric.training.test_collector import ROWS, SETTINGS, WordScorer


def main(folder: str) -> None:
    rank = os.environ["RANK"]
    model, tokenizer = tiny.checkpoint("bart")
    found = collect(model, WordScorer(), ROWS, Path(folder) / "both", SETTINGS, tokenizer=tokenizer, spread=True)
    try:
        (Path(folder) / "file").touch()
        collect(model, WordScorer(), ROWS, Path(folder) / "file" / "where", SETTINGS, tokenizer=tokenizer, spread=True)
        refused = ""
    except (OSError, RuntimeError) as error:
        refused = str(error)
    (Path(folder) / f"{rank}.json").write_text(json.dumps({"rows": found.to_list(), "refused": refused}))


if __name__ == "__main__":
    main(*sys.argv[1:])
