"""Selection of questions: parse the hypotheses, keep those that the summary answers; and the F1 of two answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from qa_inference.answer_candidates import AnswerCandidate, normalize_answer
from qa_inference.decoding import Hypothesis
from qa_inference.models.reader import ReaderAnswer
from qa_inference.tokenization import TextTokenizer

LEAST_WORDS = 3


@dataclass(frozen=True)
class AskedQuestion:
    """A question that was written to ask for `answer`.

    `log_prob` is the mean log-probability of the generated tokens, the end included, in nats per token.
    """

    question: str
    answer: AnswerCandidate
    log_prob: float


def question_of(text: str) -> str | None:
    """The question in a generated text: everything up to its first question mark.

    None if there is no question mark, or fewer than three words before it. A word has a letter or a digit.
    """
    before, mark, _ = text.partition("?")
    words = [word for word in before.split() if any(map(str.isalnum, word))]
    return before.strip() + mark if mark and len(words) >= LEAST_WORDS else None


def parse_questions(
    hypotheses: Iterable[Hypothesis], answer: AnswerCandidate, tokenizer: TextTokenizer
) -> list[AskedQuestion]:
    """The questions among the hypotheses for one answer, in their order. A hypothesis that was cut off counts."""
    questions = []
    for hypothesis in hypotheses:
        question = question_of(tokenizer.decode(hypothesis.tokens[: -1 if hypothesis.ended else None]))
        if question is not None:
            questions.append(AskedQuestion(question, answer, float(hypothesis.log_probs.mean(dtype=np.float64))))
    return questions


def by_likelihood(questions: Iterable[AskedQuestion]) -> list[AskedQuestion]:
    """The questions sorted by their mean log-probability, the likeliest first."""
    return sorted(questions, key=lambda question: -question.log_prob)


def select_questions(
    questions: Iterable[AskedQuestion],
    answers: Mapping[str, ReaderAnswer],
    max_questions: int = 20,
    exact: bool = False,
    max_per_answer: int | None = None,
) -> list[AskedQuestion]:
    """The `max_questions` likeliest distinct questions that the summary answers as intended.

    Args:
        questions: questions about one summary.
        answers: the reader's answers from the summary, by question.
        max_questions: the most questions that are kept.
        exact: the answer must equal the intended one character for character; else after SQuAD's normalization.
        max_per_answer: the most questions that ask for the same answer; None: any number, as published.
    """
    kept: dict[str, AskedQuestion] = {}
    for question in by_likelihood(questions):
        answer, intended = answers[question.question], question.answer.text
        is_same = answer.text == intended if exact else exact_match(answer.text, intended)
        if is_same and not answer.is_null:
            kept.setdefault(question.question, question)
    if max_per_answer is not None:
        kept = _first_per_answer(kept, max_per_answer)
    return list(kept.values())[:max_questions]


def _first_per_answer(kept: Mapping[str, AskedQuestion], most: int) -> dict[str, AskedQuestion]:
    """The first `most` of the questions for each answer, in their order."""
    counts: Counter[AnswerCandidate] = Counter()
    first = {}
    for text, question in kept.items():
        counts[question.answer] += 1
        if counts[question.answer] <= most:
            first[text] = question
    return first


# ---- agreement of two answers: SQuAD 2.0 (Rajpurkar et al. 2018, arXiv 1806.03822) -----------------------------------


def exact_match(a: str, b: str) -> bool:
    """Whether two answers are the same after SQuAD's normalization."""
    return normalize_answer(a) == normalize_answer(b)


def token_f1(a: str, b: str) -> float:
    """The F1 of the words that two normalized answers share, each counted as often as both have it; from 0 to 1.

    Two answers without words agree (1). An answer without words agrees with no other answer (0), as in SQuAD 2.0.
    """
    first, second = (Counter(normalize_answer(text).split()) for text in (a, b))
    if not first or not second:
        return float(first == second)
    shared = (first & second).total()
    return 2 * shared / (first.total() + second.total())  # equals 2PR / (P + R)
