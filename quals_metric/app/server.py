"""Serves a page behind the guard, without statistics to third parties. The one door to Gradio."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from quals_metric.app.guard import ANY_HOST, Guard, is_exposed, remove_old, served_hosts

if TYPE_CHECKING:
    import gradio

Page: TypeAlias = "gradio.Blocks"

HOST, PORT = "127.0.0.1", 7860
CLEAN_EVERY, CLEAN_AGE = 300, 3600  # seconds: files are removed soon, but not before their turn may be over
_NAP = 1  # seconds: a signal that comes just before the server sleeps is seen after it

_CONNECTIONS = 256  # open at a time; further requests are refused
_IDLE = 64  # connections without a request at a time; a further one ends the oldest
_IDLE_SECONDS = 10  # time to start a request


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


def on_event(
    event: Callable[..., Any], function: Callable[..., Any], inputs: Any, outputs: list[Any], **settings: Any
) -> None:
    """Call `function` on an event of the page, one call at a time across all events that are set up so.

    Args:
        event: the listener of a component.
        function: maps the values of `inputs` to those of `outputs`.
        inputs: components.
        outputs: components.
        **settings: further arguments of the listener.
    """
    event(function, inputs, outputs, concurrency_limit=1, concurrency_id="page", api_visibility="private", **settings)


def serve_page(
    build_page: Callable[[], Page],
    host: str,
    port: int,
    *,
    body: int,
    upload: int = 0,
    auth: str | None = None,
    allowed_hosts: Sequence[str] = (),
    **settings: Any,
) -> None:
    """Serve a page until interrupted or terminated. Visitors' files lie in a temporary folder, which is then removed.

    SIGINT ends the server even where it was started with this signal ignored, as scripts start what runs in the
    background.

    Args:
        build_page: builds the page; called once the upload folder is there.
        host: the address to listen at; 0.0.0.0 stands for all addresses of this machine.
        port: the port to listen at.
        body: the most bytes of a request.
        upload: the most bytes of an uploaded file; 0: no uploads.
        auth: "USER:PASSWORD" that visitors must enter; None: nothing is asked.
        allowed_hosts: further host names that requests may be for, such as that of a proxy before the server.
        **settings: further arguments of Gradio's `launch`.

    Raises:
        ValueError: if `auth` is not of that form.
        OSError: if the port is taken.
    """
    import gradio
    from starlette.middleware import Middleware

    if auth is not None and not all(auth.partition(":")):
        raise ValueError("auth: must be USER:PASSWORD, neither of them empty; got another form")
    hosts = served_hosts(host, allowed_hosts)
    if auth is None and is_exposed(host) and ANY_HOST not in hosts:
        print(
            f"quals: warning: anybody who reaches {host}:{port} can use this page. Ask for a password with --auth",
            file=sys.stderr,
        )
    with _ended_by_signals(), tempfile.TemporaryDirectory(prefix="quals-") as temporary:
        folder = os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(temporary)
        page = build_page()
        try:
            page.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                show_error=False,
                ssr_mode=False,
                footer_links=[],
                enable_monitoring=False,
                prevent_thread_lock=True,
                theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                app_kwargs={
                    "middleware": [
                        Middleware(Guard, folder=folder, body=body, upload=upload, hosts=hosts, auth=auth or "")
                    ]
                },
                **settings,
            )
            _bound_connections(page.server.config)
            while True:
                for _ in range(CLEAN_EVERY // _NAP):
                    time.sleep(_NAP)
                remove_old(folder, CLEAN_AGE)
        except KeyboardInterrupt:
            pass
        finally:
            page.close(verbose=False)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGINT (Ctrl+C) and SIGTERM (containers and services) raise KeyboardInterrupt.

    Python leaves SIGINT ignored where its parent ignores it, as a shell does for a script's background jobs.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one receives signals
        yield
        return
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _bound_connections(config: Any) -> None:
    """Bound the connections of a uvicorn server by its configuration, from the next connection on."""
    config.limit_concurrency = _CONNECTIONS
    config.http_protocol_class = type("BoundedProtocol", (BoundedConnection, config.http_protocol_class), {})


class BoundedConnection:
    """Mixed into uvicorn's protocol of a connection: ends connections that start no request.

    uvicorn itself waits without end for the rest of a request's headers.
    """

    loop: Any
    transport: Any
    cycle: Any  # the current or last request, None before the first
    connections: set[Any]
    _checked_cycle: Any = None
    _timer: Any = None

    @property
    def is_idle(self) -> bool:
        """Whether it is open without a request in progress; the headers of one may be on their way."""
        return not self.transport.is_closing() and (self.cycle is None or bool(self.cycle.response_complete))

    def connection_made(self, transport: Any) -> None:
        """Start the clock, and end the oldest idle connection if there are too many."""
        super().connection_made(transport)  # type: ignore[misc]  # uvicorn's
        self.opened = self.loop.time()
        self._timer = self.loop.call_later(_IDLE_SECONDS, self._end_if_idle)
        idle = [connection for connection in self.connections if getattr(connection, "is_idle", False)]
        if len(idle) > _IDLE:
            min(idle, key=lambda connection: float(connection.opened)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._timer.cancel()
        super().connection_lost(exc)  # type: ignore[misc]  # uvicorn's

    def _end_if_idle(self) -> None:
        """End the connection if no request has started since the last look."""
        if self.is_idle and self.cycle is self._checked_cycle:
            self.transport.abort()
        else:
            self._checked_cycle = self.cycle
            self._timer = self.loop.call_later(_IDLE_SECONDS, self._end_if_idle)
