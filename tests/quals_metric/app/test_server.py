"""Both servers as processes: how they end, whom they answer, and how many connections they hold."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.client import Client

PROGRAM, ROOT = Path(__file__).with_name("serve_program.py"), Path(__file__).parents[3]
KINDS = ("app", "study")


class Served:
    """A running server, its folder for temporary files, and what it prints.

    It starts with SIGINT ignored, as a script's background job does: `quals serve &`. So it does not depend on how the
    tests were started, and the signal still ends it.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        pytest.importorskip("gradio", reason="the extra `app` is not installed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url, self.temporary = f"http://127.0.0.1:{self.port}", folder / "temporary"
        self.temporary.mkdir()
        pairs = folder / "pairs.jsonl"
        pair = {"number": 1, "source": "x", "left": "y", "right": "z", "left_system": "a", "a": "A", "b": "B"}
        pairs.write_text(json.dumps({**pair, "left_score": None, "right_score": None}) + "\n")
        files = [str(pairs), str(folder / "answers.jsonl")] if kind == "study" else []
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "GRADIO_", "SPACE_"))}
        variables = {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, PROGRAM, kind, str(self.port), *files],
                cwd=folder, env=kept | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.log.read_text()

    def status(self, path: str, body: bytes | None = None, **headers: str) -> int | None:
        """The status of the answer to a request; None: there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET" if body is None else "POST", path, body, headers)
            return connection.getresponse().status
        return None

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it, and return its exit status."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.send_signal(number)
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # the scoring, which waits for a line, goes on
        self.process.stdout.close()
        return self.process.wait()


@pytest.fixture
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    server = Served(request.param, tmp_path)
    yield server
    server.end(signal.SIGKILL)


def is_study(served: Served) -> bool:
    return "study" in list(served.process.args)  # type: ignore[arg-type]


@pytest.mark.parametrize("served", KINDS, indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_21_c17_nothing_is_left_of_visitors(served: Served, number: int, tmp_path: Path) -> None:
    folders = list(served.temporary.glob("quals-*"))
    assert len(folders) == 1
    with urllib.request.urlopen(f"{served.url}/gradio_api/heartbeat/abc"):  # a visitor's page is open
        if not is_study(served):
            part = 'Content-Disposition: form-data; name="files"; filename="mine.csv"'
            text = f"--xx\r\n{part}\r\n\r\nhers\r\n--xx--\r\n".encode()
            kind = {"Content-Type": "multipart/form-data; boundary=xx"}
            request = urllib.request.Request(f"{served.url}/gradio_api/upload", text, kind)
            with urllib.request.urlopen(request) as answer:
                (path,) = json.load(answer)
            assert Path(path).read_bytes() == b"hers" and folders[0] in Path(path).parents
            client = Client(served.url)  # a scoring is going on
            assert client.post("queue/join", client.texts("source", "summary", model="embedded"))[0] == 200
            assert served.process.stdout is not None and served.process.stdout.readline() == "scoring\n"
        assert served.end(number) == 0, served.log.read_text()
    assert [path for path in served.temporary.rglob("*") if path.is_file() or path.name.startswith("quals-")] == []
    assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize("served", KINDS, indirect=True)
def test_21_c18_a_page_elsewhere_reaches_nothing(served: Served) -> None:
    for host in ("evil.org", f"evil.org:{served.port}"):
        origin = f"http://{host}"
        assert served.status("/config", Host=host, Origin=origin) == 403
        assert served.status("/gradio_api/queue/join", b"{}", Host=host, Origin=origin) == 403
    client = Client(served.url)
    event = client.event("Your name", {"Your name": "ann"}) if is_study(served) else client.texts("x", "y")
    for path in ("call/start", "call/v2/start", "api/start", "api/predict", "run/predict"):  # the direct interface
        assert client.post(path, event)[0] in (403, 404), path
    if is_study(served):
        assert served.status("/gradio_api/upload", b"x") == 403
        assert client.post("queue/join", event)[0] == 200  # as the page does it
        assert "0 of 1 pairs judged" in json.dumps(client.result(event))


@pytest.mark.parametrize("served", ["app"], indirect=True)
def test_21_c21_slow_connections_are_ended(served: Served) -> None:
    """300 connections whose headers never end: the oldest give way to the newest, and in the end all are closed."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(300)]
        still_open = [connection for connection in slow if is_sent(connection, b"GET /config HTTP/1.1\r\nX-Slow: ")]
        assert served.status("/config") == 200
        while still_open:
            time.sleep(0.2)
            still_open = [connection for connection in still_open if is_sent(connection, b"x")]
    assert served.status("/config") == 200


def is_sent(connection: socket.socket, data: bytes) -> bool:
    with contextlib.suppress(OSError):  # the other side has ended it
        connection.sendall(data)
        return True
    return False
