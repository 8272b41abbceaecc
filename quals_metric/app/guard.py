"""Checks every request before it reaches the server of the app or of the study.

If a visitor sends an address in place of an uploaded file, or requests `/file=ADDRESS`, Gradio fetches that address.
The guard stops both. It reads a request's body itself, within limits of size and time. It answers only requests for a
host that it knows, so a foreign page cannot reach a server on this machine under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import ipaddress
import json
import os
import re
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from email.message import Message as Headers
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ANY_HOST = "*"
EVERY_ADDRESS = ("0.0.0.0", "::")

_API = "/gradio_api/"
_MULTIPART = 100_000  # bytes of an upload beside its file
_STORED = 200  # the upload folder holds at most this many times the bytes of one upload
_FILES = 2000  # the upload folder holds at most this many files
_BODY_SECONDS = 60  # time to receive a body
_BODIES = 32  # bodies received at a time; a further one ends the oldest

# The requests that the page sends. Gradio's other routes lead to the same functions, or to features this app lacks.
# `run` serves events that need no queue, such as showing an example.
_POSTS = re.compile(r"queue/join|cancel|reset|upload|run/\w+")
_GETS_CLOSED = ("proxy=", "file=http:", "file=https:", "file/http:", "file/https:", "deep_link", "runs", "run-history")
_NOT_OFFERED = "This is not offered here."


class Guard:
    """ASGI middleware that lets a request through or answers it with the reason for the refusal.

    Args:
        app: the application behind it.
        folder: the upload folder.
        body: the most bytes of a request.
        upload: the most bytes of an uploaded file; 0: no uploads.
        hosts: the host names that a request may be for, as `served_hosts` returns them.
        auth: "USER:PASSWORD", which every request must have; "": none.
    """

    def __init__(
        self,
        app: Any,
        folder: str | os.PathLike[str],
        body: int,
        upload: int,
        hosts: Collection[str] = (ANY_HOST,),
        auth: str = "",
    ) -> None:
        self._app, self._folder, self._hosts = app, Path(os.path.abspath(folder)), hosts
        self._body, self._upload = body, upload + _MULTIPART if upload else 0
        self._credentials = b"Basic " + base64.b64encode(auth.encode()) if auth else b""
        self._receiving: deque[asyncio.Timeout] = deque()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "websocket":  # the pages open none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        action = scope["path"].partition(_API)[2].strip("/")
        if reason := self._host_refusal(headers):
            await _refuse(send, 403, reason)
        elif not (self._is_known_user(headers) or action == "startup-events"):  # which the server asks of itself
            await _refuse(send, 401, "A user name and a password are needed.")
        elif scope["method"] == "POST":
            await self._post(action, headers, scope, receive, send)
        elif action.lower().startswith(_GETS_CLOSED):
            await _refuse(send, 403, _NOT_OFFERED)
        else:
            await self._app(scope, receive, send)

    async def _post(
        self, action: str, headers: Mapping[bytes, bytes], scope: Mapping[str, Any], receive: Receive, send: Send
    ) -> None:
        """Receive a body, and let the request through if its size and all that it names is allowed."""
        is_upload = action == "upload"
        limit = self._upload if is_upload else self._body
        if not (_POSTS.fullmatch(action) and limit):
            await _refuse(send, 403, _NOT_OFFERED)
            return
        if is_upload and self._is_full():
            await _refuse(send, 503, "Too many files are stored here now. Please come back in an hour.")
            return
        try:
            body = await self._receive_body(receive, limit, _stated_length(headers))
        except TimeoutError:
            await _refuse(send, 408, f"The request took longer than {_BODY_SECONDS} seconds to arrive.")
        except OverflowError:
            await _refuse(send, 413, f"The request is too long: the limit is {limit:,} bytes.")
        except ConnectionError:
            pass  # nobody is there to be answered
        else:
            status, reason = _upload_refusal(body, headers) if is_upload else self._json_refusal(body)
            await (_refuse(send, status, reason) if reason else self._app(scope, _replayed(body, receive), send))

    async def _receive_body(self, receive: Receive, limit: int, stated: int) -> bytes:
        """The whole body.

        Raises:
            OverflowError: if it is longer than `limit` bytes.
            TimeoutError: if it takes too long, or too many others arrive meanwhile.
            ConnectionError: if the visitor is gone.
        """
        if stated > limit:
            raise OverflowError
        parts: list[bytes] = []
        num_bytes, has_more = 0, True
        async with asyncio.timeout(_BODY_SECONDS) as deadline:
            if len(self._receiving) >= _BODIES and not (oldest := self._receiving.popleft()).expired():
                oldest.reschedule(0)  # the slowest gives way
            self._receiving.append(deadline)
            try:
                while has_more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ConnectionError
                    parts.append(message.get("body", b""))
                    num_bytes += len(parts[-1])
                    if num_bytes > limit:
                        raise OverflowError
                    has_more = message.get("more_body", False)
            finally:
                with contextlib.suppress(ValueError):  # it gave way
                    self._receiving.remove(deadline)
        return b"".join(parts)

    def _host_refusal(self, headers: Mapping[bytes, bytes]) -> str:
        """The reason to refuse a request for its host or for the page that sends it; "" if there is none."""
        if ANY_HOST in self._hosts:
            return ""
        host = _host_name(b"//" + headers.get(b"host", b""))
        is_any_address = any(address in self._hosts for address in EVERY_ADDRESS)
        if not (host in self._hosts or (is_any_address and _is_address(host))):
            return f"This server does not answer for the host {host!r}. Start it with --allowed-host to allow one."
        origin = headers.get(b"origin")
        if origin is not None and _host_name(origin) != host and _host_name(origin) not in self._hosts:
            return "Requests from other sites are refused."
        return ""

    def _is_known_user(self, headers: Mapping[bytes, bytes]) -> bool:
        return not self._credentials or hmac.compare_digest(headers.get(b"authorization", b""), self._credentials)

    def _json_refusal(self, body: bytes) -> tuple[int, str]:
        """The status and reason to refuse a request that is not JSON or names a file that was not uploaded."""
        try:
            foreign_paths = [path for path in _paths(json.loads(body or b"null")) if not self._is_upload(path)]
        except (ValueError, RecursionError):
            return 400, "The request is not JSON."
        return (403, "A file must be uploaded; addresses and other paths are not opened.") if foreign_paths else (0, "")

    def _is_full(self) -> bool:
        """Whether the upload folder has reached a limit. `remove_old` makes room."""
        num_files = num_bytes = 0
        for folder, _, names in os.walk(self._folder):
            for name in names:
                with contextlib.suppress(OSError):  # removed in the meantime
                    num_bytes += os.lstat(os.path.join(folder, name)).st_size
            num_files += len(names)
            if num_files > _FILES or num_bytes > _STORED * self._upload:
                return True
        return False

    def _is_upload(self, path: object) -> bool:
        """Whether a path is that of a file in the upload folder."""
        return isinstance(path, str) and "://" not in path and Path(os.path.abspath(path)).is_relative_to(self._folder)


def served_hosts(host: str, allowed: Iterable[str] = ()) -> frozenset[str]:
    """The host names that requests may be for.

    Args:
        host: the address to listen at.
        allowed: further names, such as that of a proxy before the server.

    Returns:
        Names in lower case. 0.0.0.0 or :: among them allows every numeric address. A Space on the Hub, which is public
        and has names of its own, answers for any host.
    """
    if "SPACE_ID" in os.environ:
        return frozenset({ANY_HOST})
    names = {host, *allowed}
    if is_exposed(host):
        if host in EVERY_ADDRESS:
            names |= {"localhost", socket.gethostname(), socket.getfqdn()}
    else:
        names |= {"localhost", "127.0.0.1", "::1"}
    return frozenset(name.strip("[]").lower() for name in names)


def is_exposed(host: str) -> bool:
    """Whether a server that listens at `host` can be reached from other machines."""
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() != "localhost"


def remove_old(folder: str | os.PathLike[str], seconds: float) -> None:
    """Remove the files and the empty folders in a folder that have not changed for so many seconds."""
    oldest = time.time() - seconds
    for parent, folders, names in os.walk(folder, topdown=False):
        for name in names:
            _remove_if_older(Path(parent, name), oldest, os.unlink)
        for name in folders:
            _remove_if_older(Path(parent, name), oldest, os.rmdir)


def _remove_if_older(path: Path, oldest: float, remove: Callable[[Path], None]) -> None:
    with contextlib.suppress(OSError):  # in use, not empty, or removed in the meantime
        if path.lstat().st_mtime < oldest:
            remove(path)


def _host_name(url: bytes) -> str:
    """The host of an address, in lower case; "" if it has none."""
    try:
        return urlsplit(url.decode("latin-1")).hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _upload_refusal(body: bytes, headers: Mapping[bytes, bytes]) -> tuple[int, str]:
    """The status and reason to refuse an upload of several files: the boundary stands before and after a single one."""
    content_type = Headers()
    content_type["content-type"] = headers.get(b"content-type", b"").decode("latin-1")
    boundary = content_type.get_boundary("")
    is_single = not boundary or body.count(b"--" + boundary.encode("latin-1", "replace")) <= 2
    return (0, "") if is_single else (400, "Please upload one file at a time.")


def _paths(value: object) -> Iterable[object]:
    """Every `path` in a JSON value: Gradio takes any object that has one for a file."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _paths(item)


def _stated_length(headers: Mapping[bytes, bytes]) -> int:
    """The length that a request states; 0 if it states none, and is counted as it arrives."""
    stated = headers.get(b"content-length", b"")
    return int(stated) if stated.isdigit() else 0


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once more, then the messages after it."""
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="quals", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
