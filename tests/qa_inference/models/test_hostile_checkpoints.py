"""Checkpoints that are damaged, wrong or out of reach: each is refused in one line that names it and the remedy."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, XLNetConfig, XLNetForQuestionAnsweringSimple

from qa_inference.decoding import DiverseBeamSearch
from qa_inference.models import loading
from qa_inference.models.decoder_only import DecoderOnly, is_decoder_only
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions
from qa_inference.models.reader import Reader
from qa_inference.models.shared_rows import ScoringRequest
from qa_inference.tokenization import LARGEST_ID, TextTokenizer
from tests import tiny, tiny_causal, tiny_readers

CPU = LoadingOptions(device="cpu")
KINDS: dict[str, tuple[Any, Callable[[Path], Path], str]] = {
    "encoder-decoder": (EncoderDecoder, lambda folder: tiny.save("bart", folder), "model.decoder.layers.0.fc1.weight"),
    "decoder-only": (
        DecoderOnly,
        lambda folder: tiny_causal.save("llama", folder),
        "model.layers.0.mlp.up_proj.weight",
    ),
    "reader": (Reader, lambda folder: tiny_readers.save("bert", folder), "bert.encoder.layer.0.output.dense.weight"),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def _changed(kind: str, folder: Path, change: Callable[[dict[str, Any]], Any]) -> tuple[Any, Path]:
    """The class of a kind, and a toy checkpoint of it whose weights `change` has changed."""
    loader, save, _ = KINDS[kind]
    file = save(folder) / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})
    return loader, folder


# ---- weights --------------------------------------------------------------------------------------------------------


@every_kind
def test_21_a2_missing_weights_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    name = KINDS[kind][2]
    loader, folder = _changed(kind, tmp_path / "lacking", lambda weights: weights.pop(name))
    with pytest.raises(
        ValueError, match=rf"model '.*lacking': must be a complete checkpoint of .*; it lacks {name}\. Use"
    ):
        loader.load(str(folder), CPU)


@every_kind
def test_21_a2_unexpected_weights_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    loader, folder = _changed(kind, tmp_path / "odd", lambda weights: weights.update({"odd.weight": torch.ones(2)}))
    with pytest.raises(ValueError, match=r"model '.*odd': must be a complete .*; it also has odd\.weight\."):
        loader.load(str(folder), CPU)


@every_kind
def test_21_a2_weights_of_a_wrong_shape_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    name = KINDS[kind][2]
    loader, folder = _changed(kind, tmp_path / "odd", lambda weights: weights.update({name: torch.ones(5, 7)}))
    with pytest.raises(ValueError, match=rf"it has {name} as \(5, 7\) instead of \(\d+, \d+\)\."):
        loader.load(str(folder), CPU)


def test_21_a2_all_faults_are_told_and_long_lists_are_cut(tmp_path: Path) -> None:
    def change(weights: dict[str, Any]) -> None:
        for name in [name for name in weights if ".layers.1." in name]:
            weights[f"other.{name}"] = weights.pop(name)

    loader, folder = _changed("encoder-decoder", tmp_path, change)
    with pytest.raises(
        ValueError, match=r"it lacks model\.decoder\..* and \d+ more, and also has other\..* and \d+ more\."
    ):
        loader.load(str(folder), CPU)


@pytest.mark.parametrize("name", ["bart", "t5", "gpt2"])
def test_21_a2_tied_weights_are_not_missing_but_one_of_them_is_needed(name: str, tmp_path: Path) -> None:
    loader: Any = DecoderOnly if name == "gpt2" else EncoderDecoder
    file = (tiny_causal if name == "gpt2" else tiny).save(name, tmp_path) / "model.safetensors"
    weights = load_file(file)
    embeddings = [key for key in weights if key.endswith(("shared.weight", "wte.weight"))]
    assert len(embeddings) == 1 and "lm_head.weight" not in weights
    loader.load(str(tmp_path), CPU)
    save_file({key: weights[key] for key in weights.keys() - set(embeddings)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"it lacks .*{embeddings[0]}"):
        loader.load(str(tmp_path), CPU)


def test_21_a2_a_pooler_that_no_reader_uses_is_no_fault(tmp_path: Path) -> None:
    """Checkpoints that older programs fine-tuned have one."""
    extra = {"bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32)}
    loader, folder = _changed("reader", tmp_path, lambda weights: weights.update(extra))
    assert loader.load(str(folder), CPU).read(["Who?"], ["a bridge"])[0].num_windows == 1


@every_kind
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_21_a6_weights_that_are_no_numbers_are_named(kind: str, number: float, tmp_path: Path) -> None:
    """At load where the probe meets them, else when they are met."""
    loader, folder = _changed(kind, tmp_path / "nan", lambda weights: weights[KINDS[kind][2]].fill_(number))
    with pytest.raises(
        ValueError, match=r"model '.*nan': must compute finite numbers; .* is (nan|-?inf)\. Its weights hold"
    ):
        loader.load(str(folder), CPU).read(["Who?"], ["a bridge"])


@every_kind
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_21_a6_every_weight_is_looked_at(kind: str, number: float, tmp_path: Path) -> None:
    """Also those that no number shows: attention takes a query whose scores are NaN for one that attends to nothing."""
    names: list[str] = []

    def change(weights: dict[str, Any]) -> None:
        names.append(next(key for key in weights if "self_attn.q_proj.weight" in key or "self.query.weight" in key))
        weights[names[0]][0, 1] = number

    loader, folder = _changed(kind, tmp_path / "nan", change)
    with pytest.raises(ValueError, match=rf"must compute finite numbers; a number of {names[0]} is {number}\. Its"):
        loader.load(str(folder), CPU)


@pytest.mark.parametrize("kind", ["encoder-decoder", "decoder-only"])
def test_21_a6_a_single_token_without_a_finite_embedding_is_found_when_it_is_met(kind: str, tmp_path: Path) -> None:
    loader, folder = _changed(
        kind,
        tmp_path / "nan",
        lambda weights: next(w for k, w in weights.items() if "embed_tokens" in k or "shared" in k)[40].fill_(
            float("nan")
        ),
    )
    model = loader.load(str(folder), CPU) if kind == "decoder-only" else None
    if model is None:  # tied to the output: every logit row has it, and the probe meets it
        with pytest.raises(ValueError, match=r"model '.*nan': must compute finite numbers; a logit is nan\."):
            loader.load(str(folder), CPU)
        return
    assert len(model.generate([[5, 9, 3]], DiverseBeamSearch(2, 0.5, 1, 3))[0]) == 2
    for call in (
        lambda: model.generate([[5, 40, 3]], DiverseBeamSearch(2, 0.5, 1, 3)),
        lambda: model.log_likelihood([ScoringRequest([5, 9, 3], [[7, 40, 8]])]),
    ):
        with pytest.raises(ValueError, match=r"model '.*nan': must compute finite numbers; .*log-probability is nan\."):
            call()


def test_21_e_pickled_objects_are_refused_and_nobody_is_advised_to_read_them(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    for number, content in enumerate((Code(), {"shared.weight": torch.ones(2), "path": tmp_path})):
        folder = tiny.save("t5", tmp_path / str(number))
        (folder / "model.safetensors").unlink()
        torch.save(content, folder / "pytorch_model.bin")
        with pytest.raises(
            ValueError, match=r"model '.*': its \.bin files must hold weights .* Use a checkpoint in safe"
        ) as caught:
            EncoderDecoder.load(str(folder), CPU)
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
        assert isinstance(caught.value.__cause__, pickle.UnpicklingError)
    assert not (tmp_path / "ran").exists()


# ---- tokenizers -----------------------------------------------------------------------------------------------------


def test_21_e_ids_without_an_embedding_are_refused() -> None:
    size = len(tiny.wordpiece())
    model = EncoderDecoder(*tiny.checkpoint("bart"))
    causal = DecoderOnly(*tiny_causal.checkpoint("llama"))
    reader = Reader(*tiny_readers.checkpoint("bert"))
    (window,) = reader.windows("Who?", "a bridge")
    window.ids[3] = 40_000
    search = DiverseBeamSearch(2, 0.5, 1, 3)
    for call, wrong in (
        (lambda: model.generate([[5, size]], search), size),
        (lambda: model.log_likelihood([ScoringRequest([5, -1], [[5]])]), -1),
        (lambda: model.log_likelihood([ScoringRequest([5], [[5, 40_000]])]), 40_000),
        (lambda: causal.generate([[40_000, 5]], search), 40_000),
        (lambda: causal.generate([[5, 40_000]], search), 40_000),
        (lambda: causal.log_likelihood([ScoringRequest([5, 40_000], [[5]])]), 40_000),
        (lambda: causal.log_likelihood([ScoringRequest([5, 6], [[40_000]])]), 40_000),
        (lambda: reader.spans([window]), 40_000),
    ):
        with pytest.raises(
            ValueError, match=rf"^token ids: must be from 0 to \d+, one for each .*; got {wrong}\. Load model"
        ):
            call()


def test_21_e_a_padding_token_without_an_embedding_is_not_used() -> None:
    network, tokenizer = tiny_causal.checkpoint("llama")
    network.config.pad_token_id = network.generation_config.pad_token_id = -1  # as Llama's configurations have it
    model = DecoderOnly(network, tokenizer)
    assert model.vocabulary.pad == 0
    assert len(model.generate([[5, 9, 3], [7]], DiverseBeamSearch(2, 0.5, 1, 3))) == 2


def test_21_e_ids_too_large_for_an_array_are_refused_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a lower limit: the tokenizers library takes gigabytes for a vocabulary with an id that large."""
    assert LARGEST_ID < 2**31  # ids are kept as 32-bit integers
    made = tiny.byte_bpe()
    largest = max(made.get_vocab().values())
    monkeypatch.setattr("qa_inference.tokenization.LARGEST_ID", largest)
    TextTokenizer(made)
    monkeypatch.setattr("qa_inference.tokenization.LARGEST_ID", largest - 1)
    with pytest.raises(ValueError, match=f"token ids must be at most {largest - 1}; got {largest}"):
        TextTokenizer(made)


def test_21_e_a_tokenizer_whose_pattern_explodes_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    inner = Tokenizer(models.BPE({"a": 0, "b": 1, "</s>": 2}, []))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"(a+)+$"), "isolated")
    tokenizer = TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>"))
    assert len(tokenizer.encode("aab").ids) == 3
    with pytest.raises(
        ValueError, match=r"^tokenizer: must be able to split every text; it failed \(.*\) on a text of 61 "
    ):
        tokenizer.encode("a" * 60 + "b")
    capfd.readouterr()  # the library's own account of its panic


def test_21_e_a_reader_without_a_limit_of_positions_is_not_said_to_have_minus_one() -> None:
    made = tiny_readers.tokenizer("bert")
    config = XLNetConfig(vocab_size=len(made), d_model=16, n_layer=1, n_head=2, d_inner=16)
    assert config.max_position_embeddings == -1
    assert Reader(XLNetForQuestionAnsweringSimple(config), made).window == 384


# ---- the Hub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoadingOptions:
    """Options with no download of the machine's in reach, in a process that may ask the Hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return LoadingOptions(device="cpu", cache_dir=str(tmp_path))


@pytest.mark.parametrize("loader", [EncoderDecoder, DecoderOnly, Reader])
def test_21_d27_a_hub_name_without_a_network_fails_at_once_and_guesses_no_kind(
    loader: Any, online: LoadingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not is_decoder_only("google/gemma-3-270m", online)
    with pytest.raises(
        OSError, match=r"model 'google/gemma-3-270m': .* not on this machine, and the Hub cannot be asked"
    ) as caught:
        loader.load("google/gemma-3-270m", online)
    assert "127.0.0.1:9" in str(caught.value) and "decoder" not in str(caught.value)


def test_21_d27_a_hub_that_does_not_answer_is_given_up(online: LoadingOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(loading, "HUB_SECONDS", 0.2)
        options, trouble = online.reaching("owner/name")
    assert options.local_files_only and "127.0.0.1" in trouble


def test_21_d27_offline_by_choice_is_told_as_such(online: LoadingOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"the Hub cannot be asked \(local_files_only is set\)"):
        EncoderDecoder.load(
            "owner/name", LoadingOptions(device="cpu", cache_dir=online.cache_dir, local_files_only=True)
        )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert online.reaching("owner/name") == (online, "HF_HUB_OFFLINE is set")


def test_21_d27_a_folder_is_no_question_for_the_hub(online: LoadingOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "get_session", None)
    folder = str(tiny.save("bart", Path(str(online.cache_dir)) / "bart"))
    assert online.reaching(folder) == (online, "")
    assert EncoderDecoder.load(folder, online).shared
