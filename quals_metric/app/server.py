"""How both pages are served: alone, behind the guard, and without a word to anybody. The one door to Gradio."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from quals_metric.app.guard import Guard

if TYPE_CHECKING:
    import gradio

Page: TypeAlias = "gradio.Blocks"

HOST, PORT = "127.0.0.1", 7860


def library(command: str) -> Any:
    """Gradio. Raises ImportError, naming the command that needs it, if the extra `app` is not installed."""
    # Read when it is imported, and by what it starts: no statistics to its makers, no record of runs, which it would
    # keep in the visitor's browser too.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"gradio: must be installed for `{command}`. pip install 'quals-metric[app]'") from error
    return gradio


@contextmanager
def upload_folder(prefix: str) -> Iterator[Path]:
    """A folder of its own for what visitors upload and are given, gone when it is left."""
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(folder)
        yield Path(os.environ["GRADIO_TEMP_DIR"])


def launch(page: Page, folder: Path, host: str, port: int, *, body: int, upload: int, **more: Any) -> None:
    """Serve a page until interrupted.

    Args:
        page: what `build` gave.
        folder: its upload folder.
        host: the address to listen at; 0.0.0.0: all of this machine's.
        port: and the port.
        body: how many bytes a request may have,
        upload: and how many an uploaded file.
        **more: what `launch` of Gradio takes beside these.

    Raises:
        OSError: if the port is taken.
    """
    import gradio
    from starlette.middleware import Middleware

    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        show_error=False,
        ssr_mode=False,
        footer_links=[],
        enable_monitoring=False,
        theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        app_kwargs={"middleware": [Middleware(Guard, folder=folder, body=body, upload=upload)]},
        **more,
    )
