"""The metric Quals for evaluate: the class is in the package quals-metric, this file only names it."""

from quals_metric.metric import Quals

__all__ = ["Quals"]
