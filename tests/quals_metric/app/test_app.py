"""The app's parts without a server; `tests/browser` has the whole."""

from __future__ import annotations

import asyncio
import base64
import csv
import html
import json
import math
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape
from typer.testing import CliRunner

from qa_inference.formats import CausalFormat
from qa_inference.presets import PRESETS
from quals_metric.app import guard as guard_module
from quals_metric.app import interface, server
from quals_metric.app.guard import Guard, remove_old, served_hosts
from quals_metric.app.limits import Deadline, Limits, RefusedError
from quals_metric.app.scoring_queue import ScoringQueue, offered_presets
from quals_metric.app.uploads import read_upload, write_scores
from quals_metric.app.views import corpus_html, help_html, result_html
from quals_metric.cli import commands as cli
from quals_metric.metrics import BANDS, metric_spec
from quals_metric.report.html import legend_html
from quals_metric.report.writing import write
from quals_metric.result import PairScore, QualsResult, SummaryScore

EVIL = "<script>hit()</script><img src=x onerror=hit()>"


def scored(summary: str, score: float = -1.0) -> SummaryScore:
    pair = PairScore(EVIL, summary, 0, len(summary), score, ("who", EVIL), (-0.1, -0.2), (-1.0, -2.0))
    defined, undefined = SummaryScore(score, (pair,)), SummaryScore(score, (), "no pair kept")
    return (undefined if math.isnan(score) else defined).with_text(summary)


class FakeScorer:
    """Gives every summary its place as a score, in a batch each; counts how many calls run at once."""

    def __init__(self) -> None:
        self.running, self.most = 0, 0

    def score(self, *, summaries: list[str], sources: list[str], on_batch: Callable[[int, int], None]) -> QualsResult:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for done in range(len(summaries)):
                on_batch(done + 1, len(summaries))
            return QualsResult(tuple(scored(text, -float(n)) for n, text in enumerate(summaries)), "quals|fake")
        finally:
            self.running -= 1


# --- limits


@pytest.mark.parametrize(
    ("summary", "source", "message"),
    [
        ("s" * 11, "x", "The summary has 11 characters; the limit is 10. "),
        ("s", "x" * 21, "The source has 21 characters; the limit is 20. "),
        (" \n", "x", "The summary is empty. Please enter a text."),
        ("s", "", "The source is empty. Please enter a text."),
    ],
)
def test_texts_out_of_bounds(summary: str, source: str, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        Limits(summary=10, source=20).check(summary, source)
    assert str(caught.value).startswith(message)
    Limits(summary=10, source=20).check("s" * 10, "x" * 20)


@pytest.mark.parametrize("name", ["summary", "rows", "file", "text_seconds", "waiting"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: must be more than 0; got 0"):
        Limits(**{name: 0})


def test_texts_within_the_limits_fit_into_a_request() -> None:
    """However JSON writes them: a character outside of the first plane takes two escapes."""
    limits = Limits()
    data = ["\U0001f600" * limits.source, *["\U0001f600" * limits.summary] * 2, "embedded", "embedded"]
    assert len(json.dumps({"data": data, "fn_index": 1, "session_hash": "x" * 40})) < limits.body


def test_deadline() -> None:
    now, told = [0.0], []
    deadline = Deadline(5, told.append, lambda: now[0])
    deadline(1, 4)
    now[0] = 5.1
    deadline(4, 4)  # all is done: no reason to throw it away
    with pytest.raises(RefusedError, match="longer than 5 seconds"):
        deadline(3, 4)
    assert told == [0.25, 1.0]


# --- files


def upload(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


ROW = '{"summary": "s", "source": "x"}\n'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.parquet", "PAR1", "The file's name must end in .csv or .jsonl."),
        ("a.jsonl.gz", "x", "The file's name must end in .csv or .jsonl."),
        ("a.jsonl", "x" * 1001, "The file has 1,001 bytes; the limit is 1,000. Please send a part of it."),
        ("a.jsonl", ROW * 4, "The file has more than 3 rows. Please send a part of it."),
        ("a.jsonl", "", "The file has no rows. "),
        ("a.csv", "summary,source\n", "The file has no rows. "),
        (
            "a.csv",
            "summary,text\ns,x\n",
            'Your file, line 2: must have a text called "source"; it has "summary", "text".',
        ),
        ("a.jsonl", "{}", 'Your file, line 1: must have a text called "summary"; it has nothing.'),
        (
            "a.jsonl",
            '{"summary": "x", "source": ["a", "b"]}',
            'Your file, line 1: "source" must be a text; it is a list. Please join its texts.',
        ),
        ("a.jsonl", '{"summary": 3, "source": "x"}', 'Your file, line 1: must have a text called "summary"; it has '),
        ("a.jsonl", ROW + "[1]", "Your file, line 2: must be a JSON object, {...}; got [1]. Correct the line"),
        ("a.jsonl", "{", "Your file, line 1: must be a JSON object; "),
        ("a.jsonl", b"\xff\xfe", "Your file, line 1: must be UTF-8 text; "),
        ("a.csv", "summary,source,score\ns,x,1\n", 'Your file, line 2: must not have a column "score", where '),
        ("a.csv", 'summary,source\n"s,x\n', "Your file, line 2: "),
        ("a.csv", f"summary,source\n{'s' * 11},x\n", "Your file, line 2: the summary has 11 characters; "),
        ("a.csv", "summary,source\n ,x\n", "Your file, line 2: the summary is empty."),
    ],
)
def test_bad_files(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        read_upload(upload(tmp_path, name, text), "quals", Limits(rows=3, file=1000, summary=10))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["a.csv", "A.JSONL"])
def test_a_file_comes_back_with_its_scores(name: str, tmp_path: Path) -> None:
    texts = [("é, one", 'x "y"'), ("two\nlines", "z"), ("three", "z")]
    if name == "a.csv":
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "summary", "source"), *((n, *pair) for n, pair in enumerate(texts))])
    else:
        lines = [{"id": n, "summary": a, "source": b} for n, (a, b) in enumerate(texts)]
        path = upload(tmp_path, name, "\n".join(map(json.dumps, lines)))
    rows = read_upload(path, "quals", Limits())
    assert [(row.summary, row.source) for row in rows] == texts
    result = QualsResult((scored("é, one"), scored("", math.nan), scored("three", -0.5)), "quals|fake")
    written = [write_scores(tmp_path, path.suffix.lower(), rows, result) for _ in range(2)]
    assert written[0] != written[1] and written[0].name == f"scores{path.suffix.lower()}"
    if name == "a.csv":
        with written[0].open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        assert [row["score"] for row in found] == ["-1.0", "", "-0.5"]
        assert list(found[0]) == ["id", "summary", "source", "score", "score_01", "num_pairs", "note"]
    else:
        found = [json.loads(line) for line in written[0].read_text(encoding="utf-8").splitlines()]
        assert [row["score"] for row in found] == [-1.0, None, -0.5]
        assert found[0]["pairs"][0]["question"] == EVIL
        assert [part["text"] for part in found[0]["sentences"]] == ["é, one"] and found[0]["spans"] == []
    assert [(str(row["id"]), row["summary"], row["source"]) for row in found] == [
        (str(n), *pair) for n, pair in enumerate(texts)
    ]


# --- the scoring queue


def test_one_scoring_at_a_time() -> None:
    scorer = FakeScorer()
    queue = ScoringQueue("quals", lambda chosen: scorer)
    work = lambda: queue.score(["a"] * 50, ["b"] * 50, {"model": "embedded"}, 60, lambda share: None)  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scorer.most == 1


@pytest.mark.parametrize("model", ["somebody/model", "/etc", "", None, 3])
def test_no_model_but_those_listed(model: Any) -> None:
    loaded: list[Mapping[str, str]] = []
    queue = ScoringQueue("qags", lambda chosen: loaded.append(chosen) or FakeScorer())
    for chosen in ({"model": model, "reader": "embedded"}, {"model": "embedded", "reader": model}):
        with pytest.raises(RefusedError, match="not in the list"):
            queue.score(["a"], ["b"], chosen, 60, lambda share: None)
    assert loaded == [{"model": "embedded", "reader": "embedded"}]


def test_models_in_memory() -> None:
    loaded: list[str] = []
    queue = ScoringQueue("quals", lambda chosen: loaded.append(chosen["model"]) or FakeScorer())
    first, second = [name for name in offered_presets("quals")["model"] if name != "embedded"][:2]
    for model in ("embedded", first, "embedded", first, second, first, "embedded"):
        queue.score(["a"], ["b"], {"model": model}, 60, lambda share: None)
    assert loaded == ["embedded", first, second, first]


def test_decoder_only_models_are_in_the_list_and_gated_ones_are_not() -> None:
    presets = offered_presets("quals")["model"]
    decoder_only = [preset for preset in presets.values() if isinstance(preset.format, CausalFormat)]
    assert decoder_only and all(preset.licence == "Apache-2.0" for preset in decoder_only)
    left_out = PRESETS.keys() - presets.keys()
    assert PRESETS["gemma-3-270m"].is_gated and left_out - {"smollm2-135m-instruct"} == {"gemma-3-270m"}
    assert ("smollm2-135m-instruct" in left_out) is not PRESETS["smollm2-135m-instruct"].is_at_hand


@pytest.mark.parametrize("failure", [OSError("no network at /secret/path"), MemoryError("/secret/path takes 5 GB")])
def test_a_model_that_cannot_be_loaded(failure: Exception) -> None:
    def load(chosen: Mapping[str, str]) -> FakeScorer:
        if chosen["model"] != "embedded":
            raise failure
        return FakeScorer()

    queue = ScoringQueue("quals", load)
    other = next(name for name in offered_presets("quals")["model"] if name != "embedded")
    with pytest.raises(RefusedError, match="cannot be loaded now") as caught:
        queue.score(["a"], ["b"], {"model": other}, 60, lambda share: None)
    assert "secret" not in str(caught.value)
    assert queue.score(["a"], ["b"], {"model": "embedded"}, 60, lambda share: None).scores == [0.0]


def test_the_deadline_stops_a_scoring_and_the_next_is_served() -> None:
    queue = ScoringQueue("quals", lambda chosen: FakeScorer())
    with pytest.raises(RefusedError, match="longer than"):
        queue.score(["a"] * 3, ["b"] * 3, {"model": "embedded"}, -1, lambda share: None)
    assert queue.score(["a"], ["b"], {"model": "embedded"}, 60, lambda share: None).scores == [0.0]


def test_the_model_of_whoever_serves(tmp_path: Path) -> None:
    """`serve --model`: it is loaded first and offered first; visitors see a folder's name and not its path."""
    (tmp_path / "mine").mkdir()
    loaded: list[str] = []
    for model, name in ((str(tmp_path / "mine"), "mine"), ("lab/model", "lab/model"), ("embedded", "embedded")):
        queue = ScoringQueue("quals", lambda chosen: loaded.append(chosen["model"]) or FakeScorer(), model)
        assert queue.default == {"model": name} and "embedded" in queue.models["model"]
        for chosen in (name, "embedded"):
            assert queue.score(["a"], ["b"], {"model": chosen}, 60, lambda share: None).scores == [0.0]
        if name != model:
            with pytest.raises(RefusedError, match="not in the list"):
                queue.score(["a"], ["b"], {"model": model}, 60, lambda share: None)
    assert loaded == [str(tmp_path / "mine"), "embedded", "lab/model", "embedded", "embedded"]


def test_metrics() -> None:
    with pytest.raises(ValueError, match="metric: must be one of quals, qags; got 'rouge'"):
        ScoringQueue("rouge", lambda chosen: None)


# --- the page


@pytest.mark.parametrize("score", [-1.0, math.nan])
def test_nothing_of_a_visitors_is_html(score: float) -> None:
    page = result_html(EVIL, EVIL, scored(EVIL, score)) + corpus_html(QualsResult((scored(EVIL),), EVIL))
    assert "<script" not in page and "<img" not in page
    assert html.escape("<script>hit()</script>", quote=False) in page
    assert ("undefined" in page) == math.isnan(score)


def test_pairs_are_shown_with_the_least_supported_first() -> None:
    pairs = [
        PairScore(f"question {n}", "a", 0, 1, value, ("a",), (-0.1,), (value,)) for n, value in enumerate((-1, -3))
    ]
    page = result_html("Summary", "a b", SummaryScore(-2.0, tuple(pairs), text="a b"))
    assert page.index("Question 1") < page.index("Question 0") and page.count('class="q-figure"') == 2


def test_21_d22_the_app_shows_what_the_report_shows(tmp_path: Path) -> None:
    """The report's caveat, legend and spelling, and no words or colours of a verdict."""
    pairs = tuple(
        PairScore("how did klitschko ' s armor go ?", "a", 0, 1, score, ("a",), (-0.1,), (score,))
        for score in (-0.1, -1, -2, -3)
    )
    summary, source = "a summary", "Klitschko's armor went."
    result = QualsResult((SummaryScore(-2.0, pairs, text=summary),), "quals|fake")
    shown = result_html("Summary", summary, result.summaries[0], source) + help_html("quals")
    write(result, tmp_path / "report.html", summaries=[summary], sources=[source])
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    caveat = "they are no verdict on an answer or a summary."
    for text in (caveat, metric_spec("quals").band_note, "Klitschko's armor go?", *BANDS, *("q-band-1", "q-band-4")):
        text = str(escape(text))
        assert text in shown and text in report, text
    assert legend_html(metric_spec("quals")) in help_html("quals")
    assert "support" not in " ".join(BANDS)
    assert "hardly" not in shown


def _raise(error: Exception) -> None:
    raise error


def test_21_d23_a_message_stands_beside_its_field(capsys: pytest.CaptureFixture[str]) -> None:
    fields = ("source", "summary", "")
    *shown, source, summary, general = interface._outputs(
        lambda: _raise(RefusedError(f"Your text: {EVIL}", "summary")), 2, fields
    )
    assert shown == [None, None] and (source, general) == ("", "")
    assert f"Not scored. Your text: {html.escape(EVIL)}<" in summary and 'role="alert"' in summary
    assert interface._outputs(lambda: _raise(RefusedError("busy", "elsewhere")), 1, fields)[3].count("busy") == 1
    assert capsys.readouterr().err == ""
    told = interface._outputs(lambda: _raise(KeyError("/secret/path")), 2, fields)
    assert told[:4] == [None, None, "", ""] and "Something went wrong on the server." in told[4]
    assert "secret" not in told[4] and "KeyError: '/secret/path'" in capsys.readouterr().err
    assert interface._outputs(lambda: ["a", "b"], 2, fields) == ["a", "b", "", "", ""]


@pytest.mark.parametrize(
    ("texts", "field"),
    [(("", "s", ""), "source"), (("x", " ", ""), "summary"), (("x", "s", "s" * 4_001), "other summary")],
)
def test_21_d23_the_field_that_has_to_change(texts: tuple[str, str, str], field: str, tmp_path: Path) -> None:
    queue = ScoringQueue("quals", lambda chosen: FakeScorer())
    page = interface.ScoringPage("quals", queue, Limits(), tmp_path)
    with pytest.raises(RefusedError) as refused:
        page.score_texts(texts, queue.default, lambda share: None)
    assert refused.value.field == field
    for path in (None, str(upload(tmp_path, "a.csv", "a\n1\n"))):
        with pytest.raises(RefusedError) as refused:
            page.score_file(path, queue.default, lambda share: None)
        assert refused.value.field == "file"


# --- the guard


def ask(
    path: str,
    body: bytes = b"",
    method: str = "POST",
    stated: bool = True,
    chunks: int = 1,
    folder: str = "/tmp/uploads",
    headers: Mapping[bytes, bytes] = {},
    **settings: Any,
) -> tuple[int | None, bytes]:
    """The status of the answer, None if it was let through, and the body that was."""
    passed, sent = [], []
    size = max(1, -(-len(body) // chunks))
    parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    messages = [{"type": "http.request", "body": part, "more_body": n < len(parts)} for n, part in enumerate(parts, 1)]

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            passed.append(message.get("body", b""))
            more = message.get("more_body", False)

    lengths = [(b"content-length", str(len(body)).encode())] if stated else []
    scope = {"type": "http", "method": method, "path": path, "headers": [*lengths, *headers.items()]}
    guard = Guard(behind, folder, **{"body": 1000, "upload": 2000, **settings})
    asyncio.run(guard(scope, receive, send))
    assert bool(passed) != bool(sent)
    return (sent[0]["status"] if sent else None), b"".join(passed)


def named(path: object) -> bytes:
    return json.dumps({"data": ["x", {"path": path, "meta": {"_type": "gradio.FileData"}}]}).encode()


@pytest.mark.parametrize("chunks", [1, 7])
@pytest.mark.parametrize("action", ["queue/join", "run/predict"])
def test_the_guard_lets_uploaded_files_through(action: str, chunks: int) -> None:
    body = named("/tmp/uploads/abc/mine.csv")
    assert ask(f"/gradio_api/{action}", body, chunks=chunks) == (None, body)


@pytest.mark.parametrize(
    "path",
    [
        "http://127.0.0.1/x",
        "HTTP://127.0.0.1/x",
        "https://there/x",
        "ftp://there/x",
        "file:///tmp/uploads/x",
        "/tmp/uploads/../x",
        "/tmp/uploadsx/y",
        "/tmp/uploads/http://there/x",
        "relative",
        "",
        "/etc/passwd",
        None,
        7,
        ["/tmp/uploads/x"],
    ],
)
def test_the_guard_refuses_other_paths(path: object) -> None:
    assert ask("/gradio_api/queue/join", named(path))[0] == 403
    deep = json.dumps({"event_data": [[{"value": {"path": path}}]]}).encode()
    assert ask("/root/gradio_api/run/predict", deep)[0] == 403


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/gradio_api/queue/join", b"{", 400),
        ("/gradio_api/queue/join", b"[" * 900, 400),
        ("/gradio_api/queue/join", b'"' + b"x" * 1000 + b'"', 413),
        ("/gradio_api/upload", b"x" * 102_001, 413),
        ("/gradio_api/call/predict", b"{}", 403),
        ("/gradio_api/component_server", b"{}", 403),
        ("/login", b"{}", 403),
        ("/gradio_api/stream/x", b"{}", 403),
    ],
)
def test_the_guard_refuses(path: str, body: bytes, status: int) -> None:
    assert ask(path, body)[0] == status


def test_the_guard_counts_what_states_no_length() -> None:
    assert ask("/gradio_api/queue/join", b'"' + b"x" * 1000 + b'"', stated=False, chunks=5)[0] == 413
    assert ask("/gradio_api/upload", b"x" * 103_000, stated=False, chunks=103) == (413, b"")
    assert ask("/gradio_api/upload", b"x" * 50_000) == (None, b"x" * 50_000)


@pytest.mark.parametrize(("size", "count"), [(11_000_000, 2), (0, 2001)])
def test_the_guard_bounds_what_is_kept(size: int, count: int, tmp_path: Path) -> None:
    assert ask("/gradio_api/upload", b"x", folder=str(tmp_path))[0] is None
    for number in range(count):
        with (tmp_path / str(number)).open("wb") as file:
            file.truncate(size)
    assert ask("/gradio_api/upload", b"x", folder=str(tmp_path))[0] == 503
    assert ask("/gradio_api/queue/join", b"{}", folder=str(tmp_path))[0] is None


def test_21_c16_folders_are_not_counted_and_old_ones_are_removed(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / str(number)).mkdir()
    (tmp_path / "7" / "new.csv").write_text("x")
    (tmp_path / "8" / "old.csv").write_text("x")
    assert ask("/gradio_api/upload", b"x", folder=str(tmp_path))[0] is None
    for path in (tmp_path / "8" / "old.csv", *tmp_path.iterdir()):
        os.utime(path, (1, 1))
    remove_old(tmp_path, 3600)
    assert {path.name for path in tmp_path.iterdir()} == {"7", "8"}  # 8 has just changed
    assert [path.name for path in tmp_path.rglob("*.csv")] == ["new.csv"]
    remove_old(tmp_path, -1)
    assert list(tmp_path.iterdir()) == []
    remove_old(tmp_path / "gone", 1)


def multipart(count: int, boundary: bytes = b"xx") -> bytes:
    part = b"--" + boundary + b'\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx\r\n'
    return part * count + b"--" + boundary + b"--\r\n"


@pytest.mark.parametrize("boundary", [b"xx", b'"x x"'])
def test_21_c16_one_file_an_upload(boundary: bytes) -> None:
    kind = {b"content-type": b"multipart/form-data; boundary=" + boundary}
    single = multipart(1, boundary.strip(b'"'))
    assert ask("/gradio_api/upload", single, headers=kind) == (None, single)
    for count in (2, 999):
        assert ask("/gradio_api/upload", multipart(count, boundary.strip(b'"')), headers=kind)[0] == 400


def test_21_c18_a_page_without_uploads() -> None:
    assert ask("/gradio_api/upload", b"x", upload=0)[0] == 403
    assert ask("/gradio_api/queue/join", b"{}", upload=0)[0] is None


LOOPBACK = ("localhost", "127.0.0.1:7860", "LOCALHOST:1", "[::1]:7860")


@pytest.mark.parametrize(
    ("listens", "answers", "refuses"),
    [
        ("127.0.0.1", LOOPBACK, ("evil.org", "127.0.0.1.evil.org", "192.168.0.1", "", "127.0.0.1@evil.org")),
        ("::1", LOOPBACK, ("evil.org",)),
        ("lab.edu", ("lab.edu:80",), ("localhost", "evil.org")),
        ("0.0.0.0", (*LOOPBACK, "10.0.0.7:7860", socket.gethostname()), ("evil.org", "10.0.0.7.evil.org")),
    ],
)
def test_21_c18_the_host_that_is_asked_for(
    listens: str, answers: Sequence[str], refuses: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    for hosts in (served_hosts(listens), served_hosts(listens, ["proxy.org"])):
        for method, path in (("GET", "/config"), ("POST", "/gradio_api/queue/join")):
            for host in answers:
                assert ask(path, b"{}", method, headers={b"host": host.encode()}, hosts=hosts)[0] is None, host
            for host in refuses:
                # As DNS rebinding has it: the foreign page's origin is the host that is asked for.
                foreign = {b"host": host.encode(), b"origin": b"http://" + host.encode()}
                assert ask(path, b"{}", method, headers=foreign, hosts=hosts)[0] == 403, host
    through_proxy = {b"host": b"proxy.org", b"origin": b"https://proxy.org"}
    assert ask("/gradio_api/queue/join", b"{}", headers=through_proxy, hosts=hosts)[0] is None
    monkeypatch.setenv("SPACE_ID", "somebody/quals")
    assert ask("/config", b"", "GET", headers={b"host": b"x.hf.space"}, hosts=served_hosts(listens))[0] is None


@pytest.mark.parametrize("origin", ["http://evil.org", "null", "http://127.0.0.1.evil.org", "http://10.0.0.8"])
def test_21_c18_other_sites_cannot_post(origin: str) -> None:
    for listens in ("127.0.0.1", "0.0.0.0"):
        headers = {b"host": b"127.0.0.1:7860", b"origin": origin.encode()}
        assert ask("/gradio_api/queue/join", b"{}", headers=headers, hosts=served_hosts(listens))[0] == 403


def test_21_c18_a_password() -> None:
    def status(path: str, word: bytes | None, method: str = "GET") -> int | None:
        headers = {} if word is None else {b"authorization": b"Basic " + base64.b64encode(word)}
        return ask(path, b"{}", method, headers=headers, auth="ann:s:é")[0]

    for path, method in (("/config", "GET"), ("/gradio_api/queue/join", "POST"), ("/", "HEAD")):
        assert [status(path, word, method) for word in (None, b"ann:", b"ann:s:e", b"")] == [401] * 4
        assert status(path, "ann:s:é".encode(), method) is None
    assert status("/gradio_api/startup-events", None) is None  # the server asks itself


@pytest.mark.parametrize("auth", ["", "ann", ":secret", "ann:"])
def test_21_c18_no_half_of_a_password(auth: str) -> None:
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    with pytest.raises(ValueError, match="auth: must be USER:PASSWORD"):
        server.serve_page(_never, "127.0.0.1", 1, body=1, auth=auth)


@pytest.mark.parametrize(
    ("host", "is_told"),
    [("0.0.0.0", True), ("10.0.0.7", True), ("lab.edu", True), ("127.0.0.1", False), ("localhost", False)],
)
def test_21_c18_an_open_page_is_warned_of(host: str, is_told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    for auth in (None, "ann:secret"):
        with pytest.raises(RuntimeError, match="built"):
            server.serve_page(_never, host, 7, body=1, auth=auth)
        assert ("--auth" in capsys.readouterr().err) == (is_told and auth is None)


def _never() -> Any:
    raise RuntimeError("built")


def test_21_c21_slow_bodies_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more bodies than are received at a time the oldest ends; one that takes too long ends by itself."""
    monkeypatch.setattr(guard_module, "_BODIES", 2)
    statuses: list[int] = []

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        statuses.append(200)

    async def visit() -> None:
        guard = Guard(behind, "/tmp/uploads", body=1000, upload=2000)
        scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "headers": []}
        never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        slow = [asyncio.ensure_future(guard(scope, lambda: asyncio.shield(never), send)) for _ in range(5)]
        done, _ = await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 3:
            done, _ = await asyncio.wait(slow, timeout=0.01)
        assert statuses == [408] * 3

        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}"}

        await guard(scope, receive, send)
        assert statuses[-1] == 200
        monkeypatch.setattr(guard_module, "_BODY_SECONDS", 0)
        await guard(scope, lambda: asyncio.shield(never), send)
        assert statuses[-1] == 408
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(visit())


def test_the_guard_opens_no_websocket() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(_never, "/tmp", 1, 1)({"type": "websocket"}, _never, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.mark.parametrize("path", ["file=http://there/x", "file=HTTPS://there", "file/http://there", "proxy=https://a"])
def test_the_guard_refuses_addresses_that_are_asked_for(path: str) -> None:
    for method in ("GET", "HEAD"):
        assert ask(f"/gradio_api/{path}", method=method)[0] == 403
    assert ask("/gradio_api/file=/tmp/uploads/scores/x/scores.csv", method="GET")[0] is None
    assert ask("/", method="GET")[0] is None


# --- the command and the extra


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr("quals_metric.app.serve", lambda *arguments, **options: served.append((*arguments, options)))
    monkeypatch.delenv("QUALS_AUTH", raising=False)
    named = ["--model", "mine", "--auth", "ann:secret", "--allowed-host", "a.org", "--allowed-host", "b.org"]
    for arguments in ([], ["--metric", "qags", "--host", "0.0.0.0", "--port", "8000"], named):
        assert CliRunner().invoke(cli.app, ["serve", *arguments]).exit_code == 0
    assert CliRunner().invoke(cli.app, ["serve"], env={"QUALS_AUTH": "ben:secret"}).exit_code == 0
    plain = {"model": None, "auth": None, "allowed_hosts": ()}
    assert served == [
        ("quals", "127.0.0.1", 7860, plain),
        ("qags", "0.0.0.0", 8000, plain),
        ("quals", "127.0.0.1", 7860, {"model": "mine", "auth": "ann:secret", "allowed_hosts": ["a.org", "b.org"]}),
        ("quals", "127.0.0.1", 7860, {**plain, "auth": "ben:secret"}),
    ]


def test_without_the_extra(run_python: Callable[..., Any]) -> None:
    code = """
import sys
sys.modules["gradio"] = None
from quals_metric import app
for call in (app.build, app.serve):
    try:
        call()
    except ImportError as error:
        print(error, "|", type(error.__cause__).__name__)
"""
    result = run_python("-c", code)
    line = "gradio: must be installed for `quals serve`. pip install 'quals-metric[app]' | ModuleNotFoundError"
    assert result.stdout.splitlines() == [line] * 2, result.stderr
