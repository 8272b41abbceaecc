"""The real lm-evaluation-harness evaluates a toy model on three documents."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from quals_metric.integrations import lm_eval_metric
from tests import tiny_causal
from tests.quals_metric.integrations.harness_toys import DOCUMENTS, fake_scores

TASK = """
task: summaries
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: generate_until
doc_to_text: "{{{{document}}}} Summary:"
doc_to_target: document
generation_kwargs:
  until: ["</s>"]
  max_gen_toks: 6
metric_list:
  - metric: !function quals_metric.integrations.lm_eval.quals
    aggregation: !function quals_metric.integrations.lm_eval.mean_quals
    higher_is_better: true
  - metric: !function quals_metric.integrations.lm_eval.quals_undefined
    aggregation: !function quals_metric.integrations.lm_eval.count_quals_undefined
    higher_is_better: false
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning:lm_eval.*")
def test_a_task_in_yaml(fake_scorer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"document": document}) + "\n" for document in DOCUMENTS))
    (tmp_path / "summaries.yaml").write_text(TASK.format(rows=rows))
    model, tokenizer = tiny_causal.checkpoint("llama")
    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=3),
        tasks=["summaries"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        confirm_run_unsafe_code=False,
    )
    samples = sorted(results["samples"]["summaries"], key=lambda sample: sample["doc_id"])
    summaries = [sample["filtered_resps"][0] for sample in samples]
    assert [tuple(sample["quals"]) for sample in samples] == list(zip(DOCUMENTS, summaries, strict=True))
    defined = [score for score in fake_scores(summaries) if not math.isnan(score)]
    found = results["results"]["summaries"]
    assert found["quals,none"] == (pytest.approx(sum(defined) / len(defined)) if defined else pytest.approx(math.nan))
    assert found["quals_undefined,none"] == len(DOCUMENTS) - len(defined)
    assert results["higher_is_better"]["summaries"] == {"quals": True, "quals_undefined": False}


def test_options_and_errors(fake_scorer: Any) -> None:
    quals, mean_quals, quals_undefined, count_undefined = lm_eval_metric("quals", tokens="answer")
    assert (quals.__name__, quals_undefined.__name__) == ("quals", "quals_undefined")
    pair = quals(references=["Ann won."], predictions=["Bob lost."])
    assert pair == ("Ann won.", "Bob lost.")
    assert not fake_scorer.made  # nothing is loaded before the aggregation
    pairs = [pair, ("Ann won.", "Ann lost."), ["Ann won.", " "]]
    assert (mean_quals(pairs), count_undefined(pairs)) == (-0.5, 1)
    (config,) = fake_scorer.made
    assert config.tokens == "answer"
    with pytest.raises(TypeError, match="quals: unknown option beams"):
        lm_eval_metric("quals", beams=4)
    with pytest.raises(ValueError, match="tokens: must be one of all, answer"):
        lm_eval_metric("quals", tokens="some")
    with pytest.raises(ValueError, match="metric: must be one of quals, qags"):
        lm_eval_metric("rouge")
