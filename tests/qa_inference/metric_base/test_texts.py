"""Texts and passages in any collection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from qa_inference.metric_base.texts import check_passages, check_texts

TEXTS = ["Ann won.", "Bob lost."]


def _generated() -> Iterator[str]:
    yield from TEXTS


COLLECTIONS = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "generator": _generated,
    "pandas Series": pd.Series(TEXTS, index=[7, 3]),
    "NumPy array": np.array(TEXTS),
    "NumPy array of objects": np.array(TEXTS, dtype=object),
    "Arrow array": pa.array(TEXTS),
    "chunked Arrow array": pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    "data set's column": datasets.Dataset.from_dict({"text": TEXTS})["text"],
    "dictionary's values": dict(enumerate(TEXTS)).values(),
}


@pytest.mark.parametrize("texts", COLLECTIONS.values(), ids=COLLECTIONS)
def test_21_e_any_one_dimensional_collection_of_texts_is_taken(texts: Any) -> None:
    made = texts() if callable(texts) else texts
    summaries, sources = check_texts(made, TEXTS)
    assert summaries == sources == TEXTS
    assert type(summaries) is list and all(type(text) is str for text in summaries)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("Ann won.", r"summaries: must be a list of str; got str. Put a single text into a list: \[text\]"),
        (b"Ann", "summaries: must be a list of str; got bytes"),
        (3, "summaries: must be a list of str; got int. Pass one text per summary, in order"),
        ({"a": "Ann"}, "summaries: must be a list of str; got dict"),
        ({"Ann"}, "summaries: must be a list of str; got set"),
        (np.array([TEXTS]), r"summaries\[0\]: must be str; got list"),
        (pd.Series(["Ann", None]), r"summaries\[1\]: must be str; got (NoneType|float)"),
        (["Ann", 2], r"summaries\[1\]: must be str; got int \(2\). Pass '' for a missing text"),
    ],
)
def test_other_texts_are_refused(texts: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_texts(texts, TEXTS)


def test_lengths() -> None:
    with pytest.raises(ValueError, match="must be of the same length; got 1 and 2"):
        check_texts(TEXTS[:1], TEXTS)
    with pytest.raises(ValueError, match="predictions: must not be empty"):
        check_texts([], [], ("predictions", "sources"))


def test_contexts_are_lists_of_passages() -> None:
    assert check_passages(TEXTS, TEXTS, None) == (TEXTS, [["Ann won."], ["Bob lost."]])
    for contexts in ([["a", "b"], []], pd.Series([["a", "b"], []]), pa.array([["a", "b"], []])):
        assert check_passages(TEXTS, None, contexts) == (TEXTS, [["a", "b"], []])


@pytest.mark.parametrize(
    ("contexts", "message"),
    [
        (["a", "b"], r"contexts\[0\]: must be a list of str; got str. Put a single text into a list: \[text\]"),
        ("ab", r"contexts: must be a list of lists of str; got str"),
        ([["a"], None], r"contexts\[1\]: must be a list of str; got NoneType"),
        ([["a"], ["b", 3]], r"contexts\[1\]\[1\]: must be str; got int \(3\)"),
        ([["a"]], "summaries and contexts: must be of the same length; got 2 and 1"),
    ],
)
def test_other_contexts_are_refused(contexts: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        check_passages(TEXTS, None, contexts)
