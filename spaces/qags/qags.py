"""The metric Qags for evaluate: the class is in the package quals-metric, this file only names it."""

from qags_metric.metric import Qags

__all__ = ["Qags"]
