"""Results: a scored summary with its sentences and unsupported spans, and the scores of a corpus."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypedDict, TypeVar, get_args, get_type_hints

from qa_inference.sentences import sentence_bounds

if TYPE_CHECKING:
    import pandas as pd


class Span(TypedDict):
    """An answer that the source does not support: the summary's characters [start, end), its text and its score."""

    start: int
    end: int
    text: str
    score: float


def check_threshold(threshold: float) -> None:
    """Raise ValueError if a threshold is NaN."""
    if math.isnan(threshold):
        raise ValueError("threshold: must be a number; got nan. Below it, an answer counts as unsupported")


class SentenceRow(TypedDict):
    """A sentence in a file or in JSON. `items` are the numbers of its questions in the list of all, from 0."""

    start: int
    end: int
    text: str
    score: float
    items: tuple[int, ...]


@dataclass(frozen=True)
class SentenceScore:
    """A sentence of a summary: the characters [start, end), its text, its score and its questions.

    A question belongs to the sentence in which its answer begins. The score is the mean of the questions' scores, NaN
    without a question.
    """

    start: int
    end: int
    text: str
    score: float
    items: tuple[Any, ...] = field(repr=False)


class ScoredSummary:
    """A summary's score with the questions behind it: the base of such a class in every metric.

    `metric` is the metric's name and `items_field` the field that holds the questions. `score` is the mean of their
    scores. An undefined `score` is NaN, and `note` gives the reason. `probability` is that of the scorer's calibration;
    None without one. `text` is the summary itself; "": it is not known. A subclass is a dataclass with the fields
    `score`, the questions, `note`, `probability` and `text`, in this order.
    """

    metric: ClassVar[str]
    items_field: ClassVar[str]
    score: float
    note: str
    probability: float | None = None
    text: str

    @property
    def score_01(self) -> float:
        """A monotone view between 0 and 1: `exp(min(score, 0))`; NaN if undefined."""
        return math.exp(min(self.score, 0.0)) if not math.isnan(self.score) else math.nan

    @property
    def items(self) -> tuple[Any, ...]:
        """The questions behind the score.

        Each has `question`, `answer` with its `start` and `end` in the summary, `score`, and `passage`: the number of
        the passage that supports it best, from 0. A source that is one text is passage 0.
        """
        items: tuple[Any, ...] = getattr(self, self.items_field)
        return items

    @property
    def sentences(self) -> tuple[SentenceScore, ...]:
        """The sentences of the summary, each with its score and its questions. Raises ValueError without the text."""
        return self.parts(sentence_bounds(self._known_text()))

    def parts(self, bounds: Iterable[tuple[int, int]]) -> tuple[SentenceScore, ...]:
        """The parts [start, end) of the summary as `sentences` gives them, for another division of the text."""
        text, parts = self._known_text(), []
        for start, end in bounds:
            items = tuple(item for item in self.items if start <= item.start < end)
            score = mean_of_defined(item.score for item in items)
            parts.append(SentenceScore(start, end, text[start:end], score, items))
        return tuple(parts)

    def spans(self, threshold: float) -> list[Span]:
        """The unsupported answers: those whose score is below `threshold`, in the order of the text.

        The score of an answer is the mean over the questions that ask for the same characters. No two spans overlap: of
        answers that do, the one with the lowest score stands for the others.

        Raises ValueError if the threshold is NaN or the summary's text is not known.
        """
        check_threshold(threshold)
        text = self._known_text()
        # 1. The score of every answer.
        scores: dict[tuple[int, int], list[float]] = {}
        for item in self.items:
            scores.setdefault((item.start, item.end), []).append(item.score)
        answers = [(mean_of_defined(of_answer), *bounds) for bounds, of_answer in scores.items()]
        # 2. Of those below the threshold, the lowest first, take those that overlap none that was taken.
        taken: list[tuple[int, int, float]] = []
        for score, start, end in sorted(answer for answer in answers if answer[0] < threshold):
            if all(end <= first or last <= start for first, last, _ in taken):
                taken.append((start, end, score))
        return [Span(start=start, end=end, text=text[start:end], score=score) for start, end, score in sorted(taken)]

    def _known_text(self) -> str:
        """The summary. Raises ValueError if there are questions about a text that is not known."""
        if self.items and not self.text:
            raise ValueError("text: must be the summary that was scored; it is not known. Use with_text(summary)")
        return self.text

    def with_text(self, text: str) -> Self:
        """A copy that knows the summary's text."""
        return replace(self, text=text)  # type: ignore[type-var]  # its subclasses are dataclasses

    def __repr__(self) -> str:
        """The score and the number of questions; the questions themselves would fill the screen."""
        about = f"undefined: {self.note}" if math.isnan(self.score) else f"score={self.score:.4f}"
        return f"{type(self).__name__}({about}, {len(self.items)} {self.items_field})"

    @classmethod
    def item_type(cls) -> Any:
        """The type of `items`."""
        (item_type, _) = get_args(get_type_hints(cls)[cls.items_field])
        return item_type

    @classmethod
    def columns(cls, pairs: bool = True, spans: bool = False, calibrated: bool = False) -> dict[str, Any]:
        """The keys of `row`, in order, with the types of their values; `calibrated`: of a scorer with a calibration."""
        probability = {"probability": float} if calibrated else {}
        columns = {"score": float, "score_01": float, **probability, f"num_{cls.items_field}": int, "note": str}
        places = {"sentences": tuple[SentenceRow, ...], "spans": tuple[Span, ...]} if spans else {}
        return columns | places | ({cls.items_field: get_type_hints(cls)[cls.items_field]} if pairs else {})

    def row(self, pairs: bool = True, threshold: float | None = None) -> dict[str, Any]:
        """The score, its 0-to-1 view, the number of questions and the note, for a file or JSON.

        With a calibration, the probability follows the 0-to-1 view.

        Args:
            pairs: also the questions, as dicts.
            threshold: also the sentences, and the `spans` below it; None: neither.
        """
        probability = [] if self.probability is None else [self.probability]
        values: list[Any] = [self.score, self.score_01, *probability, len(self.items), self.note]
        if threshold is not None:
            values += [self._sentence_rows(), self.spans(threshold)]
        if pairs:
            values.append([asdict(item) for item in self.items])
        return dict(zip(self.columns(pairs, threshold is not None, bool(probability)), values, strict=True))

    def _sentence_rows(self) -> list[SentenceRow]:
        number = {id(item): index for index, item in enumerate(self.items)}
        return [
            SentenceRow(
                start=part.start,
                end=part.end,
                text=part.text,
                score=part.score,
                items=tuple(number[id(item)] for item in part.items),
            )
            for part in self.sentences
        ]

    @classmethod
    def from_row(cls, row: Mapping[str, Any], text: str = "", *, calibrated: bool = False) -> Self:
        """The scored summary that a row of a file describes. A null becomes NaN, and a list becomes a tuple.

        `text` is the summary that was scored. `calibrated`: the row has a probability; a column of that name is
        otherwise the user's. Raises KeyError if the row has no questions.
        """
        items = tuple(_typed(cls.item_type(), item) for item in row[cls.items_field])
        probability = _typed(float, row["probability"]) if calibrated else None
        made: Any = cls  # its dataclasses take these
        scored: Self = made(_typed(float, row["score"]), items, row["note"], probability, text)
        return scored


def _typed(hint: Any, value: Any) -> Any:
    """A value read from JSON or Parquet, in the annotated type: float, str, int, a tuple, or a dataclass."""
    if hint is float:
        return math.nan if value is None else float(value)
    if is_dataclass(hint):
        make: Any = hint
        return make(**{name: _typed(part, value[name]) for name, part in get_type_hints(hint).items() if name in value})
    parts = get_args(hint)
    return tuple(_typed(parts[0], item) for item in value) if parts else value


class CorpusScores:
    """The scores of several texts. `summaries` has one entry for each, with a `score`, which is NaN if undefined."""

    summaries: tuple[Any, ...]

    @property
    def scores(self) -> list[float]:
        """The score of every summary; NaN: undefined."""
        return [summary.score for summary in self.summaries]

    @property
    def score(self) -> float:
        """The mean over the defined summaries; NaN if there is none."""
        return mean_of_defined(self.scores)

    @property
    def num_undefined(self) -> int:
        """How many summaries have no score."""
        return sum(math.isnan(score) for score in self.scores)


Summary_co = TypeVar("Summary_co", bound=ScoredSummary, covariant=True)


@dataclass(frozen=True, repr=False)
class CorpusResult(CorpusScores, Generic[Summary_co]):
    """The scores of a corpus. An undefined score is NaN, is left out of the means, and is counted.

    `signature` names everything that could change a number. `num_windowed_summaries` and `num_windowed_sources` count
    the distinct texts that were longer than a model's window. `calibration` says what the probabilities were made from;
    it is empty without a calibration.
    """

    kind: ClassVar[type[ScoredSummary]] = ScoredSummary

    summaries: tuple[Summary_co, ...]
    signature: str
    num_windowed_summaries: int = 0
    num_windowed_sources: int = 0
    calibration: str = ""

    def __repr__(self) -> str:
        """The mean score and the counts, in one line."""
        about = f"score={self.score:.4f}, {len(self.summaries)} summaries, {self.num_undefined} undefined"
        return f"{type(self).__name__}({about})"

    @property
    def score_01(self) -> float:
        """The mean of the summaries' 0-to-1 views."""
        return mean_of_defined(summary.score_01 for summary in self.summaries)

    @property
    def probabilities(self) -> list[float] | None:
        """The probability of every summary by the scorer's calibration, NaN: undefined; None without a calibration."""
        probabilities = [summary.probability for summary in self.summaries if summary.probability is not None]
        return probabilities or None

    def to_dict(self, pairs: bool = True, threshold: float | None = None) -> dict[str, Any]:
        """The result as a dict for JSON, with or without the questions and answers. An undefined score is None.

        With a `threshold`, every summary has its sentences and its unsupported spans too: see `ScoredSummary.spans`.
        """
        names = ("score", "score_01", "num_undefined", "num_windowed_summaries", "num_windowed_sources", "signature")
        whole = {name: getattr(self, name) for name in names}
        rows = [summary.row(pairs, threshold) for summary in self.summaries]
        as_json: dict[str, Any] = json_ready({**whole, "summaries": rows})
        return as_json

    def to_pandas(self, pairs: bool = False) -> pd.DataFrame:
        """One row per summary: score, score_01, the number of questions, the note and, if `pairs`, the questions."""
        import pandas as pd

        rows = [list(summary.row(pairs).values()) for summary in self.summaries]
        columns = self.kind.columns(pairs, calibrated=self.probabilities is not None)
        return pd.DataFrame(rows, columns=list(columns))


def mean_of_defined(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def json_ready(value: Any) -> Any:
    """`value` for JSON, nested values included: NaN and infinity become None, and tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return value
