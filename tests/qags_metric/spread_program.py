"""What `test_spread.py` runs in two processes: `spread_program.py GENERATOR READER FOLDER`; rank R writes `R.json`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from qags_metric import QagsConfig, QagsScorer
from tests import tiny
from tests.qags_metric import models

SUMMARIES = [tiny.CORPUS[0], tiny.CORPUS[3], "Klitschko was beat in Perth on Monday.", "", "no names at all here"]
SOURCES = [tiny.CORPUS[0], " ".join(tiny.CORPUS), tiny.CORPUS[0], tiny.CORPUS[0], tiny.CORPUS[3]]


def scorer(generator: str, reader: str) -> QagsScorer:
    """A scorer on the toy models; the finder looks for capitals."""
    config = QagsConfig(generator, reader=reader, beam_width=4, hypotheses=4, max_question_tokens=16, device="cpu")
    return QagsScorer(config, finder=models.Finder())  # type: ignore[arg-type]  # it finds as the real one does


def main(generator: str, reader: str, folder: str) -> None:
    """Score with the work spread."""
    result = scorer(generator, reader).score(summaries=SUMMARIES, sources=SOURCES, spread=True)
    (Path(folder) / f"{os.environ['RANK']}.json").write_text(json.dumps(result.to_dict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
