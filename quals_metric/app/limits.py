"""Limits on one request to the public app: the length of a text, the size of a file, the time of a scoring."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

ShowProgress = Callable[[float], None]
"""Shows the share of the work that is done, from 0 to 1."""


class RefusedError(ValueError):
    """A visitor's request is refused. The message is plain text for the visitor and names a remedy.

    Args:
        message: the text.
        field: the field of the page that has to change; "": none in particular.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Limits:
    """The app's limits. Time counts from when the model is loaded.

    Attributes:
        summary: characters of a summary.
        source: characters of a source.
        rows: rows of a file.
        file: bytes of a file.
        text_seconds: time to score the summaries of one source, in seconds.
        file_seconds: time to score a file, in seconds.
        waiting: requests in the queue; further ones are refused.

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
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise ValueError(f"{limit.name}: must be more than 0; got {getattr(self, limit.name)}")

    @property
    def body(self) -> int:
        """Bytes of a request with texts: JSON may write one character as two escapes of six bytes.

        The rest is room for a text that is too long, so that its refusal can stand beside its field.
        """
        return 12 * (self.source + 2 * self.summary) + 1_000_000

    def check(self, summary: str, source: str, location: str = "", field: str = "summary") -> None:
        """Refuse a blank or overlong text.

        Args:
            summary: the summary.
            source: its source.
            location: the row of a file that holds them, for the message.
            field: the field of the page that holds the summary; that of the source is "source".

        Raises:
            RefusedError: names the text, its length and the limit.
        """
        article = f"{location}: the" if location else "The"
        for name, text, limit in (("source", source, self.source), ("summary", summary, self.summary)):
            field_of_text = field if name == "summary" else name
            if not text.strip():
                raise RefusedError(f"{article} {name} is empty. Please enter a text.", field_of_text)
            if len(text) > limit:
                raise RefusedError(
                    f"{article} {name} has {len(text):,} characters; the limit is {limit:,}. Please shorten it, or "
                    f"install the package, which has no limit.",
                    field_of_text,
                )


class Deadline:
    """A scorer's `on_batch` that reports progress and stops the scoring when its time is up.

    A batch in progress is not interrupted: the limits on texts bound its time.

    Args:
        seconds: time from now.
        show_progress: receives the share of the work that is done.
        clock: returns the time in seconds.
        is_ended: returns whether the server ends, which stops the scoring too.
    """

    def __init__(
        self,
        seconds: float,
        show_progress: ShowProgress,
        clock: Callable[[], float] = time.monotonic,
        is_ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._seconds, self._show_progress, self._clock, self._is_ended = seconds, show_progress, clock, is_ended
        self._end = clock() + seconds

    def __call__(self, done: int, total: int) -> None:
        """Report progress.

        Raises:
            RefusedError: if work is left, and the time is up or the server ends.
        """
        if done < total and self._is_ended():
            raise RefusedError("The server is being stopped. Please try again later.")
        if done < total and self._clock() > self._end:
            raise RefusedError(
                f"Scoring took longer than {self._seconds:g} seconds and was stopped. Please try shorter or fewer "
                f"texts, or a smaller model."
            )
        self._show_progress(done / total if total else 1.0)
