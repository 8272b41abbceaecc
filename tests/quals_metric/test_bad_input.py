"""Texts that nobody meant to score, through every door: Python, evaluate, the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from quals_metric import Quals, QualsConfig, QualsScorer
from quals_metric.cli import commands as cli
from tests import tiny

GOOD_SUMMARY, GOOD_SOURCE = tiny.CORPUS[0], f"{tiny.CORPUS[0]} {tiny.CORPUS[3]}"
SPECIAL = "<sep> </s> [SEP] <pad> [PAD] [unused0] [CLS] <hl>"
STRANGE = {
    "special tokens": f"Joshua {SPECIAL} beat {SPECIAL} Klitschko.",
    "lone surrogate": "Joshua \ud800 beat \udfff Klitschko.",
    "control characters": "Joshua\x00 beat\x1b[31m\x07 Klitschko\u202e on\u200b Saturday.\r\n\t",
    "no sentence end": "joshua beat klitschko at wembley " * 40,
    "right to left": "فاز جوشوا على كليتشكو في ويمبلي يوم السبت. הוא ניצח בלונדון.",
    "CJK": "约书亚在温布利球场击败了克利奇科。比赛于周六举行。ジョシュアが勝った。",
    "one long word": "a" * 5_000,
    "emoji": "👩‍👩‍👧‍👦 beat 🇬🇧 on Saturday 🥊.",
}
BLANK = {"empty": "", "spaces": "  ", "line breaks": "\n\n", "no-break space": "\u00a0\u2003"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.trained(tmp_path_factory.mktemp("model") / "bart"))


@pytest.fixture(scope="module")
def doors(model: str) -> dict[str, Callable[[list[Any], list[Any]], list[float]]]:
    """Three ways to the scores of some summaries."""
    scorer = QualsScorer(QualsConfig(model, groups=12, max_new_tokens=16, device="cpu"))
    metric = Quals(model=model, groups=12, max_new_tokens=16, device="cpu")

    def python(summaries: list[Any], sources: list[Any]) -> list[float]:
        result = scorer.score(summaries=summaries, sources=sources)
        for summary, scored in zip(summaries, result.summaries, strict=True):
            assert all(summary[pair.start : pair.end] == pair.answer for pair in scored.pairs)
        return result.scores

    def evaluate(summaries: list[Any], sources: list[Any]) -> list[float]:
        scores: list[float] = metric.compute(predictions=summaries, sources=sources)["scores"]
        return scores

    def command(summaries: list[Any], sources: list[Any]) -> list[float]:
        scores = []
        for summary, source in zip(summaries, sources, strict=True):
            arguments = ["explain", "--model", model, "--device", "cpu", "--json", "--summary", summary]
            found = CliRunner().invoke(cli.app, [*arguments, "--source", source], catch_exceptions=False)
            (row,) = json.loads(found.stdout)["summaries"]
            scores.append(math.nan if row["score"] is None else row["score"])
        return scores

    return {"python": python, "evaluate": evaluate, "command": command}


every_door = pytest.mark.parametrize("door", ["python", "evaluate", "command"])


@every_door
@pytest.mark.parametrize("kind", BLANK)
def test_blank_texts_are_undefined(kind: str, door: str, doors: dict[str, Any]) -> None:
    scores = doors[door]([BLANK[kind], GOOD_SUMMARY], [GOOD_SOURCE, BLANK[kind]])
    assert [math.isnan(score) for score in scores] == [True, True]


@every_door
@pytest.mark.filterwarnings("ignore:.*none of .* hypotheses:UserWarning")  # a toy model has nothing to ask of CJK
@pytest.mark.parametrize("kind", STRANGE)
def test_strange_texts_are_texts(kind: str, door: str, doors: dict[str, Any]) -> None:
    text = STRANGE[kind]
    scores = doors[door]([text, GOOD_SUMMARY, text], [GOOD_SOURCE, text, text])
    assert len(scores) == 3
    if kind in ("lone surrogate", "control characters", "emoji"):  # short: what it says of itself is supported
        assert math.isnan(scores[2]) or abs(scores[2]) < 1e-4


def test_strange_texts_do_not_touch_their_neighbours(doors: dict[str, Any]) -> None:
    (alone,) = doors["python"]([GOOD_SUMMARY], [GOOD_SOURCE])
    for door in ("python", "evaluate"):
        texts = list(STRANGE.values())
        together = doors[door]([*texts, GOOD_SUMMARY, *texts], [*texts, GOOD_SOURCE, *texts])
        assert together[len(texts)] == pytest.approx(alone, abs=1e-5)


def test_a_source_of_200_000_words(doors: dict[str, Any]) -> None:
    long = "the old man lived in a house . " * 25_000 + GOOD_SOURCE
    assert len(long.split()) > 200_000
    (score,) = doors["python"]([GOOD_SUMMARY], [long])
    (short,) = doors["python"]([GOOD_SUMMARY], [GOOD_SOURCE])
    assert score == pytest.approx(short, abs=0.5)  # its last window supports the summary about as well


@pytest.mark.parametrize("door", ["python", "evaluate"])
@pytest.mark.parametrize(
    ("summaries", "sources", "kind", "message"),
    [
        (["a"], ["a", "b"], ValueError, "must be of the same length; got 1 and 2"),
        ([None], ["a"], TypeError, r"\[0\]: must be str; got NoneType"),
        (["a", 7], ["a", "b"], TypeError, r"\[1\]: must be str; got int \(7\)"),
        (["a"], [b"bytes"], TypeError, r"\[0\]: must be str; got bytes"),
        ("a text", ["a"], TypeError, r"must be a list of str; got str. Put a single text into a list"),
        ([], [], ValueError, "must not be empty"),
    ],
)
def test_what_is_no_list_of_texts(
    summaries: Any, sources: Any, kind: type[Exception], message: str, door: str, doors: dict[str, Any]
) -> None:
    with pytest.raises(kind, match=message) as caught:
        doors[door](summaries, sources)
    names = ("predictions", "sources") if door == "evaluate" else ("summaries", "sources")
    assert any(name in str(caught.value) for name in names)
    (score,) = doors[door]([GOOD_SUMMARY], [GOOD_SOURCE])  # nothing of the failed call is left
    assert not math.isnan(score)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_broken_model_folder(missing: str, model: str, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in Path(model).iterdir():
        if path.name != missing:
            (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises((OSError, ValueError), match=r"model '.*broken': must be a folder or a Hub name"):
        QualsScorer(QualsConfig(str(folder), device="cpu", local_files_only=True))
    found = CliRunner().invoke(cli.app, ["explain", "--model", str(folder), "--summary", "a", "--source", "b"])
    assert isinstance(found.exception, OSError | ValueError)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(st.text(max_size=80), st.text(max_size=200)), min_size=1, max_size=4))
@pytest.mark.filterwarnings("ignore:.*none of .* hypotheses:UserWarning")  # random text seldom gives a pair
def test_any_unicode(pairs: list[tuple[str, str]], doors: dict[str, Any]) -> None:
    scores = doors["python"]([summary for summary, _ in pairs], [source for _, source in pairs])
    assert len(scores) == len(pairs)
    for (summary, source), score in zip(pairs, scores, strict=True):
        assert math.isnan(score) or (summary.strip() and source.strip() and math.isfinite(score))
