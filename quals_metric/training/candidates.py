"""Sampled summaries of documents, and what a scorer gives them and the ground truths: one shard of a collection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from qa_inference.batching import Engine
from qa_inference.decoding import TopKSampling
from qa_inference.models.encoder_decoder import EncoderDecoder, Sharing
from qa_inference.tokenization import Ids
from quals_metric.training.examples import TextEncoder, TextFormat
from quals_metric.training.generation import GenerationSettings, generate_summaries
from quals_metric.training.selection import RATIO, check_ratio

TOKENS_PER_SAMPLE = 8  # what one sample costs beside its document, in the engine's tokens

Document = tuple[str, int]
"""A document and its number, which seeds what is drawn for it."""


@dataclass(frozen=True)
class CollectionSettings:
    """How a collection samples, scores and selects; the defaults are the published ones where those are known.

    `samples` summaries per document are drawn from the `top_k` likeliest tokens (6 and 50: published), each of at
    most `max_new_tokens` with its end; `seed` and the document's place in the data decide what is drawn. `against`:
    what a summary is scored against, its document (QUALS, QAGS) or its ground truth (ROUGE). `negative_ratio` and
    `positive_ratio` are the sizes of S- and S+ (0.3: published). `text_format` is the summarizer's. `shard_rows`
    documents are sampled and scored at once, and lost at most by a kill; `token_budget` is the engine's.
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
    token_budget: int = 8192

    def __post_init__(self) -> None:
        for name, least in (
            ("samples", 1), ("top_k", 1), ("max_new_tokens", 1), ("seed", 0), ("shard_rows", 1), ("token_budget", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}: must be a whole number of at least {least}; got {value!r}")
        if self.against not in ("document", "ground_truth"):
            raise ValueError(f"against: must be 'document' or 'ground_truth'; got {self.against!r}")
        check_ratio("negative_ratio", self.negative_ratio)
        check_ratio("positive_ratio", self.positive_ratio)


class Sampler:
    """Draws the summaries of documents from a model, the same whatever the batch and the process.

    An encoder-decoder reads a document once for all its samples. A decoder-only model draws by its own `generate`.
    The model has to be in evaluation mode.

    Args:
        model: the model itself, not what wraps it.
        tokenizer: its tokenizer.
        settings: how.
        sharing: see `EncoderDecoder`; "expanded" leaves a model that is being trained as it is.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: CollectionSettings, sharing: Sharing) -> None:
        self._settings, self._engine = settings, Engine(token_budget=settings.token_budget)
        self._draw: Callable[[list[tuple[Any, int]]], list[list[str]]]
        if model.config.is_encoder_decoder:
            self._encode: Callable[[str], Any] = TextEncoder(model, tokenizer, settings.text_format).source
            self._reader = EncoderDecoder(model, tokenizer, sharing=sharing)
            self._draw = self._from_encoder_decoder
        else:
            self._encode = str
            self._draw = lambda batch: _from_generate(model, tokenizer, settings, batch)

    def sample(self, documents: Sequence[Document], *, spread: bool) -> list[list[str]]:
        """Every document's samples; see `Engine.map` for `spread`."""
        items = [(self._encode(document), number) for document, number in documents]
        return self._engine.map(self._draw, items, self._cost, spread=spread)

    def _cost(self, item: tuple[Any, int]) -> int:
        return len(item[0]) + TOKENS_PER_SAMPLE * self._settings.samples

    def _from_encoder_decoder(self, batch: list[tuple[Ids, int]]) -> list[list[str]]:
        given = self._settings
        search = TopKSampling(given.samples, given.top_k, max_new_tokens=given.max_new_tokens, seed=given.seed)
        found = self._reader.generate([ids for ids, _ in batch], search, keys=[number for _, number in batch])
        return [[self._reader.text.decode(one.tokens).strip() for one in samples] for samples in found]


def _from_generate(
    model: Any, tokenizer: Any, settings: CollectionSettings, batch: Sequence[Document]
) -> list[list[str]]:
    """The samples of a decoder-only model."""
    how = GenerationSettings(
        max_new_tokens=settings.max_new_tokens,
        num_return_sequences=settings.samples,
        do_sample=True,
        top_k=settings.top_k,
        seed=settings.seed,
        max_source_tokens=settings.text_format.max_source_tokens,
        template=settings.text_format.template,
    )
    documents, numbers = [text for text, _ in batch], [number for _, number in batch]
    return generate_summaries(model, tokenizer, documents, how, seeds=numbers)


@dataclass(frozen=True)
class Scored:
    """What is known of one document: its samples, their scores and the ground truth's; undefined: NaN."""

    samples: list[str]
    sample_scores: list[float]
    ground_truth_score: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON and Arrow have it; undefined: None."""
        return {
            "samples": self.samples,
            "sample_scores": [_optional(score) for score in self.sample_scores],
            "ground_truth_score": _optional(self.ground_truth_score),
        }


def score(
    scorer: Any,
    documents: Sequence[str],
    ground_truths: Sequence[str],
    samples: Sequence[Sequence[str]],
    known: Sequence[float] | None,
    settings: CollectionSettings,
    *,
    spread: bool,
) -> list[Scored]:
    """Score all samples, and the ground truths unless their scores are `known`, in one call of the scorer."""
    sources = documents if settings.against == "document" else ground_truths
    summaries: list[str] = []
    against: list[str] = []
    for place, (source, drawn) in enumerate(zip(sources, samples, strict=True)):
        texts = [*drawn, ground_truths[place]] if known is None else drawn
        summaries += texts
        against += [source] * len(texts)
    result = scorer.score(summaries=summaries, sources=against, **({"spread": True} if spread else {}))
    scores = iter([float(one.score) for one in result.summaries])
    found = []
    for place, drawn in enumerate(samples):
        of_samples = [next(scores) for _ in drawn]
        truth = next(scores) if known is None else known[place]
        found.append(Scored(list(drawn), of_samples, truth))
    return found


def _optional(score: float) -> float | None:
    return None if math.isnan(score) else score
