"""The two operations on toy decoder-only models, shared and expanded, against a loop without cache or sharing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import MambaConfig, MambaForCausalLM

from qa_inference.decoding import BeamSearch, DiverseBeamSearch, TopKSampling
from qa_inference.models import projection
from qa_inference.models._shared_prefix import Prefix, reading, shared_prefix_attention
from qa_inference.models.decoder_only import DecoderOnly, is_decoder_only
from qa_inference.models.loading import LoadingOptions
from qa_inference.models.shared_rows import ScoringRequest, counting_folded_calls
from tests import tiny, tiny_causal

CPU = LoadingOptions(device="cpu")
HALF = LoadingOptions(device="cpu", dtype="bfloat16")
OFFLINE = LoadingOptions(device="cpu", local_files_only=True)

HEAD = [0, 31, 7, 44, 12, 9, 60, 13]  # longer than the toys' sliding windows
INPUTS = [[*HEAD, 5, 9, 30, 11, 3], [*HEAD, 8], [*HEAD, *range(10, 22)], [*HEAD, *[7] * 9]]
TARGETS = [[9, 12, 1], [30], [8, 8, 8, 15, 3, 21, 50, 51]]
ENDS = (1, 21, *range(60, 384, 9))
SEARCH = DiverseBeamSearch(6, 0.5, 2, 9)
every_architecture = pytest.mark.parametrize("name", tiny_causal.ARCHITECTURES)


def _model(name: str, sharing: str = "auto") -> DecoderOnly:
    """A toy model behind the interface."""
    return DecoderOnly(*tiny_causal.checkpoint(name), sharing=sharing)  # type: ignore[arg-type]  # parametrized


class Bare:
    """A toy model as the library makes it: every row alone, whole, without a cache."""

    def __init__(self, name: str) -> None:
        self.network: Any = tiny_causal.checkpoint(name)[0].eval()

    def log_probs(self, ids: list[int]) -> Tensor:
        """The log-probabilities [T, V] after every token."""
        with torch.no_grad():
            logits = self.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        return torch.as_tensor(logits).float().log_softmax(-1)

    def diverse_beam(self, ids: list[int], search: DiverseBeamSearch, pad: int) -> list[list[int]]:
        """Diverse beam search of one source as its rules read: one group after the other."""
        groups: list[list[int]] = [[] for _ in range(search.groups)]
        ended = [False] * search.groups
        for t in range(search.max_new_tokens):
            chosen: Counter[int] = Counter()
            for g, tokens in enumerate(groups):
                if ended[g]:
                    chosen[pad] += 1
                    continue
                scores = self.log_probs([*ids, *tokens])[-1]
                for token, count in chosen.items():
                    scores[token] -= search.strength * count
                if t < search.min_new_tokens:
                    scores[list(ENDS)] = -torch.inf
                order = scores.argsort(descending=True, stable=True).tolist()
                tokens.append(order[0])
                ended[g] = order[0] in ENDS
                chosen[next(token for token in order if token not in ENDS)] += 1
        return groups


@every_architecture
def test_sharing_is_used_where_it_works(name: str) -> None:
    model = _model(name)
    assert model.shared == (name in tiny_causal.SHARING), model.sharing_note
    assert bool(model.sharing_note) != model.shared
    with counting_folded_calls() as folded:
        model.generate(INPUTS, SEARCH)
    assert (folded[0] > 0) == model.shared


@every_architecture
def test_only_what_is_scored_is_projected(name: str) -> None:
    """The matrix is used, with the scale and the bend that these architectures have, not the model's own logits."""
    used = _model(name).decoder.projection
    assert used.weight is not None
    assert (used.scale, getattr(used, "cap", None)) == (
        0.0625 if name == "cohere" else 1.0,
        3.0 if name == "gemma2" else None,
    )


@every_architecture
@pytest.mark.parametrize("sharing", ["auto", "expanded"])
def test_searches_agree_with_the_rules_uncached_and_unshared(name: str, sharing: str) -> None:
    model, bare = _model(name, sharing), Bare(name)
    found = model.generate(INPUTS, SEARCH, end_ids=ENDS[1:])
    for ids, hypotheses in zip(INPUTS, found, strict=True):
        expected = bare.diverse_beam(ids, SEARCH, model.vocabulary.pad)
        assert [h.tokens.tolist() for h in hypotheses] == expected
        for hypothesis in hypotheses[:2]:
            tokens = hypothesis.tokens.tolist()
            rows = bare.log_probs([*ids, *tokens])[len(ids) - 1 : -1]
            np.testing.assert_allclose(hypothesis.log_probs, rows[range(len(tokens)), tokens], atol=1e-4, rtol=1e-4)
    assert any(h.ended for hs in found for h in hs)


@every_architecture
@pytest.mark.parametrize("sharing", ["auto", "expanded"])
def test_likelihood_agrees_with_the_bare_model(name: str, sharing: str) -> None:
    model, bare = _model(name, sharing), Bare(name)
    items = [
        ScoringRequest(INPUTS[0], TARGETS),
        ScoringRequest(INPUTS[1], TARGETS[:1]),
        ScoringRequest(INPUTS[2], []),
        ScoringRequest([5], TARGETS),
    ]
    found = model.log_likelihood(items)
    assert [len(arrays) for arrays in found] == [3, 1, 0, 3]
    for item, arrays in zip(items, found, strict=True):
        for target, array in zip(item.targets, arrays, strict=True):
            rows = bare.log_probs([*item.source, *target])[len(item.source) - 1 : -1]
            np.testing.assert_allclose(array, rows[range(len(target)), list(target)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sharing", ["auto", "expanded"])
def test_a_head_that_is_no_plain_matrix_gives_the_same(sharing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, items = _model("llama"), [ScoringRequest(ids, TARGETS) for ids in INPUTS]
    monkeypatch.setattr(projection, "_candidates", lambda model, size: [])
    other = _model("llama", sharing)
    assert other.decoder.projection.weight is None and other.shared == (sharing == "auto")
    ours, theirs = other.generate(INPUTS, SEARCH), plain.generate(INPUTS, SEARCH)
    assert [[h.tokens.tolist() for h in hs] for hs in ours] == [[h.tokens.tolist() for h in hs] for hs in theirs]
    for found, expected in zip(other.log_likelihood(items), plain.log_likelihood(items), strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


def test_a_source_with_very_many_targets_is_scored_in_parts() -> None:
    model = _model("llama")
    targets = [[4 + i % 40, 9, 3] for i in range(150)]
    many, few = model.log_likelihood([ScoringRequest(INPUTS[0], targets), ScoringRequest(INPUTS[2], targets[:2])])
    assert (len(many), len(few)) == (150, 2)
    for i in (0, 63, 64, 149):
        alone = model.log_likelihood([ScoringRequest(INPUTS[0], [targets[i]])])[0][0]
        np.testing.assert_allclose(many[i], alone, atol=1e-5)


def test_what_inputs_begin_with_is_read_once_for_all_batches() -> None:
    model = _model("gemma3")
    before = model.decoder.tokens_read  # by the probe
    model.generate(INPUTS[:2], SEARCH)
    first = model.decoder.tokens_read
    assert first - before == len(HEAD) + sum(len(ids) - 1 - len(HEAD) for ids in INPUTS[:2])
    found = model.generate(INPUTS[2:], SEARCH)
    assert model.decoder.tokens_read - first == sum(len(ids) - 1 - len(HEAD) for ids in INPUTS[2:])
    model.decoder.forget()
    again = model.generate(INPUTS[2:], SEARCH)
    assert [h.tokens.tolist() for hs in found for h in hs] == [h.tokens.tolist() for hs in again for h in hs]


def test_other_prompts_are_not_taken_for_the_one_read_last() -> None:
    model, bare = _model("llama"), Bare("llama")
    for source in ([*HEAD, 5, 6], [*HEAD[:4], 9, 9, 9], [3, 5], [*HEAD, 5, 6, 7]):
        (((array,)),) = model.log_likelihood([ScoringRequest(source, [TARGETS[0]])])
        rows = bare.log_probs([*source, *TARGETS[0]])[len(source) - 1 : -1]
        np.testing.assert_allclose(array, rows[range(3), TARGETS[0]], atol=1e-4, rtol=1e-4)


def test_other_searches() -> None:
    model = _model("qwen3")
    for search in (BeamSearch(3, 2, 8), DiverseBeamSearch(1, 0.0, 0, 5)):
        ours, theirs = model.generate(INPUTS, search), [model.generate([ids], search)[0] for ids in INPUTS]
        assert [[h.tokens.tolist() for h in hs] for hs in ours] == [[h.tokens.tolist() for h in hs] for hs in theirs]
    with pytest.raises(ValueError, match="sampling needs `keys`"):
        model.generate(INPUTS, TopKSampling(2))
    assert [len(hs) for hs in model.generate(INPUTS, TopKSampling(2, max_new_tokens=6), keys=[1, 2, 3, 4])] == [2] * 4


def test_padding_moves_from_the_right_to_the_left() -> None:
    keys = torch.arange(6.0).reshape(2, 1, 3, 1)
    prefix, visible = Prefix((keys,), (-keys,), torch.tensor([3, 2])).left_padded()
    assert visible.tolist() == [[True, True, True], [False, True, True]]
    assert prefix.keys[0][0].flatten().tolist() == [0, 1, 2]
    assert prefix.keys[0][1].flatten().tolist()[1:] == [3, 4]
    assert prefix.values[0][1].flatten().tolist()[1:] == [-3, -4]


def test_a_text_longer_than_the_positions_is_refused() -> None:
    model = _model("gpt2")
    assert model.window == 512 - 128
    for call in (
        lambda: model.generate([[5] * 505], SEARCH),
        lambda: model.log_likelihood([ScoringRequest([5] * 505, [[6] * 9])]),
    ):
        with pytest.raises(ValueError, match=r"must fit the model's 512 positions; got 505 tokens to read and"):
            call()


def test_models_whose_memory_is_no_list_of_tokens_are_refused() -> None:
    made = tiny_causal.tokenizer()
    config = MambaConfig(vocab_size=len(made), hidden_size=16, num_hidden_layers=1, eos_token_id=1, pad_token_id=2)
    with pytest.raises(ValueError, match=r"MambaForCausalLM: must continue a prefix that it has read; .*"):
        DecoderOnly(MambaForCausalLM(config), made)
    with pytest.raises(ValueError, match=r'cannot share a source between rows .*; use sharing="auto" or "expanded"'):
        _model("bloom", "shared")


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_checkpoint_is_loaded_from_a_folder(name: str, tmp_path: Path) -> None:
    folder = str(tiny_causal.save(name, tmp_path / name))
    assert is_decoder_only(folder)
    loaded, made = DecoderOnly.load(folder, CPU), _model(name)
    assert (loaded.vocabulary, loaded.window, loaded.shared) == (made.vocabulary, made.window, True)
    ours, theirs = loaded.generate(INPUTS[:2], SEARCH), made.generate(INPUTS[:2], SEARCH)
    assert [[h.tokens.tolist() for h in hs] for hs in ours] == [[h.tokens.tolist() for h in hs] for hs in theirs]


def test_a_model_spread_by_a_device_map_gives_the_same(tmp_path: Path) -> None:
    folder = str(tiny_causal.save("llama", tmp_path / "llama"))
    mapped, plain = DecoderOnly.load(folder, device_map="auto"), DecoderOnly.load(folder, CPU)
    items = [ScoringRequest(INPUTS[0], TARGETS)]
    for ours, theirs in zip(mapped.log_likelihood(items)[0], plain.log_likelihood(items)[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_bfloat16_scores_are_close_and_shared(tmp_path: Path) -> None:
    folder = str(tiny_causal.save("llama", tmp_path / "llama"))
    half, full = DecoderOnly.load(folder, HALF), DecoderOnly.load(folder, CPU)
    assert half.shared and half.model.dtype == torch.bfloat16
    items = [ScoringRequest(INPUTS[0], TARGETS[:1])]
    np.testing.assert_allclose(half.log_likelihood(items)[0][0], full.log_likelihood(items)[0][0], atol=0.5)


def test_bfloat16_tells_scores_apart_where_keys_have_a_large_bias() -> None:
    """As Qwen2's have: scores are around 300, where numbers of bfloat16 are 2 apart."""
    random = torch.Generator().manual_seed(0)
    query, own, of_prefix, values, own_values = (
        torch.randn(size, generator=random).bfloat16()
        for size in ((2, 4, 1, 8), (2, 2, 1, 8), (1, 2, 20, 8), (1, 2, 20, 8), (2, 2, 1, 8))
    )
    bias = torch.tensor([300.0] + [0.0] * 7).bfloat16()
    query, own, of_prefix = query + bias.sign(), own + bias, of_prefix + bias
    layer = torch.nn.Module()
    layer.layer_idx = 0  # type: ignore[assignment]  # as the library's layers have it
    with reading(Prefix((of_prefix,), (values,), torch.tensor([20]))):
        mask = torch.ones(1, 1, 1, 21, dtype=torch.bool)
        found = shared_prefix_attention(layer, query, own, own_values, mask, scaling=1.0)[0]
    keys, values = (
        torch.cat([part.expand(2, -1, -1, -1), rows], 2).repeat_interleave(2, 1).double()
        for part, rows in ((of_prefix, own), (values, own_values))
    )
    expected = ((query.double() @ keys.mT).softmax(-1) @ values).transpose(1, 2)
    torch.testing.assert_close(found.double(), expected, atol=0.03, rtol=0.0)


def test_what_kind_a_checkpoint_is(tmp_path: Path) -> None:
    assert not is_decoder_only(str(tiny.save("bart", tmp_path / "bart")))
    assert not is_decoder_only(str(tiny.save("encoder-decoder", tmp_path / "both")))
    assert not is_decoder_only(str(tmp_path / "nothing"), OFFLINE)


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"model '.*nothing': must be a folder or a Hub name of a decoder-only model"):
        DecoderOnly.load(str(tmp_path / "nothing"), OFFLINE)
    folder = tiny_causal.save("llama", tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises((OSError, ValueError), match=r"model '.*broken': must be a folder or a Hub name"):
        DecoderOnly.load(str(folder), CPU)


def test_a_gguf_file_gives_what_its_model_does(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the package `gguf` is optional")
    tiny_causal.save_gguf(tmp_path / "toy.gguf")
    loaded = DecoderOnly.load(str(tmp_path), CPU, gguf_file="toy.gguf")
    assert loaded.shared and loaded.vocabulary.ends == (1,)
    assert loaded.text.encode(tiny.CORPUS[0]).ids == _model("qwen2").text.encode(tiny.CORPUS[0]).ids
    items = [ScoringRequest(INPUTS[0], TARGETS), ScoringRequest(INPUTS[1], TARGETS)]
    found, expected = (model.log_likelihood(items) for model in (loaded, _model("qwen2")))
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)
