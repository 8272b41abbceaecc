"""The recipe of the embedded QAGen, on toy data and a toy encoder."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from qa_inference.decoding import DiverseBeamSearch
from qa_inference.seq2seq import Seq2Seq
from tests import tiny


def _recipe() -> ModuleType:
    """The recipe as a module; recipes are programs, not a package."""
    path = Path(__file__).parents[2] / "recipes" / "train_qagen.py"
    spec = importlib.util.spec_from_file_location("train_qagen", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["train_qagen"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


recipe = _recipe()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy BERT encoder of six layers, with two unused entries in its vocabulary."""
    folder = tmp_path_factory.mktemp("base") / "bert"
    spec = json.loads(tiny.wordpiece().backend_tokenizer.to_str())
    vocab = {t: i for t, i in spec["model"]["vocab"].items() if t not in ("<sep>", "<hl>")}
    spec["model"]["vocab"] = vocab | {"[unused0]": 5, "[unused1]": 6}
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in vocab]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(spec["model"]["vocab"]), hidden_size=32, num_hidden_layers=6, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=512,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    Tokenizer.from_str(json.dumps(spec)).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Rows of both kinds, with and without answers, in a plain and a compressed file."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"context": f"{tiny.CORPUS[i]} It was number {n} .", "question": question, "answer": answer}
        for n in range(30)
        for i, question, answer in tiny.PAIRS
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with gzip.open(folder / "questions.jsonl.gz", "wt") as lines:
        lines.write(
            "\n".join(json.dumps({"sentence": f"it was {n} .", "question": "what was it ?"}) for n in range(40))
        )
    return [str(folder / "pairs.jsonl"), str(folder / "questions.jsonl.gz")]


def _log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_encoder_computes_what_bert_does(base: Path) -> None:
    bert = BertModel.from_pretrained(base, add_pooling_layer=False).eval()
    bart = recipe.bart_from_bert(bert, recipe.load_tokenizer(base)).eval()
    ids = torch.tensor([[2, 9, 30, 41, 3]])
    with torch.no_grad():
        difference = bart.model.encoder(ids).last_hidden_state - bert(ids).last_hidden_state
    assert difference.abs().max() < 1e-2  # the layer norms' epsilons differ


def test_it_trains_logs_and_leaves_a_checkpoint_that_resumes(base: Path, data: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        "--data",
        *data,
        "--base",
        str(base),
        "--out",
        str(out),
        "--tokens",
        "400",
        "--pairs",
        "4",
        "--threads",
        "1",
    ]
    recipe.main([*command, "--minutes", "0.05"])
    rows = _log(out)
    assert rows[0]["settings"]["tokens"] == 400 and rows[0]["held_out"] > 0 and rows[-1]["final"]
    assert {"loss_0", "loss_510", "answer_loss_0"} <= rows[-1].keys()
    recipe.main([*command, "--minutes", "0.1"])
    assert _log(out)[-1]["step"] > rows[-1]["step"] > 0
    model = Seq2Seq.load(str(out / "checkpoint"), device="cpu")
    assert model.shared and model.window == 512 and model.text.special_id("<sep>") == 5
    assert model.text.special_id("<hl>") == 6
    (found,) = model.generate([[2, 9, 30, 3]], DiverseBeamSearch(4, 0.5, 2, 8))
    assert len(found) == 4


def test_folded_targets_have_the_loss_of_single_ones(base: Path) -> None:
    tokenizer = recipe.load_tokenizer(base)
    model = recipe.bart_from_bert(BertModel.from_pretrained(base, add_pooling_layer=False), tokenizer).eval()
    special = {"bos": 2, "eos": 3, "pad": 0, "sep": 5, "hl": 6}
    rows = [[9, 10, 5, 11, 3], [12, 5, 13, 3], [14, 15, 16, 17, 5, 18, 3]]
    many = [recipe.Example([2, 20, 21, 22, 3], rows), recipe.Example([2, 30, 3], rows)]  # folded
    few = [recipe.Example([2, 20, 21, 22, 3], rows[:1]), recipe.Example([2, 30, 3], rows)]  # looked up
    recipe.prepare(model)
    for examples in (many, few):
        with torch.no_grad():
            together = sum(
                float(losses.sum()) for losses, _ in recipe.token_losses(model, recipe.collate(examples, special))
            )
            alone = 0.0
            for example in examples:
                for target in example.targets:
                    batch = recipe.collate([recipe.Example(example.source, [target])], special)
                    alone += sum(float(losses.sum()) for losses, _ in recipe.token_losses(model, batch))
        assert together == pytest.approx(alone, rel=5e-3)  # bfloat16


@pytest.mark.parametrize(
    ("tokenized", "text"),
    [
        ("`` I ca n't , '' he said .", '" I can\'t, " he said.'),
        ("-lrb- afc -rrb- 's $ 5", "(afc)'s $5"),
    ],
)
def test_detokenize(tokenized: str, text: str) -> None:
    assert recipe.detokenize(tokenized) == text


def test_an_answer_that_is_no_run_of_the_context_trains_its_question_only() -> None:
    assert recipe.make_pair([1, 2], [7, 8], [5, 7, 8]).answer_start == 1
    assert recipe.make_pair([1, 2], [7, 9], [5, 7, 8]).answer is None
    assert recipe.make_pair([1] * 70, [7], [7]).answer is None
