"""The report in a real browser: opened from the disk it asks nothing of anybody and runs nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import qags_metric.result as qags
from quals_metric import report
from quals_metric.result import PairScore, QualsResult, SummaryScore
from tests.browser.conftest import Seen

pytestmark = pytest.mark.browser

EVIL = "<script>window.hit=1</script><img src='http://127.0.0.1:9/x' onerror='window.hit=1'>"


def quals_result() -> QualsResult:
    tokens = (EVIL, "who", "[SEP]")
    pair = PairScore(EVIL, EVIL, 0, len(EVIL), -1.5, tokens, (-0.1, -0.2, -0.3), (-1.0, -2.0, -3.0))
    scored = SummaryScore(-1.5, (pair,))
    return QualsResult((scored, scored, SummaryScore(math.nan, (), EVIL), *[scored] * 5), "quals|model:" + EVIL)


def qags_result() -> qags.QagsResult:
    found = qags.FoundAnswer(EVIL, 0, len(EVIL), 1.0)
    question = qags.QuestionScore(EVIL, EVIL, 0, len(EVIL), found, found, 1.0, -0.5)
    return qags.QagsResult((qags.SummaryScore(1.0, (question,)),) * 8, "qags|model:" + EVIL)


@pytest.mark.parametrize("result", [quals_result(), qags_result()], ids=["quals", "qags"])
def test_report_from_the_disk(result: Any, seen: Seen, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report.write(result, path, summaries=[f"{EVIL} says who."] * 8, sources=[f"{EVIL} was there."] * 8)
    seen.page.goto(path.as_uri())
    seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    seen.page.wait_for_load_state("networkidle")
    assert EVIL in seen.page.locator("blockquote").first.inner_text()
    assert seen.page.locator("svg").count()
    assert seen.page.locator("script, img").count() == 0
    assert seen.page.evaluate("window.hit") is None
    assert seen.requests == [path.as_uri()]
    assert seen.errors == []


def test_the_watch_sees_a_request_and_an_error(seen: Seen, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html><title>x</title>{EVIL}<script>throw new Error('mine')</script>")
    seen.page.goto(path.as_uri())
    seen.page.wait_for_load_state("networkidle")
    assert seen.page.evaluate("window.hit") == 1
    assert "http://127.0.0.1:9/x" in seen.requests
    assert any("mine" in error for error in seen.errors)
