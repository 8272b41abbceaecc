"""What stands before the app's server: no address and no path of a visitor's is ever opened.

Gradio fetches an address that is sent to it in place of an uploaded file, whichever component it is sent for, and one
that is asked for as `/file=ADDRESS`. Here neither gets that far; nor does a request that is too large to hold.
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
_MULTIPART = 100_000  # bytes that an upload may have beside its file
_STORED = 200  # times the bytes of a file: what may lie in the folder before the next upload is refused,
_ENTRIES = 2000  # and how many files and folders

# What the page sends; Gradio's other doors lead to the same functions, or to what this app does not have. `run` is for
# what needs no queue, which is the showing of an example.
_POSTS = re.compile(r"queue/join|cancel|reset|upload|run/\w+")
_GETS_CLOSED = ("proxy=", "file=http:", "file=https:", "file/http:", "file/https:", "deep_link", "runs", "run-history")


class Guard:
    """An ASGI middleware.

    Args:
        app: what stands behind it.
        folder: where uploaded files lie.
        body: how many bytes a request may have,
        upload: and how many an uploaded file.
    """

    def __init__(self, app: Any, folder: str | os.PathLike[str], body: int, upload: int) -> None:
        self._app, self._folder = app, Path(os.path.abspath(folder))
        self._body, self._upload = body, upload + _MULTIPART

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with the reason why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        action = scope["path"].partition(_API)[2].strip("/")
        if scope["method"] != "POST":
            closed = action.lower().startswith(_GETS_CLOSED)
            await (_refuse(send, 403, "This is not offered here.") if closed else self._app(scope, receive, send))
        elif not _POSTS.fullmatch(action):
            await _refuse(send, 403, "This is not offered here.")
        elif (length := _length(scope["headers"])) > (most := self._upload if action == "upload" else self._body):
            await _refuse(send, 413, f"This is too long: {length:,} bytes; here {most:,} are taken.")
        elif action == "upload" and self._is_full():
            await _refuse(send, 503, "Too many files are kept here now. Please come back in an hour.")
        elif action == "upload":
            await self._app(scope, _at_most(receive, most), send)
        else:
            await self._checked(scope, _at_most(receive, most), send)

    async def _checked(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Read a request's JSON, and let it through if every file it names was uploaded."""
        parts, more = [], True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                await _refuse(send, 413, "This is too long.")
                return
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        try:
            strangers = [path for path in _paths(json.loads(body or b"null")) if not self._uploaded(path)]
        except (ValueError, RecursionError):
            await _refuse(send, 400, "The request is not JSON.")
            return
        if strangers:
            await _refuse(send, 403, "A file must be uploaded; addresses and other paths are not opened.")
            return
        await self._app(scope, _replayed(body, receive), send)

    def _is_full(self) -> bool:
        """Whether the upload folder holds as much as it may; Gradio clears old files away."""
        size = 0
        for count, path in enumerate(self._folder.rglob("*"), 1):
            with contextlib.suppress(OSError):  # cleared away just now
                size += path.lstat().st_size
            if count > _ENTRIES or size > _STORED * self._upload:
                return True
        return False

    def _uploaded(self, path: object) -> bool:
        """Whether a path is a file's in the upload folder, wherever the server was started."""
        return isinstance(path, str) and "://" not in path and Path(os.path.abspath(path)).is_relative_to(self._folder)


def _paths(value: object) -> Iterable[object]:
    """Every `path` in a value of JSON: Gradio takes any object that has one for a file."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _paths(item)


def _length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The length a request states; 0 if it states none, and is counted as it comes."""
    stated = dict(headers).get(b"content-length", b"")
    return int(stated) if stated.isdigit() else 0


def _at_most(receive: Receive, most: int) -> Receive:
    """What is received, until it is more than `most` bytes: then it is as if the visitor had gone."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return message if taken <= most else {"type": "http.disconnect"}

    return counted


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What was received, once more; then what comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
