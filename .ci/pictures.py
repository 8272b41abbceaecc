"""Draw the guide's pictures of the app and of a report, with the embedded model. Usage: python .ci/pictures.py.

It writes `docs/app.png` and `docs/report.png`. Run it after a new checkpoint or a change of these pages. It needs the
extra `dev` and Chromium.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from quals_metric.report.examples import EXAMPLES  # noqa: E402  # the checkout's, as for the tests
from tests.browser.conftest import ARGUMENTS, Server, free_port, ready  # noqa: E402

EXAMPLE = EXAMPLES[2]
COMMAND = [sys.executable, "-m", "quals_metric"]
VARIABLES = os.environ | {"PYTHONPATH": str(ROOT)}


def report(browser: Browser) -> None:
    """Draw the explanation of a faithful summary, from its heading on."""
    with tempfile.TemporaryDirectory() as folder:
        page_file = Path(folder) / "report.html"
        texts = ["--summary", EXAMPLE.faithful, "--source", EXAMPLE.source]
        subprocess.run([*COMMAND, "explain", *texts, "--html", str(page_file)], check=True, env=VARIABLES)
        page = browser.new_page(viewport={"width": 800, "height": 1400})
        page.goto(page_file.as_uri())
        top = page.get_by_text("QUALS -").first.bounding_box()["y"] - 24
        save(page, "report.png", {"x": 0, "y": top, "width": 800, "height": 700})


def app(browser: Browser) -> None:
    """Draw the app after a click on an example."""
    with served() as url:
        page = browser.new_page(viewport={"width": 820, "height": 1080})
        page.goto(url)
        page.get_by_text(EXAMPLE.title).click()
        page.locator(".q-result").nth(1).wait_for(timeout=120_000)
        page.mouse.move(0, 0)
        page.evaluate("window.scrollTo(0, 0)")
        save(page, "app.png", {"x": 0, "y": 0, "width": 820, "height": 1080})


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The app's address, while it runs."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "app.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, "serve", "--port", str(port)], env=VARIABLES, stdout=output, stderr=output
            )
        try:
            yield ready(Server(f"http://127.0.0.1:{port}", process, log)).url
        finally:
            process.terminate()
            process.wait()


def save(page: Any, name: str, clip: dict[str, float]) -> None:
    """Write a part of a page as a picture of at most 64 colours, which is small."""
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    picture.quantize(64).save(ROOT / "docs" / name, optimize=True)


def main() -> None:
    """Draw both pictures."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise SystemExit("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        report(browser)
        app(browser)
        browser.close()


if __name__ == "__main__":
    main()
