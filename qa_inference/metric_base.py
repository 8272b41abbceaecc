"""The base of every metric: its options, its results, and the key that a result depends on.

- Options: `ModelOptions`, which the metrics' configurations extend. `option` declares a field with its help, its check
  and the place where users set it. The class for evaluate, the command line and the documentation are derived from
  these fields.
- Results: `ScoredSummary`, with its sentences and unsupported spans, and `CorpusResult`; the check of the inputs, and a
  mean that leaves undefined values out.
- Key: `ResultKey` names everything that a number depends on. The signature shows it, and the cache hashes its model
  part.

This file is fast to import: it imports neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypedDict, TypeVar, get_args, get_type_hints

from qa_inference.calibration import Calibration, check_calibration, find_calibration
from qa_inference.language import warn_unless_english
from qa_inference.sentences import sentence_bounds

if TYPE_CHECKING:
    import pandas as pd

    from qa_inference.distributed import OnBatch

TEXT_NAMES = ("summaries", "sources")
DEFAULT_WINDOW = 512  # tokens, where neither the format nor the checkpoint says

# ---- options --------------------------------------------------------------------------------------------------------

Check = Callable[[str, Any], None]
"""Takes an option's name and value. Raises ValueError, which names the option, if the value is not allowed."""


@dataclass(frozen=True)
class Option:
    """One option of a configuration: the facts about a field beside its type and default.

    Attributes:
        help: one or two sentences.
        checks: run when a configuration is made.
        kind: the type of its value on the command line; None: the command line does not have the option.
        choices: all values that it may have; empty: any.
        models: the loaded models that depend on it; empty: none does, and every call of `compute` may change it.
        evaluate_name: its name as an option of `evaluate.load`; None: evaluate does not have it.
        default_help: the default in words; "": as it is in the code.
    """

    help: str
    checks: tuple[Check, ...] = ()
    kind: type | None = None
    choices: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    evaluate_name: str | None = None
    default_help: str = ""

    @property
    def is_per_call(self) -> bool:
        """Whether `compute` may override it: no loaded model depends on it."""
        return not self.models


EVERY_MODEL = ("*",)
LOADING = ("loading",)  # not part of any model's identity, yet fixed when the metric is loaded


def option(
    default: Any = MISSING,
    *,
    help: str,
    default_factory: Any = MISSING,
    check: Check | Sequence[Check] = (),
    kind: type | None = None,
    choices: Sequence[str] = (),
    models: Sequence[str] = (),
    evaluate_name: str | None = "",
    default_help: str = "",
    kw_only: bool = True,
) -> Any:
    """Declare a dataclass field as an option of a metric; see `Option`. `evaluate_name` "": the field's own name."""
    checks = (check,) if callable(check) else tuple(check)
    if choices:
        checks = (*checks, one_of(*choices))
    if kind is bool:
        checks = (*checks, check_bool)
    about = Option(help, checks, kind, tuple(choices), tuple(models), evaluate_name, default_help)
    return field(default=default, default_factory=default_factory, metadata={"option": about}, kw_only=kw_only)


def integer_from(least: int, *, or_none: bool = False) -> Check:
    """A check: the value is an integer of at least `least`, or None where that is allowed."""

    def check(name: str, value: Any) -> None:
        if value is None and or_none:
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}: must be an integer of at least {least}; got {value!r}")

    return check


def finite_from(least: float) -> Check:
    """A check: the value is a finite number of at least `least`."""

    def check(name: str, value: Any) -> None:
        if not math.isfinite(value) or value < least:
            raise ValueError(f"{name}: must be a finite number of at least {least:g}; got {value!r}")

    return check


def one_of(*choices: str) -> Check:
    """A check: the value is one of the strings `choices`."""

    def check(name: str, value: Any) -> None:
        if value not in choices:
            raise ValueError(f"{name}: must be one of {', '.join(choices)}; got {value!r}")

    return check


def check_bool(name: str, value: Any) -> None:
    """A check: the value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: must be True or False; got {value!r}")


def check_integers(owner: object, **least: int) -> None:
    """Raise ValueError unless every attribute of `owner` named in `least` is an integer of at least that value."""
    for name, low in least.items():
        integer_from(low)(name, getattr(owner, name))


def check_folder_name(name: str, value: Any) -> None:
    """A check: the value is None or the name of a folder."""
    if value is not None and not os.fspath(value).strip():
        raise ValueError(f"{name}: must be the name of a folder; got ''. Use None for no {name}")


@dataclass(frozen=True)
class ModelOptions:
    """Options of every metric: the model that asks, its origin, and the device and type of its computation.

    A metric's configuration extends this class and adds its own fields to the same flat constructor.
    """

    model: str = option(
        "embedded",
        help="Question-generation model: a preset (see `quals models`), a Hub name or a folder.",
        kind=str,
        models=("generator",),
        kw_only=False,
    )
    format: Any = option(
        None,
        help="How the model reads and writes questions.",
        models=LOADING,
        default_help="the preset's",
        kw_only=False,
    )
    revision: str | None = option(
        None,
        help="Commit or branch of the model on the Hub.",
        kind=str,
        models=("generator",),
        evaluate_name="model_revision",
        default_help="the preset's",
    )
    token: str | None = option(None, help="Access token for the Hub.", models=EVERY_MODEL)
    cache_dir: str | None = option(
        None, help="Folder where files from the Hub are kept.", models=EVERY_MODEL, evaluate_name=None
    )
    local_files_only: bool = option(False, help="Never ask the Hub.", kind=bool, models=EVERY_MODEL)
    device: str | None = option(
        None,
        help="Device to compute on, for example cpu or cuda:0.",
        kind=str,
        models=EVERY_MODEL,
        default_help="the best there is",
    )
    dtype: str | None = option(
        None,
        help="Floating-point type: float32, bfloat16 or float16.",
        kind=str,
        models=EVERY_MODEL,
        default_help="the device's",
    )
    sharing: Literal["auto", "shared", "expanded"] = option(
        "auto",
        help="Whether rows of a batch share one source in attention.",
        choices=("auto", "shared", "expanded"),
        models=("generator",),
        evaluate_name=None,
    )
    token_budget: int | None = option(
        None,
        help="The most tokens in a batch: fewer take less memory and more time.",
        check=integer_from(1, or_none=True),
        kind=int,
        models=LOADING,
        default_help="8192",
    )
    calibration: str | os.PathLike[str] | None = option(
        None,
        help="File of `quals calibrate`, which adds a probability to every score; `embedded` is the one that ships.",
        check=check_calibration,
        kind=str,
    )

    def __post_init__(self) -> None:
        for config_field, about in options_of(type(self)):
            for check in about.checks:
                check(config_field.name, getattr(self, config_field.name))

    def model_options(self, part: str = "generator") -> Self:
        """A copy in which only the options of one loaded model are set: the key of that model.

        All other options have their defaults.

        Args:
            part: the model: "generator", or another model of the metric, for example "reader".
        """
        kept = {
            config_field.name: getattr(self, config_field.name)
            for config_field, about in options_of(type(self))
            if about.models == EVERY_MODEL or part in about.models
        }
        return type(self)(**kept)


Config = TypeVar("Config", bound=ModelOptions)


def options_of(config_type: type) -> tuple[tuple[Field[Any], Option], ...]:
    """The fields of a configuration that are options, each with its `Option`, in the order of the fields."""
    declared = ((config_field, config_field.metadata.get("option")) for config_field in fields(config_type))
    return tuple((config_field, about) for config_field, about in declared if about is not None)


def default_text(config_field: Field[Any], about: Option) -> str:
    """The default of an option in words, for a help text."""
    if about.default_help:
        return about.default_help
    return "" if config_field.default in (None, MISSING) else str(config_field.default)


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """A copy of `config` with those `options` that are not None."""
    return replace(config, **{name: value for name, value in options.items() if value is not None})


def as_config(config: Config | str | None, config_type: type[Config]) -> Config:
    """`config` as a configuration: a str is the name of a model, and None means the defaults.

    Raises TypeError for anything else.
    """
    if config is None:
        return config_type()
    if isinstance(config, str):
        return config_type(config)
    if not isinstance(config, config_type):
        raise TypeError(
            f"config: must be a {config_type.__name__} or the name of a model; got {type(config).__name__}. Options go "
            f"into the configuration: {config_type.__name__}(…)"
        )
    return config


def refuse_unknown(metric: str, options: Iterable[str], known: Collection[str]) -> None:
    """Raise TypeError if an option is not among the known ones."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        plural = "s" * (len(unknown) > 1)
        raise TypeError(f"{metric}: unknown option{plural} {', '.join(unknown)}; see help({metric.title()})")


# ---- results --------------------------------------------------------------------------------------------------------


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


Summary_co = TypeVar("Summary_co", bound=ScoredSummary, covariant=True)


@dataclass(frozen=True, repr=False)
class CorpusResult(Generic[Summary_co]):
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
    def scores(self) -> list[float]:
        """The score of every summary; NaN: undefined."""
        return [summary.score for summary in self.summaries]

    @property
    def score(self) -> float:
        """The mean over the defined summaries; NaN if there is none."""
        return mean_of_defined(self.scores)

    @property
    def score_01(self) -> float:
        """The mean of the summaries' 0-to-1 views."""
        return mean_of_defined(summary.score_01 for summary in self.summaries)

    @property
    def probabilities(self) -> list[float] | None:
        """The probability of every summary by the scorer's calibration, NaN: undefined; None without a calibration."""
        probabilities = [summary.probability for summary in self.summaries if summary.probability is not None]
        return probabilities or None

    @property
    def num_undefined(self) -> int:
        """How many summaries have no score."""
        return sum(math.isnan(score) for score in self.scores)

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
        result = self._score_rows(rows, spread, on_batch, progress)
        # 2. One score for every summary, from the passages that support its questions best.
        scored = iter(result.summaries)
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
        """Score checked texts; see `score`. The questions about a summary must not depend on its source."""

    @abstractmethod
    def _english_model(self) -> str | None:
        """The name of the model, if it reads only English."""


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


# ---- key and signature ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResultKey:
    """Everything that a result depends on, as named settings in the order of the signature.

    `choice` names the settings that a log-probability of the model does not depend on: those of the search, and those
    that say which of its results count. Runs that differ in these settings alone share cached results of the model.
    """

    metric: str
    settings: Mapping[str, object]
    choice: frozenset[str] = frozenset()

    def signature(self) -> str:
        """Everything that a number depends on in one line, in the form of sacreBLEU: `metric|key:value|…`."""
        return "|".join([self.metric, *(f"{name}:{value}" for name, value in self._all().items())])

    def model_part(self, **settings: object) -> str:
        """The settings that a model's log-probabilities depend on, as JSON, for the key of a cache.

        Args:
            settings: the settings that differ for this model, for example the `dtype` of a copy that searches.
        """
        of_model = {name: str(value) for name, value in self._all().items() if name not in self.choice}
        return json.dumps([self.metric, of_model | {name: str(value) for name, value in settings.items()}])

    def _all(self) -> dict[str, object]:
        libraries = {name: installed_version(name) for name in ("torch", "transformers", "tokenizers")}
        return {**self.settings, **libraries}


def of_passages(signature: str) -> str:
    """The signature of scores against several passages, of which every question takes the best."""
    return f"{signature}|passages:best"


def is_calibrated(signature: str) -> bool:
    """Whether scores with this signature have probabilities: whether their scorer had a calibration."""
    return "|calibration:" in signature


def installed_version(distribution: str) -> str:
    """The installed version of a distribution; "unknown" in a source tree that is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def checkpoint_version(name: str, model: Any, file: str | None = None) -> str:
    """A short identifier of a loaded model's weights: the fingerprint of a folder, or the commit on the Hub.

    For weights in one `file`, it is the file's name after the commit or, in a folder, after the first 12 hex digits of
    the file's SHA-256.
    """
    folder = Path(name)
    if file is not None:
        if not (folder / file).is_file():
            return f"{getattr(model.config, '_commit_hash', None) or 'unknown'}/{file}"
        with (folder / file).open("rb") as data:
            return f"{hashlib.file_digest(data, 'sha256').hexdigest()[:12]}/{file}"
    return fingerprint(folder) if folder.is_dir() else getattr(model.config, "_commit_hash", None) or "unknown"


def fingerprint(folder: Path) -> str:
    """The first 12 hex digits of the SHA-256 over a checkpoint folder's weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json", ".model", ".txt"):
            digest.update(path.name.encode())
            with path.open("rb") as data:
                digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()[:12]


def short_digest(value: object) -> str:
    """The first 8 hex digits of the SHA-256 of `repr(value)`, for a setting that is too long to show."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]
