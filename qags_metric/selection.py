"""Which questions about a summary count: read what was generated, keep what the summary answers as intended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from qa_inference.answer_candidates import AnswerCandidate
from qa_inference.models.spans import Answer
from qa_inference.rows import Hypothesis
from qa_inference.tokenization import TextTokenizer
from qags_metric.overlap import exact_match

LEAST_WORDS = 3


@dataclass(frozen=True)
class AskedQuestion:
    """A question that was written to ask for `answer`.

    `log_prob` is the mean log-probability of what the search wrote, its end included, in nats per token.
    """

    question: str
    answer: AnswerCandidate
    log_prob: float


def question_of(text: str) -> str | None:
    """What a generated text asks: all up to its first question mark.

    None without one, or with fewer than three words; what has neither letter nor digit is no word.
    """
    before, mark, _ = text.partition("?")
    words = [word for word in before.split() if any(map(str.isalnum, word))]
    return before.strip() + mark if mark and len(words) >= LEAST_WORDS else None


def parse(hypotheses: Iterable[Hypothesis], answer: AnswerCandidate, tokenizer: TextTokenizer) -> list[AskedQuestion]:
    """The questions among the hypotheses for one answer, in their order; one cut off by the search counts too."""
    asked = []
    for hypothesis in hypotheses:
        question = question_of(tokenizer.decode(hypothesis.tokens[: -1 if hypothesis.ended else None]))
        if question is not None:
            asked.append(AskedQuestion(question, answer, float(hypothesis.log_probs.mean(dtype=np.float64))))
    return asked


def by_likelihood(asked: Iterable[AskedQuestion]) -> list[AskedQuestion]:
    """The questions by their mean log-probability, the likeliest first."""
    return sorted(asked, key=lambda one: -one.log_prob)


def select(
    asked: Iterable[AskedQuestion],
    answers: Mapping[str, Answer],
    most: int = 20,
    exact: bool = False,
    per_answer: int | None = None,
) -> list[AskedQuestion]:
    """The `most` likeliest distinct questions that the summary answers as intended.

    Args:
        asked: questions about one summary.
        answers: what the reader answered from the summary, by question.
        most: how many are kept at most.
        exact: the answer must be the intended one to the character; else after SQuAD's normalization.
        per_answer: how many may ask for the same answer; None: any number, as published.
    """
    kept: dict[str, AskedQuestion] = {}
    for one in by_likelihood(asked):
        found = answers[one.question]
        same = found.text == one.answer.text if exact else exact_match(found.text, one.answer.text)
        if same and not found.is_null:
            kept.setdefault(one.question, one)
    if per_answer is not None:
        kept = _first_of_each(kept, per_answer)
    return list(kept.values())[:most]


def _first_of_each(kept: Mapping[str, AskedQuestion], count: int) -> dict[str, AskedQuestion]:
    """The first `count` of the questions for each answer, in their order."""
    seen: Counter[AnswerCandidate] = Counter()
    found = {}
    for question, one in kept.items():
        seen[one.answer] += 1
        if seen[one.answer] <= count:
            found[question] = one
    return found
