"""A third metric: what a package of it would hold, for the tests that add it by one row of the table of metrics."""

from __future__ import annotations

from dataclasses import dataclass

from qa_inference.distributed import OnBatch
from qa_inference.metric_base.key import ResultKey
from qa_inference.metric_base.options import ModelOptions, integer_from, option
from qa_inference.metric_base.question_scorer import QuestionScorer
from qa_inference.metric_base.results import CorpusResult, ScoredSummary
from quals_metric.config import QualsConfig
from quals_metric.metrics import MetricSpec


@dataclass(frozen=True)
class ToyConfig(ModelOptions):
    """A question asks for each of the first few words."""

    words: int = option(2, help="Words of a summary that are asked for.", check=integer_from(1), kind=int)
    strict: bool = option(False, help="Compare capital letters too.", kind=bool)


@dataclass(frozen=True)
class ToyQualsConfig(QualsConfig):
    """QUALS with an option more."""

    flavour: str = option("plain", help="Flavour of the search.", kind=str, choices=("plain", "spicy"))


@dataclass(frozen=True)
class ToyQuestion:
    """Is the word in the source? 1: yes, 0: no."""

    question: str
    answer: str
    start: int
    end: int
    score: float
    passage: int = 0


@dataclass(frozen=True)
class ToySummary(ScoredSummary):
    """The share of words that the source has."""

    metric = "toy"
    items_field = "words"

    score: float
    words: tuple[ToyQuestion, ...]
    note: str = ""
    probability: float | None = None
    text: str = ""


@dataclass(frozen=True)
class ToyResult(CorpusResult[ToySummary]):
    """The scores of a corpus."""

    kind = ToySummary


class ToyScorer(QuestionScorer[ToyResult]):
    """Needs no model."""

    def __init__(self, config: ToyConfig) -> None:
        self.config = config
        self.key = ResultKey("toy", {"words": config.words, "strict": config.strict})

    def _score(self, summaries: list[str], sources: list[str], spread: bool, on_batch: OnBatch | None) -> ToyResult:
        return ToyResult(tuple(map(self._score_one, summaries, sources)), self.signature)

    def _english_model(self) -> None:
        return None

    def _score_one(self, summary: str, source: str) -> ToySummary:
        words = summary.split()[: self.config.words]
        if not self.config.strict:
            source = source.lower()
        questions = []
        for word in words:
            start = summary.index(word)
            score = float((word if self.config.strict else word.lower()) in source)
            questions.append(ToyQuestion("Which word is it?", word, start, start + len(word), score))
        return ToySummary(sum(question.score for question in questions) / len(questions), tuple(questions))


TOY = MetricSpec(
    name="toy",
    title="TOY",
    config="tests.quals_metric.toy_metric:ToyConfig",
    scorer="tests.quals_metric.toy_metric:ToyScorer",
    summary="tests.quals_metric.toy_metric:ToySummary",
    evaluate_class="tests.quals_metric.toy_metric:Toy",
    best=1.0,
    shows_01=False,
    band_limits=(0.25, 0.5, 0.75),
    meaning="Every word is looked for in the source.",
    legend="share: 1 if the source has the word.",
    columns=("share", "word"),
    cells=lambda question: (question.answer,),
    report_columns=("Word", "Share"),
    report_cells=lambda question: (question.answer,),
)
