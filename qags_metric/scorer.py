"""QAGS (Wang, Cho and Lewis 2020, arXiv 2004.04228): the procedure in order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from qa_inference import __version__
from qa_inference.answer_candidates import AnswerCandidate, AnswerFinder
from qa_inference.batching import Engine
from qa_inference.decoding import BeamSearch
from qa_inference.metric_base import (
    DEFAULT_TOKEN_BUDGET,
    DEFAULT_WINDOW,
    ResultKey,
    as_config,
    check_texts,
    checkpoint_version,
    mean_of_defined,
    short_digest,
)
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import Loading
from qa_inference.models.reader import Reader
from qa_inference.models.spans import Answer, Window
from qags_metric.config import QagsConfig
from qags_metric.overlap import token_f1
from qags_metric.result import FoundAnswer, QagsResult, QuestionScore, SummaryScore
from qags_metric.selection import AskedQuestion, by_likelihood, parse, select

TOKENS_PER_BEAM = 8  # what one beam of a search costs beside its input, in the engine's tokens
CHARACTERS_PER_TOKEN = 4  # about: candidates are found in texts that have no tokens yet
WINDOWS_AT_ONCE = 4096  # the reader's windows in memory at a time, give or take those of one question
STAGES = 4

Progress = Callable[[int, int], None]
Place = tuple[str, str]
"""A question and the text it is put to."""


def load_generator(config: QagsConfig) -> EncoderDecoder:
    """The question generator that a configuration names. Raises what `EncoderDecoder.load` does."""
    preset = config.preset()
    revision = config.revision or preset.revision
    return EncoderDecoder.load(preset.model, sharing=config.sharing, **_loading(config, revision))


def load_reader(config: QagsConfig) -> Reader:
    """The reader that a configuration names. Raises what `Reader.load` does."""
    preset = config.reader_preset()
    revision = config.reader_revision or preset.revision
    return Reader.load(preset.model, config=config.reader_config, **_loading(config, revision))


def _loading(config: QagsConfig, revision: str | None) -> Loading:
    """How either model is loaded."""
    return {
        "device": config.device,
        "dtype": config.dtype,
        "revision": revision,
        "token": config.token,
        "cache_dir": config.cache_dir,
        "local_files_only": config.local_files_only,
    }


class QagsScorer:
    """Scores summaries against their sources; models are loaded once, here, but for those given loaded.

    >>> scorer = QagsScorer()  # doctest: +SKIP
    >>> result = scorer.score(summaries=["Ann won."], sources=["Bob lost to Ann."])  # doctest: +SKIP
    >>> result.score, result.summaries[0].questions[0].question  # doctest: +SKIP

    A given `reader` reads as its own configuration says, not the scorer's.
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
        self._preset, self._reader_preset = config.preset(), config.reader_preset()
        self.format = self._preset.format
        self.finder = finder or AnswerFinder.load(config.spacy_model)
        self.generator = generator or load_generator(config)
        self.reader = reader or load_reader(config)
        self.format.mark_ids(self.generator.text)  # an answer that cannot be marked is an error here, not later
        self._window = self.format.window or self.generator.window or DEFAULT_WINDOW
        self._engine = Engine(token_budget=config.token_budget or DEFAULT_TOKEN_BUDGET)
        self._search = BeamSearch(config.beam_width, config.min_question_tokens, config.max_question_tokens)

    def score(
        self,
        summaries: Sequence[str],
        sources: Sequence[str],
        *,
        spread: bool = False,
        on_batch: Progress | None = None,
    ) -> QagsResult:
        """QAGS of every summary against the source at the same place.

        `spread` shares the work among the processes of an `accelerate launch`; every process must call it with the
        same texts and gets the whole result. `on_batch(done, total)` is called after every batch: `total` is four times
        the number of texts that can be scored, each of the four stages (candidates, questions, answers from the
        summary, answers from the source) a quarter of it; what it raises stops the scoring. Raises TypeError or
        ValueError for other than lists of str of equal length.
        """
        check_texts(summaries, sources)
        real = [(a, b) for a, b in zip(summaries, sources, strict=True) if a.strip() and b.strip()]
        progress = _Progress(on_batch, len(real))
        candidates = self._candidates(list(dict.fromkeys(summary for summary, _ in real)), spread, progress)
        asked, windowed = self._questions(candidates, spread, progress)
        kept, answers = self._kept(asked, spread, progress)
        places = [(one.question, source) for summary, source in real for one in kept[summary]]
        unread = [place for place in places if place not in answers]  # a source may be somebody's summary
        found = answers | self._read(unread, spread, progress, 3, 4)
        progress.reach(4)
        scored = [
            self._summary_score(summary, source, candidates, kept, answers, found)
            for summary, source in zip(summaries, sources, strict=True)
        ]
        windowed |= _windowed(answers)
        windowed_sources = _windowed({place: found[place] for place in places})
        return QagsResult(tuple(scored), self.signature, len(windowed), len(windowed_sources))

    @property
    def signature(self) -> str:
        """Everything that a score depends on, in one line."""
        return self.key.signature()

    @cached_property
    def key(self) -> ResultKey:
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
            "window": self._window,
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
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": self.generator.device.type,
            "version": __version__,
        }
        return ResultKey("qags", settings)

    def _candidates(self, summaries: list[str], spread: bool, progress: _Progress) -> dict[str, list[AnswerCandidate]]:
        """Step 1: what may be asked for, by summary."""
        found = self._engine.map(
            lambda batch: self.finder.find(batch, self.config.num_candidates),
            summaries,
            lambda text: 1 + len(text) // CHARACTERS_PER_TOKEN,
            spread=spread,
            on_batch=progress.part(0, 1),
        )
        return dict(zip(summaries, found, strict=True))

    def _questions(
        self, candidates: dict[str, list[AnswerCandidate]], spread: bool, progress: _Progress
    ) -> tuple[dict[str, list[AskedQuestion]], set[str]]:
        """Step 2: the questions to every candidate, by summary, and the summaries longer than the window.

        A candidate that is itself longer than the window has no question.
        """
        inputs, owners, windowed = [], [], set()
        for text, each in candidates.items():
            for answer in each:
                marked = self.format.input(self.generator.text, text, answer.start, answer.end, self._window)
                if marked is None or marked[1]:
                    windowed.add(text)
                if marked is not None:
                    inputs.append(marked[0])
                    owners.append((text, answer))
        found = self._engine.map(
            lambda batch: self.generator.generate(batch, self._search),
            inputs,
            lambda ids: len(ids) + TOKENS_PER_BEAM * self.config.beam_width,
            spread=spread,
            on_batch=progress.part(1, 2),
        )
        asked: dict[str, list[AskedQuestion]] = {text: [] for text in candidates}
        for (text, answer), hypotheses in zip(owners, found, strict=True):
            asked[text] += parse(hypotheses[: self.config.hypotheses], answer, self.generator.text)
        if inputs and not any(asked.values()):
            warnings.warn(
                f"model {self._preset.name!r}: none of {sum(map(len, found))} hypotheses is a question of three words "
                f"and a question mark; every score is undefined. Does its format fit?",
                stacklevel=3,
            )
        progress.reach(2)
        return asked, windowed

    def _kept(
        self, asked: dict[str, list[AskedQuestion]], spread: bool, progress: _Progress
    ) -> tuple[dict[str, list[AskedQuestion]], dict[Place, Answer]]:
        """Step 3: the questions about every summary that count, and what the reader answered from the summaries.

        The likeliest questions are read first, and no more of them once enough are kept: those that are left could not
        be among the likeliest.
        """
        config = self.config
        waiting = {summary: by_likelihood(each) for summary, each in asked.items()}
        read: dict[str, list[AskedQuestion]] = {summary: [] for summary in asked}
        kept: dict[str, list[AskedQuestion]] = {summary: [] for summary in asked}
        answers: dict[Place, Answer] = {}
        start = 2.0
        while unfinished := [summary for summary, each in waiting.items() if each]:
            left = sum(len(waiting[summary]) for summary in unfinished)
            for summary in unfinished:
                read[summary] += waiting[summary][: config.max_questions]
                del waiting[summary][: config.max_questions]
            places = [(one.question, summary) for summary in unfinished for one in read[summary]]
            end = start + (3 - start) * (left - sum(map(len, waiting.values()))) / left
            answers |= self._read([place for place in places if place not in answers], spread, progress, start, end)
            start = end
            for summary in unfinished:
                own = {one.question: answers[one.question, summary] for one in read[summary]}
                kept[summary] = select(read[summary], own, config.max_questions, config.exact, config.max_per_answer)
                if len(kept[summary]) == config.max_questions:
                    waiting[summary] = []
        progress.reach(3)
        return kept, answers

    def _read(
        self, places: Iterable[Place], spread: bool, progress: _Progress, start: float, end: float
    ) -> dict[Place, Answer]:
        """Steps 3 and 4: the reader's answer to every distinct question to a text, from stage `start` to `end`."""
        distinct = list(dict.fromkeys(places))
        answers: dict[Place, Answer] = {}
        for part in self._parts(distinct):
            shares = (count / len(distinct) for count in (len(answers), len(answers) + len(part)))
            spans = self._engine.map(
                self.reader.spans,
                [window for _, windows in part for window in windows],
                lambda window: window.cost,
                spread=spread,
                on_batch=progress.part(*(start + (end - start) * share for share in shares)),
            )
            found = iter(spans)
            for place, windows in part:
                answers[place] = self.reader.answer(place[1], windows, [next(found) for _ in windows])
        return answers

    def _parts(self, places: Iterable[Place]) -> Iterator[list[tuple[Place, list[Window]]]]:
        """The questions with their windows, so many at a time as may be in memory together."""
        part: list[tuple[Place, list[Window]]] = []
        size = 0
        for place in places:
            part.append((place, self.reader.windows(*place)))
            size += len(part[-1][1])
            if size >= WINDOWS_AT_ONCE:
                yield part
                part, size = [], 0
        if part:
            yield part

    def _summary_score(
        self,
        summary: str,
        source: str,
        candidates: dict[str, list[AnswerCandidate]],
        kept: dict[str, list[AskedQuestion]],
        answers: dict[Place, Answer],
        found: dict[Place, Answer],
    ) -> SummaryScore:
        """Step 5: the mean F1 of a summary's questions, or why there is none."""
        if not summary.strip() or not source.strip():
            return SummaryScore(math.nan, (), "blank source" if summary.strip() else "blank summary")
        if not candidates[summary]:
            return SummaryScore(math.nan, (), "no answer candidate")
        questions = tuple(
            _question_score(one, answers[one.question, summary], found[one.question, source]) for one in kept[summary]
        )
        value = mean_of_defined(question.f1 for question in questions)
        return SummaryScore(value, questions, "" if questions else "no question kept")


@dataclass
class _Progress:
    """One count over the stages of a scoring: each of `rows` texts counts once in each."""

    on_batch: Progress | None
    rows: int
    told: int = 0

    def part(self, start: float, end: float) -> Progress | None:
        """The engine's callback for the part of the stages between `start` and `end`; stages count from 0."""
        return None if self.on_batch is None else lambda done, total: self._tell(start + (end - start) * done / total)

    def reach(self, stage: int) -> None:
        """Say that the stages before `stage` are done, if nobody has: a stage may have nothing to do."""
        if self.on_batch is not None and self.told < stage * self.rows:
            self._tell(stage)

    def _tell(self, stages: float) -> None:
        self.told = int(stages * self.rows + 1e-6)  # sums of fractions fall short of the whole
        if self.on_batch is not None:
            self.on_batch(self.told, STAGES * self.rows)


def _windowed(answers: dict[Place, Answer]) -> set[str]:
    """The texts that were read in more than one window."""
    return {text for (_, text), answer in answers.items() if answer.num_windows > 1}


def _question_score(one: AskedQuestion, own: Answer, found: Answer) -> QuestionScore:
    """A kept question with its answers from the summary and from the source."""
    answer = one.answer
    span = answer.text, answer.start, answer.end
    agreement = token_f1(own.text, found.text)
    return QuestionScore(one.question, *span, _found(own), _found(found), agreement, one.log_prob)


def _found(answer: Answer) -> FoundAnswer:
    return FoundAnswer(answer.text, answer.start, answer.end, answer.score - answer.null_score)
