"""What `test_torchmetrics.py` runs in two processes: `torchmetrics_program.py FOLDER`; rank R writes `R.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torchmetrics import MetricCollection

from quals_metric import QualsConfig, QualsScorer
from quals_metric.integrations import ConsistencyScore
from tests.tiny import CORPUS

PAIRS = [(CORPUS[0], CORPUS[0]), (CORPUS[3], CORPUS[0]), ("", CORPUS[0])]  # summaries and sources


def main(model: str, folder: str) -> None:
    """Score three pairs with one process, or two of them on rank 0 and one on rank 1, one `update` for each."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    scorer = QualsScorer(QualsConfig(model, groups=30, min_new_tokens=2, max_new_tokens=14, device="cpu"))
    metric = ConsistencyScore(scorer)
    empty = metric.compute()
    for summary, source in PAIRS[rank::2]:
        metric.update(preds=[summary], sources=[source])
    both = MetricCollection({"all": ConsistencyScore(scorer)})
    if rank == 0:  # one process has no summaries at all
        both.update(preds=[CORPUS[0]], sources=[CORPUS[0]], target=["unused"])
    found = {
        "synced": metric.compute(),
        "again": metric.compute(),
        "own": [len(metric.scores)],
        "empty": empty,
        "one": both.compute(),
    }
    as_numbers = {
        name: value if name == "own" else {key: float(number) for key, number in value.items()}
        for name, value in found.items()
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(as_numbers))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
