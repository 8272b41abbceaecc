"""The key of a result, and its signature."""

from __future__ import annotations

from qa_inference.metric_base.key import ResultKey


def test_the_signature_shows_all_and_the_model_part_leaves_choices_out() -> None:
    settings = {"model": "m@1", "groups": 60, "dtype": "float32"}
    key = ResultKey("toy", settings, frozenset({"groups"}))
    assert key.signature().startswith("toy|model:m@1|groups:60|dtype:float32|torch:")
    other_choice = ResultKey("toy", settings | {"groups": 5}, frozenset({"groups"}))
    assert key.model_part() == other_choice.model_part() and key.signature() != other_choice.signature()
    assert key.model_part() != ResultKey("toy", settings | {"model": "m@2"}, frozenset({"groups"})).model_part()
    assert key.model_part(dtype="bfloat16") == ResultKey(
        "toy", settings | {"dtype": "bfloat16"}, frozenset({"groups"})
    ).model_part()  # fmt: skip
    # A value cannot run into the next setting, whatever characters it has.
    assert ResultKey("toy", {"a": "1|b:2"}).model_part() != ResultKey("toy", {"a": "1", "b": "2"}).model_part()
