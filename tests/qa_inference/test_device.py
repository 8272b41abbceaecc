"""Whether everything a model works with is where the model is, on a CUDA device that is only pretended."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qa_inference.decoding import BeamSearch, DiverseBeamSearch, TopKSampling
from qa_inference.models.decoder_only import DecoderOnly
from qa_inference.models.encoder_decoder import EncoderDecoder, SourceRows
from qa_inference.models.reader import Reader
from qa_inference.models.shared_rows import ScoringRequest
from tests import device, tiny, tiny_causal, tiny_readers

INPUTS = [[5, 9, 30, 11, 3], [8, 21], list(range(10, 22)), [7] * 9]
SEARCHES = [DiverseBeamSearch(7, 0.5, 2, 11), BeamSearch(3, 2, 11), TopKSampling(4, 5, 2, 11)]


def test_the_pretended_device_refuses_what_a_gpu_refuses() -> None:
    with device.pretended() as gpu:
        there, here = torch.ones(2, 3).to("cuda:0"), torch.ones(2, 3)
        assert (there.device.type, (there @ there.T).device.type, there.cpu().device.type) == ("cuda", "cuda", "cpu")
        assert torch.equal((there * 2 + torch.tensor(1.0)).cpu(), here * 3)
        for wrong in (lambda: there + here, lambda: torch.cat([here, there]), lambda: there.copy_(there + here)):
            with pytest.raises(RuntimeError, match="two devices"):
                wrong()
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        gpu.waits.clear()
        _ = there[there > 0], there[torch.tensor([0])], bool(there.any()), there.sum().item()
        assert gpu.waits == {"boolean index": 1, "index from the CPU": 1, "__bool__": 1, "item": 1}


def _all(model: Any, search: Any) -> tuple[list[Any], list[Any]]:
    """What a search finds, and what the likelihoods of it are, as lists."""
    found = model.generate(INPUTS, search, keys=range(len(INPUTS)))
    asked = [
        ScoringRequest(ids, [h.tokens for h in each] * 5) for ids, each in zip(INPUTS, found, strict=True)
    ]  # some rounds
    asked[1] = ScoringRequest(INPUTS[1], asked[1].targets[:2])
    hypotheses = [[(h.tokens.tolist(), h.log_probs.tolist()) for h in each] for each in found]
    return hypotheses, [[array.tolist() for array in each] for each in model.log_likelihood(asked)]


@pytest.mark.parametrize(
    ("name", "search"),
    [
        *((name, SEARCHES[0]) for name in (*tiny.ARCHITECTURES, *tiny_causal.ARCHITECTURES)),
        *((name, search) for name in ("bart", "llama") for search in SEARCHES[1:]),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_models_search_and_score_on_it_as_on_the_cpu(name: str, search: Any) -> None:
    decoder_only = name in tiny_causal.ARCHITECTURES
    kind: Any = DecoderOnly if decoder_only else EncoderDecoder
    make = tiny_causal.checkpoint if decoder_only else tiny.checkpoint
    model, tokenizer = make(name)
    expected = kind(model, tokenizer)
    results = _all(expected, search)
    with device.pretended():
        model, tokenizer = make(name)
        there = kind(model.to("cuda:0"), tokenizer)
        assert there.device.type == "cuda" and getattr(there, "shared", None) == getattr(expected, "shared", None)
        assert _all(there, search) == results


@pytest.mark.parametrize("kind", tiny_readers.KINDS)
def test_readers_read_on_it_as_on_the_cpu(kind: str) -> None:
    question, text = "Who beat Klitschko?", "Anthony Joshua beat Wladimir Klitschko at Wembley Stadium on Saturday."
    model, tokenizer = tiny_readers.checkpoint(kind)
    expected = Reader(model, tokenizer).read([question], [text])
    with device.pretended():
        model, tokenizer = tiny_readers.checkpoint(kind)
        assert Reader(model.to("cuda:0"), tokenizer).read([question], [text]) == expected


def test_a_step_waits_for_the_device_to_read_the_choices_and_for_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: dict[str, list[dict[str, int]]] = {"top": [], "select": [], "__call__": []}
    with device.pretended() as gpu:

        def counted(name: str) -> Any:
            inner = getattr(SourceRows, name)

            def call(rows: SourceRows, *args: Any) -> Any:
                gpu.waits.clear()
                found = inner(rows, *args)
                waits[name].append({kind: count for kind, count in gpu.waits.items() if count})
                return found

            return call

        model, tokenizer = tiny.checkpoint("bart")
        there = EncoderDecoder(model.to("cuda:0"), tokenizer)
        for name in waits:
            monkeypatch.setattr(SourceRows, name, counted(name))
        found = there.generate(INPUTS, SEARCHES[0])
        assert len(waits["top"]) > 5
        assert all(sum(each.values()) == 2 for each in waits["top"])  # log-probabilities and ids are read
        assert not any(waits["select"])
        # the library looks whether its masks hide anything: that of the source, that of the rows
        assert all(each.keys() == {"__bool__"} and each["__bool__"] <= 2 for each in waits["__call__"])
        gpu.waits.clear()
        there.log_likelihood([ScoringRequest(INPUTS[0], [h.tokens for h in found[0]])])
        assert not gpu.waits["boolean index"] and not gpu.waits["index from the CPU"]
