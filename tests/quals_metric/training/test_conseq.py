"""The contrastive loss against the published code's, and its trainer: one update is one update however it is cut."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM

import quals_metric
from quals_metric.training.conseq import ConseqTrainer, conseq_loss, log_one_minus
from quals_metric.training.examples import Examples, PairCollator, TextEncoder, TextFormat
from tests import PATIENCE, tiny
from tests.quals_metric.training.conseq_program import arguments, update, without_dropout

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "conseq_loss.json").read_text())["cases"]
PROGRAM = Path(__file__).with_name("conseq_program.py")

ROWS = [
    {
        "document": "The council approved a new bridge over the River Tay in Perth on Monday.",
        "ground_truth": "The council approved a bridge.",
        "negative": "The council beat Klitschko at Wembley Stadium on Saturday.",
    },
    {
        "document": tiny.CORPUS[0],
        "ground_truth": "Anthony Joshua beat Klitschko on Saturday at Wembley.",
        "negative": "A rise.",
    },
    {"document": tiny.CORPUS[1], "ground_truth": "It was £1,000.", "negative": "The old house approved the bridge."},
    {"document": "Where did the man live? In the old house.", "ground_truth": "The man lived.", "negative": "Perth."},
]
LIKELIHOOD_ROWS = [{key: row[key] for key in ("document", "ground_truth")} for row in ROWS]


# ---- the loss -------------------------------------------------------------------------------------------------------


def _stacked(case: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """A golden case as the trainer has it: one batch, -100 for the padding, rows of one width."""
    logits, labels = [], []
    width = max(len(row) for kind in ("positive", "negative") for row in case[f"{kind}_labels"])
    for kind in ("positive", "negative"):
        target = torch.tensor(case[f"{kind}_labels"])
        target = target.masked_fill(target == case["pad_token_id"], -100)
        scores = torch.tensor(case[f"{kind}_logits"])
        missing = width - target.shape[1]
        logits.append(F.pad(scores, (0, 0, 0, missing), value=3.0))
        labels.append(F.pad(target, (0, missing), value=-100))
    negative = torch.arange(4) >= 2
    return torch.cat(logits), torch.cat(labels), negative


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"smoothing {case['label_smoothing']}")
def test_golden_loss(case: dict[str, Any]) -> None:
    """Made by the published loss (tests/golden/conseq_loss.json)."""
    found = conseq_loss(*_stacked(case), label_smoothing=case["label_smoothing"])
    assert float(found.likelihood) == pytest.approx(case["likelihood_sum"], rel=1e-6)
    assert float(found.unlikelihood) == pytest.approx(case["unlikelihood_sum"], rel=1e-6)
    assert (int(found.positive_tokens), int(found.negative_tokens)) == (
        case["positive_tokens"],
        case["negative_tokens"],
    )
    assert float(found.mean) == pytest.approx(case["loss"], abs=1e-6)


def test_the_likelihood_is_torchs_label_smoothed_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(3, 5, 40), torch.randint(40, (3, 5))
    labels[1, 3:] = -100
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.2)
    assert float(conseq_loss(logits, labels, label_smoothing=0.2).mean) == pytest.approx(float(expected), rel=1e-6)


def test_weights_multiply_rows_and_not_the_token_count() -> None:
    logits, labels, negative = _stacked(GOLDEN[1])
    weight = torch.tensor([2.0, 0.5, 3.0, 0.0])
    found = conseq_loss(logits, labels, negative, weight, label_smoothing=0.1)
    single = [
        conseq_loss(logits[i : i + 1], labels[i : i + 1], negative[i : i + 1], label_smoothing=0.1) for i in range(4)
    ]
    assert float(found.likelihood) == pytest.approx(
        sum(w * float(s.likelihood) for w, s in zip(weight.tolist(), single, strict=True)), rel=1e-6
    )
    assert float(found.unlikelihood) == pytest.approx(3 * float(single[2].unlikelihood), rel=1e-6)
    assert int(found.positive_tokens) == 7 and int(found.negative_tokens) == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, labels, negative = _stacked(GOLDEN[1])
    low = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = conseq_loss(low, labels, negative, label_smoothing=0.1)
    expected = conseq_loss(low.detach().float(), labels, negative, label_smoothing=0.1)
    assert found.mean.dtype == torch.float32 and float(found.mean.detach()) == float(expected.mean)
    found.mean.backward()
    assert low.grad is not None and low.grad.isfinite().all()


@pytest.mark.parametrize("gap", [0.0, 1.0, 5.0, 15.0, 20.0, 40.0, 200.0, 1e6])
def test_one_minus_p_near_one(gap: float) -> None:
    """Against float64, where 1 - p is still a number; the published bound beyond; gradients finite, at most 1."""
    logits = torch.tensor([[gap, 0.0, -1.0, -0.5]], requires_grad=True)
    found = log_one_minus(logits)
    exact = logits.detach().double()
    others = torch.stack([exact[:, [j for j in range(4) if j != i]].logsumexp(-1) for i in range(4)], -1)
    expected = (others - exact.logsumexp(-1, keepdim=True)).clamp(min=math.log(1e-20))
    torch.testing.assert_close(found.detach().double(), expected, rtol=1e-5, atol=1e-6)
    found[0, 0].backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad.abs().max() <= 1 + 1e-6
    if gap == 20.0:  # where float32's p is 1 the gradient still pushes the token down
        assert float(logits.detach().softmax(-1)[0, 0]) == 1.0
        assert float(logits.grad[0, 0]) == pytest.approx(-1.0)


# ---- the batch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_positives_and_negatives_are_one_batch(name: str) -> None:
    model, tokenizer = tiny.checkpoint(name)
    encoder = TextEncoder(model, tokenizer)
    rows = [*ROWS[:2], {**LIKELIHOOD_ROWS[2], "negative": None}]
    examples = Examples(Dataset.from_list(rows), encoder)
    batch = PairCollator(encoder.prefix, encoder.pad)([examples[i] for i in range(3)])
    assert batch["negative"].tolist() == [False] * 3 + [True] * 2
    assert (batch["input_ids"][[0, 1]] == batch["input_ids"][[3, 4]]).all()
    texts = [row["ground_truth"] for row in rows] + [row["negative"] for row in rows[:2]]
    plain = tokenizer(texts, add_special_tokens=False)["input_ids"]
    end, start = model.generation_config.eos_token_id, model.config.decoder_start_token_id
    for row, ids in enumerate(plain):
        length = len(ids) + 1
        assert batch["labels"][row].tolist() == [*ids, end] + [-100] * (batch["labels"].shape[1] - length)
        assert batch["decoder_input_ids"][row, :length].tolist() == [start, *ids]
    sources = tokenizer([row["document"] for row in rows])["input_ids"]
    for ids, mask, expected in zip(batch["input_ids"], batch["attention_mask"], sources, strict=False):
        assert ids[mask.bool()].tolist() == expected


def test_a_forced_first_token_is_read_and_is_no_target() -> None:
    """Like facebook/bart-large: generation starts from `</s>` and is forced to `<s>`."""
    model, tokenizer = tiny.checkpoint("bart-bpe")
    encoder = TextEncoder(model, tokenizer)
    batch = PairCollator(encoder.prefix, encoder.pad)([{"input_ids": [0, 9, 2], "labels": encoder.target("A rise.")}])
    ids = tokenizer("A rise.", add_special_tokens=False)["input_ids"]
    assert batch["decoder_input_ids"].tolist() == [[2, 0, *ids]]
    assert batch["labels"].tolist() == [[-100, *ids, 2]]


def test_long_texts_lose_their_end_and_special_tokens_are_text() -> None:
    model, tokenizer = tiny.checkpoint("t5")
    encoder = TextEncoder(model, tokenizer, TextFormat("question: {text}", max_source_tokens=8, max_target_tokens=4))
    prompt = tokenizer("question: The council approved a new bridge over the River", add_special_tokens=False)[
        "input_ids"
    ]
    assert encoder.source("The council approved a new bridge over the River") == [*prompt[:7], 1]
    target = encoder.target("The council approved a new bridge")
    assert len(target) == 4 and target[-1] == 1
    assert 1 not in encoder.source("</s> </s>")[:-1]


def test_a_template_longer_than_the_window_is_refused() -> None:
    model, tokenizer = tiny.checkpoint("t5")
    encoder = TextEncoder(model, tokenizer, TextFormat("question: {text}", max_source_tokens=2))
    with pytest.raises(ValueError, match="max_source_tokens: must leave room"):
        encoder.source("The council")
    with pytest.raises(ValueError, match="template: must contain"):
        TextFormat("nothing")
    with pytest.raises(ValueError, match="max_target_tokens: must be an integer of at least 1; got 0"):
        TextFormat(max_target_tokens=0)


def test_only_selected_rows_are_trained_on() -> None:
    encoder = TextEncoder(*tiny.checkpoint("t5"))
    rows = Dataset.from_list([{**row, "selected": i in (1, 3), "weight": i / 2} for i, row in enumerate(ROWS)])
    examples = Examples(rows, encoder)
    assert len(examples) == 2
    assert [examples[i]["labels"] for i in range(2)] == [encoder.target(ROWS[i]["ground_truth"]) for i in (1, 3)]
    batch = PairCollator(encoder.prefix, encoder.pad)([examples[0], examples[1]])
    assert batch["weight"].tolist() == [0.5, 1.5, 0.5, 1.5]
    positive = PairCollator(encoder.prefix, encoder.pad, positives_only=True)([examples[0], examples[1]])
    assert positive["weight"].tolist() == [0.5, 1.5] and "negative" not in positive
    with pytest.raises(ValueError, match="none of 4 is selected"):
        Examples(rows.remove_columns("selected").add_column("selected", [False] * 4), encoder)


def test_the_end_of_a_negative_can_be_kept() -> None:
    """Every other label is the same, and what the decoder reads too."""
    encoder = TextEncoder(*tiny.checkpoint("t5"))
    examples = Examples(Dataset.from_list(ROWS), encoder)
    batch = [examples[i] for i in range(4)]
    published = PairCollator(encoder.prefix, encoder.pad)(batch)
    kept = PairCollator(encoder.prefix, encoder.pad, unlearn_end=False)(batch)
    differ = published["labels"] != kept["labels"]
    assert differ.sum(1).tolist() == [0] * 4 + [1] * 4
    assert set(published["labels"][differ].tolist()) == {encoder.target("")[-1]}
    assert set(kept["labels"][differ].tolist()) == {-100}
    assert all((published[key] == kept[key]).all() for key in published if key != "labels")


# ---- the trainer ----------------------------------------------------------------------------------------------------


def _by_hand(name: str, rows: list[dict[str, Any]], rate: float = 0.1, smoothing: float = 0.1) -> dict[str, Tensor]:
    """The weights after one step of gradient descent, a document at a time, in the textbook's words."""
    model, tokenizer = without_dropout(name)
    model.train()
    end, start = model.generation_config.eos_token_id, model.config.decoder_start_token_id
    total, count = torch.zeros(()), 0
    for row in rows:
        for key in ("ground_truth", "negative"):
            if key not in row:
                continue
            source = torch.tensor([tokenizer(row["document"])["input_ids"]])
            target = [*tokenizer(row[key], add_special_tokens=False)["input_ids"], end]
            logits = model(input_ids=source, decoder_input_ids=torch.tensor([[start, *target[:-1]]])).logits[0]
            scores = logits.log_softmax(-1)
            if key == "negative":
                scores = (1 - scores.exp()).log()
            for token, distribution in zip(target, scores, strict=True):
                total = total - (1 - smoothing) * distribution[token] - smoothing * distribution.mean()
            count += len(target)
    (total / count).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad
    return dict(model.state_dict())


def _assert_same_weights(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(
            found[name], weights, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("rows", [ROWS, LIKELIHOOD_ROWS], ids=["contrastive", "likelihood"])
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_an_update_is_the_same_however_it_is_cut(name: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    expected = _by_hand(name, rows)
    before = without_dropout(name)[0].state_dict()
    assert max(float((expected[key] - before[key]).abs().max()) for key in expected) > 1e-3  # it moves
    for batch, steps in ((4, 1), (1, 4), (3, 2)):
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        trainer = update(tmp_path, {"model": name, "rows": rows, "arguments": cut})
        _assert_same_weights(trainer.model.state_dict(), expected)


def test_two_processes_make_the_same_update(tmp_path: Path) -> None:
    cut = {"per_device_train_batch_size": 2, "ddp_backend": "gloo"}
    jobs = {"contrastive": ROWS, "likelihood": LIKELIHOOD_ROWS}
    for name, rows in jobs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"model": "bart", "rows": rows, "arguments": cut}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(PROGRAM)]
    package = str(Path(quals_metric.__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": package}
    paths = [str(tmp_path / f"{name}.json") for name in jobs]
    subprocess.run([*command, str(tmp_path), *paths], env=environment, check=True, timeout=PATIENCE)
    whole = {"per_device_train_batch_size": 4}
    for name, rows in jobs.items():
        _assert_same_weights(torch.load(tmp_path / f"{name}.pt", weights_only=True), _by_hand("bart", rows))
        found = json.loads((tmp_path / f"{name}.log.json").read_text())[0]
        expected = update(tmp_path, {"model": "bart", "rows": rows, "arguments": whole}).state.log_history[0]
        parts = ("loss", "likelihood", "unlikelihood") if name == "contrastive" else ("loss", "likelihood")
        for key in parts:
            assert found[key] == pytest.approx(expected[key], abs=1e-5)


def test_the_log_has_both_parts(tmp_path: Path) -> None:
    """Two updates of two documents each, logged together: means over all their tokens."""
    job = {"model": "bart", "rows": ROWS}
    settings = {"max_steps": 2, "logging_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 0.0}
    first = update(tmp_path, {**job, "arguments": settings}).state.log_history[0]
    model, tokenizer = without_dropout("bart")
    encoder = TextEncoder(model, tokenizer)
    examples = Examples(Dataset.from_list(ROWS), encoder)
    batch = PairCollator(encoder.prefix, encoder.pad)([examples[i] for i in range(4)])
    labels, negative = batch.pop("labels"), batch.pop("negative")
    with torch.no_grad():
        parts = conseq_loss(model(**batch).logits, labels, negative, label_smoothing=0.1)
    assert first["likelihood"] == pytest.approx(float(parts.likelihood / parts.positive_tokens), rel=1e-5)
    assert first["unlikelihood"] == pytest.approx(float(parts.unlikelihood / parts.negative_tokens), rel=1e-5)


def test_mixed_precision_trains(tmp_path: Path) -> None:
    job = {"model": "bart", "rows": ROWS, "arguments": {"bf16": True, "per_device_train_batch_size": 4}}
    low = update(tmp_path, job).state.log_history[0]
    high = update(tmp_path, {**job, "arguments": {"per_device_train_batch_size": 4}}).state.log_history[0]
    assert low["likelihood"] == pytest.approx(high["likelihood"], rel=0.02) and low["likelihood"] != high["likelihood"]


def test_evaluation_and_generation(tmp_path: Path) -> None:
    """The evaluation loss is the training loss of the same rows; with generating, one summary per document."""
    model, tokenizer = without_dropout("bart")
    seen = []
    args = arguments(tmp_path, predict_with_generate=True, per_device_eval_batch_size=4, generation_max_length=8)
    data = Dataset.from_list(ROWS)
    trainer = ConseqTrainer(
        model, args, train_dataset=data, eval_dataset={"some": data}, processing_class=tokenizer,
        compute_metrics=lambda found: seen.append(found.predictions.shape) or {"count": len(found.predictions)},
    )  # fmt: skip
    assert trainer.evaluate()["eval_some_count"] == 4
    plain = ConseqTrainer(
        model, arguments(tmp_path, per_device_eval_batch_size=4), eval_dataset=data, processing_class=tokenizer
    )
    (row, *_) = update(
        tmp_path, {"model": "bart", "rows": ROWS, "arguments": {"per_device_train_batch_size": 4}}
    ).state.log_history
    assert plain.evaluate()["eval_loss"] == pytest.approx(row["loss"], abs=1e-4)


def test_rows_that_are_tokenized_already(tmp_path: Path) -> None:
    """The same update, from the columns the collator reads; they survive `remove_unused_columns`."""
    model, tokenizer = without_dropout("bart")
    encoder = TextEncoder(model, tokenizer)
    examples = Examples(Dataset.from_list(ROWS), encoder)
    tokenized = Dataset.from_list([{**examples[i], "other": "text"} for i in range(4)])
    trainer = ConseqTrainer(
        model, arguments(tmp_path, per_device_train_batch_size=4), train_dataset=tokenized, processing_class=tokenizer
    )
    trainer.train()
    _assert_same_weights(trainer.model.state_dict(), _by_hand("bart", ROWS))
    as_list = [{name: value for name, value in row.items() if name != "other"} for row in tokenized]
    for rows in (tokenized, as_list, tokenized.to_iterable_dataset().map(lambda row: row)):
        positive = ConseqTrainer(
            without_dropout("bart")[0], arguments(tmp_path, per_device_train_batch_size=4), train_dataset=rows,
            processing_class=tokenizer, positives_only=True,
        )  # fmt: skip
        positive.train()
        _assert_same_weights(positive.model.state_dict(), _by_hand("bart", LIKELIHOOD_ROWS))


def test_documents_may_be_a_list_and_may_be_evaluated(tmp_path: Path) -> None:
    model, tokenizer = without_dropout("bart")
    args = arguments(tmp_path, per_device_train_batch_size=4, per_device_eval_batch_size=4)
    data = Dataset.from_list(ROWS)
    trainer = ConseqTrainer(model, args, train_dataset=ROWS, eval_dataset=ROWS, processing_class=tokenizer)
    expected = trainer.evaluate()["eval_loss"]
    assert trainer.evaluate(data)["eval_loss"] == trainer.evaluate({"one": data})["eval_one_loss"] == expected
    assert trainer.predict(data, metric_key_prefix="test").metrics["test_loss"] == expected
    trainer.train()
    _assert_same_weights(trainer.model.state_dict(), _by_hand("bart", ROWS))
    mixed = [{name: value for name, value in row.items() if n or name != "negative"} for n, row in enumerate(ROWS)]
    examples = ConseqTrainer(model, args, train_dataset=mixed, processing_class=tokenizer).train_dataset
    assert ["negative_labels" in examples[n] for n in range(4)] == [False, True, True, True]
    stream = ConseqTrainer(
        model, args, train_dataset=data.to_iterable_dataset().map(lambda row: row), processing_class=tokenizer
    )
    with pytest.raises(ValueError, match=r"`input_ids` and `labels`; one lacks them.* of a stream yourself"):
        stream.train()


def test_what_it_refuses(tmp_path: Path) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    with pytest.raises(ValueError, match="processing_class: must be the model's tokenizer"):
        ConseqTrainer(model, arguments(tmp_path))
    with pytest.raises(ValueError, match="compute_loss_func: must not be given"):
        ConseqTrainer(model, arguments(tmp_path), processing_class=tokenizer, compute_loss_func=max)
    for option in ({"positives_only": True}, {"unlearn_end": False}):
        with pytest.raises(ValueError, match="data_collator: must be None with positives_only"):
            ConseqTrainer(model, arguments(tmp_path), processing_class=tokenizer, data_collator=list, **option)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    encoder_only = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **size))
    with pytest.raises(ValueError, match="must be an encoder-decoder; got BertForMaskedLM"):
        ConseqTrainer(encoder_only, arguments(tmp_path), processing_class=tokenizer)


def _mean_log_probs(model: Any, encoder: TextEncoder, key: str) -> float:
    """The mean log-probability per token of the rows' summaries in a column, in nats."""
    rows = [{"input_ids": encoder.source(row["document"]), "labels": encoder.target(row[key])} for row in ROWS]
    batch = PairCollator(encoder.prefix, encoder.pad)(rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        return -float(conseq_loss(model.eval()(**batch).logits, labels).mean)


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_it_pushes_the_negatives_down_and_the_positives_up(name: str, tmp_path: Path) -> None:
    """Ten updates from a model that finds both kinds alike likely, with the negatives and without them."""
    after = {}
    for positives_only in (False, True):
        model, tokenizer = without_dropout(name)
        both = [
            {"document": row["document"], "ground_truth": row[key]}
            for row in ROWS
            for key in ("ground_truth", "negative")
        ]
        settings = {"optim": "adamw_torch", "learning_rate": 3e-3, "per_device_train_batch_size": 8, "seed": 1}
        first = ConseqTrainer(
            model,
            arguments(tmp_path, max_steps=30, **settings),
            train_dataset=Dataset.from_list(both),
            processing_class=tokenizer,
        )
        first.train()
        encoder = TextEncoder(model, tokenizer)
        before = {key: _mean_log_probs(model, encoder, key) for key in ("ground_truth", "negative")}
        second = ConseqTrainer(
            model, arguments(tmp_path, max_steps=10, **settings), train_dataset=Dataset.from_list(ROWS),
            processing_class=tokenizer, positives_only=positives_only,
        )  # fmt: skip
        second.train()
        after[positives_only] = {key: _mean_log_probs(model, encoder, key) - value for key, value in before.items()}
    assert after[False]["ground_truth"] > 0 > after[False]["negative"]
    assert after[True]["ground_truth"] > 0
    assert after[False]["negative"] < after[True]["negative"] - 0.1


def test_21_e_a_stream_of_documents_is_refused(tmp_path: Path) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    rows = Dataset.from_list([{"document": "a text", "ground_truth": "a"}])
    with pytest.raises(ValueError, match="train_dataset: must have a length and rows by index; got IterableDataset"):
        ConseqTrainer(model, arguments(tmp_path), train_dataset=rows.to_iterable_dataset(), processing_class=tokenizer)
    with pytest.raises(ValueError, match=r"eval_dataset\['a'\]: must have a length"):
        ConseqTrainer(
            model, arguments(tmp_path), train_dataset=rows, eval_dataset={"a": rows.to_iterable_dataset()},
            processing_class=tokenizer,
        )  # fmt: skip
