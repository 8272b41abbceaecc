"""QUALS as a metric of evaluate: checks and translation, no arithmetic."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import datasets
import evaluate

from qa_inference.formats import PairFormat
from qa_inference.options import choose_model, given, only, refuse_unknown, storable_texts
from qa_inference.presets import PRESETS
from quals_metric.scorer import Model, QualsConfig, QualsScorer, load_model, load_searcher

if TYPE_CHECKING:
    from quals_metric.result import SummaryScore

_DESCRIPTION = """\
QUALS says how far a summary is supported by its source. A model writes questions and answers about the summary; a
pair is as good as the source makes it likely, compared with the summary: the mean over its tokens of
log p(token | source) - log p(token | summary). QUALS is the mean over the pairs kept, in nats per token. Higher is
better; 0 means that the source supports every pair as well as the summary does.
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

_INPUTS = """
Args:
    predictions (list of str): the summaries to judge.
    sources (list of str): for each summary, the text it was written from. Texts may repeat.
    groups, strength (int, float): diverse beam search writes `groups` pairs per summary, kept apart by `strength`.
    min_new_tokens, max_new_tokens (int): how short and how long a pair may be, its end included.
    max_pairs (int): about how many pairs of a summary are kept.
    tokens (str): "all" scores a pair on its question and answer, "answer" on its answer alone.
    return_pairs (bool): also return the question-answer pairs behind every score.
    Of these, what is None stays as it was when the metric was loaded.
Returns:
    quals (float): the mean over summaries whose score is defined; NaN if there is none.
    quals_01 (float): the mean of exp(min(score, 0)), between 0 and 1.
    scores (list of float): one per summary; NaN where no pair was kept.
    num_pairs (list of int): how many pairs each score is the mean of.
    num_undefined (int): how many scores are NaN.
    num_windowed_summaries, num_windowed_sources (int): how many texts were longer than the model's window.
    signature (str): everything the numbers depend on: versions, model, settings.
    pairs (list of list of dict): on request, see `return_pairs`.
Examples:

    A summary that is its own source is supported entirely:

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

    The pairs say why a score is what it is; the spans are places in the summary:

    >>> results = quals.compute(predictions=[text], sources=[text], return_pairs=True)
    >>> sorted(results["pairs"][0][0])
    ['answer', 'end', 'question', 'score', 'source_log_probs', 'start', 'summary_log_probs', 'tokens']
    >>> all(text[pair["start"] : pair["end"]] == pair["answer"] for pair in results["pairs"][0])
    True
"""

_EVALUATE_OPTIONS = set(inspect.signature(evaluate.Metric.__init__).parameters) - {"self", "config_name", "kwargs"}

_LOADING = (
    "model", "revision", "token", "cache_dir", "local_files_only", "device", "dtype", "sharing", "gguf", "device_map",
)  # fmt: skip


@lru_cache(maxsize=4)
def _loaded(config: QualsConfig) -> Model:
    """One loaded model per process, whatever the number of metrics."""
    return load_model(config)


def _model(config: QualsConfig) -> Model:
    """The loaded model of a configuration, whatever else that says."""
    return _loaded(only(config, _LOADING))


@lru_cache(maxsize=8)
def _scorer(config: QualsConfig) -> QualsScorer:
    """A scorer on the loaded model; how it searches and averages does not need another."""
    model = _model(config)
    return QualsScorer(config, model=model, searcher=load_searcher(config, model, _model))


class Quals(evaluate.Metric):
    """QUALS for `evaluate`: `evaluate.load("quals")`, or this class, which needs no registration.

    Args:
        config_name: a preset's name ("embedded", "t5-large-squad-qa", …); None: "embedded", which needs no network.
        model: instead of a preset, any encoder-decoder or decoder-only model: a Hub name or a folder.
        format: how `model` writes pairs; None: `question <sep> answer`, or as the prompt of `CausalFormat` shows it.
        model_revision: the commit or branch of `model` on the Hub. (`revision` is evaluate's, for the module script.)
        token: an access token for the Hub.
        local_files_only: never ask the Hub.
        device: where to compute; None: the machine's best.
        dtype: "float32", "bfloat16", "float16"; None: the device's.
        search_dtype: that of the search alone, by a copy of the model; None: `dtype`.
        token_budget: how many tokens a batch may hold; None: the device's.
        gguf: a GGUF file in the folder or repository of `model`, which is a decoder-only one.
        device_map: spreads a decoder-only model over devices as accelerate does ("auto"), instead of `device`.
        cache: a folder that keeps what was generated and scored for the next time, on this machine; None: none.
        cache_size: the most bytes of it; None: 1 GiB.
        groups: this and the next are described with `compute`, which can override them.
        strength: see `compute`.
        min_new_tokens: see `compute`.
        max_new_tokens: see `compute`.
        max_pairs: see `compute`.
        tokens: see `compute`.
        **evaluate_options: those of `evaluate.Metric`: keep_in_memory, cache_dir, experiment_id, seed, …

    Raises:
        TypeError: an unknown option.
        ValueError: a `config_name` that is no preset, or beside a `model`; an option out of its range.

    When it is loaded or first computes, it raises what loading the model does, and ImportError or OSError if there can
    be no `cache`.
    """

    def __init__(
        self,
        config_name: str | None = None,
        *,
        model: str | None = None,
        format: PairFormat | None = None,
        model_revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        device: str | None = None,
        dtype: str | None = None,
        search_dtype: str | None = None,
        token_budget: int | None = None,
        gguf: str | None = None,
        device_map: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_size: int | None = None,
        groups: int | None = None,
        strength: float | None = None,
        min_new_tokens: int | None = None,
        max_new_tokens: int | None = None,
        max_pairs: int | None = None,
        tokens: str | None = None,
        **evaluate_options: Any,
    ) -> None:
        # evaluate swallows what it does not know, and makes a folder of any `config_name`: check before it does.
        refuse_unknown("quals", evaluate_options, _EVALUATE_OPTIONS)
        self.config = given(
            QualsConfig(model=choose_model("quals", config_name, model, PRESETS), local_files_only=local_files_only),
            format=format,
            revision=model_revision,
            token=token,
            device=device,
            dtype=dtype,
            search_dtype=search_dtype,
            token_budget=token_budget,
            gguf=gguf,
            device_map=device_map,
            cache=cache,
            cache_size=cache_size,
            groups=groups,
            strength=strength,
            min_new_tokens=min_new_tokens,
            max_new_tokens=max_new_tokens,
            max_pairs=max_pairs,
            tokens=tokens,
        )
        super().__init__(config_name=config_name, **evaluate_options)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "sources": text}),
            reference_urls=["https://arxiv.org/abs/2105.04623"],
            license="Apache-2.0",
        )

    def _download_and_prepare(self, dl_manager: Any) -> None:
        """Load the model when `evaluate.load` asks for it, so that a wrong name shows there."""
        _scorer(self.config)

    def add_batch(self, *, predictions: Sequence[str] = (), sources: Sequence[str] = (), **unknown: Any) -> None:
        """Add summaries and their sources; `compute()` then scores all that were added."""
        super().add_batch(**storable_texts(predictions, sources), **unknown)

    def _compute(
        self,
        predictions: Sequence[str],
        sources: Sequence[str],
        *,
        groups: int | None = None,
        strength: float | None = None,
        min_new_tokens: int | None = None,
        max_new_tokens: int | None = None,
        max_pairs: int | None = None,
        tokens: str | None = None,
        return_pairs: bool = False,
    ) -> dict[str, Any]:
        config = given(
            self.config,
            groups=groups,
            strength=strength,
            min_new_tokens=min_new_tokens,
            max_new_tokens=max_new_tokens,
            max_pairs=max_pairs,
            tokens=tokens,
        )
        result = _scorer(config).score(summaries=list(predictions), sources=list(sources))
        output = {
            "quals": result.score,
            "quals_01": result.score_01,
            "scores": result.scores,
            "num_pairs": [len(summary.pairs) for summary in result.summaries],
            "num_undefined": result.num_undefined,
            "num_windowed_summaries": result.num_windowed_summaries,
            "num_windowed_sources": result.num_windowed_sources,
            "signature": result.signature,
        }
        return output | {"pairs": [_pairs(summary) for summary in result.summaries]} if return_pairs else output


def _pairs(summary: SummaryScore) -> list[dict[str, Any]]:
    return [asdict(pair) for pair in summary.pairs]
