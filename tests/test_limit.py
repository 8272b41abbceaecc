"""The count of operations and the booking of stages of benchmarks/limit.py; what it measures is run by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from qa_inference.models.decoder_only import DecoderOnly
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.shared_rows import ScoringRequest
from tests import programs, tiny, tiny_causal

limit = programs.load("benchmarks/limit.py")


def test_operations_are_counted_where_they_happen() -> None:
    model = EncoderDecoder(*tiny.checkpoint("bart"))
    assert model.decoder.projection.weight is not None
    size, width = model.decoder.projection.weight.shape
    targets = [[9, 12, 4], [30]]
    found = limit.count(lambda: model.log_likelihood([ScoringRequest([5, 9, 30, 11, 3], targets)]))
    # four target tokens are projected; a product of [m, k] and [k, n] is 2 m k n operations
    assert found.by_stage["score: vocabulary projection"] == 2 * 4 * width * size
    assert found.products[4, width, size, torch.float32] == 1
    assert found.by_stage["encode sources"] > 0 and found.by_stage["score: decoder"] > 0
    assert found.by_stage["encode summaries"] == found.by_stage[limit.REST] == 0


def test_the_products_of_attention_are_counted() -> None:
    query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    with torch.inference_mode():
        found = limit.count(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, key))
    assert found.by_stage[limit.REST] == 2 * (2 * 2 * 3 * 5 * 7 * 8)


def test_a_decoder_only_model_encodes_with_its_decoder() -> None:
    model = DecoderOnly(*tiny_causal.checkpoint("llama"))
    found = limit.count(lambda: model.log_likelihood([ScoringRequest([5, 9, 30, 11, 3], [[9, 12, 4], [30]])]))
    assert found.by_stage["encode sources"] > 0 and found.by_stage["score: decoder"] > 0
    assert found.by_stage["score: vocabulary projection"] > 0 and found.by_stage[limit.REST] == 0


def test_time_is_booked_to_the_innermost_stage() -> None:
    readings = iter(range(100))
    stages = limit.Stages(lambda: float(next(readings)))
    model = EncoderDecoder(*tiny.checkpoint("bart"))
    with stages.watching():
        model.encode([[5, 9, 3]])
    assert stages.spent == Counter({limit.REST: 2.0, "encode sources": 1.0})  # one reading at each of its two borders


def test_the_rate_is_that_of_plain_products() -> None:
    products = {(8, 16, 32, torch.float32): 3, (64, 16, 32, torch.bfloat16): 2}
    measured = limit.rate(Counter(products), seconds=0.01)
    assert 1e6 < measured < 1e15


def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps({"document": text, "summary": text}) for text in tiny.CORPUS))
    model, threads = str(tiny.trained(tmp_path / "model")), torch.get_num_threads()
    try:
        limit.main(["--data", str(data), "--limit", "3", "--model", model])
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert printed.count("3 summaries") == 2 and "time ÷ (operations ÷ rate) = " in printed
    for stage in ("tokenize", "encode summaries", "search: decoder", "search: cache", "score: decoder", "the rest"):
        assert printed.count(f"| {stage} |") == 2, stage
    assert "bfloat16 against float32: " in printed and "rank correlation" in printed


def test_21_0_scores_that_are_all_the_same_have_no_rank_correlation() -> None:
    assert "rank correlation nan" in limit.compare(["float32", "bfloat16"], [0.1, 0.2, 0.3], [0.0, 0.0, 0.0])
    assert "rank correlation 1.0000" in limit.compare(["float32", "bfloat16"], [0.1, 0.2, 0.3], [0.2, 0.3, 0.4])
