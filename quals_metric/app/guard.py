"""Checks every request before it reaches the app's server.

Gradio fetches an address that a visitor sends in place of an uploaded file, for any component, and one that is
requested as `/file=ADDRESS`. The guard stops both, and refuses a request that is too large to hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_API = "/gradio_api/"
_MULTIPART = 100_000  # bytes of an upload beside its file
_STORED = 200  # the upload folder holds at most this many times the bytes of one upload,
_ENTRIES = 2000  # and at most this many files and folders

# The requests that the page sends. Gradio's other routes lead to the same functions, or to features this app lacks.
# `run` serves events that need no queue, such as showing an example.
_POSTS = re.compile(r"queue/join|cancel|reset|upload|run/\w+")
_GETS_CLOSED = ("proxy=", "file=http:", "file=https:", "file/http:", "file/https:", "deep_link", "runs", "run-history")


class Guard:
    """ASGI middleware that lets a request through or answers it with the reason for the refusal.

    Args:
        app: the application behind it.
        folder: the upload folder.
        body: the most bytes of a request.
        upload: the most bytes of an uploaded file.
    """

    def __init__(self, app: Any, folder: str | os.PathLike[str], body: int, upload: int) -> None:
        self._app, self._folder = app, Path(os.path.abspath(folder))
        self._body, self._upload = body, upload + _MULTIPART

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        action = scope["path"].partition(_API)[2].strip("/")
        limit = self._upload if action == "upload" else self._body
        if scope["method"] != "POST":
            is_closed = action.lower().startswith(_GETS_CLOSED)
            await (_refuse(send, 403, "This is not offered here.") if is_closed else self._app(scope, receive, send))
        elif not _POSTS.fullmatch(action):
            await _refuse(send, 403, "This is not offered here.")
        elif (length := _stated_length(scope["headers"])) > limit:
            await _refuse(send, 413, f"The request is too long: {length:,} bytes; the limit is {limit:,}.")
        elif action == "upload" and self._is_full():
            await _refuse(send, 503, "Too many files are stored here now. Please come back in an hour.")
        elif action == "upload":
            await self._app(scope, _at_most(receive, limit), send)
        else:
            await self._pass_checked(scope, _at_most(receive, limit), send)

    async def _pass_checked(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Read a request's JSON, and let it through if every file it names was uploaded."""
        parts, has_more = [], True
        while has_more:
            message = await receive()
            if message["type"] != "http.request":
                await _refuse(send, 413, "The request is too long.")
                return
            parts.append(message.get("body", b""))
            has_more = message.get("more_body", False)
        body = b"".join(parts)
        try:
            foreign_paths = [path for path in _paths(json.loads(body or b"null")) if not self._is_upload(path)]
        except (ValueError, RecursionError):
            await _refuse(send, 400, "The request is not JSON.")
            return
        if foreign_paths:
            await _refuse(send, 403, "A file must be uploaded; addresses and other paths are not opened.")
            return
        await self._app(scope, _replayed(body, receive), send)

    def _is_full(self) -> bool:
        """Whether the upload folder has reached a limit. Gradio removes old files."""
        size = 0
        for count, path in enumerate(self._folder.rglob("*"), 1):
            with contextlib.suppress(OSError):  # removed in the meantime
                size += path.lstat().st_size
            if count > _ENTRIES or size > _STORED * self._upload:
                return True
        return False

    def _is_upload(self, path: object) -> bool:
        """Whether a path is that of a file in the upload folder."""
        return isinstance(path, str) and "://" not in path and Path(os.path.abspath(path)).is_relative_to(self._folder)


def _paths(value: object) -> Iterable[object]:
    """Every `path` in a JSON value: Gradio takes any object that has one for a file."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _paths(item)


def _stated_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The length that a request states; 0 if it states none, and is counted as it arrives."""
    stated = dict(headers).get(b"content-length", b"")
    return int(stated) if stated.isdigit() else 0


def _at_most(receive: Receive, limit: int) -> Receive:
    """The same messages up to `limit` bytes; after that the visitor counts as disconnected."""
    num_bytes = 0

    async def counted() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        return message if num_bytes <= limit else {"type": "http.disconnect"}

    return counted


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once more, then the messages after it."""
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
