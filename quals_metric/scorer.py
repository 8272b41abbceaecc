"""QUALS (Nan et al. 2021, arXiv 2105.04623): the steps of the formula in order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from qa_inference import __version__
from qa_inference.batching import DEFAULT_TOKEN_BUDGET, TOKENS_PER_HYPOTHESIS, map_batches
from qa_inference.decoding import Array, DiverseBeamSearch
from qa_inference.distributed import OnBatch
from qa_inference.formats import CausalFormat
from qa_inference.metric_base.key import ResultKey, checkpoint_version, short_digest
from qa_inference.metric_base.options import as_config
from qa_inference.metric_base.question_scorer import DEFAULT_WINDOW, QuestionScorer
from qa_inference.metric_base.results import mean_of_defined
from qa_inference.models.decoder_only import DecoderOnly, is_decoder_only
from qa_inference.models.devices import dtype_name
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions
from qa_inference.models.shared_rows import ScoringRequest
from qa_inference.presets import PRESETS, find_preset
from qa_inference.sentences import whole_sentences
from qa_inference.tokenization import EncodedText, split_into_windows
from quals_metric.config import QualsConfig
from quals_metric.result import PairScore, QualsResult, SummaryScore
from quals_metric.selection import Candidate, SummaryText, locate_answers, parse_pairs, select_pairs

if TYPE_CHECKING:
    from qa_inference.cache import Asker, ResultCache

UNRELATED_TEXT = (
    "The library will stay open longer in the evening from next month, after readers asked for more time to study. "
    "Staff said that most visitors come when the shops have closed, and that the reading room is often full. The doors "
    "will be locked later on two days of the week, and a small café will serve tea and cake. "
    '"We have wanted this for years," a librarian said. The change costs little, because volunteers will help at the '
    "desk. If it goes well, the hours will be the same in summer. "
    "Bread needs only flour, water, salt and yeast. Mix them in a large bowl until no dry flour is left, cover the "
    "bowl with a cloth and let it stand in a warm place. When the dough has doubled in size, fold it a few times and "
    "shape it into a round loaf. Heat the oven with a heavy pot inside. Put the loaf into the hot pot, close the lid, "
    "and bake it until the crust is dark. Let it cool before you cut it, or the crumb will be wet. "
    "A river wears away the rock on the outside of its bends, where the water is fast, and leaves sand and stones on "
    "the inside, where it is slow. So the bends move down the valley and grow wider. In a flood the water may cut "
    "through the narrow neck of land between two bends. The old bend then becomes a lake in the shape of a bow, which "
    "slowly fills with mud and plants. Such lakes are home to frogs, herons and many kinds of insects."
)
"""A text that hardly any summary is about, as long as a short source. `normalize` compares with it."""

USUAL_INFORMATION = 5.0
"""The information of a normalized summary, in nats per token: about the mean of the embedded model's summaries."""

LEAST_INFORMATION = 0.5
"""A summary of less information, in nats per token, has no normalized score: it would be noise."""

TARGETS_PER_REQUEST = 32  # pairs that share one encoding of `UNRELATED_TEXT`

NORMALIZATION = short_digest((UNRELATED_TEXT, USUAL_INFORMATION, LEAST_INFORMATION))  # in the signature

# Settings that a log-probability of the model does not depend on: those of the search and of the choice among results.
NOT_OF_THE_MODEL = frozenset({"groups", "strength", "length", "by", "tokens", "norm", "pairs", "answers", "search"})


@dataclass(frozen=True)
class TokenizedText:
    """A distinct text and the token windows that it is read in."""

    encoded: EncodedText
    windows: tuple[tuple[int, int], ...]

    def inputs(self) -> list[Array]:
        """The model's input for every window."""
        return [self.encoded.window(*window) for window in self.windows]


Model = EncoderDecoder | DecoderOnly


def load_model(config: QualsConfig) -> Model:
    """Load the model that a configuration names, encoder-decoder or decoder-only. Raises the errors of its `load`."""
    preset = config.model_preset()
    options = LoadingOptions.from_config(config, config.revision or preset.revision)
    checkpoint, gguf, sharing = preset.place, config.gguf or preset.gguf, config.sharing
    if gguf is not None or is_decoder_only(checkpoint, options):
        return DecoderOnly.load(checkpoint, options, sharing=sharing, gguf_file=gguf, device_map=config.device_map)
    if config.device_map is not None:
        raise ValueError(f"device_map: needs a decoder-only model; {preset.name!r} is not one. Use device")
    return EncoderDecoder.load(checkpoint, options, sharing=sharing)


def load_searcher(config: QualsConfig, model: Model, load: Callable[[QualsConfig], Model] = load_model) -> Model:
    """The model for the search: `model` itself, or a copy that `load` makes in `config.search_dtype`."""
    if config.search_dtype is None or config.search_dtype == dtype_name(model.model.dtype):
        return model
    return load(replace(config, dtype=config.search_dtype))


def _open_cache(config: QualsConfig) -> ResultCache | None:
    """The cache that a configuration names. Raises ImportError without the extra `cache`, OSError as `ResultCache`."""
    if config.cache is None:
        return None
    from qa_inference.cache import ResultCache

    return ResultCache(config.cache, config.cache_size)


class QualsScorer(QuestionScorer[QualsResult]):
    """Scores summaries against their sources. It loads its model once, when it is made.

    >>> scorer = QualsScorer()
    >>> result = scorer.score(["The bridge was approved."], ["The council approved the bridge."])
    >>> result.score, result.summaries[0].pairs[0].question  # doctest: +SKIP

    Args:
        config: the options, or the name of a model: a preset, a Hub name or a folder; None: the defaults. The
            attribute `config` has its `settings`, with the options that a preset stands for.
        model: a loaded model, used instead of the one that `config` names.
        searcher: a loaded model for the search alone; None: `model`, or a copy of it in `config.search_dtype`.

    A scorer that loaded its model is pickled as its configuration, for example by `datasets.map(…, num_proc=2)`: each
    process loads the model itself. Its hash there depends on the signature and not on use, so `datasets` finds what it
    computed before. A scorer that was made with a `model` or a `searcher` is pickled with its models.
    """

    def __init__(
        self, config: QualsConfig | str | None = None, *, model: Model | None = None, searcher: Model | None = None
    ) -> None:
        self.config = as_config(config, QualsConfig).settings  # from here on, nothing asks for the preset
        preset = self.config.model_preset()
        self._cache = _open_cache(self.config)  # first: a wrong folder shows before a model is loaded
        self._has_given_models = model is not None or searcher is not None
        self.model = model or load_model(self.config)
        self.searcher = searcher or load_searcher(self.config, self.model)
        is_unknown = self.config.format is None and find_preset("model", self.config.model, PRESETS) is None
        self.format = CausalFormat() if is_unknown and isinstance(self.model, DecoderOnly) else preset.format
        self._name, self._checkpoint = preset.name, preset.place if preset.is_at_hand else preset.model
        self._gguf, self._reads_only_english = self.config.gguf or preset.gguf, preset.reads_only_english
        self._end_ids = self.format.end_ids(self.model.text)
        self.window = self.format.window or self.model.window or DEFAULT_WINDOW
        self._map = partial(map_batches, token_budget=self.config.token_budget or DEFAULT_TOKEN_BUDGET)
        self._search = DiverseBeamSearch(
            self.config.groups, self.config.strength, self.config.min_new_tokens, self.config.max_new_tokens
        )
        self._use_calibration(self.config.calibration)

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        if self._has_given_models:
            return super().__reduce_ex__(protocol)
        return _load, (self.config, self.signature)

    def _score(self, summaries: list[str], sources: list[str], spread: bool, on_batch: OnBatch | None) -> QualsResult:
        """The metric's steps in order. `on_batch` counts windows of texts."""
        searched_parts = self._searched_parts(summaries)
        part_texts = self._tokenize_parts(searched_parts)
        source_texts = self.tokenize(sources)
        num_windows = sum(len(text.windows) for text in (*part_texts.values(), *source_texts.values()))
        progress = _WindowProgress(on_batch, num_windows)
        # 1. and 2. Generate pairs from every distinct part of a summary, and keep some.
        kept_pairs = _pairs_of_summaries(searched_parts, self._kept_pairs(part_texts, spread, progress))
        scales = self._scales(kept_pairs, spread)
        # 3. Read every distinct source once, with the pairs of all its summaries.
        pairs_of_source: dict[str, list[Candidate]] = {}
        for summary, source in zip(summaries, sources, strict=True):
            pairs_of_source.setdefault(source, []).extend(kept_pairs[summary])
        source_log_probs = self._source_log_probs(pairs_of_source, source_texts, spread, progress)
        scored = []
        for summary, source in zip(summaries, sources, strict=True):
            of_summary, scale = kept_pairs[summary], scales[summary]
            if not of_summary or scale is None:
                note = "its pairs are nearly as likely given an unrelated text" if of_summary else "no pair kept"
                scored.append(SummaryScore(math.nan, (), note))
                continue
            pairs = tuple(self._pair_score(pair, source_log_probs[source, _key(pair)], scale) for pair in of_summary)
            scored.append(SummaryScore(mean_of_defined(pair.score for pair in pairs), pairs))
        windowed_summaries = sum(
            any(len(part_texts[part].windows) > 1 for _, part in parts) for parts in searched_parts.values()
        )
        windowed_sources = sum(len(text.windows) > 1 for text in source_texts.values())
        return QualsResult(tuple(scored), self.signature, windowed_summaries, windowed_sources)

    def _english_model(self) -> str | None:
        return self._name if self._reads_only_english else None

    @cached_property
    def key(self) -> ResultKey:  # type: ignore[override]  # cached
        """Everything that a score depends on, by name."""
        config, model = self.config, self.model.model
        settings = {
            "model": f"{self._name}@{checkpoint_version(self._checkpoint, model, self._gguf)}",
            "format": short_digest(self.format),
            "groups": config.groups,
            "strength": config.strength,
            "tokens": config.tokens,
            "length": f"{config.min_new_tokens}-{config.max_new_tokens}",
            "pairs": config.max_pairs,
            **({"norm": NORMALIZATION} if config.normalize else {}),
            **({"answers": "whole"} if config.whole_answers else {}),
            **({"by": "sentence"} if config.by_sentence else {}),
            "window": self.window,
            "attention": "shared" if self.model.shared else "expanded",
            "dtype": dtype_name(model.dtype),
            **({} if self.searcher is self.model else {"search": dtype_name(self.searcher.model.dtype)}),
            "device": self.model.device.type,
            "version": __version__,
        }
        return ResultKey("quals", settings, NOT_OF_THE_MODEL)

    @cached_property
    def _cached_model(self) -> Asker:
        """The model, behind the cache if there is one."""
        return self._behind_cache(self.model)

    @cached_property
    def _cached_searcher(self) -> Asker:
        """The model that searches, behind the cache if there is one."""
        return self._cached_model if self.searcher is self.model else self._behind_cache(self.searcher)

    def _behind_cache(self, model: Model) -> Asker:
        if self._cache is None:
            return model
        from qa_inference.cache import CachedModel

        return CachedModel(
            model, self._cache, self.key.model_part(dtype=dtype_name(model.model.dtype)) + repr(model.vocabulary)
        )

    def generate_pairs(self, texts: Iterable[str]) -> dict[str, list[Candidate]]:
        """The pairs that would be asked about every distinct text: steps 1 and 2 without a source."""
        searched_parts = self._searched_parts(texts)
        kept_pairs = self._kept_pairs(self._tokenize_parts(searched_parts), False, _WindowProgress(None, 0))
        return _pairs_of_summaries(searched_parts, kept_pairs)

    def _searched_parts(self, summaries: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
        """For every distinct summary, the texts that are searched and the character where each begins.

        These are the summary itself or, by sentence, its sentences, each once.
        """
        searched_parts = {}
        for summary in dict.fromkeys(summaries):
            bounds = whole_sentences(summary) if self.config.by_sentence else [(0, len(summary))]
            first_starts: dict[str, int] = {}
            for start, end in bounds:
                first_starts.setdefault(summary[start:end], start)
            searched_parts[summary] = [(start, part) for part, start in first_starts.items()]
        return searched_parts

    def _tokenize_parts(self, searched_parts: dict[str, list[tuple[int, str]]]) -> dict[str, TokenizedText]:
        """Every distinct text that is searched."""
        return self.tokenize(part for parts in searched_parts.values() for _, part in parts)

    def tokenize(self, texts: Iterable[str]) -> dict[str, TokenizedText]:
        """Tokenize every distinct text once, in the order given, and cut long ones into windows."""
        tokenized = {}
        for text in dict.fromkeys(texts):
            encoded = self.format.encode(self.model.text, text)
            size = self.window - encoded.around
            if size < 1:
                raise ValueError(
                    f"format: the prompt must leave room for a text in the window of {self.window} tokens; it takes "
                    f"{encoded.around}. Shorten the template or widen the window"
                )
            tokenized[text] = TokenizedText(encoded, tuple(split_into_windows(text, encoded.offsets, size)))
        return tokenized

    def _kept_pairs(
        self, texts: dict[str, TokenizedText], spread: bool, progress: _WindowProgress
    ) -> dict[str, list[Candidate]]:
        """Steps 1 and 2: the kept pairs of every distinct text, chosen among the hypotheses from all its windows."""
        inputs = [window for text in texts.values() for window in text.inputs()]
        hypotheses_of_window = iter(
            self._map(
                lambda batch: self._cached_searcher.generate(batch, self._search, end_ids=self._end_ids),
                inputs,
                lambda ids: len(ids) + TOKENS_PER_HYPOTHESIS * self.config.groups,
                spread=spread,
                on_batch=progress.stage(0),
            )
        )
        kept_pairs, num_well_formed = {}, 0
        for text, tokenized in texts.items():
            hypotheses = chain.from_iterable(islice(hypotheses_of_window, len(tokenized.windows)))
            parsed = parse_pairs(hypotheses, self.format, self.model.text)
            num_well_formed += len(parsed)
            summary = SummaryText(text, tokenized.encoded, self.model.text)
            candidates = locate_answers(parsed, summary, whole_only=self.config.whole_answers)
            kept_pairs[text] = select_pairs(candidates, self.config.max_pairs)
        if texts and not num_well_formed:
            warnings.warn(
                f"model {self._name!r}: none of {len(inputs) * self.config.groups} hypotheses is a question, "
                f"the separator {self.format.separator!r} and an answer; every score is undefined. Does its format "
                f"fit?",
                stacklevel=3,
            )
        return kept_pairs

    def _source_log_probs(
        self,
        pairs_of_source: dict[str, list[Candidate]],
        texts: dict[str, TokenizedText],
        spread: bool,
        progress: _WindowProgress,
    ) -> dict[tuple[str, bytes], Array]:
        """Step 3: every pair's token log-probabilities [L] in the window of the source that supports it best.

        The keys are a source and a pair's tokens: a source is read once for all its summaries.
        """
        # 1. One request for each window of each source, with all distinct pairs that are asked of the source.
        requests, owners = [], []
        for source, pairs in pairs_of_source.items():
            distinct_pairs = _distinct_pairs(pairs)
            for window in texts[source].inputs() if distinct_pairs else ():
                requests.append(ScoringRequest(window, [pair.tokens for pair in distinct_pairs]))
                owners.append((source, distinct_pairs))
        # 2. Their likelihoods, in batches.
        on_batch = progress.stage(progress.total - len(requests))  # sources without a pair need no reading
        likelihoods = self._log_likelihoods(requests, spread, on_batch)
        # 3. The window with the highest mean counts.
        best: dict[tuple[str, bytes], Array] = {}
        for (source, pairs), arrays in zip(owners, likelihoods, strict=True):
            for pair, log_probs in zip(pairs, arrays, strict=True):
                key = source, _key(pair)
                if key not in best or self._mean(pair, log_probs) > self._mean(pair, best[key]):
                    best[key] = log_probs
        return best

    def _scales(self, pairs_of_summary: dict[str, list[Candidate]], spread: bool) -> dict[str, float | None]:
        """The factor for the scores of every summary; 1 unless they are normalized; None: too little information.

        A summary's information is how much likelier it makes its pairs than `UNRELATED_TEXT` does, as the difference of
        the mean log-probabilities. The difference between source and summary grows with it. So the scores are divided
        by it, as in the Shannon score (Egan et al. 2022, arXiv 2103.10918). Times `USUAL_INFORMATION`, they keep their
        usual size.
        """
        if not self.config.normalize:
            return dict.fromkeys(pairs_of_summary, 1.0)
        distinct_pairs = _distinct_pairs(chain.from_iterable(pairs_of_summary.values()))
        window = self.tokenize([UNRELATED_TEXT])[UNRELATED_TEXT].inputs()[0]
        groups = [
            distinct_pairs[start : start + TARGETS_PER_REQUEST]
            for start in range(0, len(distinct_pairs), TARGETS_PER_REQUEST)
        ]
        requests = [ScoringRequest(window, [pair.tokens for pair in group]) for group in groups]
        likelihoods = self._log_likelihoods(requests, spread)
        unrelated = {
            _key(pair): log_probs
            for pair, log_probs in zip(distinct_pairs, chain.from_iterable(likelihoods), strict=True)
        }
        scales: dict[str, float | None] = {}
        for summary, pairs in pairs_of_summary.items():
            information = mean_of_defined(
                self._mean(pair, pair.log_probs) - self._mean(pair, unrelated[_key(pair)]) for pair in pairs
            )
            scales[summary] = USUAL_INFORMATION / information if information >= LEAST_INFORMATION else None
        return scales

    def _log_likelihoods(
        self, requests: list[ScoringRequest], spread: bool, on_batch: OnBatch | None = None
    ) -> list[list[Array]]:
        """For every request, the log-probabilities [L] of its targets' tokens, in batches."""
        return self._map(
            self._cached_model.log_likelihood,
            requests,
            lambda request: len(request.source) + sum(map(len, request.targets)),
            spread=spread,
            on_batch=on_batch,
        )

    def _mean(self, pair: Candidate, log_probs: Array) -> float:
        """The mean log-probability of the tokens that count, in nats."""
        question, answer = log_probs[: pair.answer_start], log_probs[pair.answer_start :]
        parts = {"all": (log_probs,), "answer": (answer,), "balanced": (question, answer)}[self.config.tokens]
        return sum(float(part.mean(dtype=np.float64)) for part in parts) / len(parts)

    def _pair_score(self, pair: Candidate, source_log_probs: Array, scale: float) -> PairScore:
        """Step 3: `mean log p(token | source) - mean log p(token | summary)`, times the scale of the summary."""
        score = (self._mean(pair, source_log_probs) - self._mean(pair, pair.log_probs)) * scale
        pieces = self.model.text.pieces(pair.tokens)
        lists = tuple(map(float, pair.log_probs)), tuple(map(float, source_log_probs))
        return PairScore(pair.question, pair.answer, pair.start, pair.end, score, pieces, *lists)


def _load(config: QualsConfig, signature: str) -> QualsScorer:
    """The scorer that was pickled. Its signature tells pickles of changed weights or versions apart."""
    return QualsScorer(config)


@dataclass(frozen=True)
class _WindowProgress:
    """Counts the windows that are done, out of `total`, over the stages of a scoring."""

    on_batch: OnBatch | None
    total: int

    def stage(self, num_before: int) -> OnBatch | None:
        """The callback of a stage that begins with `num_before` windows done."""
        on_batch = self.on_batch
        return None if on_batch is None else lambda done, _: on_batch(num_before + done, self.total)


def _pairs_of_summaries(
    searched_parts: dict[str, list[tuple[int, str]]], kept_pairs: dict[str, list[Candidate]]
) -> dict[str, list[Candidate]]:
    """The kept pairs of every summary, in the order of its parts, with their answers' places in the summary."""
    return {
        summary: [
            replace(pair, start=pair.start + start, end=pair.end + start)
            for start, part in parts
            for pair in kept_pairs[part]
        ]
        for summary, parts in searched_parts.items()
    }


def _distinct_pairs(pairs: Iterable[Candidate]) -> list[Candidate]:
    """One pair of every sequence of tokens, in the order of their first."""
    return list({_key(pair): pair for pair in pairs}.values())


def _key(pair: Candidate) -> bytes:
    """A pair's tokens as a dictionary's key."""
    return pair.tokens.tobytes()
