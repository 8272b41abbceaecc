"""The app's scorers: from a fixed list, loaded on first use, one scoring at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qa_inference.metric_base.results import CorpusResult
from quals_metric.app.limits import Deadline, RefusedError, ShowProgress
from quals_metric.metrics import metric_spec

ChosenModels = Mapping[str, str]
"""The name of a model for every option of the metric that takes one, such as `model` and `reader`."""
LoadScorer = Callable[[ChosenModels], Any]
"""Makes a scorer of the chosen models."""


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
    """Scores for one visitor at a time. Memory holds the default models and the last others that were chosen.

    Args:
        metric: the name of a metric, "quals" or "qags".
        load: makes a scorer of the chosen models.
        model: a further question-generation model, a preset, Hub name or folder, which becomes the default.
        is_ended: returns whether the server ends; scorings stop then.

    Attributes:
        models: for every option of the metric that takes a model, the names that visitors see, with the models.
        default: the default names.

    Raises:
        ValueError: if there is no such metric.
        ImportError: if the metric needs a package that is not installed.
        OSError: if the default models cannot be read.
    """

    def __init__(
        self,
        metric: str,
        load: LoadScorer,
        model: str | None = None,
        is_ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self.models = {option: {name: name for name in presets} for option, presets in offered_presets(metric).items()}
        self.default, self._load, self._is_ended = dict.fromkeys(self.models, "embedded"), load, is_ended
        if model is not None:
            name = Path(model).resolve().name if Path(model).is_dir() else model  # visitors see no path
            self.models["model"][name] = model
            self.default["model"] = name
        # Loading now reports a missing package to whoever starts the app, not to a visitor.
        self._default_scorer = load(self._models_of(self.default))
        self._last_loaded: tuple[ChosenModels, Any] | None = None
        self._lock = threading.Lock()

    def score(
        self,
        summaries: Sequence[str],
        sources: Sequence[str],
        chosen: ChosenModels,
        seconds: float,
        show_progress: ShowProgress,
    ) -> CorpusResult[Any]:
        """Score texts that are within the limits.

        Args:
            summaries: the summaries, of length N.
            sources: the source of every summary, of length N.
            chosen: the names of the models.
            seconds: the time allowed, counted from when the model is loaded and no other visitor is served.
            show_progress: receives the share of the work that is done.

        Raises:
            RefusedError: if a model is not offered or cannot be loaded, the time is up, or the server ends.
        """
        for option, models in self.models.items():
            if chosen.get(option) not in list(models):
                raise RefusedError("This model is not in the list. Please choose one that is.")
        with self._lock:
            scorer = self._scorer({option: chosen[option] for option in self.models})
            deadline = Deadline(seconds, show_progress, is_ended=self._is_ended)
            result: CorpusResult[Any] = scorer.score(summaries=summaries, sources=sources, on_batch=deadline)
            return result

    def _scorer(self, chosen: ChosenModels) -> Any:
        if chosen == self.default:
            return self._default_scorer
        if self._last_loaded is None or self._last_loaded[0] != chosen:
            self._last_loaded = None  # two large models at once may exceed the machine's memory
            try:
                self._last_loaded = chosen, self._load(self._models_of(chosen))
            except (MemoryError, OSError) as error:
                default = " and ".join(self.default.values())
                raise RefusedError(f"This model cannot be loaded now. Please choose: {default}.") from error
        return self._last_loaded[1]

    def _models_of(self, chosen: ChosenModels) -> dict[str, str]:
        return {option: models[chosen[option]] for option, models in self.models.items()}
