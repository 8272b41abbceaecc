"""The parts of lighteval and Inspect that the integrations use, for an environment without these libraries.

`.ci/harnesses` runs the same tests with the real libraries.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from quals_metric import integrations


class SampleLevelComputation:
    """lighteval.metrics.metrics_sample"""


@dataclass
class SampleLevelMetric:
    """lighteval.metrics.utils.metric_utils"""

    metric_name: str
    higher_is_better: bool
    category: Any
    sample_level_fn: Any
    corpus_level_fn: Any
    batched_compute: bool = False

    def compute_sample(self, **inputs: Any) -> dict[str, Any]:
        return {self.metric_name: self.sample_level_fn.compute(**inputs)}

    def get_corpus_aggregations(self) -> dict[str, Any]:
        return {self.metric_name: self.corpus_level_fn}


class SamplingMethod(Enum):
    """lighteval.tasks.requests"""

    GENERATIVE = "GENERATIVE"


@dataclass
class Score:
    """inspect_ai.scorer"""

    value: float
    reason: str | None = None
    answer: str | None = None
    explanation: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def unscored(cls, **facts: Any) -> Score:
        return cls(float("nan"), **facts)


def scorer(metrics: list[Any], name: str) -> Callable[[Any], Any]:
    """inspect_ai.scorer"""
    assert metrics and name
    return lambda made: made


LIBRARIES: dict[str, dict[str, dict[str, Any]]] = {
    "lighteval": {
        "lighteval.metrics.metrics_sample": {"SampleLevelComputation": SampleLevelComputation},
        "lighteval.metrics.utils.metric_utils": {"SampleLevelMetric": SampleLevelMetric},
        "lighteval.tasks.requests": {"SamplingMethod": SamplingMethod},
    },
    "inspect_ai": {"inspect_ai.scorer": {"Score": Score, "scorer": scorer, "mean": object, "stderr": object}},
}


@contextmanager
def integration(library: str) -> Iterator[ModuleType]:
    """The integration of a library, on the real library or, where that is missing, on its stand-in."""
    file = f"quals_metric.integrations.{library}"
    if find_spec(library) is not None:
        yield importlib.import_module(file)
        return
    modules = {name: ModuleType(name) for name in LIBRARIES[library]}
    for name, members in LIBRARIES[library].items():
        vars(modules[name]).update(members)
    sys.modules.update(modules)
    try:
        yield importlib.import_module(file)
    finally:
        for name in (*modules, file):
            sys.modules.pop(name, None)
        for name, home in integrations._HOMES.items():
            if home == library:
                vars(integrations).pop(name, None)
