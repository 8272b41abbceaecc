"""QAGS as a metric of evaluate."""

from __future__ import annotations

from qa_inference.answer_candidates import AnswerFinder
from qa_inference.evaluate_metric import QuestionMetric, loaded
from qa_inference.presets import QUESTION_PRESETS
from qags_metric.config import QagsConfig
from qags_metric.scorer import QagsScorer, load_generator, load_reader

_DESCRIPTION = """\
QAGS measures how far a summary and its source give the same answers to the same questions. A model writes questions
about the names and noun phrases of the summary. A reader answers them from the summary and from the source. QAGS is the
mean of the F1 between the words of the two answers, from 0 to 1. Higher is better.
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

_RETURNS = """\
    qags (float): the mean over summaries whose score is defined; NaN if there is none.
    scores (list of float): one per summary, between 0 and 1; NaN where no question was kept.
    num_questions (list of int): how many questions each score is the mean of.
    num_undefined (int): how many scores are NaN.
    num_windowed_summaries, num_windowed_sources (int): how many texts were longer than a model's window.
    signature (str): everything the numbers depend on: versions, models, settings.
    probabilities (list of float): with a calibration, one per summary; NaN where the score is undefined.
    questions (list of list of dict): on request, see `return_questions`.
"""

_EXAMPLES = """\
    A summary that is equal to its source gives the same answers:

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

    The questions explain a score; `start` and `end` count the summary's characters:

    >>> results = qags.compute(predictions=[text], sources=[text], return_questions=True)
    >>> sorted(results["questions"][0][0])
    ['answer', 'end', 'f1', 'log_prob', 'passage', 'question', 'source_answer', 'start', 'summary_answer']
    >>> all(text[question["start"] : question["end"]] == question["answer"] for question in results["questions"][0])
    True
"""


class Qags(QuestionMetric):
    """QAGS for `evaluate`: `evaluate.load("qags")`, or this class, which needs no registration."""

    metric = "qags"
    config_type = QagsConfig
    presets = QUESTION_PRESETS
    items_field = "questions"
    description_text, citation_text, returns, examples = _DESCRIPTION, _CITATION, _RETURNS, _EXAMPLES
    reference_url = "https://arxiv.org/abs/2004.04228"

    @classmethod
    def make_scorer(cls, config: QagsConfig) -> QagsScorer:
        """A scorer that shares the loaded models. Only a change of a model's own options loads another model."""
        return QagsScorer(
            config,
            finder=loaded(AnswerFinder.load, config.spacy_model),
            generator=loaded(load_generator, config.model_options("generator")),
            reader=loaded(load_reader, config.model_options("reader")),
        )
