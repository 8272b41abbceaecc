"""QUALS as a metric of evaluate."""

from __future__ import annotations

from typing import Any

from qa_inference.evaluate_metric import QuestionMetric, loaded
from qa_inference.metric_base.results import CorpusResult
from qa_inference.presets import PRESETS
from quals_metric.config import QualsConfig
from quals_metric.scorer import QualsScorer, load_model, load_searcher

_DESCRIPTION = """\
QUALS measures how well a source supports its summary. A model writes questions and answers about the summary. A pair
scores the mean over its tokens of log p(token | source) - log p(token | summary). QUALS is the mean over the kept
pairs, in nats per token. Higher is better; 0 means that the source supports every pair as well as the summary does.
"""

_CITATION = """\
@inproceedings{nan-etal-2021-improving,
    title = "Improving Factual Consistency of Abstractive Summarization via Question Answering",
    author = "Nan, Feng and Nogueira dos Santos, Cicero and Zhu, Henghui and Ng, Patrick and McKeown, Kathleen and
      Nallapati, Ramesh and Zhang, Dejiao and Wang, Zhiguo and Arnold, Andrew O. and Xiang, Bing",
    booktitle = "Proceedings of the 59th Annual Meeting of the Association for Computational Linguistics and the 11th
      International Joint Conference on Natural Language Processing (Volume 1: Long Papers)",
    year = "2021",
    url = "https://arxiv.org/abs/2105.04623",
}
"""

_RETURNS = """\
    quals (float): the mean over summaries whose score is defined; NaN if there is none.
    quals_01 (float): the mean of exp(min(score, 0)), between 0 and 1.
    scores (list of float): one per summary; NaN where it is undefined, for example if no pair was kept.
    num_pairs (list of int): how many pairs each score is the mean of.
    num_undefined (int): how many scores are NaN.
    num_windowed_summaries, num_windowed_sources (int): how many texts were longer than the model's window.
    signature (str): everything the numbers depend on: versions, model, settings.
    probabilities (list of float): with a calibration, one per summary; NaN where the score is undefined.
    pairs (list of list of dict): on request, see `return_pairs`.
"""

_EXAMPLES = """\
    A source supports a summary that is equal to it:

    >>> from quals_metric import Quals
    >>> quals = Quals()
    >>> text = "The library in Riverton opens again on Monday after two years of repairs."
    >>> results = quals.compute(predictions=[text], sources=[text])
    >>> abs(results["quals"]) < 0.001
    True

    A summary about which nothing can be asked has no score, and does not count in the mean:

    >>> results = quals.compute(predictions=[text, ""], sources=[text, text])
    >>> results["scores"][1], results["num_undefined"]
    (nan, 1)

    The pairs explain a score; `start` and `end` count the summary's characters:

    >>> results = quals.compute(predictions=[text], sources=[text], return_pairs=True)
    >>> sorted(results["pairs"][0][0])
    ['answer', 'end', 'passage', 'question', 'score', 'source_log_probs', 'start', 'summary_log_probs', 'tokens']
    >>> all(text[pair["start"] : pair["end"]] == pair["answer"] for pair in results["pairs"][0])
    True
"""


class Quals(QuestionMetric):
    """QUALS for `evaluate`: `evaluate.load("quals")`, or this class, which needs no registration."""

    metric = "quals"
    config_type = QualsConfig
    presets = PRESETS
    items_field = "pairs"
    description_text, citation_text, returns, examples = _DESCRIPTION, _CITATION, _RETURNS, _EXAMPLES
    reference_url = "https://arxiv.org/abs/2105.04623"

    @classmethod
    def make_scorer(cls, config: QualsConfig) -> QualsScorer:
        """A scorer that shares the loaded model. Only a change of the model's own options loads another model."""

        def shared_model(options: QualsConfig) -> Any:
            return loaded(load_model, options.model_options())

        model = shared_model(config)
        return QualsScorer(config, model=model, searcher=load_searcher(config, model, shared_model))

    @classmethod
    def outputs(cls, result: CorpusResult[Any]) -> dict[str, Any]:
        """The results of `compute`: the mean score, its 0-to-1 view, and the results that all metrics have."""
        common = super().outputs(result)
        return {"quals": common.pop("quals"), "quals_01": result.score_01, **common}
