"""Texts as users pass them: any one-dimensional collection of str, checked before the work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

TEXT_NAMES = ("summaries", "sources")


def check_texts(
    summaries: Iterable[str], sources: Iterable[str], names: tuple[str, str] = TEXT_NAMES
) -> tuple[list[str], list[str]]:
    """Check the summaries and the sources, and return both as lists of str of the same length.

    Args:
        summaries: any one-dimensional collection of str: a list, tuple, generator, pandas Series, NumPy or Arrow array,
            or a column of a data set.
        sources: the same, a source for each summary.
        names: the names of the two arguments, for the errors.

    Raises:
        TypeError: if an argument is a single text, is no such collection, or holds anything but str.
        ValueError: if the lengths differ or are 0.
    """
    first, second = (_text_list(name, texts) for name, texts in zip(names, (summaries, sources), strict=True))
    _check_lengths(names, first, second)
    return first, second


def check_passages(
    summaries: Iterable[str],
    sources: Iterable[str] | None,
    contexts: Iterable[Iterable[str]] | None,
    names: tuple[str, str] = TEXT_NAMES,
) -> tuple[list[str], list[list[str]]]:
    """Check the summaries, and the sources or the passages of each; a source is a single passage.

    `names` are those of the first two arguments. Raises TypeError and ValueError as `check_texts`, and ValueError if
    both sources and contexts are given.
    """
    if contexts is None:
        first, texts = check_texts(summaries, sources, names)  # type: ignore[arg-type]  # None is refused there
        return first, [[text] for text in texts]
    if sources is not None:
        raise ValueError(
            f"{names[1]} and contexts: must not both be given. {names[1].capitalize()} are texts, one per summary, "
            f"and contexts lists of passages"
        )
    first, lists = _text_list(names[0], summaries), _plain_list("contexts", contexts, "lists of str")
    _check_lengths((names[0], "contexts"), first, lists)
    return first, [_text_list(f"contexts[{index}]", texts) for index, texts in enumerate(lists)]


def _check_lengths(names: tuple[str, str], first: Sequence[Any], second: Sequence[Any]) -> None:
    """Raise ValueError if the lengths differ or are 0."""
    if len(first) != len(second):
        raise ValueError(
            f"{' and '.join(names)}: must be of the same length; got {len(first)} and {len(second)}. Give each summary "
            f"its own source, repeating a source that has several"
        )
    if not first:
        raise ValueError(f"{names[0]}: must not be empty; got 0 texts. Pass at least one summary and its source")


def texts_of_scorer(sources: Sequence[str | Sequence[str]]) -> dict[str, Any]:
    """The sources as a keyword argument of a scorer: `sources`, or `contexts` if some are passages."""
    if all(isinstance(source, str) for source in sources):
        return {"sources": list(sources)}
    return {"contexts": [(source,) if isinstance(source, str) else source for source in sources]}


def _text_list(name: str, texts: Any) -> list[str]:
    """The texts of a collection as a list; see `check_texts`."""
    items = _plain_list(name, texts, "str")
    for index, text in enumerate(items):
        if not isinstance(text, str):
            is_list = isinstance(text, list | tuple)
            remedy = "Pass '' for a missing text: its score is then undefined (NaN)"
            raise TypeError(
                f"{name}[{index}]: must be str; got {type(text).__name__} ({text!r:.40}). "
                f"{'Pass lists of passages as contexts' if is_list and name == 'sources' else remedy}"
            )
    return items


def _plain_list(name: str, texts: Any, content: str) -> list[Any]:
    """The items of a collection as a list. Raises TypeError for a single text, and for what has no order."""
    if isinstance(texts, str | bytes):
        raise TypeError(
            f"{name}: must be a list of {content}; got {type(texts).__name__}. Put a single text into a list: [text]"
        )
    # 1. Arrays convert themselves to lists, because their items are scalars of their own types.
    for convert in ("to_pylist", "tolist"):
        if hasattr(texts, convert):
            texts = getattr(texts, convert)()
            break
    # 2. Mappings, sets and tables are refused: they do not pair the n-th summary with the n-th source.
    is_unordered = isinstance(texts, Mapping | AbstractSet) or getattr(texts, "ndim", 1) != 1
    if is_unordered or not isinstance(texts, Iterable):
        raise TypeError(
            f"{name}: must be a list of {content}; got {type(texts).__name__}. Pass one text per summary, in order"
        )
    return list(texts)
