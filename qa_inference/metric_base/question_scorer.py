"""The base of every metric's scorer."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from qa_inference.calibration import Calibration, find_calibration
from qa_inference.language import warn_unless_english
from qa_inference.metric_base.key import ResultKey, of_passages
from qa_inference.metric_base.results import CorpusResult, mean_of_defined
from qa_inference.metric_base.texts import check_passages

if TYPE_CHECKING:
    from qa_inference.distributed import OnBatch

DEFAULT_WINDOW = 512  # tokens, where neither the format nor the checkpoint says


@contextmanager
def progress_bar(
    title: str, unit: str = "it", *, only_on_terminal: bool = False, is_resumed: bool = False
) -> Iterator[OnBatch]:
    """A progress bar with the rate and the time left on standard error, as a function to call.

    Args:
        title: stands before the bar.
        unit: the name of what is counted.
        only_on_terminal: show nothing where standard error is not a terminal.
        is_resumed: the first call tells what was done before, which does not count in the rate.
    """
    from tqdm.auto import tqdm

    with tqdm(desc=title, unit=unit, disable=None if only_on_terminal else False) as bar:

        def show(done: int, total: int) -> None:
            if is_resumed and bar.total is None:
                bar.initial = bar.n = bar.last_print_n = done
            bar.total = total
            bar.update(done - bar.n)

        yield show


Result_co = TypeVar("Result_co", bound=CorpusResult[Any], covariant=True)


class QuestionScorer(ABC, Generic[Result_co]):
    """Scores summaries against their sources: the base of every metric's scorer.

    A subclass has a `key` and defines `_score` and `_english_model`. It may define `_support`. With a `calibration`,
    every score gets a probability, and the signature the digest of the calibration.
    """

    key: ResultKey
    calibration: Calibration | None = None

    @property
    def signature(self) -> str:
        """Everything that a score depends on, in one line."""
        if self.calibration is None:
            return self.key.signature()
        settings = {**self.key.settings, "calibration": self.calibration.digest}
        return replace(self.key, settings=settings).signature()

    def score(
        self,
        summaries: Iterable[str],
        sources: Iterable[str] | None = None,
        *,
        contexts: Iterable[Iterable[str]] | None = None,
        spread: bool = False,
        on_batch: OnBatch | None = None,
        progress: bool = False,
    ) -> Result_co:
        """The score of every summary against the source, or against the passages, at the same index.

        Args:
            summaries: the texts to judge, in any one-dimensional collection of str.
            sources: for each summary, the text it was written from. Texts may repeat.
            contexts: instead of `sources`: for each summary, a list of passages. Each passage is read by itself. A
                question takes the passage that supports it best, and names it: `passage` counts from 0.
            spread: share the work among the processes of an `accelerate launch`. Every process calls this method with
                the same texts and gets the whole result.
            on_batch: called as `on_batch(done, total)` after every batch; the metric says what it counts. An error
                that it raises stops the scoring.
            progress: show a progress bar with the rate and the time left, on standard error.

        Raises:
            TypeError: if an argument is no collection of str, or of lists of str.
            ValueError: if the lengths differ or are 0, or both sources and contexts are given.
        """
        judged, passages = check_passages(summaries, sources, contexts)
        # 1. A row for every passage, with its number. Blank passages support nothing; without others, the source is "".
        numbered = [[(n, text) for n, text in enumerate(texts) if text.strip()] or [(0, "")] for texts in passages]
        rows = [(summary, text) for summary, texts in zip(judged, numbered, strict=True) for _, text in texts]
        if (model := self._english_model()) is not None:
            warn_unless_english(model, [text for _, text in rows])
        # 2. Score the rows without a blank text. The others have no score, and a note that says why.
        notes = [_blank_note(*row) for row in rows]
        scorable = [row for row, note in zip(rows, notes, strict=True) if not note]
        result = self._score_rows(scorable, spread, on_batch, progress)
        defined, undefined = iter(result.summaries), cast("Any", result.kind)
        scored = (undefined(math.nan, (), note) if note else next(defined) for note in notes)
        # 3. One score for every summary, from the passages that support its questions best.
        best = [self._best([(n, next(scored)) for n, _ in texts]) for texts in numbered]
        is_plain = all(len(texts) == 1 for texts in numbered)
        of_summaries = replace(
            result,
            summaries=tuple(summary.with_text(text) for summary, text in zip(best, judged, strict=True)),
            signature=result.signature if is_plain else of_passages(result.signature),
        )
        return self._calibrated(of_summaries)

    def _score_rows(
        self, rows: Sequence[tuple[str, str]], spread: bool, on_batch: OnBatch | None, progress: bool
    ) -> Result_co:
        """Score pairs of a summary and a source, with a progress bar if that is asked for."""
        summaries, sources = ([row[side] for row in rows] for side in (0, 1))
        if not progress:
            return self._score(summaries, sources, spread, on_batch)
        with progress_bar(self.key.metric) as show:

            def show_and_tell(done: int, total: int) -> None:
                show(done, total)
                if on_batch is not None:
                    on_batch(done, total)

            return self._score(summaries, sources, spread, show_and_tell)

    def _use_calibration(self, name: str | os.PathLike[str] | None) -> None:
        """Find the calibration that an option names; None: none. Raises and warns as `find_calibration`."""
        if name is not None:
            self.calibration = find_calibration(name, self.key.metric, self.key.settings)

    def _calibrated(self, result: Result_co) -> Result_co:  # type: ignore[misc]  # what it returns is what it takes
        """The result with the probability of every score, if there is a calibration."""
        if (calibration := self.calibration) is None:
            return result
        summaries = (
            replace(summary, probability=calibration.probability(summary.score)) for summary in result.summaries
        )
        return replace(result, summaries=tuple(summaries), calibration=calibration.origin)

    def _best(self, read: Sequence[tuple[int, Any]]) -> Any:
        """A summary's score from its scores against single passages, each with its passage's number.

        The questions depend on the summary alone, so all these scores are of the same questions in the same order.
        """
        number, first = read[0]
        if not first.items or (len(read) == 1 and number == 0):
            return first
        of_question = zip(*([(n, item) for item in scored.items] for n, scored in read), strict=True)
        best = [max(choices, key=lambda choice: self._support(choice[1])) for choices in of_question]
        items = tuple(replace(item, passage=n) for n, item in best)
        return replace(first, score=mean_of_defined(item.score for item in items), **{first.items_field: items})

    def _support(self, item: Any) -> float:
        """A question takes the passage where this is greatest: its score."""
        support: float = item.score
        return support

    @abstractmethod
    def _score(self, summaries: list[str], sources: list[str], spread: bool, on_batch: OnBatch | None) -> Result_co:
        """Score texts that are not blank; see `score`. The questions about a summary must not depend on its source."""

    @abstractmethod
    def _english_model(self) -> str | None:
        """The name of the model, if it reads only English."""


def _blank_note(summary: str, source: str) -> str:
    """The reason why a pair of texts has no score; "" if neither is blank."""
    if not summary.strip():
        return "blank summary"
    return "" if source.strip() else "blank source"
