"""The two operations on toy checkpoints of every architecture, shared and expanded, against one row at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qa_inference.decoding import DiverseBeamSearch, TopKSampling
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions
from qa_inference.models.shared_rows import ScoringRequest, Sharing, counting_folded_calls
from tests import tiny

CPU = LoadingOptions(device="cpu")
HALF = LoadingOptions(device="cpu", dtype="bfloat16")
OFFLINE = LoadingOptions(device="cpu", local_files_only=True)

INPUTS = [[5, 9, 30, 11, 3], [8, 21], list(range(10, 22)), [7] * 9]
SEARCH = DiverseBeamSearch(7, 0.5, 2, 11)
every_architecture = pytest.mark.parametrize("name", tiny.ARCHITECTURES)


def _model(name: str, sharing: str = "auto") -> EncoderDecoder:
    """A toy model behind the interface."""
    return EncoderDecoder(*tiny.checkpoint(name), sharing=sharing)  # type: ignore[arg-type]  # parametrized


@every_architecture
def test_sharing_is_used_where_it_works(name: str) -> None:
    model = _model(name)
    assert model.shared == (name in tiny.SHARING), model.sharing_note
    assert bool(model.sharing_note) != model.shared
    with counting_folded_calls() as folded:
        model.generate(INPUTS, SEARCH)
    assert (folded[0] > 0) == model.shared


def test_sharing_that_is_required_but_impossible() -> None:
    with pytest.raises(ValueError, match=r'cannot share a source between rows .*; use sharing="auto" or "expanded"'):
        _model("led", "shared")


@every_architecture
def test_searches_agree_shared_expanded_and_one_by_one(name: str) -> None:
    auto, expanded = _model(name), _model(name, "expanded")
    found = auto.generate(INPUTS, SEARCH)
    for other in (expanded.generate(INPUTS, SEARCH), [auto.generate([one], SEARCH)[0] for one in INPUTS]):
        for ours, theirs in zip(found, other, strict=True):
            assert [h.tokens.tolist() for h in ours] == [h.tokens.tolist() for h in theirs]
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a.log_probs, b.log_probs, atol=1e-4, rtol=1e-5)


@every_architecture
def test_likelihood_of_what_a_search_found_is_what_it_said(name: str) -> None:
    model = _model(name)
    found = model.generate(INPUTS, SEARCH)
    scored = model.log_likelihood(
        [ScoringRequest(i, [h.tokens for h in hs]) for i, hs in zip(INPUTS, found, strict=True)]
    )
    for hypotheses, arrays in zip(found, scored, strict=True):
        for hypothesis, array in zip(hypotheses, arrays, strict=True):
            np.testing.assert_allclose(array, hypothesis.log_probs, atol=1e-4, rtol=1e-4)


@every_architecture
def test_likelihood_agrees_with_the_bare_model(name: str) -> None:
    model = _model(name)
    network = tiny.checkpoint(name)[0].eval()
    targets = [[9, 12, 4], [30], [8, 8, 8, 15, 3, 21]]
    items = [ScoringRequest(INPUTS[0], targets), ScoringRequest(INPUTS[1], targets[:1]), ScoringRequest(INPUTS[2], [])]
    found = model.log_likelihood(items)
    assert [len(arrays) for arrays in found] == [3, 1, 0]
    for item, arrays in zip(items, found, strict=True):
        for target, array in zip(item.targets, arrays, strict=True):
            decoder = torch.tensor([[*model.prefix, *target[:-1]]])
            with torch.no_grad():
                logits = network(input_ids=torch.tensor([item.source]), decoder_input_ids=decoder).logits
            expected = logits[0, len(model.prefix) - 1 :].log_softmax(-1)[range(len(target)), target]
            np.testing.assert_allclose(array, expected.numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sharing", ["shared", "expanded"])
def test_targets_of_any_number_and_length_are_decoded_in_parts(sharing: Sharing) -> None:
    model = EncoderDecoder(*tiny.checkpoint("bart"), sharing=sharing)
    counts = (19, 0, 150, 8)
    targets = [[[4 + n % 40] * (1 + 7 * n % 13) for n in range(count)] for count in counts]
    items = [ScoringRequest(source, each) for source, each in zip(INPUTS, targets, strict=True)]
    found = model.log_likelihood(items)
    assert [[len(array) for array in arrays] for arrays in found] == [[len(t) for t in each] for each in targets]
    for item, arrays in zip(items, found, strict=True):
        for n in range(0, len(arrays), 7):
            ((one,),) = model.log_likelihood([ScoringRequest(item.source, [item.targets[n]])])
            np.testing.assert_allclose(arrays[n], one, atol=1e-5)


def test_forced_first_tokens_are_input_and_never_scored() -> None:
    model = _model("bart-bpe")
    assert model.prefix == (2, 0)
    ((hypothesis, *_),) = model.generate([INPUTS[0]], DiverseBeamSearch(1, 0.0, 0, 5))
    assert len(hypothesis.tokens) == len(hypothesis.log_probs) <= 5


def test_hypotheses_longer_than_the_decoder_allows_are_refused() -> None:
    assert len(_model("bart").generate(INPUTS[:1], DiverseBeamSearch(2, 0.5, 60, 64))[0]) == 2
    for name in ("bart", "encoder-decoder"):
        with pytest.raises(ValueError, match=r"must leave room in the decoder's 64 positions .* got 65"):
            _model(name).generate(INPUTS, DiverseBeamSearch(2, 0.5, 60, 65))


def test_sampling_needs_keys() -> None:
    model = _model("t5")
    with pytest.raises(ValueError, match="sampling needs `keys`"):
        model.generate(INPUTS, TopKSampling(2))
    found = model.generate(INPUTS, TopKSampling(2, max_new_tokens=6), keys=[1, 2, 3, 4])
    assert [len(hypotheses) for hypotheses in found] == [2, 2, 2, 2]


def test_a_checkpoint_is_loaded_from_a_folder(tmp_path: Path) -> None:
    for name in ("bart", "t5", "encoder-decoder"):
        folder = tiny.save(name, tmp_path / name)
        loaded, made = EncoderDecoder.load(str(folder), CPU), _model(name)
        assert (loaded.prefix, loaded.vocabulary, loaded.window) == (made.prefix, made.vocabulary, made.window)
        ours, theirs = loaded.generate(INPUTS[:2], SEARCH), made.generate(INPUTS[:2], SEARCH)
        assert [[h.tokens.tolist() for h in hs] for hs in ours] == [[h.tokens.tolist() for h in hs] for hs in theirs]


def test_bin_weights_are_read(tmp_path: Path) -> None:
    folder = tiny.save("t5", tmp_path / "t5")
    torch.save(tiny.checkpoint("t5")[0].state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert EncoderDecoder.load(str(folder), CPU).window == 64


def test_bfloat16_scores_are_close_and_shared(tmp_path: Path) -> None:
    folder = str(tiny.save("bart", tmp_path / "bart"))
    half, full = EncoderDecoder.load(folder, HALF), EncoderDecoder.load(folder, CPU)
    assert half.shared and half.model.dtype == torch.bfloat16
    items = [ScoringRequest(INPUTS[0], [[9, 12, 4]])]
    np.testing.assert_allclose(half.log_likelihood(items)[0][0], full.log_likelihood(items)[0][0], atol=0.5)


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"model '.*nothing': must be a folder or a Hub name"):
        EncoderDecoder.load(str(tmp_path / "nothing"), OFFLINE)
    folder = tiny.save("bart", tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises((OSError, ValueError), match=r"model '.*broken': must be a folder or a Hub name"):
        EncoderDecoder.load(str(folder), CPU)
