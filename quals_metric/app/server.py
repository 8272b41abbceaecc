"""Serves a page behind the guard, without statistics to third parties. The one door to Gradio."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from quals_metric.app.guard import Guard

if TYPE_CHECKING:
    import gradio

Page: TypeAlias = "gradio.Blocks"

HOST, PORT = "127.0.0.1", 7860
PREFIX = "quals-"  # of the name of an upload folder


def load_gradio(command: str) -> Any:
    """Gradio, without statistics to its makers and without a record of runs.

    Raises:
        ImportError: if the extra `app` is not installed; it names the command that needs it.
    """
    # Gradio reads both variables when it is imported. It would keep its record of runs in the visitor's browser too.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"gradio: must be installed for `{command}`. pip install 'quals-metric[app]'") from error
    return gradio


def on_event(event: Callable[..., Any], function: Callable[..., Any], inputs: Any, outputs: list[Any]) -> None:
    """Call `function` on an event of the page, one call at a time across all events that are set up so."""
    event(function, inputs, outputs, concurrency_limit=1, concurrency_id="page", api_visibility="private")


def serve_page(
    build_page: Callable[[], Page], host: str, port: int, *, body: int, upload: int, **settings: Any
) -> None:
    """Serve a page until interrupted. Visitors' files are kept in a temporary folder, which is then removed.

    Args:
        build_page: builds the page; called once the upload folder is there.
        host: the address to listen at; 0.0.0.0 stands for all addresses of this machine.
        port: the port to listen at.
        body: the most bytes of a request.
        upload: the most bytes of an uploaded file; 0: no uploads.
        **settings: further arguments of Gradio's `launch`.

    Raises:
        OSError: if the port is taken.
    """
    import gradio
    from starlette.middleware import Middleware

    with tempfile.TemporaryDirectory(prefix=PREFIX) as temporary:
        folder = os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(temporary)
        build_page().launch(
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
            **settings,
        )
