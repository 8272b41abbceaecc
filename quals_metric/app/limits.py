"""What the public app takes of one request: how long a text, how large a file, how many seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

Tell = Callable[[float], None]
"""Shows the share of the work that is done, 0 to 1."""


class RefusedError(ValueError):
    """What a visitor asks for is not done; the message is for them, as text, and says what to do."""


@dataclass(frozen=True)
class Limits:
    """The most the app takes: texts in characters, files in bytes, time in seconds after a model is loaded.

    Attributes:
        summary: characters of a summary.
        source: characters of a source.
        rows: rows of a file.
        file: bytes of a file.
        text_seconds: what scoring the summaries of one source may take,
        file_seconds: and what a file's may.
        waiting: requests in the queue; the next is told to come back.

    Raises:
        ValueError: if a limit is not positive.
    """

    summary: int = 4_000
    source: int = 20_000
    rows: int = 100
    file: int = 1_000_000
    text_seconds: float = 120.0
    file_seconds: float = 600.0
    waiting: int = 20

    def __post_init__(self) -> None:
        for one in fields(self):
            if not getattr(self, one.name) > 0:
                raise ValueError(f"{one.name}: must be more than 0; got {getattr(self, one.name)}")

    @property
    def body(self) -> int:
        """Bytes of a request with texts: every character may be written as two escapes of six bytes."""
        return 12 * (self.source + 2 * self.summary) + 10_000

    def check(self, summary: str, source: str, place: str = "") -> None:
        """Refuse a text that is blank or too long. `place` says where it stands.

        Raises:
            RefusedError: with the text's name, the limit and its length.
        """
        article = f"{place}: the" if place else "The"
        for name, text, most in (("source", source, self.source), ("summary", summary, self.summary)):
            if not text.strip():
                raise RefusedError(f"{article} {name} is empty. Please give one.")
            if len(text) > most:
                raise RefusedError(
                    f"{article} {name} has {len(text):,} characters; here it may have {most:,}. Please shorten it, or "
                    f"install the package, which has no limit."
                )


class Deadline:
    """A scorer's `on_batch` that tells how far it is and stops it when its time is up.

    A batch that is under way is never cut off: the limits on texts bound what it takes.

    Args:
        seconds: from now.
        tell: what shows the progress.
        clock: what counts the seconds.
    """

    def __init__(self, seconds: float, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._tell, self._clock = seconds, tell, clock
        self._end = clock() + seconds

    def __call__(self, done: int, total: int) -> None:
        """Tell how much is done.

        Raises:
            RefusedError: if the time is up and something is left to do.
        """
        if done < total and self._clock() > self._end:
            raise RefusedError(
                f"This took longer than {self._seconds:g} seconds, so it was stopped. Please try shorter or fewer "
                f"texts, or a smaller model."
            )
        self._tell(done / total if total else 1.0)
