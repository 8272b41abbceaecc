"""A scoring spread over two processes gives each of them what one process gives."""

from __future__ import annotations

import json
from pathlib import Path

from tests.qags_metric import spread_program
from tests.quals_metric.test_spread import assert_close, run_twice


def test_two_processes_give_the_result_of_one(folders: tuple[str, str], tmp_path: Path) -> None:
    run_twice(Path(spread_program.__file__), *folders, str(tmp_path))
    scorer = spread_program.scorer(*folders)
    expected = scorer.score(summaries=spread_program.SUMMARIES, sources=spread_program.SOURCES).to_dict()
    assert any(summary["questions"] for summary in expected["summaries"])
    for rank in range(2):
        assert_close(json.loads((tmp_path / f"{rank}.json").read_text()), expected)
