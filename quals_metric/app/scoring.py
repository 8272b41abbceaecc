"""The app's scorers: from a fixed list, loaded when first asked for, one scoring at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qa_inference.metric_base import CorpusResult
from qa_inference.presets import PRESETS, QUESTION_PRESETS, READERS
from quals_metric.app.limits import Deadline, RefusedError, Tell

Chosen = Mapping[str, str]
"""A preset's name for every option of `CHOICES`."""
Load = Callable[[Chosen], Any]
"""Makes a metric's scorer."""

CHOICES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "quals": {"model": {name: preset for name, preset in PRESETS.items() if not preset.is_gated and preset.is_at_hand}},
    "qags": {"model": QUESTION_PRESETS, "reader": READERS},
}
"""By metric and option, the presets a visitor may choose from; a server has agreed to no terms.

One that a package has is among them where that is installed.
"""


class Desk:
    """Scores for one visitor after another; in memory are the embedded models and those last asked for.

    Args:
        metric: "quals" or "qags".
        load: makes a scorer of the presets chosen.

    Raises:
        ValueError: if it is no such metric.
        ImportError: if what the metric needs is not installed.
        OSError: if the embedded models cannot be read.
    """

    def __init__(self, metric: str, load: Load) -> None:
        if metric not in CHOICES:
            raise ValueError(f"metric: must be one of {', '.join(CHOICES)}; got {metric!r}")
        self.presets, self._load = CHOICES[metric], load
        self._default = dict.fromkeys(self.presets, "embedded")
        # Now, so that what is missing is told to whoever starts the app, not to a visitor.
        self._embedded = load(self._default)
        self._other: tuple[Chosen, Any] | None = None
        self._lock = threading.Lock()

    def score(
        self, summaries: Sequence[str], sources: Sequence[str], chosen: Chosen, seconds: float, tell: Tell
    ) -> CorpusResult[Any]:
        """Score texts that are within the limits.

        Args:
            summaries: the summaries,
            sources: and the source of each.
            chosen: the presets.
            seconds: what it may take, from when the model is there and nobody else is being served.
            tell: what shows the progress.

        Raises:
            RefusedError: if a preset is not in the list or cannot be loaded, or the time is up.
        """
        for option, presets in self.presets.items():
            if chosen.get(option) not in presets:
                raise RefusedError("This model is not in the list.")
        with self._lock:
            scorer = self._scorer({option: chosen[option] for option in self.presets})
            found: CorpusResult[Any] = scorer.score(
                summaries=summaries, sources=sources, on_batch=Deadline(seconds, tell)
            )
            return found

    def _scorer(self, chosen: Chosen) -> Any:
        if chosen == self._default:
            return self._embedded
        if self._other is None or self._other[0] != chosen:
            self._other = None  # two large models at once may be more than the machine holds
            try:
                self._other = chosen, self._load(chosen)
            except (MemoryError, OSError) as error:
                raise RefusedError("This model cannot be loaded here now. Please take the embedded one.") from error
        return self._other[1]
