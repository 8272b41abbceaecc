"""Extractive reading on toy checkpoints: windows and spans against the library's own and against plain loops."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from transformers import BertModel

from qa_inference.batching import map_batches
from qa_inference.models.loading import LoadingOptions
from qa_inference.models.reader import (
    Reader,
    ReaderAnswer,
    ReaderConfig,
    Window,
    WindowSpans,
    best_spans,
    window_starts,
)
from qa_inference.presets import CHECKPOINTS, READERS
from tests import tiny, tiny_readers

CPU = LoadingOptions(device="cpu")
HALF = LoadingOptions(device="cpu", dtype="bfloat16")
OFFLINE = LoadingOptions(device="cpu", local_files_only=True)

TEXT = (
    "Beyoncé O'Neill paid £1,000 in the U.S. on Saturday.\n A well-known man, 日本, beat Klitschko at Wembley Stadium."
)
LONG = " ".join(f"{sentence} Joshua beat number {i} in Perth." for i in range(12) for sentence in tiny.CORPUS)
QUESTION = "Where did Anthony Joshua beat the man?"
every_kind = pytest.mark.parametrize("kind", tiny_readers.KINDS)


def _reader(kind: str, **config: Any) -> Reader:
    return Reader(*tiny_readers.checkpoint(kind), config=ReaderConfig(**config))


# ---- windows --------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("text", [TEXT, LONG, "a"])
def test_windows_are_those_of_the_checkpoints_own_tokenizer(kind: str, text: str) -> None:
    """The library counts the overlap, we how far windows start from one another."""
    reader, tokenizer = _reader(kind), tiny_readers.tokenizer(kind)
    room = 384 - len(tokenizer(QUESTION, "a")["input_ids"]) + 1
    expected = tokenizer(
        QUESTION, text, max_length=384, truncation="only_second", stride=room - 128, return_overflowing_tokens=True,
        return_offsets_mapping=True, return_token_type_ids=True,
    )  # fmt: skip
    windows = reader.windows(QUESTION, text)
    assert [window.ids.tolist() for window in windows] == expected["input_ids"]
    assert [window.cost for window in windows] == [len(ids) for ids in expected["input_ids"]]
    assert (len(windows) > 5) == (text == LONG)
    for index, window in enumerate(windows):
        told = [i for i, part in enumerate(expected.sequence_ids(index)) if part == 1]
        offsets = [expected["offset_mapping"][index][i] for i in told]
        assert window.text_start == told[0]
        assert [tuple(pair) for pair in window.offsets.tolist() if pair[0] < pair[1]] == [
            pair for pair in offsets if text[slice(*pair)].strip()
        ]
        if kind == "bert":
            assert window.type_ids is not None and window.type_ids.tolist() == expected["token_type_ids"][index]
            assert set(window.type_ids.tolist()) == {0, 1}
        else:
            assert window.type_ids is None


@pytest.mark.parametrize(
    ("tokens", "room", "stride", "expected"),
    [
        pytest.param(0, 350, 128, [0], id="no token"),
        pytest.param(350, 350, 128, [0], id="fits exactly"),
        pytest.param(351, 350, 128, [0, 128], id="one too many"),
        pytest.param(478, 350, 128, [0, 128], id="the second reaches the end"),
        pytest.param(479, 350, 128, [0, 128, 256], id="the second does not"),
        pytest.param(10, 4, 128, [0, 4, 8], id="no gap where the stride is longer than a window"),
        pytest.param(3, 1, 1, [0, 1, 2], id="one token each"),
    ],
)
def test_literal_window_starts(tokens: int, room: int, stride: int, expected: list[int]) -> None:
    assert list(window_starts(tokens, room, stride)) == expected


@given(st.integers(0, 900), st.integers(1, 400), st.integers(1, 200))
def test_windows_cover_the_text_and_none_is_for_nothing(tokens: int, room: int, stride: int) -> None:
    starts = window_starts(tokens, room, stride)
    assert {i for start in starts for i in range(start, start + room)} >= set(range(tokens))
    assert all(start + room < tokens for start in starts[:-1])


@every_kind
def test_a_long_question_leaves_half_of_the_window_to_the_text(kind: str) -> None:
    reader = _reader(kind, window=101)
    around = 101 - len(reader.windows("who? " * 99, LONG)[0].offsets)
    window = reader.windows("who? " * 99, LONG)[0]
    assert window.cost == 101 and len(window.offsets) == 51 == 101 - around
    start = tiny_readers.tokenizer(kind)("who? " * 99, add_special_tokens=False)["input_ids"][: window.text_start - 4]
    assert window.ids[1 : 1 + len(start)].tolist() == start


@pytest.mark.parametrize(("kind", "asked", "expected"), [("bert", 384, 384), ("bert", 900, 512), ("roberta", 900, 512)])
def test_a_window_has_no_more_tokens_than_the_checkpoint_has_positions(kind: str, asked: int, expected: int) -> None:
    model, tokenizer = tiny_readers.checkpoint(kind)
    tokenizer.model_max_length = 10**30  # as the library writes for "unknown"
    reader = Reader(model, tokenizer, config=ReaderConfig(window=asked))
    assert reader.window == expected
    windows = reader.windows(QUESTION, LONG)
    assert windows[0].cost == expected
    assert len(reader.spans(windows)) == len(windows)  # the highest position is there


def test_the_last_texts_are_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = _reader("bert")
    seen: list[str] = []
    encode = reader.text.encode
    monkeypatch.setattr(reader.text, "encode", lambda text: (seen.append(text), encode(text))[1])
    for question in ("Who?", "Where?", "When?"):
        reader.windows(question, LONG)
    assert seen.count(LONG) == 1 and len(seen) == 4


@every_kind
def test_white_space_around_a_question_is_nothing(kind: str) -> None:
    (plain,), (spaced,) = (_reader(kind).windows(question, TEXT) for question in (QUESTION, f"\n {QUESTION} "))
    assert plain.ids.tolist() == spaced.ids.tolist()


# ---- texts are data -------------------------------------------------------------------------------------------------


@every_kind
def test_special_tokens_in_questions_and_texts_are_text(kind: str) -> None:
    reader, tokenizer = _reader(kind), tiny_readers.tokenizer(kind)
    hostile = "[SEP] </s> [CLS] <s> <pad> [PAD] <sep> <hl>"
    (window,) = reader.windows(f"what is {hostile}?", f"{hostile} a bridge {hostile}")
    special = set(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id}
    around = [index for index in window.ids.tolist() if index in special]
    (plain,) = reader.windows("what?", "a bridge")
    assert around == [index for index in plain.ids.tolist() if index in special]
    assert len(window.ids) > 60


@every_kind
def test_texts_without_words_and_lone_surrogates(kind: str) -> None:
    reader = _reader(kind, null_threshold=float("inf"))
    for text in ("", " ", "\n \t"):
        answer = reader.read([QUESTION], [text])[0]
        assert answer.is_null and np.isnan(answer.score) and answer.num_windows == 1
    for text in ("a \udfff b", "日本 \ud800"):
        answer = reader.read(["wh\ud800?"], [text])[0]
        assert answer.text == text[answer.start : answer.end] != ""
    assert reader.read([QUESTION], ["\ud800"])[0].is_null == (kind == "bert")  # its normalizer drops U+FFFD


def test_white_space_neither_starts_nor_ends_a_span() -> None:
    reader = _reader("roberta")  # whose line ends and second spaces are tokens
    windows = reader.windows(QUESTION, "a \n\n b   c\t\n The   man")
    blank = {i for i, (start, end) in enumerate(windows[0].offsets.tolist()) if start == end}
    (found,) = reader.spans(windows)
    assert len(blank) > 5 and len(found.scores) > 5
    assert not blank & {*found.starts.tolist(), *found.ends.tolist()}


# ---- spans ----------------------------------------------------------------------------------------------------------

OFF = -np.inf


@pytest.mark.parametrize(
    ("start", "end", "n_best", "longest", "expected"),
    [
        pytest.param([1, 5, 0], [0, 2, 4], 20, 30, [(1, 2, 9), (1, 1, 7), (0, 2, 5), (2, 2, 4), (0, 1, 3), (0, 0, 1)],
                     id="every span, best first"),
        pytest.param([1, 5, 0], [0, 2, 4], 2, 30, [(1, 2, 9), (1, 1, 7)], id="the two best"),
        pytest.param([1, 5, 0], [0, 2, 4], 20, 1, [(1, 1, 7), (2, 2, 4), (0, 0, 1)], id="of one token"),
        pytest.param([0, 0, 9], [9, 0, 1], 20, 30, [(2, 2, 10), (0, 0, 9), (0, 2, 1), (0, 1, 0), (1, 2, 1), (1, 1, 0)],
                     id="none ends before it starts"),
        pytest.param([0, 0, 9], [9, 8, 0], 1, 30, [], id="the likeliest start is behind the likeliest end"),
        pytest.param([2, 2, 2], [2, 2, 2], 2, 30, [(0, 0, 4), (0, 1, 4)], id="of equals the earlier"),
        pytest.param([2] * 300, [2] * 300, 2, 30, [(0, 0, 4), (0, 1, 4)], id="of very many equals too"),
        pytest.param([OFF, 1, OFF], [OFF, 1, OFF], 20, 30, [(1, 1, 2)], id="where no span may be"),
        pytest.param([], [], 20, 30, [], id="no token"),
    ],
)  # fmt: skip
def test_literal_spans(
    start: list[float], end: list[float], n_best: int, longest: int, expected: list[tuple[int, int, float]]
) -> None:
    found = best_spans(np.array(start, np.float32), np.array(end, np.float32), n_best, longest)
    assert sorted(zip(*(part.tolist() for part in found), strict=True)) == sorted(expected)
    assert found[2].tolist() == sorted(found[2].tolist(), reverse=True)


def _by_loops(start: np.ndarray, end: np.ndarray, n_best: int, longest: int) -> list[tuple[int, int, float]]:
    """SQuAD's procedure, pair by pair."""
    starts = sorted(range(len(start)), key=lambda i: -start[i])[:n_best]
    ends = sorted(range(len(end)), key=lambda i: -end[i])[:n_best]
    spans = [(i, j, float(start[i] + end[j])) for i in starts for j in ends if i <= j < i + longest]
    return sorted(spans, key=lambda span: (-span[2], span[0], span[1]))[:n_best]


logits = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[arrays(np.float32, n, elements=st.integers(-8, 8).map(lambda x: x / 4))] * 2)
)


@settings(deadline=None)
@given(logits, st.integers(1, 25), st.integers(1, 35))
def test_spans_are_those_of_plain_loops(pair: tuple[np.ndarray, np.ndarray], n_best: int, longest: int) -> None:
    found = best_spans(*pair, n_best, longest)
    assert [*zip(*(part.tolist() for part in found), strict=True)] == _by_loops(*pair, n_best, longest)


@every_kind
def test_reading_agrees_with_the_bare_model_window_by_window(kind: str) -> None:
    reader = _reader(kind)
    model = tiny_readers.checkpoint(kind)[0].eval()
    tokenizer = tiny_readers.tokenizer(kind)
    text = LONG[:3000]
    windows = reader.windows(QUESTION, text)
    found = reader.spans(windows)
    assert len(windows) > 2
    for window, spans in zip(windows, found, strict=True):
        encoded = {"input_ids": torch.tensor([window.ids.tolist()])}
        if kind == "bert":
            first = window.ids.tolist().index(tokenizer.sep_token_id) + 1
            encoded["token_type_ids"] = torch.tensor([[int(i >= first) for i in range(window.cost)]])
        with torch.no_grad():
            output = model(**encoded)
        start, end = output.start_logits[0].numpy(), output.end_logits[0].numpy()
        told = slice(window.text_start, window.cost - 1)
        blank = window.offsets[:, 0] == window.offsets[:, 1]  # RoBERTa's lone space before £
        assert not blank.any() or kind == "roberta"
        expected = _by_loops(np.where(blank, OFF, start[told]), np.where(blank, OFF, end[told]), 20, 30)
        np.testing.assert_allclose(spans.scores, [score for *_, score in expected], atol=1e-4)
        assert (int(spans.starts[0]), int(spans.ends[0])) == expected[0][:2]
        assert spans.null_score == pytest.approx(float(start[0] + end[0]), abs=1e-4)
    answer = reader.answer(text, windows, found)
    best = max(found, key=lambda spans: spans.scores[0])
    assert answer.null_score == min(spans.null_score for spans in found)
    assert answer.score == best.scores[0] and answer.num_windows == len(windows)


@every_kind
def test_spans_do_not_depend_on_the_batch(kind: str) -> None:
    reader = _reader(kind)
    windows = [w for q in ("Who?", QUESTION) for text in ("a bridge", TEXT, LONG) for w in reader.windows(q, text)]
    assert len({window.cost for window in windows}) > 4
    together = reader.spans(windows)
    for window, spans in zip(windows, together, strict=True):
        alone = reader.spans([window])[0]
        np.testing.assert_allclose(spans.scores, alone.scores, atol=1e-4)
        assert (spans.starts[0], spans.ends[0]) == (alone.starts[0], alone.ends[0])
        assert spans.null_score == pytest.approx(alone.null_score, abs=1e-4)
    assert reader.spans([]) == []


@every_kind
def test_what_travels_between_processes_is_plain(kind: str) -> None:
    reader = _reader(kind)
    windows = reader.windows(QUESTION, LONG)
    again = pickle.loads(pickle.dumps(windows))
    found = map_batches(reader.spans, again, lambda window: window.cost, token_budget=1000)
    answer = reader.answer(LONG, windows, pickle.loads(pickle.dumps(found)))
    (expected,) = reader.read([QUESTION], [LONG])
    assert (answer.text, answer.start) == (expected.text, expected.start)
    assert all(type(spans.null_score) is float and spans.scores.dtype == np.float32 for spans in found)


# ---- answers --------------------------------------------------------------------------------------------------------


def _pointer(kind: str, first: str, last: str, null: float = -9.0, **config: Any) -> Reader:
    """A reader that finds spans from the first token of `first` (logit 2) to the last of `last` (logit 3)."""
    tokenizer = tiny_readers.tokenizer(kind)
    ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (first, last)]
    model: Any = tiny_readers.Pointer(len(tokenizer), {ids[0][0]: 2.0}, {ids[1][-1]: 3.0}, null)
    return Reader(model, tokenizer, config=ReaderConfig(**config))


@every_kind
@pytest.mark.parametrize(
    "expected", ["Beyoncé O'Neill", "Beyoncé", "£1,000", "U.S.", "well-known", "日本", "Saturday.\n A well-known", TEXT]
)
def test_an_answer_is_the_texts_own_characters(kind: str, expected: str) -> None:
    """The tokens of a span are looked up in the library's own encoding of the pair."""
    reader, encoding = _reader(kind), tiny_readers.tokenizer(kind)(QUESTION, TEXT)
    start = TEXT.index(expected)
    windows = reader.windows(QUESTION, TEXT)
    first, last = (
        encoding.char_to_token(place, sequence_index=1) - windows[0].text_start
        for place in (start, start + len(expected) - 1)
    )
    answer = reader.answer(TEXT, windows, [_spans(0, (first, last, 2))])
    assert answer == ReaderAnswer(expected, start, start + len(expected), 2, 0, 1)


@every_kind
def test_an_answer_late_in_a_text_of_several_windows(kind: str) -> None:
    text = LONG + " The council was in Monday. " + LONG
    reader = _pointer(kind, " council", " Monday")
    text = text.replace("The council approved", "It approved").replace("on Monday", "on Saturday")
    windows = reader.windows(QUESTION, text)
    found = reader.spans(windows)
    holding = [i for i, spans in enumerate(found) if spans.scores[0] == 5]
    assert len(windows) > 10 and 2 <= len(holding) <= 3 and holding[0] > 2  # they overlap
    answer = reader.answer(text, windows, found)
    assert answer == ReaderAnswer(
        "council was in Monday", text.index("council"), text.index("Monday") + 6, 5.0, -18.0, len(windows)
    )


@pytest.mark.parametrize(
    ("null", "threshold", "expected"),
    [
        (2.0, 0.0, "well-known"),  # null 4, span 5
        (2.5, 0.0, "well-known"),  # equal: no answer only if null exceeds it
        (2.6, 0.0, ""),
        (2.6, 1.0, "well-known"),
        (2.0, -2.0, ""),
        (2.0, float("-inf"), ""),
        (99.0, float("inf"), "well-known"),
    ],
)
def test_no_answer_if_the_null_score_exceeds_the_spans_by_more_than_the_threshold(
    null: float, threshold: float, expected: str
) -> None:
    reader = _pointer("bert", "well", "known", null, null_threshold=threshold)
    (answer,) = reader.read(["Who?"], [TEXT])
    assert answer.text == expected and answer.is_null == (expected == "")
    assert answer.score == 5 and answer.null_score == pytest.approx(2 * null)
    if answer.is_null:
        assert answer.start == answer.end == -1


def _window(*offsets: tuple[int, int]) -> Window:
    return Window(np.zeros(9, np.int32), None, 0, np.array(offsets, np.int32).reshape(-1, 2))


def _spans(null: float, *spans: tuple[int, int, float]) -> WindowSpans:
    starts, ends, scores = zip(*spans, strict=True) if spans else ((), (), ())
    return WindowSpans(np.array(starts, np.int32), np.array(ends, np.int32), np.array(scores, np.float32), null)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param([_spans(1, (0, 0, 2)), _spans(0, (0, 1, 3))], ("b c", 2, 5, 3, 0), id="the best window"),
        pytest.param([_spans(9, (0, 0, 2)), _spans(0, (0, 1, 1))], ("a", 0, 1, 2, 0), id="the smallest null score"),
        pytest.param([_spans(9, (0, 0, 2)), _spans(3, (0, 1, 1))], ("", -1, -1, 2, 3), id="above the best span"),
        pytest.param([_spans(0, (0, 0, 2)), _spans(0, (0, 1, 2))], ("a", 0, 1, 2, 0), id="of equals the earlier"),
        pytest.param([_spans(9), _spans(0, (1, 1, 2))], ("c", 4, 5, 2, 0), id="a window without spans"),
    ],
)
def test_literal_merging_of_windows(found: list[WindowSpans], expected: tuple[object, ...]) -> None:
    windows = [_window((0, 1), (2, 3)), _window((2, 3), (4, 5))]
    assert _reader("bert").answer("a b c", windows, found) == ReaderAnswer(*expected, 2)  # type: ignore[arg-type]


def test_windows_and_what_was_found_belong_together() -> None:
    reader = _reader("bert")
    for windows, found in (([], []), ([_window((0, 1))], [])):
        with pytest.raises(ValueError, match=r"answer: needs the spans of every window of a question; got \d windows"):
            reader.answer("a", windows, found)
    with pytest.raises(ValueError, match=r"^questions and texts: must be of the same length; got 1 and 0"):
        reader.read(["Who?"], [])


# ---- settings, loading, presets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"window": 15}, "window: must be an integer of at least 16; got 15"),
        ({"window": 384.5}, "window: must be an integer of at least 16; got 384.5"),
        ({"stride": 0}, "stride: must be an integer of at least 1; got 0"),
        ({"n_best": 0}, "n_best: must be an integer of at least 1; got 0"),
        ({"max_answer_tokens": -1}, "max_answer_tokens: must be an integer of at least 1; got -1"),
        ({"null_threshold": float("nan")}, "null_threshold: must be a number of logits; got NaN"),
    ],
)
def test_settings_that_cannot_be_meant(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        ReaderConfig(**setting)


@every_kind
def test_a_folder_is_loaded(kind: str, tmp_path: Path) -> None:
    folder = tiny_readers.save(kind, tmp_path)
    reader = Reader.load(str(folder), CPU, config=ReaderConfig(null_threshold=9))
    (loaded,), (given,) = (each.read([QUESTION], [TEXT]) for each in (reader, _reader(kind, null_threshold=9)))
    assert asdict(loaded) == pytest.approx(asdict(given))
    half = Reader.load(str(folder), HALF)
    assert half.model.dtype == torch.bfloat16 and half.read([QUESTION], [TEXT])[0].num_windows == 1


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"model '.*nothing': must be a folder or a Hub name of an extractive question-"):
        Reader.load(str(tmp_path / "nothing"), OFFLINE)
    model, tokenizer = tiny_readers.checkpoint("bert")
    BertModel(model.config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"must be a complete checkpoint of an extractive question-answering model; it lacks qa_outputs\.bias",
    ):
        Reader.load(str(tmp_path))


def test_checkpoints_that_cannot_read() -> None:
    model, tokenizer = tiny_readers.checkpoint("bert")
    with pytest.raises(
        ValueError, match=r"must put its classification token, .* in front of a pair of texts; got \['▁"
    ):
        Reader(model, tiny.unigram())
    tokenizer.model_max_length = 15
    with pytest.raises(ValueError, match=r"must have positions for at least 16 tokens; got 15"):
        Reader(model, tokenizer)


def test_presets() -> None:
    assert [*READERS] == ["embedded", "roberta-base-squad2", "roberta-base-squad2-distilled", "tinyroberta-squad2"]
    assert all(name == preset.name and preset.licence and preset.about for name, preset in READERS.items())
    assert READERS["embedded"].model == str(CHECKPOINTS / "reader")
    assert all(preset.model == f"deepset/{name}" for name, preset in [*READERS.items()][1:])
