"""What the callback reports, and who in a Trainer goes by it."""

from __future__ import annotations

import json
import logging
import math
import uuid
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_utils import default_compute_objective

from qags_metric.result import FoundAnswer, QagsResult, QuestionScore
from qags_metric.result import SummaryScore as QagsSummaryScore
from quals_metric.config import QualsConfig
from quals_metric.metrics import METRICS
from quals_metric.scorer import QualsScorer
from quals_metric.training import QualsCallback
from quals_metric.training.measuring import MeasuringError
from tests import tiny
from tests.quals_metric.toy_metric import TOY
from tests.quals_metric.training import callback_toys as toys
from tests.quals_metric.training.callback_toys import ROWS, SHORT, ScriptedScorer, ToyScorer, entries


def attached(trainer: Any, scorer: Any, **options: Any) -> QualsCallback:
    options = {"dataset": ROWS[:4], "generation": SHORT} | options
    if "datasets" in options:
        del options["dataset"]
    return QualsCallback(scorer, **options).attach(trainer)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes generation cost nothing, where a test is about the metrics only."""
    monkeypatch.setattr(
        "quals_metric.training.callback.generate_summaries",
        lambda model, tokenizer, documents, settings, seeds: [["One summary."] for _ in documents],
    )


# ---- the values ----------------------------------------------------------------------------------------------------


def test_metrics_are_returned_and_logged(tmp_path: Path) -> None:
    trainer, scorer = toys.trainer(tmp_path), ToyScorer()
    attached(trainer, scorer)
    trainer.train()
    returned = trainer.evaluate()
    ((first, sources), *_) = scorer.calls
    assert len(scorer.calls) == 3 and sources == [row["document"] for row in ROWS[:4]] and all(first)
    summaries = scorer.calls[-1][0]
    defined = [-len(summary) / 10 for summary in summaries if len(summary) % 5]
    assert returned["eval_quals"] == pytest.approx(sum(defined) / len(defined))
    assert returned["eval_quals_undefined_runtime"] == 4 - len(defined)
    assert returned["eval_quals_runtime"] > 0 and "eval_quals_stale_runtime" not in returned
    assert entries(trainer.state)[-1] == returned["eval_quals"] and len(entries(trainer.state)) == 3
    assert [entry["step"] for entry in trainer.state.log_history if "eval_quals" in entry] == [2, 4, 4]


def test_the_metric_itself(tmp_path: Path) -> None:
    """With the real scorer, the values are those of scoring the summaries in the file."""
    folder = str(tiny.trained(tmp_path / "bart"))
    scorer = QualsScorer(QualsConfig(folder, groups=10, min_new_tokens=2, max_new_tokens=14, device="cpu"))
    trainer = toys.trainer(tmp_path / "run", "t5")
    attached(trainer, scorer)
    returned = trainer.evaluate()
    lines = [json.loads(line) for line in (tmp_path / "run" / "quals_samples.jsonl").read_text().splitlines()]
    again = scorer.score(summaries=[row["summary"] for row in lines], sources=[row["source"] for row in lines])
    assert returned["eval_quals"] == pytest.approx(again.score, abs=1e-5, nan_ok=True)
    assert returned["eval_quals_undefined_runtime"] == again.num_undefined
    for row, scored in zip(lines, again.summaries, strict=True):
        worst = min((pair.score for pair in scored.pairs), default=None)
        assert row["worst_score"] == (None if worst is None else pytest.approx(worst, abs=1e-5))


class ToyQags:
    """Two questions about every summary; the source agrees with the first answer only."""

    def score(self, *, summaries: Any, sources: Any) -> QagsResult:
        no_answer = FoundAnswer("", -1, -1, -2.0)
        scored = []
        for summary in summaries:
            word = FoundAnswer(summary.split()[0], 0, len(summary.split()[0]), 2.0)
            questions = [
                QuestionScore(question, word.text, 0, word.end, word, found, f1, -0.5)
                for question, found, f1 in (("Which is first?", word, 1.0), ("Which word?", no_answer, 0.0))
            ]
            scored.append(QagsSummaryScore(0.5, tuple(questions)))
        return QagsResult(tuple(scored), "toy")


def test_the_worst_question_of_qags(tmp_path: Path, quiet: Any) -> None:
    """The columns of the worst question are filled whatever the metric calls its questions."""
    trainer = toys.trainer(tmp_path)
    attached(trainer, ToyQags(), name="qags")
    assert trainer.evaluate()["eval_qags"] == 0.5
    lines = [json.loads(line) for line in (tmp_path / "qags_samples.jsonl").read_text().splitlines()]
    worst = [(line["worst_question"], line["worst_answer"], line["worst_score"]) for line in lines]
    assert worst == [("Which word?", "One", 0.0)] * 4


def test_a_metric_that_is_one_row_of_the_table(tmp_path: Path, quiet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "toy", TOY)
    trainer = toys.trainer(tmp_path)
    attached(trainer, METRICS["toy"].load_scorer(words=2), name="toy")
    assert 0 <= trainer.evaluate()["eval_toy"] <= 1
    lines = [json.loads(line) for line in (tmp_path / "toy_samples.jsonl").read_text().splitlines()]
    assert [line["worst_question"] for line in lines] == ["Which word is it?"] * 4


def test_another_metric_of_the_same_shape(tmp_path: Path, quiet: Any) -> None:
    trainer = toys.trainer(tmp_path)
    attached(trainer, ScriptedScorer(0.75), name="qags")
    returned = trainer.evaluate()
    assert (
        returned["eval_qags"] == 0.75
        and returned["eval_qags_undefined_runtime"] == 0
        and "eval_qags_runtime" in returned
    )
    assert (tmp_path / "qags_samples.jsonl").exists() and "eval_quals" not in returned


def test_every_evaluation_set_has_its_own(tmp_path: Path) -> None:
    model_data = toys.tokenized(ROWS, tiny.wordpiece())
    sets = {"news": model_data[:2], "long_papers": model_data[2:5], "rest": model_data[5:]}
    trainer, scorer = (
        toys.trainer(tmp_path, eval_dataset=sets, metric_for_best_model="eval_news_quals", load_best_model_at_end=True,
                     save_strategy="steps", save_steps=2),
        ToyScorer(),
    )  # fmt: skip
    attached(trainer, scorer, datasets={"news": ROWS[:2], "long_papers": ROWS[2:5]})
    trainer.train()
    returned = trainer.evaluate()
    assert {"eval_news_quals", "eval_long_papers_quals"} <= returned.keys() and "eval_rest_quals" not in returned
    assert [len(sources) for _, sources in scorer.calls] == [2, 3] * 3
    assert trainer.state.best_metric == max(entries(trainer.state, "eval_news_quals"))


def test_an_evaluation_without_raw_rows_is_said_once(
    tmp_path: Path, quiet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = toys.trainer(tmp_path)
    attached(trainer, ScriptedScorer(-1.0))
    for _ in range(2):
        assert "test_quals" not in trainer.evaluate(metric_key_prefix="test")
    assert [record.getMessage() for record in caplog.records if "quals" in record.name] == [
        "test_quals is not measured: there are no raw rows for 'test', only for 'eval'; give them in `datasets`"
    ]


def test_21_a3_another_set_is_not_measured(tmp_path: Path, quiet: Any, caplog: pytest.LogCaptureFixture) -> None:
    trainer = toys.trainer(tmp_path)
    attached(trainer, ScriptedScorer(-1.0))
    other = toys.tokenized(ROWS[4:], tiny.wordpiece())  # as many rows as the trainer's own
    for _ in range(2):
        returned = trainer.evaluate(other)
        assert "eval_loss" in returned and "eval_quals" not in returned
    (message,) = (record.getMessage() for record in caplog.records if "quals" in record.name)
    assert message.startswith("eval_quals is not measured: the evaluated set is not the one")
    assert trainer.evaluate()["eval_quals"] == trainer.evaluate(trainer.eval_dataset)["eval_quals"] == -1.0
    trainer.eval_dataset = other  # the raw rows are those of the set at `attach`
    assert "eval_quals" not in trainer.evaluate()


def test_21_a3_other_sets_under_the_same_names_are_not_measured(tmp_path: Path, quiet: Any) -> None:
    data = toys.tokenized(ROWS, tiny.wordpiece())
    trainer = toys.trainer(tmp_path, eval_dataset={"a": data[:2], "b": Dataset.from_list(data[2:4])})
    attached(trainer, ScriptedScorer(-1.0), datasets={"a": ROWS[:2], "b": ROWS[2:4]})
    returned = trainer.evaluate()
    assert returned["eval_a_quals"] == returned["eval_b_quals"] == -1.0
    returned = trainer.evaluate({"a": trainer.eval_dataset["a"], "b": Dataset.from_list(data[2:4])})
    assert "eval_a_quals" in returned and "eval_b_quals" not in returned


def test_21_a7_the_default_objective_is_the_score(tmp_path: Path, quiet: Any) -> None:
    trainer = toys.trainer(tmp_path, skip_memory_metrics=True)
    attached(trainer, ScriptedScorer(-1.0, LookupError("gone")))
    for stale in (False, True):
        returned = trainer.evaluate()
        returned.pop("eval_model_preparation_time", None)  # the trainer's own
        assert ("eval_quals_stale_runtime" in returned) == stale
        assert default_compute_objective(returned) == -1.0


def test_21_b8_without_a_trainer_no_step_is_taken(tmp_path: Path) -> None:
    trainer = toys.trainer(tmp_path, more={"callbacks": [QualsCallback(ToyScorer(), dataset=ROWS)]})
    with pytest.raises(RuntimeError, match=r"call \.attach\(trainer\)"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_21_b13_a_torn_line_costs_itself_alone(tmp_path: Path, quiet: Any) -> None:
    path = tmp_path / "quals_samples.jsonl"
    whole = json.dumps({"step": 0, "source": "x" * 100_000}) + "\n"
    for torn in ("", '{"step": 1, "sou', "y" * 200_000):
        path.write_text(whole + torn)
        trainer = toys.trainer(tmp_path)
        attached(trainer, ScriptedScorer(-1.0))
        trainer.evaluate()
        lines = path.read_text().splitlines()
        assert [len(json.loads(line)["source"]) > 1000 for line in lines] == [True, False, False, False, False]
    path.write_text("torn")
    trainer.evaluate()
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 4


def test_21_b13_resuming_repeats_no_lines(tmp_path: Path, quiet: Any) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2, "eval_steps": 1, "max_steps": 4}
    for checkpoint in (None, str(tmp_path / "checkpoint-2")):
        trainer = toys.trainer(tmp_path, **settings)
        attached(trainer, ScriptedScorer(-1.0))
        trainer.train(resume_from_checkpoint=checkpoint)
        lines = (tmp_path / "quals_samples.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [step for step in (1, 2, 3, 4) for _ in range(4)]


def test_the_prefix_is_the_trainers(tmp_path: Path, quiet: Any) -> None:
    """Also where compute_metrics gives keys that look like the trainer's own."""
    trainer = toys.trainer(tmp_path, more={"compute_metrics": lambda _: {"a_runtime": 1.0, "b": 2.0}})
    attached(trainer, ScriptedScorer(-1.0), datasets={"eval": ROWS[:2], "test": ROWS[2:]})
    assert trainer.evaluate()["eval_quals"] == -1.0
    assert trainer.evaluate(metric_key_prefix="test")["test_quals"] == -1.0


def test_documents_are_a_seeded_sample(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "id": i} for i in range(50)]
    one, same, other = (
        QualsCallback(ToyScorer(), dataset=data, source_column="text", sample_size=10, seed=seed).texts["eval"]
        for data, seed in ((rows, 1), (Dataset.from_list(rows), 1), (rows, 2))
    )
    assert one == same != other and len(set(one)) == 10
    assert sorted(one, key=lambda text: int(text.split()[1])) == one
    assert len(QualsCallback(ToyScorer(), dataset=rows, source_column="text", sample_size=None).texts["eval"]) == 50


# ---- who goes by it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", ["quals", "eval_quals"])
def test_the_best_model_is_loaded(tmp_path: Path, quiet: Any, best: str) -> None:
    trainer = toys.trainer(
        tmp_path, metric_for_best_model=best, load_best_model_at_end=True, save_strategy="steps", save_steps=2,
        max_steps=6,
    )  # fmt: skip
    attached(trainer, ScriptedScorer(-2.0, -0.5, -1.0))
    trainer.train()
    assert trainer.state.best_metric == -0.5 and trainer.state.best_global_step == 4
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-4"


def test_saving_the_best(tmp_path: Path, quiet: Any) -> None:
    trainer = toys.trainer(tmp_path, metric_for_best_model="quals", save_strategy="best", max_steps=6)
    attached(trainer, ScriptedScorer(math.nan, -0.5, -1.0))
    trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]


@pytest.mark.parametrize("attach_first", [True, False])
def test_early_stopping(tmp_path: Path, quiet: Any, attach_first: bool) -> None:
    trainer = toys.trainer(
        tmp_path, metric_for_best_model="quals", load_best_model_at_end=True, save_strategy="steps", save_steps=1,
        eval_steps=1, max_steps=8,
    )  # fmt: skip
    steps = [
        lambda: attached(trainer, ScriptedScorer(-1.0, -0.5, -0.6, -0.7)),
        lambda: trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2)),
    ]
    for step in steps if attach_first else reversed(steps):
        step()
    trainer.train()
    assert trainer.state.global_step == 4 and trainer.state.best_global_step == 2


def test_a_plateau_scheduler(tmp_path: Path, quiet: Any) -> None:
    """The first value is the best; after one evaluation that is no better, the rate falls to a tenth."""
    trainer = toys.trainer(
        tmp_path, metric_for_best_model="quals", lr_scheduler_type="reduce_lr_on_plateau", eval_steps=1, max_steps=4,
        lr_scheduler_kwargs={"mode": "max", "patience": 0}, logging_steps=1,
    )  # fmt: skip
    attached(trainer, ScriptedScorer(-1.0, -0.5, -0.6, -0.7))
    trainer.train()
    assert entries(trainer.state, "learning_rate") == pytest.approx([1e-3, 1e-3, 1e-3, 1e-4])
    assert trainer.lr_scheduler.best == -0.5


# ---- failures ------------------------------------------------------------------------------------------------------


def test_a_failure_reports_the_last_good_value(tmp_path: Path, quiet: Any, caplog: pytest.LogCaptureFixture) -> None:
    trainer = toys.trainer(tmp_path, eval_steps=1, max_steps=5)
    attached(trainer, ScriptedScorer(RuntimeError("no memory"), -0.5, math.nan, LookupError("gone"), ValueError("x")))
    trainer.train()
    assert entries(trainer.state) == pytest.approx([math.nan, -0.5, math.nan, -0.5, -0.5], nan_ok=True)
    measured = [entry for entry in trainer.state.log_history if "eval_quals" in entry]
    assert [entry.get("eval_quals_stale_runtime", 0) for entry in measured] == [1, 0, 0, 1, 1]
    assert entries(trainer.state, "eval_quals_undefined_runtime") == [4, 0, 4, 0, 0]
    messages = [record for record in caplog.records if "not measured this time" in record.getMessage()]
    assert "rank 0 raised RuntimeError: no memory" in messages[0].getMessage()
    assert messages[1].exc_info is not None and isinstance(messages[1].exc_info[1].__cause__, LookupError)
    lines = (tmp_path / "quals_samples.jsonl").read_text().splitlines()
    assert sorted({json.loads(line)["step"] for line in lines}) == [2, 3]


def test_a_failure_is_raised_if_asked(tmp_path: Path, quiet: Any) -> None:
    trainer = toys.trainer(tmp_path)
    attached(trainer, ScriptedScorer(LookupError("gone")), on_failure="raise")
    with pytest.raises(MeasuringError, match="rank 0 raised LookupError: gone") as caught:
        trainer.train()
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_failure_keeps_no_memory(tmp_path: Path, quiet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an accelerator's cache is emptied for the last time, what the failed scorer held is gone."""

    class Failing:
        def score(self, *, summaries: Any, sources: Any) -> Any:
            tensor = torch.zeros(3)
            held.append(weakref.ref(tensor))
            raise RuntimeError("out of memory")

    held: list[Any] = []
    alive: list[bool] = []
    device = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, get_rng_state_all=list,
        set_rng_state_all=lambda _: None, empty_cache=lambda: alive.append(held[0]() is not None),
    )  # fmt: skip
    trainer = toys.trainer(tmp_path)
    attached(trainer, Failing())
    monkeypatch.setattr("quals_metric.training.state._DEVICES", (device,))
    monkeypatch.setattr("quals_metric.training.callback.log_failure", lambda *_: None)  # pytest keeps what is logged
    assert trainer.evaluate()["eval_quals_stale_runtime"] == 1
    assert len(alive) > 1 and not alive[-1]


def test_a_full_disk_does_not_end_a_training(tmp_path: Path, quiet: Any, caplog: pytest.LogCaptureFixture) -> None:
    trainer = toys.trainer(tmp_path)
    attached(trainer, ScriptedScorer(-1.0))
    (tmp_path / "quals_samples.jsonl").mkdir()
    assert trainer.evaluate()["eval_quals"] == -1.0
    assert any("the samples are not written" in record.getMessage() for record in caplog.records)


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", ["quals", "eval_quals"])
def test_lower_is_not_better(tmp_path: Path, best: str) -> None:
    trainer = toys.trainer(tmp_path, metric_for_best_model=best, greater_is_better=False)
    with pytest.raises(ValueError, match="Set greater_is_better=True"):
        attached(trainer, ToyScorer())


def test_lower_is_better_for_another_metric(tmp_path: Path) -> None:
    attached(toys.trainer(tmp_path, metric_for_best_model="loss", greater_is_better=False), ToyScorer())


@pytest.mark.parametrize("kind", ["reduce_lr_on_plateau", "greedy"])
@pytest.mark.parametrize("settings", [{}, {"lr_scheduler_kwargs": {"mode": "min"}}])
def test_a_plateau_scheduler_must_wait_for_a_rise(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    trainer = toys.trainer(tmp_path, metric_for_best_model="quals", lr_scheduler_type=kind, **settings)
    with pytest.raises(ValueError, match="Set lr_scheduler_kwargs="):
        attached(trainer, ToyScorer())


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_plateau_scheduler_of_the_users(tmp_path: Path, mode: str) -> None:
    trainer = toys.trainer(tmp_path, metric_for_best_model="quals")
    trainer.optimizer = SGD(trainer.model.parameters(), lr=0.1)
    trainer.lr_scheduler = ReduceLROnPlateau(trainer.optimizer, mode=mode)
    if mode == "max":
        attached(trainer, ToyScorer())
    else:
        with pytest.raises(ValueError, match="got 'min'"):
            attached(trainer, ToyScorer())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"is_fsdp_enabled": True}, "got FSDP"),
        ({"accelerator": SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=3)))},
         "got DeepSpeed ZeRO-3"),
        ({"model": SimpleNamespace(generate=print, tp_size=2)}, "got tensor parallelism"),
    ],
)  # fmt: skip
def test_a_model_spread_over_processes(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    trainer = toys.trainer(tmp_path)
    vars(trainer).update(change)
    with pytest.raises(ValueError, match=match):
        attached(trainer, ToyScorer())


def test_zero_2_is_fine(tmp_path: Path) -> None:
    trainer = toys.trainer(tmp_path)
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=2)))
    attached(trainer, ToyScorer())


def test_other_refusals_at_attach(tmp_path: Path) -> None:
    trainer = toys.trainer(tmp_path)
    callback = attached(trainer, ToyScorer())
    with pytest.raises(ValueError, match="attached to a trainer already"):
        callback.attach(trainer)
    trainer.processing_class = None
    with pytest.raises(TypeError, match="give it one as `processing_class`"):
        attached(trainer, ToyScorer())
    trainer.model = SimpleNamespace()
    with pytest.raises(TypeError, match="must have `generate`; got SimpleNamespace"):
        attached(trainer, ToyScorer())


def test_names_of_evaluation_sets(tmp_path: Path) -> None:
    data = toys.tokenized(ROWS, tiny.wordpiece())
    trainer = toys.trainer(tmp_path, eval_dataset={"a": data, "b": data}, metric_for_best_model="quals")
    with pytest.raises(ValueError, match="several evaluation sets"):
        attached(trainer, ToyScorer())
    with pytest.raises(ValueError, match=r"as the trainer's evaluation sets are \(a, b\); got c"):
        attached(trainer, ToyScorer(), datasets={"a": ROWS, "c": ROWS})
    with pytest.raises(ValueError, match="for example eval_a_quals"):
        attached(trainer, ToyScorer(), datasets={"a": ROWS})


def test_it_must_be_attached(tmp_path: Path) -> None:
    trainer = toys.trainer(tmp_path, more={"callbacks": [QualsCallback(ToyScorer(), dataset=ROWS)]})
    with pytest.raises(RuntimeError, match=r"call \.attach\(trainer\)"):
        trainer.evaluate()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, TypeError, "or `datasets` of several"),
        ({"dataset": ROWS, "datasets": {"a": ROWS}}, TypeError, "not both"),
        ({"dataset": []}, ValueError, "must not be empty"),
        ({"dataset": iter(ROWS)}, TypeError, "Make a stream a list"),
        ({"dataset": ROWS, "source_column": "text"}, ValueError, "must be one of 'document', 'summary'; got 'text'"),
        ({"dataset": [{"document": None}]}, TypeError, "must be str; got NoneType"),
        ({"dataset": ROWS, "sample_size": 0}, ValueError, "sample_size: must be an integer of at least 1; got 0"),
        ({"dataset": ROWS, "on_failure": "ignore"}, ValueError, "'stale' or 'raise'; got 'ignore'"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        QualsCallback(ToyScorer(), **options)


# ---- samples -------------------------------------------------------------------------------------------------------


def test_samples_in_tensorboard(tmp_path: Path, quiet: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = toys.trainer(tmp_path, report_to=["tensorboard"])
    attached(trainer, ToyScorer())
    trainer.train()
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    (table, _) = events.Tensors("eval/quals_samples/text_summary")
    text = table.tensor_proto.string_val[0].decode()
    assert table.step == 2 and len(text.splitlines()) == 6
    assert "One summary." in text and "what &#124; is it?" in text and "<b>" not in text
    assert len(events.Scalars("eval/quals")) == 2


def test_samples_in_trackio(tmp_path: Path, quiet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported, here or earlier
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    project = f"tests-{uuid.uuid4().hex}"  # no other run's logs, wherever trackio keeps them
    trainer = toys.trainer(tmp_path, report_to=["trackio"], project=project, run_name="toy")
    attached(trainer, ToyScorer(), table_size=3)
    trainer.train()
    logs = SQLiteStorage.get_logs(project, "toy")
    tables = [entry for entry in logs if "eval/quals_samples" in entry]
    assert [entry["train/global_step"] for entry in tables] == [2, 4]
    assert [entry["eval/quals"] for entry in logs if "eval/quals" in entry] == [-1.2, -1.2]
    rows = tables[0]["eval/quals_samples"]["_value"]
    assert [row["source"] for row in rows] == [row["document"] for row in ROWS[:3]]
    assert rows[0]["summary"] == "One summary." and rows[0]["worst question"] == "what | is it?"


def test_samples_in_weights_and_biases_and_comet(
    tmp_path: Path, quiet: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither is installed: objects with the calls their documentation names stand for them."""
    from transformers import integrations

    class Wandb(integrations.WandbCallback):
        def __init__(self) -> None:
            self._wandb = SimpleNamespace(run=object(), Table=lambda columns, data: (columns, data), log=seen.append)

    class Comet(integrations.CometCallback):
        def __init__(self) -> None:
            self._experiment = SimpleNamespace(log_table=lambda name, **table: seen.append((name, table)))

    seen: list[Any] = []
    for kind in (Wandb, Comet):  # what they do beside is not our business
        for event in ("on_log", "on_train_begin", "on_train_end"):
            monkeypatch.setattr(kind, event, getattr(TrainerCallback, event), raising=False)
    wandb, comet = Wandb(), Comet()
    trainer = toys.trainer(tmp_path, more={"callbacks": [wandb, comet]})
    attached(trainer, ToyScorer(), table_size=3)
    trainer.evaluate()
    columns, rows = seen[0]["eval/quals_samples"]
    assert seen[0]["train/global_step"] == 0 and columns[:3] == ["source", "summary", "score"]
    assert [row[0] for row in rows] == [row["document"] for row in ROWS[:3]]
    assert seen[1] == ("eval_quals_samples_0.csv", {"tabular_data": rows, "headers": columns})
    comet._experiment, wandb._wandb.Table = None, lambda **_: 1 / 0
    with caplog.at_level(logging.WARNING):
        assert trainer.evaluate()["eval_quals"] == -1.2
    assert any("WandbCallback did not take the table" in record.getMessage() for record in caplog.records)
