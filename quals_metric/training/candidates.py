"""One shard of a collection: sampled summaries of documents, and the scores of the samples and the ground truths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from qa_inference.batching import DEFAULT_TOKEN_BUDGET, TOKENS_PER_HYPOTHESIS, map_batches
from qa_inference.checks import check_integers
from qa_inference.decoding import TopKSampling
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.shared_rows import Sharing
from qa_inference.tokenization import Ids
from quals_metric.training.examples import TextEncoder, TextFormat
from quals_metric.training.generation import GenerationSettings, generate_summaries
from quals_metric.training.selection import RATIO, check_ratio

Document = tuple[str, int]
"""A document and its number, which seeds its draws."""


@dataclass(frozen=True)
class CollectionSettings:
    """How a collection samples, scores and selects. The defaults are the published values where those are known.

    Args:
        samples: the number of summaries drawn for a document (published: 6).
        top_k: the number of likeliest tokens to draw from (published: 50).
        max_new_tokens: the most tokens of a sample, its end included.
        seed: the seed of the draws, with the document's index in the data.
        against: the text that a summary is scored against: its document (QUALS, QAGS) or its ground truth (ROUGE).
        negative_ratio: the size of S-, a share of all documents (published: 0.3).
        positive_ratio: the size of S+ (published: 0.3).
        text_format: the format of the summarizer's input and output.
        shard_rows: the number of documents sampled and scored together; a kill loses no more than these.
        token_budget: the size of a batch, see `qa_inference.batching.map_batches`.
    """

    samples: int = 6
    top_k: int = 50
    max_new_tokens: int = 64
    seed: int = 0
    against: Literal["document", "ground_truth"] = "document"
    negative_ratio: float = RATIO
    positive_ratio: float = RATIO
    text_format: TextFormat = field(default_factory=TextFormat)
    shard_rows: int = 128
    token_budget: int = DEFAULT_TOKEN_BUDGET

    def __post_init__(self) -> None:
        check_integers(self, samples=1, top_k=1, max_new_tokens=1, seed=0, shard_rows=1, token_budget=1)
        if self.against not in ("document", "ground_truth"):
            raise ValueError(f"against: must be 'document' or 'ground_truth'; got {self.against!r}")
        check_ratio("negative_ratio", self.negative_ratio)
        check_ratio("positive_ratio", self.positive_ratio)


class Sampler:
    """Draws the summaries of documents from a model; the draws depend neither on the batch nor on the process.

    An encoder-decoder reads a document once for all its samples. A decoder-only model draws by its own `generate`.
    The model must be in evaluation mode.

    Args:
        model: the model itself, without a wrapper.
        tokenizer: the model's tokenizer.
        settings: how to draw.
        sharing: see `EncoderDecoder`; "expanded" leaves a model in training as it is.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: CollectionSettings, sharing: Sharing) -> None:
        self._settings = settings
        self._draw: Callable[[list[tuple[Any, int]]], list[list[str]]]
        if model.config.is_encoder_decoder:
            self._encode: Callable[[str], Any] = TextEncoder(model, tokenizer, settings.text_format).source
            self._reader = EncoderDecoder(model, tokenizer, sharing=sharing)
            self._draw = self._from_encoder_decoder
        else:
            self._encode = str
            self._draw = lambda batch: _from_generate(model, tokenizer, settings, batch)

    def sample(self, documents: Sequence[Document], *, spread: bool) -> list[list[str]]:
        """The samples of every document; see `map_batches` for `spread`."""
        items = [(self._encode(document), number) for document, number in documents]
        return map_batches(self._draw, items, self._cost, token_budget=self._settings.token_budget, spread=spread)

    def _cost(self, item: tuple[Any, int]) -> int:
        return len(item[0]) + TOKENS_PER_HYPOTHESIS * self._settings.samples

    def _from_encoder_decoder(self, batch: list[tuple[Ids, int]]) -> list[list[str]]:
        settings = self._settings
        search = TopKSampling(
            settings.samples, settings.top_k, max_new_tokens=settings.max_new_tokens, seed=settings.seed
        )
        drawn = self._reader.generate([ids for ids, _ in batch], search, keys=[number for _, number in batch])
        decode = self._reader.text.decode
        return [[decode(hypothesis.tokens).strip() for hypothesis in hypotheses] for hypotheses in drawn]


def _from_generate(
    model: Any, tokenizer: Any, settings: CollectionSettings, batch: Sequence[Document]
) -> list[list[str]]:
    """The samples of a decoder-only model."""
    generation = GenerationSettings(
        max_new_tokens=settings.max_new_tokens,
        num_return_sequences=settings.samples,
        do_sample=True,
        top_k=settings.top_k,
        seed=settings.seed,
        max_source_tokens=settings.text_format.max_source_tokens,
        template=settings.text_format.template,
    )
    documents, numbers = [text for text, _ in batch], [number for _, number in batch]
    return generate_summaries(model, tokenizer, documents, generation, seeds=numbers)


@dataclass(frozen=True)
class ScoredDocument:
    """A document's samples, their scores and the score of its ground truth; NaN: undefined."""

    samples: list[str]
    sample_scores: list[float]
    ground_truth_score: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict for JSON and Arrow. An undefined score is None."""
        return {
            "samples": self.samples,
            "sample_scores": [_none_if_nan(score) for score in self.sample_scores],
            "ground_truth_score": _none_if_nan(self.ground_truth_score),
        }


def score_documents(
    scorer: Any,
    documents: Sequence[str],
    ground_truths: Sequence[str],
    samples: Sequence[Sequence[str]],
    known: Sequence[float] | None,
    settings: CollectionSettings,
    *,
    spread: bool,
) -> list[ScoredDocument]:
    """Score all samples, and the ground truths unless their scores are `known`, in one call of the scorer."""
    # 1. One row for every sample of a document, and one for its ground truth.
    sources = documents if settings.against == "document" else ground_truths
    summaries: list[str] = []
    against: list[str] = []
    for index, (source, drawn) in enumerate(zip(sources, samples, strict=True)):
        texts = [*drawn, ground_truths[index]] if known is None else drawn
        summaries += texts
        against += [source] * len(texts)
    result = scorer.score(summaries=summaries, sources=against, **({"spread": True} if spread else {}))
    # 2. The scores come in the same order.
    scores = iter([float(summary.score) for summary in result.summaries])
    scored = []
    for index, drawn in enumerate(samples):
        sample_scores = [next(scores) for _ in drawn]
        ground_truth_score = next(scores) if known is None else known[index]
        scored.append(ScoredDocument(list(drawn), sample_scores, ground_truth_score))
    return scored


def _none_if_nan(score: float) -> float | None:
    return None if math.isnan(score) else score
