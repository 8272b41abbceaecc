"""QAGS (Wang, Cho and Lewis 2020, arXiv 2004.04228): the steps of the procedure in order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice

from qa_inference import __version__
from qa_inference.answer_candidates import AnswerCandidate, AnswerFinder
from qa_inference.batching import DEFAULT_TOKEN_BUDGET, TOKENS_PER_HYPOTHESIS, map_batches
from qa_inference.decoding import BeamSearch
from qa_inference.distributed import OnBatch
from qa_inference.metric_base.key import ResultKey, checkpoint_version, short_digest
from qa_inference.metric_base.options import as_config
from qa_inference.metric_base.question_scorer import DEFAULT_WINDOW, QuestionScorer
from qa_inference.metric_base.results import mean_of_defined
from qa_inference.models.devices import dtype_name
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions
from qa_inference.models.reader import Reader, ReaderAnswer, Window
from qags_metric.config import QagsConfig
from qags_metric.result import FoundAnswer, QagsResult, QuestionScore, SummaryScore
from qags_metric.selection import AskedQuestion, by_likelihood, parse_questions, select_questions, token_f1

CHARACTERS_PER_TOKEN = 4  # an estimate, for texts that are not yet tokenized
WINDOWS_AT_ONCE = 4096  # windows of the reader in memory at a time; the last question may add a few
STAGES = 4

QuestionOfText = tuple[str, str]
"""A question and the text that it is asked of."""


def load_generator(config: QagsConfig) -> EncoderDecoder:
    """The question generator that a configuration names. Raises what `EncoderDecoder.load` does."""
    preset = config.model_preset()
    options = LoadingOptions.from_config(config, config.revision or preset.revision)
    return EncoderDecoder.load(preset.model, options, sharing=config.sharing)


def load_reader(config: QagsConfig) -> Reader:
    """The reader that a configuration names. Raises what `Reader.load` does."""
    preset = config.reader_preset()
    options = LoadingOptions.from_config(config, config.reader_revision or preset.revision)
    return Reader.load(preset.model, options, config=config.reader_config)


class QagsScorer(QuestionScorer[QagsResult]):
    """Scores summaries against their sources. It loads its models once, when it is made.

    >>> scorer = QagsScorer()  # doctest: +SKIP
    >>> result = scorer.score(["Ann won."], ["Bob lost to Ann."])  # doctest: +SKIP
    >>> result.score, result.summaries[0].questions[0].question  # doctest: +SKIP

    Args:
        config: the options, or the name of a question-generation model: a preset, a Hub name or a folder; None: the
            defaults.
        finder: a loaded finder of names and noun phrases, used instead of `config.spacy_model`.
        generator: a loaded model that writes questions, used instead of `config.model`.
        reader: a loaded reader, used instead of `config.reader`. It reads as its own configuration says.
    """

    def __init__(
        self,
        config: QagsConfig | str | None = None,
        *,
        finder: AnswerFinder | None = None,
        generator: EncoderDecoder | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.config = config = as_config(config, QagsConfig)
        self._preset, self._reader_preset = config.model_preset(), config.reader_preset()
        self.format = self._preset.format
        self.finder = finder or AnswerFinder.load(config.spacy_model)
        self.generator = generator or load_generator(config)
        self.reader = reader or load_reader(config)
        self.format.mark_ids(self.generator.text)  # a format that cannot mark answers raises its error here, not later
        self.window = self.format.window or self.generator.window or DEFAULT_WINDOW
        self._map = partial(map_batches, token_budget=config.token_budget or DEFAULT_TOKEN_BUDGET)
        self._search = BeamSearch(config.beam_width, config.min_question_tokens, config.max_question_tokens)
        self._use_calibration(config.calibration)

    def _score(self, summaries: list[str], sources: list[str], spread: bool, on_batch: OnBatch | None) -> QagsResult:
        """The metric's steps in order.

        `on_batch` counts each text in each of the four stages: candidates, questions, answers from the summary, answers
        from the source.
        """
        progress = _StageProgress(on_batch, len(summaries))
        # 1. to 3. Find answer candidates, write questions, keep those that the summary answers as intended.
        candidates = self._candidates(list(dict.fromkeys(summaries)), spread, progress)
        questions, windowed_summaries = self._questions(candidates, spread, progress)
        kept, summary_answers = self._kept_questions(questions, spread, progress)
        # 4. Answer the kept questions from the sources. A source may be another row's summary, and be read already.
        rows = list(zip(summaries, sources, strict=True))
        asked_of_sources = [(question.question, source) for summary, source in rows for question in kept[summary]]
        unread = [asked for asked in asked_of_sources if asked not in summary_answers]
        answers = summary_answers | self._read(unread, spread, progress, 3, 4)
        progress.reach(4)
        # 5. Compare the two answers of every question.
        scored = [self._summary_score(*row, candidates, kept, answers) for row in rows]
        windowed_summaries |= _windowed(summary_answers)
        windowed_sources = _windowed({asked: answers[asked] for asked in asked_of_sources})
        return QagsResult(tuple(scored), self.signature, len(windowed_summaries), len(windowed_sources))

    def _english_model(self) -> str | None:
        return self._preset.name if self._preset.reads_only_english else None

    def _support(self, item: QuestionScore) -> float:
        """A question takes the passage with the reader's most confident answer; one without any span comes last."""
        confidence = item.source_answer.confidence
        return -math.inf if math.isnan(confidence) else confidence

    @cached_property
    def key(self) -> ResultKey:  # type: ignore[override]  # cached
        """Everything that a score depends on, by name."""
        config, model, reader = self.config, self.generator.model, self.reader
        reading = reader.config
        versions = [
            f"{preset.name}@{checkpoint_version(preset.model, loaded)}"
            for preset, loaded in ((self._preset, model), (self._reader_preset, reader.model))
        ]
        settings = {
            "model": versions[0],
            "format": short_digest(self.format),
            "window": self.window,
            "reader": versions[1],
            "reading": f"{reading.window}-{reading.stride}-{reading.n_best}-{reading.max_answer_tokens}"
            f"-{reading.null_threshold}",
            "finder": self.finder.signature,
            "candidates": config.num_candidates,
            "beams": config.beam_width,
            "hypotheses": config.hypotheses,
            "length": f"{config.min_question_tokens}-{config.max_question_tokens}",
            "questions": f"{config.max_questions}" + (f"-{config.max_per_answer}" if config.max_per_answer else ""),
            "exact": "yes" if config.exact else "no",
            "attention": "shared" if self.generator.shared else "expanded",
            "dtype": dtype_name(model.dtype),
            "device": self.generator.device.type,
            "version": __version__,
        }
        return ResultKey("qags", settings)

    def _candidates(
        self, summaries: list[str], spread: bool, progress: _StageProgress
    ) -> dict[str, list[AnswerCandidate]]:
        """Step 1: the answer candidates of every summary, its names and noun phrases."""
        candidates = self._map(
            lambda batch: self.finder.find(batch, self.config.num_candidates),
            summaries,
            lambda text: 1 + len(text) // CHARACTERS_PER_TOKEN,
            spread=spread,
            on_batch=progress.part(0, 1),
        )
        return dict(zip(summaries, candidates, strict=True))

    def _questions(
        self, candidates: dict[str, list[AnswerCandidate]], spread: bool, progress: _StageProgress
    ) -> tuple[dict[str, list[AskedQuestion]], set[str]]:
        """Step 2: the questions for all candidates of every summary, and the summaries longer than the window.

        A candidate that is itself longer than the window has no question.
        """
        inputs, owners, windowed = [], [], set()
        for summary, answers in candidates.items():
            for answer in answers:
                marked = self.format.input(self.generator.text, summary, answer.start, answer.end, self.window)
                if marked is None or marked[1]:
                    windowed.add(summary)
                if marked is not None:
                    inputs.append(marked[0])
                    owners.append((summary, answer))
        hypotheses_of_input = self._map(
            lambda batch: self.generator.generate(batch, self._search),
            inputs,
            lambda ids: len(ids) + TOKENS_PER_HYPOTHESIS * self.config.beam_width,
            spread=spread,
            on_batch=progress.part(1, 2),
        )
        questions: dict[str, list[AskedQuestion]] = {summary: [] for summary in candidates}
        for (summary, answer), hypotheses in zip(owners, hypotheses_of_input, strict=True):
            questions[summary] += parse_questions(hypotheses[: self.config.hypotheses], answer, self.generator.text)
        if inputs and not any(questions.values()):
            warnings.warn(
                f"model {self._preset.name!r}: none of {sum(map(len, hypotheses_of_input))} hypotheses is a question "
                f"of three words and a question mark; every score is undefined. Does its format fit?",
                stacklevel=3,
            )
        progress.reach(2)
        return questions, windowed

    def _kept_questions(
        self, questions: dict[str, list[AskedQuestion]], spread: bool, progress: _StageProgress
    ) -> tuple[dict[str, list[AskedQuestion]], dict[QuestionOfText, ReaderAnswer]]:
        """Step 3: the kept questions of every summary, and the reader's answers from the summaries.

        The reader gets the likeliest questions first. Once enough of them are kept, it does not get the others, which
        are less likely.
        """
        config = self.config
        waiting = {summary: by_likelihood(of_summary) for summary, of_summary in questions.items()}
        read: dict[str, list[AskedQuestion]] = {summary: [] for summary in questions}
        kept: dict[str, list[AskedQuestion]] = {summary: [] for summary in questions}
        answers: dict[QuestionOfText, ReaderAnswer] = {}
        start = 2.0
        while unfinished := [summary for summary, of_summary in waiting.items() if of_summary]:
            # 1. Take the next questions of every summary that has too few.
            num_left = sum(len(waiting[summary]) for summary in unfinished)
            for summary in unfinished:
                read[summary] += waiting[summary][: config.max_questions]
                del waiting[summary][: config.max_questions]
            asked = [(question.question, summary) for summary in unfinished for question in read[summary]]
            # 2. Answer them from the summary.
            end = start + (3 - start) * (num_left - sum(map(len, waiting.values()))) / num_left
            answers |= self._read([key for key in asked if key not in answers], spread, progress, start, end)
            start = end
            # 3. Keep those that are answered as intended.
            for summary in unfinished:
                own = {question.question: answers[question.question, summary] for question in read[summary]}
                kept[summary] = select_questions(
                    read[summary], own, config.max_questions, config.exact, config.max_per_answer
                )
                if len(kept[summary]) == config.max_questions:
                    waiting[summary] = []
        progress.reach(3)
        return kept, answers

    def _read(
        self, asked: Iterable[QuestionOfText], spread: bool, progress: _StageProgress, start: float, end: float
    ) -> dict[QuestionOfText, ReaderAnswer]:
        """Steps 3 and 4: the reader's answer to every distinct question of a text, from stage `start` to `end`."""
        distinct = list(dict.fromkeys(asked))
        answers: dict[QuestionOfText, ReaderAnswer] = {}
        for part in self._parts(distinct):
            shares = (count / len(distinct) for count in (len(answers), len(answers) + len(part)))
            spans_of_window = iter(
                self._map(
                    self.reader.spans,
                    [window for _, windows in part for window in windows],
                    lambda window: window.cost,
                    spread=spread,
                    on_batch=progress.part(*(start + (end - start) * share for share in shares)),
                )
            )
            for key, windows in part:
                answers[key] = self.reader.answer(key[1], windows, list(islice(spans_of_window, len(windows))))
        return answers

    def _parts(self, asked: Iterable[QuestionOfText]) -> Iterator[list[tuple[QuestionOfText, list[Window]]]]:
        """The questions with their windows, in parts that fit into memory."""
        part: list[tuple[QuestionOfText, list[Window]]] = []
        num_windows = 0
        for key in asked:
            windows = self.reader.windows(*key)
            part.append((key, windows))
            num_windows += len(windows)
            if num_windows >= WINDOWS_AT_ONCE:
                yield part
                part, num_windows = [], 0
        if part:
            yield part

    def _summary_score(
        self,
        summary: str,
        source: str,
        candidates: dict[str, list[AnswerCandidate]],
        kept: dict[str, list[AskedQuestion]],
        answers: dict[QuestionOfText, ReaderAnswer],
    ) -> SummaryScore:
        """Step 5: the mean F1 of a summary's questions, or the reason why there is none."""
        if not candidates[summary]:
            return SummaryScore(math.nan, (), "no answer candidate")
        questions = tuple(
            _question_score(question, answers[question.question, summary], answers[question.question, source])
            for question in kept[summary]
        )
        score = mean_of_defined(question.f1 for question in questions)
        return SummaryScore(score, questions, "" if questions else "no question kept")


@dataclass
class _StageProgress:
    """The progress of a scoring: each of `num_rows` texts counts once in each stage."""

    on_batch: OnBatch | None
    num_rows: int
    num_reported: int = 0

    def part(self, start: float, end: float) -> OnBatch | None:
        """The callback for the part of the stages between `start` and `end`; stages count from 0."""
        if self.on_batch is None:
            return None
        return lambda done, total: self._report(start + (end - start) * done / total)

    def reach(self, stage: int) -> None:
        """Report that the stages before `stage` are done, unless it was reported. A stage may have nothing to do."""
        if self.on_batch is not None and self.num_reported < stage * self.num_rows:
            self._report(stage)

    def _report(self, stages: float) -> None:
        self.num_reported = int(stages * self.num_rows + 1e-6)  # sums of fractions fall short of the whole
        if self.on_batch is not None:
            self.on_batch(self.num_reported, STAGES * self.num_rows)


def _windowed(answers: dict[QuestionOfText, ReaderAnswer]) -> set[str]:
    """The texts that were read in more than one window."""
    return {text for (_, text), answer in answers.items() if answer.num_windows > 1}


def _question_score(question: AskedQuestion, own: ReaderAnswer, from_source: ReaderAnswer) -> QuestionScore:
    """A kept question with its answers from the summary and from the source."""
    intended = question.answer
    return QuestionScore(
        question.question,
        intended.text,
        intended.start,
        intended.end,
        _found_answer(own),
        _found_answer(from_source),
        token_f1(own.text, from_source.text),
        question.log_prob,
    )


def _found_answer(answer: ReaderAnswer) -> FoundAnswer:
    return FoundAnswer(answer.text, answer.start, answer.end, answer.score - answer.null_score)
