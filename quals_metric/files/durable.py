"""Files that appear whole or not at all: written under another name, flushed to the disk, then renamed.

A sealed file also has its own digest, so that whoever reads it knows that it is as it was written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}  # of a folder, on some network file systems


@contextlib.contextmanager
def replacing(path: Path, drafts: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write that replaces `path` when the block ends, and leaves no trace if the block raises.

    A process killed in between leaves `path` as it was, and a hidden file that ends in `.part` in the folder `drafts`
    (None: the folder of `path`; another must be on the same disk).

    Raises:
        OSError: if the file cannot be written, or its folder does not exist; it names the file and the reason.
    """
    draft = _draft(path, drafts or path.parent)
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    except OSError as error:
        raise explained(error, f"{path} cannot be written") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def write_file(path: Path, data: bytes, drafts: Path | None = None) -> None:
    """Write a whole file, as `replacing` does."""
    with replacing(path, drafts) as file:
        file.write(data)


def write_sealed(path: Path, values: Sequence[Any]) -> None:
    """Write JSON values, one per line, after a first line with their number and their digest."""
    body = "".join(f"{json.dumps(value)}\n" for value in values).encode()
    write_file(path, json.dumps(_seal_of(body)).encode() + b"\n" + body)


def read_sealed(path: Path, count: int) -> list[Any]:
    """The values that `write_sealed` wrote. Raises ValueError if the file is damaged or has not `count` values."""
    seal, _, body = path.read_bytes().partition(b"\n")
    try:
        is_whole = json.loads(seal) == _seal_of(body)
        values = [json.loads(line) for line in body.splitlines()]
    except (ValueError, RecursionError):
        is_whole, values = False, []
    if not is_whole or len(values) != count:
        raise ValueError(f"{path}: must hold {count} lines with their digest; it is damaged or of an earlier version")
    return values


def check_writable(path: Path) -> None:
    """Raise OSError if `replacing` could not write `path`. It tests the folder, the name's length and the rights."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder must exist; {path.parent} does not. Make it first")
    draft = _draft(path, path.parent)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        path.exists()  # raises for a name that is too long
        draft.touch(exist_ok=False)
    except OSError as error:
        raise explained(error, f"{path} cannot be written", "Choose another name or folder") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def explained(error: OSError, problem: str, remedy: str = "") -> OSError:
    """The same kind of error with the same number; its text is the problem, the system's reason, and the remedy."""
    kind = type(error) if type(error).__module__ == "builtins" else OSError
    message = ": ".join(filter(None, (problem, error.strerror or str(error))))
    new = kind(f"{message}. {remedy}" if remedy else message)
    new.errno = error.errno
    return new


def sync_folder(folder: Path) -> None:
    """Make a renaming survive a power cut, on systems that can."""
    if os.name != "posix":
        return  # Windows cannot open a folder
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # a folder that may be written but not read
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def _seal_of(body: bytes) -> dict[str, Any]:
    return {"lines": body.count(b"\n"), "sha256": hashlib.sha256(body).hexdigest()}


def _draft(path: Path, folder: Path) -> Path:
    """A hidden name for a draft of `path`. It is short enough if the name of `path` is."""
    start = os.fsdecode(os.fsencode(path.name)[:100]).encode(errors="ignore").decode()
    return folder / f".{start}.{uuid.uuid4().hex[:12]}.part"
