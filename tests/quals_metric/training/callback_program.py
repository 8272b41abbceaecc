"""What `test_two_processes` runs in two processes: `callback_program.py FOLDER`; rank R writes `R.json`."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from quals_metric.training import QualsCallback, make_compute_metrics
from quals_metric.training.measuring import MeasuringError
from tests import tiny
from tests.quals_metric.training import callback_toys as toys
from tests.quals_metric.training.callback_toys import ROWS, SHORT, ScriptedScorer, ToyScorer

RANK = int(os.environ["RANK"])


def plain(metrics: dict[str, float]) -> dict[str, float]:
    """Without the trainer's own times, which differ between processes; ours may not."""
    return {key: value for key, value in metrics.items() if "quals" in key}


def fingerprint(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def trainer(folder: Path, **settings: Any) -> Any:
    data = toys.tokenized(ROWS[:5], tiny.checkpoint("bart")[1])
    return toys.trainer(
        folder,
        eval_dataset=data,
        per_device_eval_batch_size=2,
        max_steps=2,
        eval_steps=1,
        ddp_backend="gloo",
        **settings,
    )


def main(folder: Path) -> None:
    without = trainer(folder / "without")
    without.train()
    told: dict[str, Any] = {"weights_without": fingerprint(without.model)}

    scorer, run = ToyScorer(), trainer(folder / "with")
    QualsCallback(scorer, dataset=ROWS[:5], generation=SHORT).attach(run)
    run.train()
    told |= {"weights": fingerprint(run.model), "evaluated": plain(run.evaluate()), "calls": scorer.calls}
    told["log"] = [plain(entry) for entry in run.state.log_history if "eval_quals" in entry]

    single = trainer(folder / "single")
    QualsCallback(ToyScorer(), dataset=ROWS[:1], generation=SHORT).attach(single)
    told["single"] = plain(single.evaluate())

    failing = ScriptedScorer(LookupError("gone") if RANK == 1 else -1.0)
    for key, on_failure in (("failed", "stale"), ("raised", "raise")):
        other = trainer(folder / key)
        QualsCallback(failing, dataset=ROWS[:5], generation=SHORT, on_failure=on_failure).attach(other)  # type: ignore[arg-type]
        try:
            told[key] = {name: repr(value) for name, value in plain(other.evaluate()).items()}
        except MeasuringError as error:
            told[key] = str(error)

    scorer, documents = ToyScorer(), [row["document"] for row in ROWS[:5]]
    compute = make_compute_metrics(scorer, tiny.checkpoint("bart")[1], sources=documents)
    predicting = trainer(
        folder / "predicting", predict_with_generate=True, generation_max_length=8, more={"compute_metrics": compute}
    )
    told |= {"predicted": plain(predicting.evaluate()), "predicted_calls": scorer.calls[0][1]}
    (folder / f"{RANK}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # Left to the interpreter's end, the threads of the group that the trainer opened may abort the process; and they
    # live as long as anything holds the group, as the trainers' reference cycles do.
    gc.collect()
    torch.distributed.destroy_process_group()
