"""The app in a real browser, and what visitors' programs may send it."""

from __future__ import annotations

import csv
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from quals_metric.report.examples import EXAMPLES
from tests import PATIENCE
from tests.browser.client import Client
from tests.browser.conftest import ROOT, Seen, Server

pytestmark = pytest.mark.browser

SOURCE, FAITHFUL = EXAMPLES[0].source, EXAMPLES[0].faithful
SECOND = "Another summary (optional)"
EVIL = (
    "Klitschko ${window.hit=1} {{#each this}}{{this}}{{/each}} <script>window.hit=1</script>"
    "<img src=x onerror='window.hit=1'><svg onload='window.hit=1'></svg> has a chink in his armour."
)


def open_app(seen: Seen, server: Server) -> Any:
    seen.page.goto(server.url)
    seen.page.get_by_role("button", name="Score", exact=True).wait_for()
    return seen.page


def fill(page: Any, source: str, first: str, second: str = "") -> None:
    for label, text in (("Source", source), ("Summary", first), (SECOND, second)):
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Score", exact=True).click()


def test_an_example_runs_at_a_click(seen: Seen, servers: Callable[[str], Server]) -> None:
    server = servers("quals")
    page = open_app(seen, server)
    page.get_by_text(EXAMPLES[0].title).click()
    results = page.locator(".q-result")
    results.nth(1).wait_for()
    for number, summary in enumerate((EXAMPLES[0].faithful, EXAMPLES[0].unfaithful)):
        shown = results.nth(number)
        assert shown.locator("h3").inner_text().startswith(f"Summary {number + 1}: QUALS -")
        assert "Between 0 and 1: 0." in shown.inner_text()
        marked = shown.locator("blockquote")
        numbers = "".join(marked.locator("sup").all_inner_texts())
        assert marked.locator("mark").count() and len(marked.inner_text()) == len(summary) + len(numbers)
        assert shown.locator("details").first.locator("svg.q-figure").is_visible()
        assert shown.locator("svg.q-figure desc").count() == shown.locator("details").count()
    assert page.get_by_label("Source", exact=True).input_value() == SOURCE
    first, second = (results.nth(number).bounding_box() for number in range(2))
    assert first["x"] + first["width"] <= second["x"]
    page.set_viewport_size({"width": 390, "height": 800})  # a phone's
    page.wait_for_function(
        """() => {
            const [first, second] = [...document.querySelectorAll(".q-result")].map(x => x.getBoundingClientRect());
            return first.bottom <= second.top;
        }"""
    )
    first, second = (results.nth(number).bounding_box() for number in range(2))
    assert first["y"] + first["height"] <= second["y"] and first["width"] > 250
    # Nothing is fetched from elsewhere, fonts included, and nothing is counted.
    assert [url for url in seen.requests if not url.startswith((server.url, "data:", "blob:"))] == []
    assert seen.errors == []


def test_qags(seen: Seen, servers: Callable[[str], Server]) -> None:
    page = open_app(seen, servers("qags"))
    page.get_by_text(EXAMPLES[0].title).click()
    results = page.locator(".q-result")
    results.nth(1).wait_for()
    assert "QAGS" in results.nth(0).locator("h3").inner_text()
    texts = " ".join(results.all_inner_texts())
    assert "The source answers:" in texts
    assert page.get_by_label("The reader").is_visible()
    fill(page, SOURCE, "x" * 4_001)
    page.get_by_text("The summary has 4,001 characters; the limit is 4,000.").wait_for()


def test_21_d23_errors_stand_beside_the_field_until_it_changes(seen: Seen, servers: Callable[[str], Server]) -> None:
    page = open_app(seen, servers("quals"))
    fill(page, "", FAITHFUL, FAITHFUL)
    messages = page.locator(".q-message")
    messages.first.wait_for()
    assert messages.all_inner_texts() == ["Not scored. The source is empty. Please enter a text."]
    boxes = [part.bounding_box() for part in (page.get_by_label("Source", exact=True), messages.first)]
    summary = page.get_by_label("Summary", exact=True).bounding_box()
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"] and boxes[1]["y"] + boxes[1]["height"] <= summary["y"]
    page.wait_for_timeout(12_000)  # a passing notice of Gradio's stays for ten seconds
    assert messages.count() == 1
    assert page.get_by_text("Error", exact=True).count() == 0
    page.get_by_label("Source", exact=True).fill(SOURCE)
    messages.first.wait_for(state="detached")
    fill(page, SOURCE, FAITHFUL, "x" * 4_001)
    messages.first.wait_for()
    second = page.get_by_label(SECOND, exact=True).bounding_box()
    assert messages.first.bounding_box()["y"] >= second["y"] + second["height"]
    fill(page, SOURCE, FAITHFUL, "")
    page.locator(".q-result").first.wait_for()
    assert messages.count() == 0


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 600), (320, 480)])
def test_21_d23_work_that_has_begun_is_seen(
    width: int, height: int, seen: Seen, servers: Callable[[str], Server]
) -> None:
    page = open_app(seen, servers("quals"))
    page.set_viewport_size({"width": width, "height": height})
    for label, text in (("Source", SOURCE), ("Summary", FAITHFUL)):
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Score", exact=True).scroll_into_view_if_needed()
    page.evaluate(
        """window.progress = []; new MutationObserver(() => {
            for (const part of document.querySelectorAll('.q-status .progress-text, .q-status .eta-bar')) {
                const {top, bottom} = part.getBoundingClientRect();
                if (bottom > top) window.progress.push([top, bottom]);
            }
        }).observe(document.body, {childList: true, subtree: true, attributes: true, characterData: true})"""
    )
    page.get_by_role("button", name="Score", exact=True).click()
    page.locator(".q-result").first.wait_for()
    shown = page.evaluate("window.progress")
    assert shown and all(top >= 0 and bottom <= height for top, bottom in shown), shown[:5]


def test_a_long_text_is_refused(seen: Seen, servers: Callable[[str], Server]) -> None:
    page = open_app(seen, servers("quals"))
    fill(page, "x" * 20_001, FAITHFUL)
    page.get_by_text("The source has 20,001 characters; the limit is 20,000.").wait_for()
    fill(page, "x" * 500_000, FAITHFUL)
    page.get_by_text("The source has 500,000 characters; the limit is 20,000.").wait_for()
    fill(page, "x" * 2_000_000, FAITHFUL)
    page.get_by_text("The request is too long").wait_for()
    fill(page, SOURCE, " ")
    page.get_by_text("The summary is empty.").wait_for()
    assert page.locator(".q-result").count() == 0


def test_a_summary_runs_nothing(seen: Seen, servers: Callable[[str], Server]) -> None:
    page = open_app(seen, servers("quals"))
    fill(page, EVIL, EVIL, EVIL)
    page.locator(".q-result").nth(1).wait_for()
    assert "<img src=x onerror='window.hit=1'>" in page.locator(".q-result blockquote").nth(0).inner_text()
    assert page.locator(".q-result script, .q-result img, .q-result blockquote svg").count() == 0
    assert page.evaluate("window.hit") is None


def test_a_file_up_scores_down(seen: Seen, servers: Callable[[str], Server], tmp_path: Path) -> None:
    page = open_app(seen, servers("quals"))
    page.get_by_role("tab", name="A file").click()
    sent = tmp_path / "mine.csv"
    rows = [[f"é{number}", EXAMPLES[0].faithful, SOURCE] for number in range(3)]
    with sent.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "summary", "source"], *rows])
    page.locator("input[type=file]").first.set_input_files(sent)
    page.get_by_text("mine").first.wait_for()
    page.get_by_role("button", name="Score the file").click()
    page.locator(".q-result").wait_for()
    assert "QUALS of 3 rows: -" in page.locator(".q-result").inner_text()
    got = {}
    for link in page.locator("a[download]").all():
        with page.expect_download() as download:
            link.click()
        got[download.value.suggested_filename] = Path(download.value.path()).read_text(encoding="utf-8")
    scored = list(csv.DictReader(io.StringIO(got["scores.csv"])))
    assert [[row["id"], row["summary"], row["source"]] for row in scored] == rows
    assert len({row["score"] for row in scored}) == 1 and float(scored[0]["score"]) < 0
    assert got["report.html"].startswith("<!DOCTYPE html>")


def test_a_bad_file_is_refused(seen: Seen, servers: Callable[[str], Server], tmp_path: Path) -> None:
    page = open_app(seen, servers("quals"))
    page.get_by_role("tab", name="A file").click()
    sent = tmp_path / "mine.jsonl"
    sent.write_text('"<img src=x onerror=window.hit=1>"\n')
    page.locator("input[type=file]").first.set_input_files(sent)
    page.get_by_text("mine").first.wait_for()
    page.get_by_role("button", name="Score the file").click()
    page.get_by_text("Your file, line 1: must be a JSON object").wait_for()
    page.get_by_text("<img src=x onerror=window.hit=1>").wait_for()
    assert page.evaluate("window.hit") is None


# --- without a browser


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and what is asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"summary,source\na,b\n")

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/secret.csv", asked
        server.shutdown()
        thread.join()


def as_file(path: object) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "mine.csv"}


def test_no_address_is_opened(servers: Callable[[str], Server], elsewhere: tuple[str, list[str]]) -> None:
    url, asked = elsewhere
    client = Client(servers("quals").url)
    requests = [
        client.event("Your file", {"Your file": as_file(url), "The model": "embedded"}),
        client.texts(as_file(url), FAITHFUL),  # any component would do
        client.texts(SOURCE, [{"deep": as_file(url)}]),
    ]
    for request in requests:
        for path in ("queue/join", "run/predict"):
            status, answer = client.post(path, request)
            assert (status, answer["detail"]) == (
                403,
                "A file must be uploaded; addresses and other paths are not opened.",
            )
    for path in ("call/predict", "call/v2/predict", "api/predict", "component_server", "stream/1"):
        assert client.post(path, requests[0])[0] == 403
    for path in (f"file={url}", f"file/{url}", f"proxy={url}", f"file={url}".replace("h", "%68", 1)):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{client.url}/gradio_api/{path}", timeout=PATIENCE)
    assert asked == []
    # What the guard is for: past it, each of these opens the address.
    for count, request in enumerate(requests, 1):
        assert client.post("queue/join", request, x_unguarded="1")[0] == 200
        client.result(request)
        assert len(asked) == count


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", "file:///etc/passwd", "", None, 3])
def test_no_path_is_opened(path: object, servers: Callable[[str], Server]) -> None:
    client = Client(servers("quals").url)
    request = client.event("Your file", {"Your file": as_file(path), "The model": "embedded"})
    assert client.post("queue/join", request)[0] == 403
    if isinstance(path, str):
        with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
            urllib.request.urlopen(f"{client.url}/gradio_api/file={path}", timeout=PATIENCE)


@pytest.mark.parametrize(
    ("source", "summary", "model"),
    [
        (SOURCE, FAITHFUL, "somebody/elses-model"),
        (SOURCE, FAITHFUL, "/etc"),
        (SOURCE, FAITHFUL, None),
        (SOURCE, FAITHFUL, ["embedded"]),
        (None, None, "embedded"),
        ({"a": 1}, None, "embedded"),
    ],
)
def test_what_a_program_may_send(
    source: object, summary: object, model: object, servers: Callable[[str], Server]
) -> None:
    client = Client(servers("quals").url)
    request = client.texts(source, summary, "", model)
    assert client.post("queue/join", request)[0] == 200
    answer = client.result(request)
    told = json.dumps(answer)
    assert answer["success"] is False or "Not scored." in told
    assert "q-result" not in told
    assert not [trace for trace in ("Traceback", "site-packages", ".py", str(ROOT)) if trace in told]


def test_the_queue_is_not_passed_by(servers: Callable[[str], Server]) -> None:
    client = Client(servers("quals").url)
    assert client.post("run/predict", client.texts(SOURCE, FAITHFUL))[0] == 404


def test_twenty_at_once(servers: Callable[[str], Server]) -> None:
    client = Client(servers("quals").url)

    def visit(number: int) -> tuple[int, str]:
        request = client.texts(f"{SOURCE} {number}", FAITHFUL)
        status, answer = client.post("queue/join", request)
        if status != 200:
            return status, answer["detail"]
        done = client.result(request)
        return status, done["output"]["data"][0] if done["success"] else str(done)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(visit, range(20)))
    served = [text for status, text in answers if status == 200]
    assert len(served) >= 8 and all("QUALS <b>-" in text for text in served)
    assert all(text.startswith("Queue is full.") for status, text in answers if status == 503)
    assert {status for status, _ in answers} <= {200, 503}


def test_memory_does_not_grow(servers: Callable[[str], Server]) -> None:
    server = servers("quals")
    client = Client(server.url)

    def batch(name: str) -> int:
        for number in range(4):
            request = client.texts(f"{SOURCE} {name}{number} " * 5, f"{FAITHFUL} {name}{number}")
            assert client.post("queue/join", request)[0] == 200
            assert client.result(request)["success"]
        return server.memory()

    before = max(batch(name) for name in "ab")
    after = min(batch(name) for name in "cde")
    assert after - before < 40_000_000
