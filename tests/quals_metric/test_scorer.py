"""The whole formula on toy checkpoints, against itself one pair at a time."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from qa_inference.formats import PairFormat
from qa_inference.metric_base.options import with_options
from qa_inference.models.shared_rows import ScoringRequest
from qa_inference.sentences import whole_sentences
from qa_inference.tokenization import split_into_windows
from quals_metric.config import PRESET_SETTINGS, PresetName, QualsConfig
from quals_metric.result import PairScore, QualsResult
from quals_metric.scorer import UNRELATED_TEXT, USUAL_INFORMATION, QualsScorer
from quals_metric.selection import is_whole
from tests import device, tiny

SUMMARIES = [
    tiny.CORPUS[0],
    tiny.CORPUS[3],
    "Joshua beat Klitschko.",
    tiny.CORPUS[3],
    "The council approved a bridge in Perth on Monday.",
]
SOURCES = [
    "Wladimir Klitschko was beaten by Anthony Joshua. It was Saturday.",
    "On Monday a council approved it. The River Tay has a new bridge.",
    "Wladimir Klitschko was beaten by Anthony Joshua. It was Saturday.",
    "Nothing to do with it.",
    " ".join(f"The man number {i} lived in the old house." for i in range(30)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A toy BART that writes pairs about the toy corpus."""
    return str(tiny.trained(tmp_path_factory.mktemp("model") / "bart"))


def _scorer(folder: str, **settings: Any) -> QualsScorer:
    settings = {"device": "cpu", **settings}
    return QualsScorer(QualsConfig(folder, groups=30, min_new_tokens=2, max_new_tokens=14, **settings))


@pytest.fixture(scope="module")
def result(folder: str) -> QualsResult:
    return _scorer(folder).score(summaries=SUMMARIES, sources=SOURCES)


def _same(a: QualsResult, b: QualsResult) -> None:
    """The same hypotheses, and scores within 1e-5."""
    assert [[(p.question, p.answer, p.tokens) for p in s.pairs] for s in a.summaries] == [
        [(p.question, p.answer, p.tokens) for p in s.pairs] for s in b.summaries
    ]
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_the_toy_model_writes_pairs(result: QualsResult) -> None:
    assert sum(len(summary.pairs) for summary in result.summaries) >= 8
    assert result.num_undefined < 3 and result.num_windowed_sources == 1 and result.num_windowed_summaries == 0


def test_pairs_are_what_they_say(result: QualsResult) -> None:
    for text, summary in zip(SUMMARIES, result.summaries, strict=True):
        for pair in summary.pairs:
            assert text[pair.start : pair.end] == pair.answer and pair.question
            assert len(pair.tokens) == len(pair.summary_log_probs) == len(pair.source_log_probs)
            difference = np.mean(pair.source_log_probs) - np.mean(pair.summary_log_probs)
            assert pair.score == pytest.approx(difference, abs=1e-6)
        if summary.pairs:
            assert summary.score == pytest.approx(np.mean([pair.score for pair in summary.pairs]))
            assert summary.score_01 == pytest.approx(math.exp(min(summary.score, 0)))
        else:
            assert math.isnan(summary.score) and summary.note == "no pair kept"


def test_a_summary_supports_its_own_pairs_exactly(folder: str) -> None:
    own = _scorer(folder).score(summaries=SUMMARIES, sources=SUMMARIES)
    defined = [score for score in own.scores if not math.isnan(score)]
    assert defined and np.abs(defined).max() < 1e-5


@pytest.mark.parametrize("settings", [{"token_budget": 1}, {"token_budget": 100_000}, {"sharing": "expanded"}])
def test_scores_do_not_depend_on_batches_or_sharing(folder: str, result: QualsResult, settings: dict) -> None:
    _same(_scorer(folder, **settings).score(summaries=SUMMARIES, sources=SOURCES), result)


def test_scores_do_not_depend_on_order_or_company(folder: str, result: QualsResult) -> None:
    scorer, order = _scorer(folder), list(range(len(SUMMARIES)))
    random.Random(1).shuffle(order)
    shuffled = scorer.score(summaries=[SUMMARIES[i] for i in order], sources=[SOURCES[i] for i in order])
    back = [shuffled.summaries[order.index(i)] for i in range(len(order))]
    _same(QualsResult(tuple(back), ""), result)
    alone = [scorer.score(summaries=[s], sources=[t]).summaries[0] for s, t in zip(SUMMARIES, SOURCES, strict=True)]
    _same(QualsResult(tuple(alone), ""), result)


def test_every_distinct_text_is_encoded_once(folder: str) -> None:
    scorer = _scorer(folder)
    seen: list[tuple[int, ...]] = []
    original = scorer.model.encode

    def encode(inputs: Any) -> Any:
        seen.extend(tuple(map(int, row)) for row in inputs)
        return original(inputs)

    scorer.model.encode = encode  # type: ignore[method-assign]  # spying on the one door to the encoder
    scorer.score(summaries=SUMMARIES, sources=SOURCES)
    assert len(seen) == len(set(seen))


WEIGHTS_OF_QUESTION = {"answer": 0.0, "balanced": 0.5}


def _mean_by(tokens: str, values: Any, answer_start: int) -> float:
    """The mean of a pair's values by the option `tokens`."""
    if tokens == "all":
        return float(np.mean(values))
    weight = WEIGHTS_OF_QUESTION[tokens]
    return float(weight * np.mean(values[:answer_start]) + (1 - weight) * np.mean(values[answer_start:]))


@pytest.mark.parametrize("tokens", ["all", *WEIGHTS_OF_QUESTION])
def test_a_pair_takes_its_best_window_by_the_tokens_that_count(folder: str, tokens: str) -> None:
    scorer = _scorer(folder, tokens=tokens)
    (summary,) = scorer.score(summaries=[SUMMARIES[4]], sources=[SOURCES[4]]).summaries
    assert summary.pairs, "the toy model must write a pair about the long source's summary"
    encoded = scorer.model.text.encode(SOURCES[4])
    windows = split_into_windows(SOURCES[4], encoded.offsets, 64 - encoded.around)
    assert len(windows) > 3
    for pair in summary.pairs:
        ids = scorer.model.text.tokenizer.convert_tokens_to_ids(list(pair.tokens))
        scores = scorer.model.log_likelihood([ScoringRequest(encoded.window(*window), [ids]) for window in windows])
        start = pair.tokens.index("<sep>") + 1
        best = max((array for (array,) in scores), key=lambda array: _mean_by(tokens, array, start))
        np.testing.assert_allclose(pair.source_log_probs, best, atol=1e-4)


@pytest.mark.parametrize("tokens", WEIGHTS_OF_QUESTION)
def test_question_and_answer_count_as_the_option_says(folder: str, result: QualsResult, tokens: str) -> None:
    scored = _scorer(folder, tokens=tokens).score(summaries=SUMMARIES[:4], sources=SOURCES[:4])
    for summary, other in zip(scored.summaries, result.summaries, strict=False):
        for pair, same in zip(summary.pairs, other.pairs, strict=True):
            start = pair.tokens.index("<sep>") + 1
            ratios = np.subtract(same.source_log_probs, same.summary_log_probs)
            assert pair.score == pytest.approx(_mean_by(tokens, ratios, start), abs=1e-5)
    assert any(summary.pairs for summary in scored.summaries) and f"|tokens:{tokens}|" in scored.signature


TOO_LITTLE = "its pairs are nearly as likely given an unrelated text"


def _information(scorer: QualsScorer, pair: PairScore) -> float:
    """How much more the summary tells about a pair than the unrelated text does, by the option `tokens`."""
    ids = scorer.model.text.tokenizer.convert_tokens_to_ids(list(pair.tokens))
    encoded = scorer.model.text.encode(UNRELATED_TEXT)
    (window, *_) = split_into_windows(UNRELATED_TEXT, encoded.offsets, 64 - encoded.around)
    ((log_probs,),) = scorer.model.log_likelihood([ScoringRequest(encoded.window(*window), [ids])])
    start, tokens = pair.tokens.index("<sep>") + 1, scorer.config.tokens
    return _mean_by(tokens, pair.summary_log_probs, start) - _mean_by(tokens, log_probs, start)


@pytest.mark.parametrize("tokens", ["all", *WEIGHTS_OF_QUESTION])
def test_normalized_scores_are_divided_by_the_information(
    folder: str, tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quals_metric.scorer.LEAST_INFORMATION", -math.inf)  # the toy's summaries have little
    monkeypatch.setattr("quals_metric.scorer.TARGETS_PER_REQUEST", 3)
    plain, normalized = _scorer(folder, tokens=tokens), _scorer(folder, tokens=tokens, normalize=True)
    before, after = (scorer.score(SUMMARIES, SOURCES) for scorer in (plain, normalized))
    assert sum(bool(summary.pairs) for summary in after.summaries) >= 3
    for summary, scored in zip(before.summaries, after.summaries, strict=True):
        if not summary.pairs:
            assert math.isnan(scored.score) and scored.note == "no pair kept"
            continue
        information = np.mean([_information(plain, pair) for pair in summary.pairs])
        expected = [pair.score * USUAL_INFORMATION / information for pair in summary.pairs]
        np.testing.assert_allclose([pair.score for pair in scored.pairs], expected, rtol=1e-3, atol=1e-3)
        assert scored.score == pytest.approx(np.mean(expected), rel=1e-3, abs=1e-3)
        assert [pair.source_log_probs for pair in scored.pairs] == [pair.source_log_probs for pair in summary.pairs]
    assert "|norm:" in after.signature and "|norm:" not in before.signature
    assert normalized.key.model_part() == plain.key.model_part()  # so they share what a cache keeps
    alone = [normalized.score([s], [t]).score for s, t in zip(SUMMARIES, SOURCES, strict=True)]
    np.testing.assert_allclose(alone, after.scores, rtol=1e-3, atol=1e-3)


def test_normalized_a_pair_of_two_summaries_counts_as_in_each(folder: str) -> None:
    scorer = _scorer(folder, normalize=True)
    (pairs,) = scorer.generate_pairs([SUMMARIES[0]]).values()
    shared = {f"{more} nats more": [replace(p, log_probs=p.log_probs + more) for p in pairs] for more in (5, 6, -50)}
    *defined, negative = scorer._scales(shared, spread=False).values()
    less, more = (USUAL_INFORMATION / scale for scale in defined if scale)
    assert more - less == pytest.approx(1) and negative is None


def test_normalized_passages_take_each_pair_from_its_best(folder: str) -> None:
    normalized, (summary, source, other) = _scorer(folder, normalize=True), (SUMMARIES[0], SOURCES[0], SOURCES[1])
    ((both,), *single) = (normalized.score([summary], contexts=[passages]).summaries for passages in
                          ([other, source], [other], [source]))  # fmt: skip
    pairs = zip(*([pair.score for pair in of_one.pairs] for (of_one,) in single), strict=True)
    assert [pair.score for pair in both.pairs] == pytest.approx([max(scores) for scores in pairs], abs=1e-5)


def test_normalized_a_summary_that_tells_nothing_is_undefined(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quals_metric.scorer.UNRELATED_TEXT", SUMMARIES[0])  # so it tells what the summary tells
    scored = _scorer(folder, normalize=True).score([SUMMARIES[0], SUMMARIES[4]], [SOURCES[0], SOURCES[4]])
    assert math.isnan(scored.scores[0]) and scored.summaries[0].note == TOO_LITTLE
    assert not math.isnan(scored.scores[1]) and scored.num_undefined == 1


def test_undefined_is_nan_with_a_count_and_a_note(folder: str, result: QualsResult) -> None:
    scorer = _scorer(folder)
    mixed = scorer.score(summaries=["", SUMMARIES[0], SUMMARIES[0]], sources=["text", " \n", SOURCES[0]])
    assert [s.note for s in mixed.summaries[:2]] == ["blank summary", "blank source"]
    assert mixed.num_undefined == 2 and mixed.score == pytest.approx(result.scores[0], abs=1e-5)
    nothing = scorer.score(summaries=[" "], sources=["text"])
    assert math.isnan(nothing.score) and math.isnan(nothing.score_01)
    assert json.loads(json.dumps(nothing.to_dict()))["score"] is None


def test_a_long_summary_is_read_in_windows(folder: str) -> None:
    long = " ".join(tiny.CORPUS[:4])
    scored = _scorer(folder).score(summaries=[long], sources=[long])
    assert scored.num_windowed_summaries == 1 and scored.num_windowed_sources == 1
    assert all(long[p.start : p.end] == p.answer for p in scored.summaries[0].pairs)


def test_21_d22_parts_of_words_are_no_answers_on_request(folder: str, result: QualsResult) -> None:
    whole = _scorer(folder, whole_answers=True)
    assert "|answers:whole|" in whole.signature and "answers:" not in result.signature
    texts = whole.score(SUMMARIES, SOURCES)
    for summary, scored in zip(SUMMARIES, texts.summaries, strict=True):
        assert all(is_whole(summary, pair.start, pair.end) for pair in scored.pairs)
    before = [(text, pair) for text, r in zip(SUMMARIES, result.summaries, strict=True) for pair in r.pairs]
    assert not all(is_whole(text, pair.start, pair.end) for text, pair in before)


def test_by_sentence_every_sentence_is_searched_by_itself(folder: str) -> None:
    by_sentence, whole = _scorer(folder, by_sentence=True), _scorer(folder)
    first, second, third = SUMMARIES[0], SUMMARIES[4], SUMMARIES[2]
    summary, other = f"{first} {second}", f"{third}  {second} {third}"  # a repeated sentence is asked about once
    assert whole_sentences(summary) == [(0, len(first)), (len(first) + 1, len(summary))]
    scored = by_sentence.score([summary, other, second], [SOURCES[0]] * 3).summaries
    alone = {text: whole.score([text], [SOURCES[0]]).summaries[0].pairs for text in (first, second, third)}
    texts = {summary: (first, second), other: (third, second), second: (second,)}
    for (text, parts), result in zip(texts.items(), scored, strict=True):
        expected = [pair for part in parts for pair in alone[part]]
        assert expected and [pair.question for pair in result.pairs] == [pair.question for pair in expected]
        assert result.score == pytest.approx(np.mean([pair.score for pair in expected]), abs=1e-5)
        assert all(text[pair.start : pair.end] == pair.answer for pair in result.pairs)
        assert all(pair.start >= text.index(second) for pair in result.pairs[len(alone[parts[0]]) :])
    assert "|by:sentence|" in by_sentence.signature and "|by:" not in whole.signature
    assert [*by_sentence.generate_pairs([summary])] == [summary]
    assert by_sentence.score([" "], ["text"]).summaries[0].note == "blank summary"
    wrapped = f" {second.replace('a bridge', f'a{chr(10)}bridge')} "
    assert by_sentence.score([wrapped], [SOURCES[0]]).scores == whole.score([wrapped], [SOURCES[0]]).scores


def test_by_sentence_a_long_sentence_is_read_in_windows(folder: str) -> None:
    long = " ".join([SUMMARIES[4].strip(".")] * 12)
    scored = _scorer(folder, by_sentence=True).score([f"A short one. {long}", "A short one."], [long, long])
    assert scored.num_windowed_summaries == 1


def test_result_as_dict_and_table(result: QualsResult) -> None:
    pytest.importorskip("pandas")
    as_dict, table = result.to_dict(), result.to_pandas()
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert as_dict["num_undefined"] == result.num_undefined and len(as_dict["summaries"]) == len(table) == 5
    assert "pairs" not in result.to_dict(pairs=False)["summaries"][0]
    assert table.num_pairs.tolist() == [len(summary.pairs) for summary in result.summaries]


def test_21_d25_a_bar_on_request(folder: str, result: QualsResult, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[int, int]] = []
    scorer = _scorer(folder)
    shown = scorer.score(SUMMARIES, SOURCES, progress=True, on_batch=lambda *numbers: calls.append(numbers))
    assert shown.scores[0] == result.scores[0] and calls[-1][0] == calls[-1][1]
    assert f"quals: 100%|██████████| {calls[-1][1]}/{calls[-1][1]}" in capsys.readouterr().err
    scorer.score(SUMMARIES, SOURCES)
    assert capsys.readouterr().err == ""


def test_one_passage_is_a_source(folder: str, result: QualsResult) -> None:
    assert _scorer(folder).score(SUMMARIES, contexts=[[source] for source in SOURCES]) == result
    padded = _scorer(folder).score(SUMMARIES, contexts=[["", source, " "] for source in SOURCES])
    assert padded.scores == result.scores and padded.signature == result.signature
    assert {pair.passage for summary in padded.summaries for pair in summary.pairs} == {1}


def test_a_pair_takes_the_passage_that_supports_it_best(folder: str, result: QualsResult) -> None:
    """By a plain loop over the passages, each scored alone; windows never cross from one passage to the next."""
    scorer = _scorer(folder)
    passages = [tiny.CORPUS[0], SOURCES[1], SOURCES[4]]
    found = scorer.score(SUMMARIES, contexts=[passages] * len(SUMMARIES))
    alone = [scorer.score(SUMMARIES, [passage] * len(SUMMARIES)) for passage in passages]
    named = set()
    for index, summary in enumerate(found.summaries):
        for number, pair in enumerate(summary.pairs):
            of_passage = [single.summaries[index].pairs[number] for single in alone]
            best = of_passage[pair.passage]
            assert max(one.score for one in of_passage) == pytest.approx(pair.score, abs=1e-5)
            assert pair.score == pytest.approx(best.score, abs=1e-5) and pair.tokens == best.tokens
            np.testing.assert_allclose(pair.source_log_probs, best.source_log_probs, atol=1e-4)
            named.add(pair.passage)
        if summary.pairs:
            assert summary.score == pytest.approx(np.mean([pair.score for pair in summary.pairs]))
    assert len(named) > 1 and found.num_windowed_sources == 1
    joined = scorer.score(SUMMARIES, [" ".join(passages)] * len(SUMMARIES))
    assert found.signature == f"{joined.signature}|passages:best" and joined.signature == scorer.signature
    assert scorer.score([SUMMARIES[0]], contexts=[passages]).scores == pytest.approx(found.scores[:1], abs=1e-5)


def test_no_passage_is_a_blank_source(folder: str) -> None:
    found = _scorer(folder).score(SUMMARIES[:3], contexts=[[], [" "], SOURCES[:2]])
    assert [summary.note for summary in found.summaries[:2]] == ["blank source"] * 2 and found.num_undefined >= 2


def test_a_result_knows_its_texts(result: QualsResult) -> None:
    assert [summary.text for summary in result.summaries] == SUMMARIES
    for summary in result.summaries:
        parts = summary.sentences
        assert [item for part in parts for item in part.items] == sorted(
            summary.pairs, key=lambda pair: pair.start
        ) or (len(parts) == 1 and parts[0].items == summary.pairs)


def test_progress_reaches_the_end_and_can_stop(folder: str) -> None:
    calls: list[tuple[int, int]] = []
    _scorer(folder, token_budget=500).score(
        summaries=SUMMARIES, sources=SOURCES, on_batch=lambda done, total: calls.append((done, total))
    )
    assert [done for done, _ in calls] == sorted(done for done, _ in calls) and calls[-1][0] == calls[-1][1]

    def stop(done: int, total: int) -> None:
        raise TimeoutError("the deadline has passed")

    with pytest.raises(TimeoutError, match="deadline"):
        _scorer(folder).score(summaries=SUMMARIES, sources=SOURCES, on_batch=stop)


def test_the_signature_names_what_could_change_a_number(folder: str) -> None:
    signature = _scorer(folder).signature
    for part in ("quals|", f"{folder}@", "|groups:30|", "|strength:0.5|", "|dtype:float32|", "|attention:shared|"):
        assert part in signature
    assert _scorer(folder).signature == signature
    other = _scorer(folder, format=PairFormat(question_prefix="Q: ")).signature
    assert [
        part.split(":")[0] for part, same in zip(other.split("|"), signature.split("|"), strict=True) if part != same
    ] == ["format"]


def test_a_search_in_float32_beside_scoring_in_half_precision(folder: str, result: QualsResult, tmp_path: Path) -> None:
    scorer = _scorer(folder, dtype="bfloat16", search_dtype="float32", cache=tmp_path / "cache")
    assert scorer.searcher is not scorer.model
    assert "|dtype:bfloat16|search:float32|" in scorer.signature
    mixed = scorer.score(summaries=SUMMARIES, sources=SOURCES)
    for ours, theirs in zip(mixed.summaries, result.summaries, strict=True):
        assert [p.tokens for p in ours.pairs] == [p.tokens for p in theirs.pairs]
        for a, b in zip(ours.pairs, theirs.pairs, strict=True):
            np.testing.assert_allclose(a.summary_log_probs, b.summary_log_probs, atol=1e-5)
    sources = [[p.source_log_probs for p in s.pairs] for s in mixed.summaries]
    assert sources != [[p.source_log_probs for p in s.pairs] for s in result.summaries]
    np.testing.assert_allclose(mixed.scores, result.scores, atol=0.05)
    assert scorer.score(summaries=SUMMARIES, sources=SOURCES) == mixed  # from the cache
    same = _scorer(folder, search_dtype="float32")
    assert same.searcher is same.model and same.signature == _scorer(folder).signature


def test_a_format_that_does_not_fit_is_said(folder: str) -> None:
    scorer = _scorer(folder, format=PairFormat(separator=" =====> "))
    with pytest.warns(UserWarning, match="none of 30 hypotheses is a question, the separator ' =====> ' and an answer"):
        scored = scorer.score(summaries=SUMMARIES[:1], sources=SOURCES[:1])
    assert scored.num_undefined == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "embeded"}, "model: must be a preset .*embedded.*; got 'embeded'"),
        ({"groups": 0}, "groups: must be an integer of at least 1; got 0"),
        ({"groups": True}, "groups: must be an integer"),
        ({"max_new_tokens": 5}, "min_new_tokens: must be less than max_new_tokens"),
        ({"strength": -1.0}, "strength: must be a finite number of at least 0; got -1.0"),
        ({"strength": math.nan}, "strength: must be a finite number"),
        ({"tokens": "question"}, "tokens: must be one of all, answer, balanced; got 'question'"),
        ({"preset": "slow"}, "preset: must be one of default, fast, agreement; got 'slow'"),
        ({"preset": "fast", "groups": 30}, "preset: 'fast' stands for groups=20; got groups=30 beside it"),
        (
            {"preset": "agreement", "tokens": "answer"},
            "preset: 'agreement' stands for tokens='balanced'; got tokens='answer' beside it. Give one of the two",
        ),
        # A value that is the default is an option that was given, too.
        (
            {"preset": "agreement", "tokens": "all"},
            "preset: 'agreement' stands for tokens='balanced'; got tokens='all'",
        ),
        (
            {"preset": "agreement", "normalize": False},
            "preset: 'agreement' stands for normalize=True; got normalize=Fal",
        ),
        ({"preset": "fast", "groups": 60}, "preset: 'fast' stands for groups=20; got groups=60 beside it"),
        ({"sharing": "no"}, "sharing: must be one of auto, shared, expanded; got 'no'"),
        ({"token_budget": 0}, "token_budget: must be an integer of at least 1; got 0"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QualsConfig(**settings).model_preset()


def test_the_fast_preset_is_a_search_with_fewer_groups(folder: str) -> None:
    model = QualsScorer(QualsConfig(folder, device="cpu")).model
    fast, same, default = (
        QualsScorer(QualsConfig(folder, device="cpu", **settings), model=model)
        for settings in ({"preset": "fast"}, {"groups": 20}, {})
    )
    assert fast.signature == same.signature != default.signature
    assert "|groups:20|" in fast.signature and "|groups:60|" in default.signature
    texts = ([tiny.CORPUS[0], tiny.CORPUS[3]], [tiny.CORPUS[0], tiny.CORPUS[2]])
    assert fast.score(*texts).to_dict() == same.score(*texts).to_dict() != default.score(*texts).to_dict()
    assert with_options(QualsConfig(preset="fast"), {"preset": "default"}) == QualsConfig()


def test_a_preset_is_the_options_that_it_stands_for(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quals_metric.scorer.LEAST_INFORMATION", -math.inf)  # the toy's summaries have little
    model = QualsScorer(QualsConfig(folder, device="cpu")).model
    texts = [f"{SUMMARIES[0]} {SUMMARIES[4]}"], [SOURCES[0]]
    assert {*PRESET_SETTINGS} == {*get_args(PresetName)}
    for name, settings in PRESET_SETTINGS.items():
        preset, given = QualsConfig(folder, preset=name), QualsConfig(folder, **settings)
        assert preset.settings == given.settings == given.settings.settings
        assert None not in [getattr(preset.settings, option) for option in PRESET_SETTINGS["default"]]
        assert replace(preset, **settings) == replace(given, preset=name)  # both may be given if they agree
        same = [QualsScorer(config, model=model) for config in (preset, given)]
        assert same[0].signature == same[1].signature
        (scored, expected) = (scorer.score(*texts) for scorer in same)
        assert scored.to_dict() == expected.to_dict() and scored.num_undefined == 0


@pytest.mark.parametrize(
    ("summaries", "sources", "kind", "message"),
    [
        ("a text", ["b"], TypeError, r"summaries: must be a list of str; got str. Put a single text into a list"),
        (["a"], None, TypeError, "sources: must be a list of str; got NoneType"),
        (["a", None], ["b", "c"], TypeError, r"summaries\[1\]: must be str; got NoneType"),
        (["a"], [3.5], TypeError, r"sources\[0\]: must be str; got float \(3.5\)"),
        (["a", "b"], ["c"], ValueError, "must be of the same length; got 2 and 1"),
        ([], [], ValueError, "summaries: must not be empty"),
    ],
)
def test_input_that_cannot_be_scored(folder: str, summaries: Any, sources: Any, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        _scorer(folder).score(summaries=summaries, sources=sources)


def test_texts_with_special_tokens_stay_in_their_rows(folder: str, result: QualsResult) -> None:
    hostile = "<sep> [SEP] </s> <pad> [unused0] \ud800 \x00 Joshua beat Klitschko."
    scored = _scorer(folder).score(summaries=[hostile, SUMMARIES[0]], sources=[hostile, SOURCES[0]])
    assert scored.scores[1] == pytest.approx(result.scores[0], abs=1e-5)
    assert all(hostile[p.start : p.end] == p.answer for p in scored.summaries[0].pairs)


@pytest.mark.parametrize("name", ["t5", "bart-bpe", "encoder-decoder", "led", "marian"])
def test_every_architecture_runs(name: str, tmp_path: Path) -> None:
    path = tiny.save(name, tmp_path / name)
    config = QualsConfig(model=str(path), groups=6, max_new_tokens=12, device="cpu")
    with pytest.warns(UserWarning, match="none of .* hypotheses"):
        scored = QualsScorer(config).score(summaries=SUMMARIES[:2], sources=SOURCES[:2])
    assert scored.num_undefined == 2


def test_on_a_pretended_gpu_scores_are_the_same(folder: str, result: QualsResult) -> None:
    with device.pretended():
        there = _scorer(folder, device="cuda:0", dtype="float32")
        found = there.score(summaries=SUMMARIES, sources=SOURCES)
        assert "|device:cuda|" in found.signature
        _same(found, result)
        half = _scorer(folder, device="cuda:0", search_dtype="float32")
        assert "|dtype:bfloat16|search:float32|device:cuda|" in half.signature
        assert half.score(summaries=SUMMARIES, sources=SOURCES).num_undefined == result.num_undefined
