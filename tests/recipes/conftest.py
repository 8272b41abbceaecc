"""A toy encoder to start from, and rows to train on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from tests import tiny, tiny_t5

LICENCE = "  1 This software and database is being provided to you, the LICENSEE\n"


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["without bfloat16", "with bfloat16"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Processors of both kinds: the type in which products are fast is set, not asked of this one."""
    monkeypatch.setattr("recipes.cpu_training.DTYPE", request.param)
    return request.param


@pytest.fixture(scope="package")
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


@pytest.fixture(scope="package")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy T5 to start from."""
    return tiny_t5.save(tmp_path_factory.mktemp("t5") / "start")


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Rows of both kinds, with and without answers, in a plain and a compressed file."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"context": f"{tiny.CORPUS[i]} It was number {n} .", "question": question, "answer": answer}
        for n in range(30)
        for i, question, answer in [*tiny.PAIRS, (0, "Who beat Klitschko at Wembley Stadium?", "Anthony Joshua")]
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with gzip.open(folder / "questions.jsonl.gz", "wt") as lines:
        lines.write(
            "\n".join(json.dumps({"sentence": f"it was {n} .", "question": "what was it ?"}) for n in range(40))
        )
    return [str(folder / "pairs.jsonl"), str(folder / "questions.jsonl.gz")]


@pytest.fixture(scope="package")
def write_wordnet(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, str], dict[str, str]], Path]:
    """Writes the lines of `index.*` and `data.*` by part of speech, behind a licence; gives their folder."""

    def write(index: dict[str, str], data: dict[str, str]) -> Path:
        folder = tmp_path_factory.mktemp("wordnet")
        for kind, lines in (("index", index), ("data", data)):
            for part, text in lines.items():
                (folder / f"{kind}.{part}").write_text(LICENCE + text)
        return folder

    return write
