"""Texts that nobody meant to score, through Python and through evaluate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from qags_metric.metric import Qags
from qags_metric.scorer import QagsScorer
from tests import tiny

GOOD = tiny.CORPUS[0]
SPECIAL = "<sep> </s> [SEP] <pad> [PAD] [unused0] [CLS] <hl> Joshua <hl>"
STRANGE = {
    "special tokens": f"Joshua {SPECIAL} beat {SPECIAL} Klitschko.",
    "lone surrogate": "Joshua \ud800 beat \udfff Klitschko.",
    "control characters": "Joshua\x00 beat\x1b[31m\x07 Klitschko\u202e on\u200b Saturday.\r\n\t",
    "no sentence end": "Joshua beat klitschko at wembley " * 40,
    "right to left": "فاز جوشوا على كليتشكو في ويمبلي يوم السبت.",
    "CJK": "约书亚在温布利球场击败了克利奇科。Joshua。",
    "one long word": "A" + "a" * 5_000,
    "emoji": "👩‍👩‍👧‍👦 Joshua 🇬🇧 on Saturday 🥊.",
    "another language": "Die Brücke über den Fluss Tay in Perth wurde am Montag vom Rat genehmigt.",
}


@pytest.mark.filterwarnings("ignore:.*none of .* hypotheses:UserWarning")  # a toy model has nothing to ask of CJK
def test_strange_texts_are_texts_and_do_not_touch_their_neighbours(make: Callable[..., QagsScorer]) -> None:
    scorer, texts = make(), list(STRANGE.values())
    (alone,) = scorer.score(summaries=[GOOD], sources=[GOOD]).scores
    result = scorer.score(summaries=[*texts, GOOD, *texts], sources=[*texts, GOOD, *[GOOD] * len(texts)])
    assert result.scores[len(texts)] == alone == 1
    for text, scored in zip(texts, result.summaries, strict=False):
        assert math.isnan(scored.score) or scored.score == 1, text[:20]  # of itself
        assert all(text[q.start : q.end] == q.answer for q in scored.questions)


def test_a_question_longer_than_the_readers_window(make: Callable[..., QagsScorer]) -> None:
    scorer = make()
    long = "who " * 600 + "?"
    (found,) = scorer.reader.read([long], [GOOD])
    assert found.num_windows >= 1


def test_a_source_of_20_000_words(make: Callable[..., QagsScorer]) -> None:
    long = "the old man lived in a house . " * 2_500 + GOOD
    result = make(max_questions=2).score(summaries=[GOOD], sources=[long])
    assert result.num_windowed_sources == 1 and 0 <= result.scores[0] <= 1


@pytest.mark.parametrize(
    ("summaries", "sources", "kind", "message"),
    [
        (["a"], ["a", "b"], ValueError, "must be of the same length; got 1 and 2"),
        ([None], ["a"], TypeError, r"\[0\]: must be str; got NoneType"),
        (["a"], [b"bytes"], TypeError, r"\[0\]: must be str; got bytes"),
        ("a text", ["a"], TypeError, r"must be a list of str; got str. Put a single text into a list"),
        ([], [], ValueError, "must not be empty"),
    ],
)
def test_what_is_no_list_of_texts(
    summaries: Any, sources: Any, kind: type[Exception], message: str, make: Callable[..., QagsScorer], fake_scorer: Any
) -> None:
    with pytest.raises(kind, match=message):
        make().score(summaries=summaries, sources=sources)
    with pytest.raises(kind, match=message):
        Qags(keep_in_memory=True).compute(predictions=summaries, sources=sources)


def test_a_name_of_no_model(folders: tuple[str, str], tmp_path: Any) -> None:
    from qags_metric.config import QagsConfig
    from qags_metric.scorer import load_generator, load_reader

    tmp_path.joinpath("empty").mkdir()
    config = QagsConfig(str(tmp_path / "empty"), reader=str(tmp_path / "empty"), local_files_only=True, device="cpu")
    for load in (load_generator, load_reader):
        with pytest.raises((OSError, ValueError), match=r"model '.*empty': must be a folder or a Hub name"):
            load(config)
