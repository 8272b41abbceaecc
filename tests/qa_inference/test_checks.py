"""Checks of single values: what they allow, and errors that name the value."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from qa_inference.checks import Check, check_bool, check_folder_name, finite_from, integer_from, one_of


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (integer_from(1), 1),
        (integer_from(1, or_none=True), None),
        (finite_from(0), 0),
        (finite_from(0), np.float32(0.5)),
        (one_of("a", "b"), "b"),
        (check_bool, False),
        (check_folder_name, None),
    ],
)
def test_allowed(check: Check, value: Any) -> None:
    check("name", value)


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (integer_from(1), 0, "name: must be an integer of at least 1; got 0"),
        (integer_from(1), 1.5, "name: must be an integer of at least 1; got 1.5"),
        (integer_from(1), "2", "name: must be an integer of at least 1; got '2'"),
        (integer_from(1), True, "name: must be an integer of at least 1; got True"),
        (integer_from(1), np.int64(2), "name: must be an integer of at least 1; got"),  # JSON does not take it
        (finite_from(0), True, "name: must be a finite number of at least 0; got True"),
        (integer_from(1), None, "name: must be an integer of at least 1; got None"),
        (finite_from(0), "0.5", "name: must be a finite number of at least 0; got '0.5'"),
        (finite_from(0), math.inf, "name: must be a finite number of at least 0; got inf"),
        (finite_from(0), -1, "name: must be a finite number of at least 0; got -1"),
        (one_of("a", "b"), "c", "name: must be one of a, b; got 'c'"),
        (check_bool, 1, "name: must be True or False; got 1"),
        (check_folder_name, " ", "name: must be the name of a folder; got ''. Use None for no name"),
    ],
)
def test_refused(check: Check, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check("name", value)
