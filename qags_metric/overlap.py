"""How far two answers agree: SQuAD's exact match and token F1 (Rajpurkar et al. 2018, arXiv 1806.03822)."""

from __future__ import annotations

from collections import Counter

from qa_inference.answer_candidates import normalize_answer


def exact_match(a: str, b: str) -> bool:
    """Whether two answers are the same once normalized."""
    return normalize_answer(a) == normalize_answer(b)


def token_f1(a: str, b: str) -> float:
    """The F1 of the words that two normalized answers share, each as often as both have it; between 0 and 1.

    An answer without words agrees with another such one (1) and with nothing else (0), as in SQuAD 2.0.
    """
    first, second = (Counter(normalize_answer(text).split()) for text in (a, b))
    if not first or not second:
        return float(first == second)
    shared = (first & second).total()
    return 2 * shared / (first.total() + second.total())  # what 2PR / (P + R) comes to
