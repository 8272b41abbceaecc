"""The report in a real browser: opened from the disk it asks nothing of anybody and runs nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import qags_metric.result as qags
from quals_metric import report
from quals_metric.files.compare import compare_score_files
from quals_metric.files.scored_files import read_scores
from quals_metric.report.comparison import write_comparison
from quals_metric.result import PairScore, QualsResult, SummaryScore
from tests.browser.conftest import Seen
from tests.quals_metric.report.compared_files import write_system

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


def test_23_10_search_and_filter(seen: Seen, chromium: Any, tmp_path: Path) -> None:
    """They work from the disk, and without scripts all rows are there."""
    scores = {"a": [-1.0, -1.0, -3.0], "b": [-1.5, -4.0, -2.0], "c": [-1.2, -2.0, -2.5]}
    files = [read_scores(write_system(tmp_path / f"{name}.jsonl", of, claim=EVIL)) for name, of in scores.items()]
    path = tmp_path / "page.html"
    with pytest.warns(UserWarning, match="only 3 rows are compared"):
        write_comparison(files, compare_score_files(files), path)
    seen.page.goto(path.as_uri())
    search, count = seen.page.get_by_role("searchbox"), seen.page.locator("#count")
    assert count.inner_text() == "3 of 3 rows shown"
    choices = [
        ("Search the texts", "ann lee <script>WINDOW.hit=1", ["2", "3", "1"]),  # through a marked answer and its number
        ("Search the texts", " source 1. ", ["2"]),
        ("Highest score", "b", ["3"]),
        ("Lowest score", "b", ["2", "1"]),
        ("Difference of at least", "1", ["2", "3"]),
    ]
    for label, value, rows in choices:
        field = seen.page.get_by_label(label)
        field.select_option(value) if "score" in label else field.fill(value)
        assert seen.page.locator(".entry:visible").evaluate_all("rows => rows.map(row => row.id.slice(4))") == rows
        assert count.inner_text() == f"{len(rows)} of 3 rows shown"
        field.select_option("") if "score" in label else field.fill("")
    search.press("Enter")
    assert (seen.page.url, seen.requests, seen.errors) == (path.as_uri(), [path.as_uri()], [])
    assert seen.page.evaluate("window.hit") is None
    plain = chromium.new_context(java_script_enabled=False).new_page()
    plain.goto(path.as_uri())
    assert plain.locator(".entry:visible").count() == 3 and not plain.locator("#filter").is_visible()


def test_the_watch_sees_a_request_and_an_error(seen: Seen, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html><title>x</title>{EVIL}<script>throw new Error('mine')</script>")
    seen.page.goto(path.as_uri())
    seen.page.wait_for_load_state("networkidle")
    assert seen.page.evaluate("window.hit") == 1
    assert "http://127.0.0.1:9/x" in seen.requests
    assert any("mine" in error for error in seen.errors)
