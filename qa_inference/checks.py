"""Checks of single values: of options, and of arguments of public functions. Every error names what was checked."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from numbers import Real
from typing import Any

Check = Callable[[str, Any], None]
"""Takes a name and a value. Raises ValueError, which names the value, if it is not allowed."""


def integer_from(least: int, *, or_none: bool = False) -> Check:
    """A check: the value is an integer of at least `least`, or None where that is allowed."""

    def check(name: str, value: Any) -> None:
        if value is None and or_none:
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}: must be an integer of at least {least}; got {value!r}")

    return check


def finite_from(least: float) -> Check:
    """A check: the value is a finite number of at least `least`."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < least:
            raise ValueError(f"{name}: must be a finite number of at least {least:g}; got {value!r}")

    return check


def one_of(*choices: str) -> Check:
    """A check: the value is one of the strings `choices`."""

    def check(name: str, value: Any) -> None:
        if value not in choices:
            raise ValueError(f"{name}: must be one of {', '.join(choices)}; got {value!r}")

    return check


def check_bool(name: str, value: Any) -> None:
    """A check: the value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: must be True or False; got {value!r}")


def check_integers(owner: object, **least: int) -> None:
    """Raise ValueError unless every attribute of `owner` named in `least` is an integer of at least that value."""
    for name, low in least.items():
        integer_from(low)(name, getattr(owner, name))


def check_folder_name(name: str, value: Any) -> None:
    """A check: the value is None or the name of a folder."""
    if value is not None and not os.fspath(value).strip():
        raise ValueError(f"{name}: must be the name of a folder; got ''. Use None for no {name}")
