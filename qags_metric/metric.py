"""QAGS as a metric of evaluate: checks and translation, no arithmetic."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import datasets
import evaluate

from qa_inference.answer_candidates import AnswerFinder
from qa_inference.formats import QuestionFormat
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.reader import Reader, ReaderConfig
from qa_inference.options import choose_model, given, only, refuse_unknown, storable_texts
from qa_inference.presets import QUESTION_PRESETS
from qags_metric.config import QagsConfig, load_generator, load_reader
from qags_metric.scorer import QagsScorer

_DESCRIPTION = """\
QAGS says how far a summary and its source give the same answers to the same questions. A model writes questions about
the names and noun phrases of the summary; a reader answers them from the summary and from the source. QAGS is the mean
of the F1 between the two answers' words, from 0 to 1. Higher is better.
"""

_CITATION = """\
@inproceedings{wang-etal-2020-asking,
    title = "Asking and Answering Questions to Evaluate the Factual Consistency of Summaries",
    author = "Wang, Alex and Cho, Kyunghyun and Lewis, Mike",
    booktitle = "Proceedings of the 58th Annual Meeting of the Association for Computational Linguistics",
    year = "2020",
    url = "https://arxiv.org/abs/2004.04228",
}
"""

_INPUTS = """
Args:
    predictions (list of str): the summaries to judge.
    sources (list of str): for each summary, the text it was written from. Texts may repeat.
    num_candidates (int): how many names and noun phrases of a summary are asked for.
    beam_width, hypotheses (int): the width of the beam search for questions, and how many of its results count.
    min_question_tokens, max_question_tokens (int): how short a question may be, and how long, its end included.
    max_questions (int): how many questions of a summary are kept at most.
    max_per_answer (int): how many of them may ask for the same answer; by default any number, as published.
    exact (bool): whether the reader must give the intended answer to the character for a question to be kept.
    return_questions (bool): also return the questions and answers behind every score.
    Of these, what is None stays as it was when the metric was loaded.
Returns:
    qags (float): the mean over summaries whose score is defined; NaN if there is none.
    scores (list of float): one per summary, between 0 and 1; NaN where no question was kept.
    num_questions (list of int): how many questions each score is the mean of.
    num_undefined (int): how many scores are NaN.
    num_windowed_summaries, num_windowed_sources (int): how many texts were longer than a model's window.
    signature (str): everything the numbers depend on: versions, models, settings.
    questions (list of list of dict): on request, see `return_questions`.
Examples:

    A summary that is its own source is answered the same:

    >>> from qags_metric import Qags
    >>> qags = Qags()
    >>> text = "The library in Riverton opens again on Monday after two years of repairs."
    >>> results = qags.compute(predictions=[text], sources=[text])
    >>> results["qags"]
    1.0

    A summary about which nothing can be asked has no score, and does not count in the mean:

    >>> results = qags.compute(predictions=[text, ""], sources=[text, text])
    >>> results["scores"][1], results["num_undefined"]
    (nan, 1)

    The questions say why a score is what it is; the spans are places in the summary:

    >>> results = qags.compute(predictions=[text], sources=[text], return_questions=True)
    >>> sorted(results["questions"][0][0])
    ['answer', 'end', 'f1', 'log_prob', 'question', 'source_answer', 'start', 'summary_answer']
    >>> all(text[question["start"] : question["end"]] == question["answer"] for question in results["questions"][0])
    True
"""

_EVALUATE_OPTIONS = set(inspect.signature(evaluate.Metric.__init__).parameters) - {"self", "config_name", "kwargs"}

_LOADING = ("token", "cache_dir", "local_files_only", "device", "dtype")
_GENERATOR = ("model", "revision", "sharing", *_LOADING)
_READER = ("reader", "reader_config", "reader_revision", *_LOADING)


@lru_cache(maxsize=4)
def _generator(config: QagsConfig) -> EncoderDecoder:
    """One loaded generator per process, whatever the number of metrics."""
    return load_generator(config)


@lru_cache(maxsize=4)
def _reader(config: QagsConfig) -> Reader:
    """One loaded reader."""
    return load_reader(config)


@lru_cache(maxsize=2)
def _finder(spacy_model: str | None) -> AnswerFinder:
    """One loaded spaCy model."""
    return AnswerFinder.load(spacy_model)


@lru_cache(maxsize=8)
def _scorer(config: QagsConfig) -> QagsScorer:
    """A scorer on the loaded models; how it searches and what it keeps does not need others."""
    return QagsScorer(
        config,
        finder=_finder(config.spacy_model),
        generator=_generator(only(config, _GENERATOR)),
        reader=_reader(only(config, _READER)),
    )


class Qags(evaluate.Metric):
    """QAGS for `evaluate`: `evaluate.load("qags")`, or this class, which needs no registration.

    Args:
        config_name: a preset's name ("embedded", "t5-base-qg-hl", …); None: "embedded", which needs no network.
        model: instead of a preset, any encoder-decoder that writes questions: a Hub name or a folder.
        format: what `model` reads; None: the text with `<hl>` around the answer.
        reader: what answers the questions: a preset ("embedded", "roberta-base-squad2", …), a Hub name or a folder.
        reader_config: how it reads; None: `ReaderConfig()`.
        spacy_model: what finds names and noun phrases; None: the first English model of spaCy that is installed.
        model_revision: the commit or branch of `model` on the Hub. (`revision` is evaluate's, for the module script.)
        reader_revision: that of `reader`.
        token: an access token for the Hub.
        local_files_only: never ask the Hub.
        device: where to compute; None: the machine's best.
        dtype: "float32", "bfloat16", "float16"; None: the device's.
        token_budget: how many tokens a batch may hold; None: the device's.
        num_candidates: this and the next are described with `compute`, which can override them.
        beam_width: see `compute`.
        hypotheses: see `compute`.
        min_question_tokens: see `compute`.
        max_question_tokens: see `compute`.
        max_questions: see `compute`.
        max_per_answer: see `compute`.
        exact: see `compute`.
        **evaluate_options: those of `evaluate.Metric`: keep_in_memory, cache_dir, experiment_id, seed, …

    Raises:
        TypeError: an unknown option.
        ValueError: a `config_name` that is no preset, or beside a `model`; an option out of its range.
    """

    def __init__(
        self,
        config_name: str | None = None,
        *,
        model: str | None = None,
        format: QuestionFormat | None = None,
        reader: str | None = None,
        reader_config: ReaderConfig | None = None,
        spacy_model: str | None = None,
        model_revision: str | None = None,
        reader_revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        device: str | None = None,
        dtype: str | None = None,
        token_budget: int | None = None,
        num_candidates: int | None = None,
        beam_width: int | None = None,
        hypotheses: int | None = None,
        min_question_tokens: int | None = None,
        max_question_tokens: int | None = None,
        max_questions: int | None = None,
        max_per_answer: int | None = None,
        exact: bool | None = None,
        **evaluate_options: Any,
    ) -> None:
        # evaluate swallows what it does not know, and makes a folder of any `config_name`: check before it does.
        refuse_unknown("qags", evaluate_options, _EVALUATE_OPTIONS)
        self.config = given(
            QagsConfig(
                model=choose_model("qags", config_name, model, QUESTION_PRESETS), local_files_only=local_files_only
            ),
            format=format,
            reader=reader,
            reader_config=reader_config,
            spacy_model=spacy_model,
            revision=model_revision,
            reader_revision=reader_revision,
            token=token,
            device=device,
            dtype=dtype,
            token_budget=token_budget,
            num_candidates=num_candidates,
            beam_width=beam_width,
            hypotheses=hypotheses,
            min_question_tokens=min_question_tokens,
            max_question_tokens=max_question_tokens,
            max_questions=max_questions,
            max_per_answer=max_per_answer,
            exact=exact,
        )
        super().__init__(config_name=config_name, **evaluate_options)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "sources": text}),
            reference_urls=["https://arxiv.org/abs/2004.04228"],
            license="Apache-2.0",
        )

    def _download_and_prepare(self, dl_manager: Any) -> None:
        """Load the models when `evaluate.load` asks for it, so that a wrong name shows there."""
        _scorer(self.config)

    def add_batch(self, *, predictions: Sequence[str] = (), sources: Sequence[str] = (), **unknown: Any) -> None:
        """Add summaries and their sources; `compute()` then scores all that were added."""
        super().add_batch(**storable_texts(predictions, sources), **unknown)

    def _compute(
        self,
        predictions: Sequence[str],
        sources: Sequence[str],
        *,
        num_candidates: int | None = None,
        beam_width: int | None = None,
        hypotheses: int | None = None,
        min_question_tokens: int | None = None,
        max_question_tokens: int | None = None,
        max_questions: int | None = None,
        max_per_answer: int | None = None,
        exact: bool | None = None,
        return_questions: bool = False,
    ) -> dict[str, Any]:
        config = given(
            self.config,
            num_candidates=num_candidates,
            beam_width=beam_width,
            hypotheses=hypotheses,
            min_question_tokens=min_question_tokens,
            max_question_tokens=max_question_tokens,
            max_questions=max_questions,
            max_per_answer=max_per_answer,
            exact=exact,
        )
        result = _scorer(config).score(summaries=list(predictions), sources=list(sources))
        output = {
            "qags": result.score,
            "scores": result.scores,
            "num_questions": result.num_questions,
            "num_undefined": result.num_undefined,
            "num_windowed_summaries": result.num_windowed_summaries,
            "num_windowed_sources": result.num_windowed_sources,
            "signature": result.signature,
        }
        if return_questions:
            output["questions"] = [[asdict(question) for question in each.questions] for each in result.summaries]
        return output
