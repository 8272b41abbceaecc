"""Files that appear whole or not at all: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, drafts: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write that replaces `path` when the block ends, and leaves no trace if the block raises.

    A process killed in between leaves `path` as it was, and a hidden file that ends in `.part` in the folder `drafts`
    (None: the folder of `path`; another must be on the same disk).

    Raises:
        OSError: if the file cannot be written, or its folder does not exist; it names the file and the reason.
    """
    draft = (drafts or path.parent) / f".{path.name}.{uuid.uuid4().hex[:12]}.part"
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


def explained(error: OSError, problem: str, remedy: str = "") -> OSError:
    """The same kind of error with the same number; its text is the problem, the system's reason, and the remedy."""
    kind = type(error) if type(error).__module__ == "builtins" else OSError
    message = ": ".join(filter(None, (problem, error.strerror or str(error))))
    new = kind(f"{message}. {remedy}" if remedy else message)
    new.errno = error.errno
    return new


def sync_folder(folder: Path) -> None:
    """Make a renaming survive a power cut, where the system can."""
    if os.name != "posix":
        return  # Windows cannot open a folder
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
