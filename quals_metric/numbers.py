"""A score as people read it."""

from __future__ import annotations

import math


def number(value: float, digits: int = 3) -> str:
    """A number of so many decimals, never -0; the word undefined for NaN."""
    return "undefined" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"  # the sum makes -0.0 0.0
