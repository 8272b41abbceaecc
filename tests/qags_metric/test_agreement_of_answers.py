"""SQuAD 2.0's token F1 and exact match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qags_metric.selection import exact_match, token_f1

# Worked by hand from the definition: lower case, no punctuation, no a/an/the; shared words counted as often as both
# have them; F1 = 2PR / (P + R); of answers without words two agree and one agrees with nothing.
CASES = [
    ("Denver Broncos", "Denver Broncos", 1.0, True),
    ("the Denver Broncos", "denver broncos.", 1.0, True),
    ("The U.S.", "US", 1.0, True),
    ("£1,000", "£1000", 1.0, True),
    ("Broncos", "Denver Broncos", 2 / 3, False),  # P 1, R 1/2
    ("Anthony Joshua of London", "Joshua", 2 / 5, False),  # P 1/4, R 1
    ("the big big dog", "a big dog", 0.8, False),  # 2 of 3 and 2 of 2 shared
    ("a b c d", "c d e", 2 * (2 / 3) * (2 / 3) / (4 / 3), False),  # the article "a" is gone: b c d
    ("Perth", "London", 0.0, False),
    ("", "", 1.0, True),
    ("", "Perth", 0.0, False),
    ("the", "", 1.0, True),
    ("the", "a", 1.0, True),
    ("...", "Perth", 0.0, False),
    ("日本", "日本", 1.0, True),
]


@pytest.mark.parametrize(("a", "b", "f1", "exact"), CASES)
def test_table(a: str, b: str, f1: float, exact: bool) -> None:
    assert token_f1(a, b) == token_f1(b, a) == pytest.approx(f1)
    assert exact_match(a, b) is exact_match(b, a) is exact


@given(a=st.text(max_size=30), b=st.text(max_size=30))
def test_any_text(a: str, b: str) -> None:
    assert 0 <= token_f1(a, b) <= 1
    assert token_f1(a, a) == 1
    assert not exact_match(a, b) or token_f1(a, b) == 1
