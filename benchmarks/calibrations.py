r"""Make the calibrations that ship with the embedded models, and measure how reliable they are.

    python benchmarks/calibrations.py --dtype bfloat16 --cache FOLDER --data bump_dev.jsonl.gz fib_dev.jsonl.gz \
        summedits_dev.jsonl.gz qags_cnndm_dev.jsonl.gz qags_xsum_dev.jsonl.gz

The data are those of `agreement.py`. Each of its tables is a data set here: rows with different `origin` are different
sets. A set has the same weight as every other. A pair is two summaries. The table has the reliability by
cross-validation over all documents, that on each set when it is left out, and that of a map of each set alone, by
cross-validation over its documents. There must be at least two sets.

`--saved` takes scores that `agreement.py --save` kept, instead of scoring. The other options must be those of the saved
scores, because a calibration names them.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from agreement import (
    Row,
    add_scorer_arguments,
    are_true,
    column,
    judge,
    load,
    make_scorers,
    markdown,
    read,
    saved_as,
    sections,
    texts,
)

from qa_inference.calibration import SHIPPED_FOLDER
from quals_metric.agreement.fitting import ScoredSet, fit_calibration
from quals_metric.agreement.labelled import LabelledSet
from quals_metric.agreement.statistics import Floats
from quals_metric.agreement.tables import reliability_table


def scored_set(name: str, path: Path, rows: Sequence[Row], scores: Floats) -> ScoredSet:
    """Some rows of a file as a data set, with the scores [N, 1] or [N, 2] of their summaries."""
    good = np.array([is_true for row in rows for is_true in are_true(row)])
    labelled = LabelledSet(
        name=name,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        sources=[row["document"] for row in rows for _ in texts(row)],
        summaries=[text for row in rows for text in texts(row)],
        labels=good.astype(float),
        good=good,
        pairs=np.empty((0, 2), int),
    )
    return ScoredSet.of(labelled, scores.ravel())


def calibrate(name: str, scorer: Any, sets: Sequence[ScoredSet], folder: Path) -> str:
    """Write the calibration of a scorer, and return its reliability as Markdown."""
    fit = fit_calibration(sets, scorer.key.metric, scorer.key.settings)
    path = folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(fit.calibration.to_json(), encoding="utf-8")
    alone = [fit_calibration([each], scorer.key.metric, scorer.key.settings).cross_validated for each in sets]
    own = [replace(each, name=f"{left.name}, its own map") for each, left in zip(alone, fit.left_out, strict=True)]
    table = reliability_table([fit.cross_validated, *fit.left_out, *own])
    lowest, highest = fit.calibration.probabilities[0], fit.calibration.probabilities[-1]
    about = f"**{name}**: `{path.name}`, {fit.calibration.digest}; probabilities {lowest:.3f} to {highest:.3f}; " + (
        "never .5" if math.isnan(fit.threshold) else f".5 from a score of {fit.threshold:.3f} on"
    )
    return "\n".join([about, "", *markdown(table.head, *table.rows)])


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, score, fit, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    add_scorer_arguments(parser)
    parser.add_argument("--saved", metavar="PREFIX", help="score nothing: take what agreement.py --save PREFIX kept")
    parser.add_argument("--out", type=Path, default=SHIPPED_FOLDER, help="the folder; default: that of the package")
    args = parser.parse_args(argv)
    for metric in args.metrics:
        scorers = make_scorers(metric, args)
        sets: dict[str, list[ScoredSet]] = {name: [] for name in scorers}
        for path in args.data:
            rows = read(path)
            scored = load(saved_as(args.saved, metric, path)) if args.saved else judge(rows, scorers)
            known = {entry["id"] for entry in scored[1:]}
            for scorer_name, scorer in scorers.items():
                if (signature := scored[0]["signatures"].get(scorer_name)) != scorer.signature:
                    parser.error(f"{path}: must be scored as {scorer.signature}; the saved scores are of {signature}")
                for name, part in sections(Path(path).name, [row for row in rows if row["id"] in known]):
                    sets[scorer_name].append(scored_set(name, Path(path), part, column(part, scored, scorer_name)))
        for scorer_name, scorer in scorers.items():
            print(calibrate(scorer_name, scorer, sets[scorer_name], args.out))
            print(scorer.signature, end="\n\n")


if __name__ == "__main__":
    main()
