"""`compute_metrics` for `predict_with_generate=True`: the trainer's own summaries are scored."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quals_metric.training import QualsCallback, make_compute_metrics
from quals_metric.training.measuring import MeasuringError
from tests import tiny
from tests.quals_metric.training import callback_toys as toys
from tests.quals_metric.training.callback_toys import ROWS, SHORT, ScriptedScorer, ToyScorer

DOCUMENTS = [row["document"] for row in ROWS]
# "anthony joshua", "saturday", each ended, padded by the model (0) and by the trainer (-100)
IDS = tiny.wordpiece().convert_tokens_to_ids(["anthony", "joshua", "saturday", "[SEP]", "[PAD]"])
PREDICTIONS = np.array([[3, IDS[0], IDS[1], IDS[3], IDS[4]], [3, IDS[2], IDS[3], -100, -100]])


def _evaluation(predictions: Any, labels: Any = None) -> SimpleNamespace:
    return SimpleNamespace(predictions=predictions, label_ids=labels)


def test_the_summaries_the_trainer_generates(tmp_path: Path) -> None:
    """The same values as the callback's, from the same model and settings."""
    scorer = ToyScorer()
    compute = make_compute_metrics(scorer, tiny.wordpiece(), sources=DOCUMENTS[:4])
    trainer = toys.trainer(
        tmp_path, predict_with_generate=True, generation_max_length=7, per_device_eval_batch_size=3,
        more={"compute_metrics": compute}, metric_for_best_model="quals", load_best_model_at_end=True,
        save_strategy="steps", save_steps=2,
    )  # fmt: skip
    trainer.train()
    returned = trainer.evaluate()
    assert {"eval_quals", "eval_quals_undefined_runtime", "eval_quals_runtime"} <= returned.keys()
    generated, sources = scorer.calls[-1]
    assert sources == DOCUMENTS[:4]
    other = toys.trainer(tmp_path / "other")
    other.model.load_state_dict(trainer.model.state_dict())
    QualsCallback(ToyScorer(), dataset=ROWS[:4], generation=replace(SHORT, max_source_tokens=32)).attach(other)
    again = other.evaluate()
    assert [returned[key] for key in ("eval_quals", "eval_quals_undefined_runtime")] == [
        again[key] for key in ("eval_quals", "eval_quals_undefined_runtime")
    ]
    assert trainer.state.best_metric is not None and all(generated)


@pytest.mark.parametrize("predictions", [PREDICTIONS, (PREDICTIONS, np.zeros((2, 4)))])
def test_padding_is_no_text(predictions: Any) -> None:
    scorer = ToyScorer()
    compute = make_compute_metrics(scorer, tiny.wordpiece(), sources=DOCUMENTS[:2], name="qags")
    values = compute(_evaluation(predictions))
    assert scorer.calls == [(["anthony joshua", "saturday"], DOCUMENTS[:2])]
    assert values["qags"] == pytest.approx(-(14 + 8) / 20) and values["qags_undefined_runtime"] == 0
    assert list(values) == ["qags", "qags_undefined_runtime", "qags_runtime"]


def test_evaluation_sets_are_told_by_their_length() -> None:
    scorer = ToyScorer()
    compute = make_compute_metrics(
        scorer, tiny.wordpiece(), sources={"a": DOCUMENTS[:3], "b": DOCUMENTS[3:5], "c": DOCUMENTS}
    )
    compute(_evaluation(PREDICTIONS))
    assert scorer.calls[0][1] == DOCUMENTS[3:5]
    with pytest.raises(ValueError, match="got 2, 3, 8 documents for 4 predictions"):
        compute(_evaluation(np.concatenate([PREDICTIONS, PREDICTIONS])))


def test_a_failure() -> None:
    script = ScriptedScorer(LookupError("gone"), -0.5, math.nan, LookupError("gone"))
    compute = make_compute_metrics(script, tiny.wordpiece(), sources=DOCUMENTS[:2])
    found = [compute(_evaluation(PREDICTIONS)) for _ in range(4)]
    assert [values["quals"] for values in found] == pytest.approx([math.nan, -0.5, math.nan, -0.5], nan_ok=True)
    assert [values.get("quals_stale_runtime", 0) for values in found] == [1, 0, 0, 1]
    raising = make_compute_metrics(
        ScriptedScorer(LookupError("gone")), tiny.wordpiece(), sources=DOCUMENTS[:2], on_failure="raise"
    )
    with pytest.raises(MeasuringError, match="LookupError: gone"):
        raising(_evaluation(PREDICTIONS))


def test_21_a3_other_labels_are_another_set(caplog: pytest.LogCaptureFixture) -> None:
    """Padding may differ between two evaluations of one set; labels do not."""
    compute = make_compute_metrics(ToyScorer(), tiny.wordpiece(), sources=DOCUMENTS[:2])
    labels = np.array([[5, 6, 0], [7, -100, -100]])
    first = compute(_evaluation(PREDICTIONS, labels))
    wider = np.array([[5, 6, -100, -100], [7, 0, -100, -100]])
    assert compute(_evaluation(PREDICTIONS, wider))["quals"] == first["quals"]
    for other in (labels[::-1], labels[::-1], None):
        assert compute(_evaluation(PREDICTIONS, other)) == {}
    (message,) = (record.getMessage() for record in caplog.records)
    assert "quals is not measured: this evaluation has as many rows as `sources` but other labels" in message
    assert compute(_evaluation(PREDICTIONS, labels))["quals"] == first["quals"]


def test_21_a3_predict_on_a_test_set_of_the_same_length(tmp_path: Path) -> None:
    scorer = ToyScorer()
    compute = make_compute_metrics(scorer, tiny.wordpiece(), sources=DOCUMENTS[:4])
    trainer = toys.trainer(
        tmp_path, predict_with_generate=True, generation_max_length=7, more={"compute_metrics": compute}
    )
    assert "eval_quals" in trainer.evaluate()
    predicted = trainer.predict(toys.tokenized(ROWS[4:], tiny.wordpiece())[::-1])
    assert predicted.predictions is not None and "test_quals" not in predicted.metrics
    assert len(scorer.calls) == 1


def test_21_e_batches_that_are_not_joined(tmp_path: Path) -> None:
    compute = make_compute_metrics(ToyScorer(), tiny.wordpiece(), sources=DOCUMENTS[:4])
    trainer = toys.trainer(
        tmp_path, predict_with_generate=True, generation_max_length=7, per_device_eval_batch_size=3,
        eval_do_concat_batches=False, more={"compute_metrics": compute},
    )  # fmt: skip
    with pytest.raises(TypeError, match=r"got a list of batches\. Set eval_do_concat_batches=True"):
        trainer.evaluate()


def test_the_surplus_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a last batch is filled up with is left out, though another set is as long as all of it."""
    monkeypatch.setattr("quals_metric.training.predictions.process_state", lambda: SimpleNamespace(num_processes=2))
    scorer = ToyScorer()
    compute = make_compute_metrics(scorer, tiny.wordpiece(), sources={"a": DOCUMENTS[:2], "b": DOCUMENTS[2:5]})
    labels = np.array([[5, 6, 0], [7, -100, -100]])
    compute(_evaluation(PREDICTIONS[[0, 1, 0]], labels[[0, 1, 0]]))
    compute(_evaluation(PREDICTIONS[[0, 1, 1]], labels[[0, 1, 1]]))
    assert [sources for _, sources in scorer.calls] == [DOCUMENTS[:2], DOCUMENTS[2:5]]
    assert scorer.calls[0][0] == ["anthony joshua", "saturday"]


@pytest.mark.parametrize(
    ("sources", "error", "match"),
    [
        ("a text", TypeError, "must be a list of str"),
        ([], ValueError, "must not be empty"),
        ({}, ValueError, "must not be empty"),
        ({"a": ["x"], "b": []}, ValueError, "must not be empty"),
        ({"a": ["x"], "b": ["y"]}, ValueError, r"must differ in length.*QualsCallback\(datasets=...\)"),
    ],
)
def test_bad_sources(sources: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make_compute_metrics(ToyScorer(), tiny.wordpiece(), sources=sources)


def test_predictions_that_are_no_tokens() -> None:
    compute = make_compute_metrics(ToyScorer(), tiny.wordpiece(), sources=DOCUMENTS[:2])
    with pytest.raises(TypeError, match="Set predict_with_generate=True"):
        compute(_evaluation(np.zeros((2, 4, 9), np.float32)))
