"""Chromium and the running apps. Chromium is the system's: nothing is downloaded."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import PATIENCE

ROOT = Path(__file__).parents[2]
REQUIRED = "QUALS_REQUIRE_BROWSER"  # set to 1, what is missing is a failure

# It runs as root in containers, whose /dev/shm is small.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@dataclass
class Seen:
    """A page of the browser with what it did."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """An app that runs in a process."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def memory(self) -> int:
        """Bytes it holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def missing(what: str) -> None:
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{what}, and {REQUIRED} is set")
    pytest.skip(what)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        missing("Chromium is not installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def seen(chromium: Any) -> Iterator[Seen]:
    """A new page, watched: every request, every error on the console or in a script."""
    context = chromium.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    watched = Seen(page)
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on("console", lambda line: watched.errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    yield watched
    context.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """The app of each metric, by name; both are started at once."""
    if importlib.util.find_spec("gradio") is None:
        missing("the extra `app` is not installed")
    folder = tmp_path_factory.mktemp("servers")
    started = {metric: _start(metric, folder / f"{metric}.log") for metric in ("quals", "qags")}
    try:
        yield lambda metric: ready(started[metric])
    finally:
        for server in started.values():
            server.process.kill()
            server.process.wait()


def _start(metric: str, log: Path) -> Server:
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GRADIO_"))}
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(log.parent)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.browser.server", metric, str(port)],
            cwd=log.parent, env=kept | variables, stdout=output, stderr=output,
        )  # fmt: skip
    return Server(f"http://127.0.0.1:{port}", process, log)


def ready(server: Server) -> Server:
    """The server, once it answers. Raises AssertionError with its log if its process has ended."""
    while server.process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/config", timeout=PATIENCE):
            return server
        time.sleep(0.2)
    raise AssertionError(f"the app has ended: {server.log.read_text()}")
