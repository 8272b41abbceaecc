"""The app's scorers: from a fixed list, loaded on first use, one scoring at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qa_inference.metric_base import CorpusResult
from quals_metric.app.limits import Deadline, RefusedError, ShowProgress
from quals_metric.metrics import metric_spec

ChosenPresets = Mapping[str, str]
"""The name of a preset for every option of the metric that takes one."""
LoadScorer = Callable[[ChosenPresets], Any]
"""Makes a scorer of the chosen presets."""


def offered_presets(metric: str) -> dict[str, dict[str, Any]]:
    """The presets that a visitor may choose, by option and name.

    Gated checkpoints are left out: a server has agreed to no terms. So are those whose package is not installed.

    Raises:
        ValueError: if there is no such metric.
    """
    return {
        option: {name: preset for name, preset in table.items() if _is_offered(preset)}
        for option, table in metric_spec(metric).preset_tables().items()
    }


def _is_offered(preset: Any) -> bool:
    return not getattr(preset, "is_gated", False) and getattr(preset, "is_at_hand", True)


class ScoringQueue:
    """Scores for one visitor at a time. Memory holds the embedded models and the last others that were chosen.

    Args:
        metric: the name of a metric, "quals" or "qags".
        load: makes a scorer of the chosen presets.

    Raises:
        ValueError: if there is no such metric.
        ImportError: if the metric needs a package that is not installed.
        OSError: if the embedded models cannot be read.
    """

    def __init__(self, metric: str, load: LoadScorer) -> None:
        self.presets, self._load = offered_presets(metric), load
        self._default = dict.fromkeys(self.presets, "embedded")
        # Loading now reports a missing package to whoever starts the app, not to a visitor.
        self._default_scorer = load(self._default)
        self._last_loaded: tuple[ChosenPresets, Any] | None = None
        self._lock = threading.Lock()

    def score(
        self,
        summaries: Sequence[str],
        sources: Sequence[str],
        chosen: ChosenPresets,
        seconds: float,
        show_progress: ShowProgress,
    ) -> CorpusResult[Any]:
        """Score texts that are within the limits.

        Args:
            summaries: the summaries, of length N.
            sources: the source of every summary, of length N.
            chosen: the presets.
            seconds: the time allowed, counted from when the model is loaded and no other visitor is served.
            show_progress: receives the share of the work that is done.

        Raises:
            RefusedError: if a preset is not offered or cannot be loaded, or the time is up.
        """
        for option, presets in self.presets.items():
            if chosen.get(option) not in presets:
                raise RefusedError("This model is not in the list. Please choose one that is.")
        with self._lock:
            scorer = self._scorer({option: chosen[option] for option in self.presets})
            result: CorpusResult[Any] = scorer.score(
                summaries=summaries, sources=sources, on_batch=Deadline(seconds, show_progress)
            )
            return result

    def _scorer(self, chosen: ChosenPresets) -> Any:
        if chosen == self._default:
            return self._default_scorer
        if self._last_loaded is None or self._last_loaded[0] != chosen:
            self._last_loaded = None  # two large models at once may exceed the machine's memory
            try:
                self._last_loaded = chosen, self._load(chosen)
            except (MemoryError, OSError) as error:
                raise RefusedError("This model cannot be loaded now. Please choose the embedded one.") from error
        return self._last_loaded[1]
