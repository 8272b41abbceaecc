"""QAGS through evaluate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import evaluate
import pytest

from qa_inference.formats import QuestionFormat
from qa_inference.presets import QUESTION_PRESETS
from qags_metric.metric import Qags

SCRIPT = Path(__file__).parents[2] / "spaces" / "qags"


pytestmark = pytest.mark.usefixtures("own_evaluate_cache")


@pytest.fixture
def qags(fake_scorer: Any) -> Qags:
    return Qags()


def test_result(qags: Qags) -> None:
    results = qags.compute(predictions=["Ann won.", "Bob won.", " "], sources=["Ann won.", "Ann won.", "Ann won."])
    assert results["qags"] == 0.5 and results["scores"][:2] == [1, 0] and math.isnan(results["scores"][2])
    assert results["num_questions"] == [1, 1, 0] and results["num_undefined"] == 1
    assert (results["num_windowed_summaries"], results["num_windowed_sources"]) == (0, 0)
    assert results["signature"] == "fake:20"
    assert set(results) == {
        "qags", "scores", "num_questions", "num_undefined", "num_windowed_summaries", "num_windowed_sources",
        "signature",
    }  # fmt: skip


def test_questions_on_request(qags: Qags) -> None:
    results = qags.compute(predictions=["Ann won.", ""], sources=["Ann won."] * 2, return_questions=True)
    assert [len(questions) for questions in results["questions"]] == [1, 0]
    assert results["questions"][0][0]["source_answer"]["text"] == "Ann"


def test_options(qags: Qags, fake_scorer: Any) -> None:
    form = QuestionFormat(opening="<a>", closing="<b>")
    other = Qags(
        model="folder/of/mine", format=form, model_revision="main", reader="tinyroberta-squad2", reader_revision="v1",
        device="cpu", beam_width=12, max_questions=5, max_per_answer=4,
    )  # fmt: skip
    assert other.compute(predictions=["Ann won."], sources=["Ann won."], max_questions=3)["signature"] == "fake:3"
    config = fake_scorer.made[-1]
    assert (config.model, config.format, config.revision) == ("folder/of/mine", form, "main")
    assert (config.reader, config.reader_revision) == ("tinyroberta-squad2", "v1")
    assert (config.device, config.beam_width, other.config.max_questions) == ("cpu", 12, 5)
    assert config.max_per_answer == 4
    other.compute(predictions=["Ann won."], sources=["Ann won."], max_per_answer=1)
    assert fake_scorer.made[-1].max_per_answer == 1


def test_models_load_once_per_process(fake_scorer: Any) -> None:
    for _ in range(2):
        qags = Qags()
        qags.download_and_prepare()
        qags.compute(predictions=["Ann won."], sources=["Ann won."])
    assert len(fake_scorer.made) == 1


@pytest.mark.parametrize("name", [None, "default", "embedded", "t5-base-qg-hl"])
def test_presets_by_name(name: str | None, fake_scorer: Any) -> None:
    assert Qags(name).config.model == (name if name in QUESTION_PRESETS else "embedded")


def test_what_is_refused(qags: Qags, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"qags: config_name must be a preset \(embedded, .* use model="):
        Qags("someone/model")
    with pytest.raises(ValueError, match="qags: give config_name or model, not both"):
        Qags("embedded", model="someone/model")
    with pytest.raises(TypeError, match="qags: unknown options beams, modle; see help"):
        Qags(modle="x", beams=4)
    with pytest.raises(TypeError, match="beams"):
        qags.compute(predictions=["Ann won."], sources=["Ann won."], beams=4)
    with pytest.raises(ValueError, match="num_candidates"):
        Qags(num_candidates=0)
    assert qags.compute(predictions=["Ann won."], sources=["Ann won."])["scores"] == [1]


def test_in_batches_and_from_the_script(fake_scorer: Any) -> None:
    qags = evaluate.load(str(SCRIPT), "t5-small-squad-qg", max_questions=7)
    assert isinstance(qags, Qags) and qags.name == "qags"
    qags.add_batch(predictions=["Ann \ud800 won."], sources=["Ann won."])
    qags.add(prediction="Bob lost.", sources="Ann won.")
    assert qags.compute()["scores"] == [1, 0]
    assert fake_scorer.made[-1].max_questions == 7


def test_21_b11_half_a_character_added_leaves_the_metric_usable(qags: Qags) -> None:
    qags.add(prediction="Ann \ud83e won.", sources="Ann \ud83e won.")
    qags.add(prediction="Bob won.", sources="Ann won.")
    assert qags.compute()["scores"] == [1, 0]
    assert qags.compute(predictions=["Ann won."], sources=["Ann won."])["scores"] == [1]


def test_on_toy_models(folders: tuple[str, str]) -> None:
    """With the spaCy model that is installed."""
    pytest.importorskip("spacy")
    qags = Qags(model=folders[0], reader=folders[1], beam_width=4, hypotheses=4, max_question_tokens=16, device="cpu")
    text = "Anthony Joshua beat Wladimir Klitschko at Wembley Stadium on Saturday."
    results = qags.compute(predictions=[text, ""], sources=[text, text], return_questions=True)
    assert results["qags"] == 1 and results["num_questions"][0] >= 2 and results["num_undefined"] == 1
    assert all(text[q["start"] : q["end"]] == q["answer"] for q in results["questions"][0])
    assert "|finder:en_core_web" in results["signature"]
