"""Which pairs are kept: the published selection, and where an answer occurs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qa_inference.decoding import Hypothesis
from qa_inference.formats import PairFormat
from qa_inference.metric_base.results import mean_of_defined as mean
from qa_inference.tokenization import TextTokenizer
from quals_metric.selection import Candidate, SummaryText, is_whole, locate_answers, parse_pairs, select_pairs
from tests import tiny

CASES = json.loads((Path(__file__).parents[1] / "golden" / "quals_selection.json").read_text())["cases"]
KINDS = {"wordpiece": tiny.wordpiece, "byte_bpe": tiny.byte_bpe, "unigram": tiny.unigram}
TOKENIZERS = {kind: TextTokenizer(make()) for kind, make in KINDS.items()}


def _candidates(case: dict[str, Any], tokenizer: TextTokenizer) -> list[Candidate]:
    """The golden candidates through our own parsing and look-up; the log-probabilities are those of the case."""
    separator, found = tokenizer.special_id("<sep>"), []
    summary = SummaryText(case["summary"], tokenizer.encode(case["summary"]), tokenizer)
    for candidate in case["candidates"]:
        ids: list[int] = []
        for place, part in enumerate(candidate["text"].split(" strutConnector")):
            ids += ([separator] if place else []) + list(tokenizer.encode(part).ids)
        hypothesis = Hypothesis(np.array([*ids, 3]), np.array(candidate["token_logprobs"]), ended=True)
        found += locate_answers(parse_pairs([hypothesis], PairFormat(), tokenizer), summary)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["summary"][:12])
def test_golden_selection(case: dict[str, Any], kind: str) -> None:
    """Made with the published implementation (tests/golden/quals_selection.json)."""
    kept = select_pairs(_candidates(case, TOKENIZERS[kind]))
    assert [pair.log_probs.tolist() for pair in kept] == [pair["summary_token_logprobs"] for pair in case["kept"]]
    squeezed = [(p.question.replace(" ", "").lower(), p.answer.lower()) for p in kept]
    assert squeezed == [(p["question"].replace(" ", "").lower(), p["answer"].lower()) for p in case["kept"]]
    scores = [np.mean(p["source_token_logprobs"]) - np.mean(p["summary_token_logprobs"]) for p in case["kept"]]
    assert mean(scores) == pytest.approx(case["quals"], abs=1e-12)


def _pair(question: str, answer: str, total: float) -> Candidate:
    return Candidate(question, answer, 0, len(answer), np.arange(1), np.array([total]), 0)


@pytest.mark.parametrize(
    ("pairs", "most", "kept"),
    [
        ([], 10, []),
        ([("q1", "A", -2), ("q2", "a", -1)], 10, ["q2", "q1"]),  # one answer, best first
        ([("q", "a", -1), ("Q", "A", -2), ("r", "a", -3)], 10, ["q"]),  # a round that keeps nothing ends it
        ([("q", "a", -1), ("Q", "A", -2), ("r", "a", -3), ("s", "b", -4), ("t", "b", -5)], 10, ["q", "s", "t", "r"]),
        ([("q", "a", -1), ("r", "b", -2), ("s", "c", -3), ("t", "a", -4)], 2, ["q", "r", "s"]),  # a round is finished
    ],
)
def test_selection_in_rounds(pairs: list[tuple[str, str, float]], most: int, kept: list[str]) -> None:
    assert [pair.question for pair in select_pairs([_pair(*pair) for pair in pairs], most)] == kept


SUMMARY = "Beyoncé O'Neill of the U.S. paid £1,000 for a well-known  house, up 3.5% on 2019."


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", ["£1,000", "U.S.", "O'Neill", "well-known", "3.5%", "Beyoncé", "well-known  house"])
def test_answers_are_found_as_they_stand(answer: str, kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    summary = SummaryText(SUMMARY, tokenizer.encode(SUMMARY), tokenizer)
    start = SUMMARY.index(answer)
    ids = tokenizer.encode(answer).ids
    span = summary.find(ids, tokenizer.decode(ids))
    assert span is not None and SUMMARY[slice(*span)] == answer and span[0] == start
    # and without help from the ids, by what the model's tokens decode to
    assert summary.find((), tokenizer.decode(ids)) == span


def test_answers_that_wordpiece_decodes_apart() -> None:
    tokenizer = TOKENIZERS["wordpiece"]
    summary = SummaryText(SUMMARY, tokenizer.encode(SUMMARY), tokenizer)
    for written, shown in [("£1, 000", "£1,000"), ("u. s.", "U.S."), ("beyonce o ' neill", "Beyoncé O'Neill")]:
        span = summary.find((), written)
        assert span is not None and SUMMARY[slice(*span)] == shown


@pytest.mark.parametrize("kind", KINDS)
def test_answers_that_do_not_occur(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    summary = SummaryText(SUMMARY, tokenizer.encode(SUMMARY), tokenizer)
    assert summary.find(tokenizer.encode("£2,000").ids, "£2,000") is None
    assert summary.find((), " ") is None


def test_what_did_not_end_is_no_pair() -> None:
    tokenizer = TOKENIZERS["wordpiece"]
    ids = np.array([*tokenizer.encode("who?").ids, tokenizer.special_id("<sep>"), *tokenizer.encode("Joshua").ids, 3])
    ended, cut = (Hypothesis(ids, np.zeros(len(ids)), ended=flag) for flag in (True, False))
    assert [pair.answer for _, pair in parse_pairs([ended, cut], PairFormat(), tokenizer)] == ["joshua"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("Klitschko", True), ("Klitsch", False), ("itschko", False), (".", False), ("£1,000", True), ("1", True),
     ("00", False),
     ("U.S.", True), ("O'Neill", True), ("Neill", True), ("well-known", True), ("known", True), ("3.5%", True)],
)  # fmt: skip
def test_21_d22_whole_answers(answer: str, expected: bool) -> None:
    text = "Klitschko paid £1,000 to the well-known U.S. boxer O'Neill, or 3.5%."
    start = text.index(answer)
    assert is_whole(text, start, start + len(answer)) == expected
