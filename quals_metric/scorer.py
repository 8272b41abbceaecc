"""QUALS (Nan et al. 2021, arXiv 2105.04623): the formula in order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from qa_inference import __version__
from qa_inference.batching import Engine
from qa_inference.decoding import DiverseBeamSearch
from qa_inference.formats import CausalFormat
from qa_inference.metric_base import (
    DEFAULT_TOKEN_BUDGET,
    DEFAULT_WINDOW,
    ResultKey,
    as_config,
    check_texts,
    checkpoint_version,
    find_preset,
    mean_of_defined,
    short_digest,
)
from qa_inference.models.decoder_only import DecoderOnly, is_decoder_only
from qa_inference.models.encoder_decoder import EncoderDecoder, ScoringRequest
from qa_inference.presets import PRESETS
from qa_inference.rows import Array
from qa_inference.tokenization import EncodedText
from qa_inference.windows import split
from quals_metric.config import QualsConfig
from quals_metric.result import PairScore, QualsResult, SummaryScore
from quals_metric.selection import Candidate, SummaryText, locate, parse, select

if TYPE_CHECKING:
    from qa_inference.cache import Asker, ResultCache

TOKENS_PER_ROW = 8  # cost of one hypothesis of a search beside its source, in tokens

# Settings that a log-probability of the model does not depend on: those of the search and of the choice among results.
NOT_OF_THE_MODEL = frozenset({"groups", "strength", "length", "tokens", "pairs", "search"})

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Text:
    """A distinct text and the token windows it is read in."""

    encoded: EncodedText
    windows: tuple[tuple[int, int], ...]

    def inputs(self) -> list[Array]:
        """The model's input for every window."""
        return [self.encoded.window(*window) for window in self.windows]


Model = EncoderDecoder | DecoderOnly


def load_model(config: QualsConfig) -> Model:
    """The model a configuration names, of whichever kind its checkpoint is. Raises what that kind's `load` does."""
    preset = config.preset()
    source: dict[str, Any] = {
        "revision": config.revision or preset.revision,
        "token": config.token,
        "cache_dir": config.cache_dir,
        "local_files_only": config.local_files_only,
    }
    settings = {"device": config.device, "dtype": config.dtype, "sharing": config.sharing, **source}
    place, gguf = preset.place, config.gguf or preset.gguf
    if gguf is not None or is_decoder_only(place, **source):
        return DecoderOnly.load(place, gguf_file=gguf, device_map=config.device_map, **settings)
    if config.device_map is not None:
        raise ValueError(f"device_map: is for decoder-only models; {preset.name!r} is none. Use device")
    return EncoderDecoder.load(place, **settings)


def load_searcher(config: QualsConfig, model: Model, load: Callable[[QualsConfig], Model] = load_model) -> Model:
    """The loaded `model`, or a copy of it, by `load`, in the type that the search is to have."""
    if config.search_dtype is None or config.search_dtype == dtype_of(model):
        return model
    return load(replace(config, dtype=config.search_dtype))


def _open_cache(config: QualsConfig) -> ResultCache | None:
    """The cache a configuration asks for. Raises ImportError without the extra `cache`, OSError as `ResultCache`."""
    if config.cache is None:
        return None
    from qa_inference.cache import ResultCache

    return ResultCache(config.cache, config.cache_size)


class QualsScorer:
    """Scores summaries against their sources. It loads its model once, when it is made.

    >>> scorer = QualsScorer()
    >>> result = scorer.score(["The bridge was approved."], ["The council approved the bridge."])
    >>> result.score, result.summaries[0].pairs[0].question  # doctest: +SKIP

    Args:
        config: the options, or the name of a model: a preset, a Hub name or a folder; None: the defaults.
        model: a loaded model, used instead of the one that `config` names.
        searcher: a loaded model for the search alone; None: `model`, or a copy of it in `config.search_dtype`.

    A scorer that loaded its model is pickled as its configuration, for example by `datasets.map(…, num_proc=2)`: each
    process loads the model itself. Its hash there depends on the signature and not on use, so `datasets` finds what it
    computed before. A scorer that was made with a `model` is pickled with it.
    """

    def __init__(
        self, config: QualsConfig | str | None = None, *, model: Model | None = None, searcher: Model | None = None
    ) -> None:
        self.config = as_config(config, QualsConfig)
        preset = self.config.preset()
        self._cache = _open_cache(self.config)  # first: loading a model takes longer than being told what is wrong
        self._model_is_given = model is not None
        self.model = model or load_model(self.config)
        self.searcher = searcher or load_searcher(self.config, self.model)
        is_unknown = self.config.format is None and find_preset("model", self.config.model, PRESETS) is None
        self.format = CausalFormat() if is_unknown and isinstance(self.model, DecoderOnly) else preset.format
        self._name, self._checkpoint = preset.name, preset.place if preset.is_at_hand else preset.model
        self._gguf = self.config.gguf or preset.gguf
        self._end_ids = self.format.end_ids(self.model.text)
        self._window = self.format.window or self.model.window or DEFAULT_WINDOW
        self._engine = Engine(token_budget=self.config.token_budget or DEFAULT_TOKEN_BUDGET)
        self._search = DiverseBeamSearch(
            self.config.groups, self.config.strength, self.config.min_new_tokens, self.config.max_new_tokens
        )

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        if self._model_is_given:
            return super().__reduce_ex__(protocol)
        return _load, (self.config, self.signature)

    def score(
        self,
        summaries: Sequence[str],
        sources: Sequence[str],
        *,
        spread: bool = False,
        on_batch: Progress | None = None,
    ) -> QualsResult:
        """QUALS of every summary against the source at the same place.

        `spread` shares the work among the processes of an `accelerate launch`; every process must call it with the
        same texts and gets the whole result. `on_batch(done, total)` is called after every batch, counting windows of
        texts; what it raises stops the scoring. Raises TypeError or ValueError for other than lists of str of equal
        length.
        """
        check_texts(summaries, sources)
        blank = [not summary.strip() or not source.strip() for summary, source in zip(summaries, sources, strict=True)]
        real = [i for i, is_blank in enumerate(blank) if not is_blank]
        summary_texts = self._read({summaries[i] for i in real}, summaries)
        source_texts = self._read({sources[i] for i in real}, sources)
        count = sum(len(text.windows) for text in (*summary_texts.values(), *source_texts.values()))
        progress = _Counter(on_batch, count)
        kept = self._kept_pairs(summary_texts, spread, progress)
        asked: dict[str, list[Candidate]] = {}
        for i in real:
            asked.setdefault(sources[i], []).extend(kept[summaries[i]])
        supported = self._best_windows(asked, source_texts, spread, progress)
        scored = []
        for i, (summary, source) in enumerate(zip(summaries, sources, strict=True)):
            if blank[i]:
                scored.append(SummaryScore(math.nan, (), "blank summary" if not summary.strip() else "blank source"))
                continue
            pairs = tuple(self._pair_score(pair, supported[source, _key(pair)]) for pair in kept[summary])
            value = mean_of_defined(pair.score for pair in pairs)
            scored.append(SummaryScore(value, pairs, "" if pairs else "no pair kept"))
        windowed = [sum(len(t.windows) > 1 for t in texts.values()) for texts in (summary_texts, source_texts)]
        return QualsResult(tuple(scored), self.signature, *windowed)

    @property
    def signature(self) -> str:
        """Everything that a score depends on, in one line."""
        return self.key.signature()

    @cached_property
    def key(self) -> ResultKey:
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
            "window": self._window,
            "attention": "shared" if self.model.shared else "expanded",
            "dtype": dtype_of(self.model),
            **({} if self.searcher is self.model else {"search": dtype_of(self.searcher)}),
            "device": self.model.device.type,
            "version": __version__,
        }
        return ResultKey("quals", settings, NOT_OF_THE_MODEL)

    @cached_property
    def _asking(self) -> Asker:
        """The model, with its cache if there is one."""
        return self._cached(self.model)

    @cached_property
    def _searching(self) -> Asker:
        """The model that searches, with its cache if there is one."""
        return self._asking if self.searcher is self.model else self._cached(self.searcher)

    def _cached(self, model: Model) -> Asker:
        if self._cache is None:
            return model
        from qa_inference.cache import CachedModel

        return CachedModel(model, self._cache, self.key.model_part(dtype=dtype_of(model)) + repr(model.vocabulary))

    def _read(self, distinct: set[str], order: Sequence[str]) -> dict[str, _Text]:
        """Tokenize every distinct text once, in the order given, and cut the long ones into windows."""
        texts = {}
        for text in order:
            if text in distinct and text not in texts:
                encoded = self.format.encode(self.model.text, text)
                size = self._window - encoded.around
                if size < 1:
                    raise ValueError(
                        f"format: the prompt must leave room for a text in the window of {self._window} tokens; it "
                        f"takes {encoded.around}. Shorten the template or widen the window"
                    )
                texts[text] = _Text(encoded, tuple(split(text, encoded.offsets, size)))
        return texts

    def _kept_pairs(self, texts: dict[str, _Text], spread: bool, progress: _Counter) -> dict[str, list[Candidate]]:
        """Steps 1 and 2: every distinct summary's hypotheses, from all its windows, and the pairs kept of them."""
        inputs = [window for text in texts.values() for window in text.inputs()]
        found = self._engine.map(
            lambda batch: self._searching.generate(batch, self._search, end_ids=self._end_ids),
            inputs,
            lambda ids: len(ids) + TOKENS_PER_ROW * self.config.groups,
            spread=spread,
            on_batch=progress.stage(0),
        )
        kept, well_formed, place = {}, 0, 0
        for text, read in texts.items():
            hypotheses = chain.from_iterable(found[place : place + len(read.windows)])
            place += len(read.windows)
            parsed = parse(hypotheses, self.format, self.model.text)
            well_formed += len(parsed)
            kept[text] = select(locate(parsed, SummaryText(text, read.encoded, self.model.text)), self.config.max_pairs)
        if texts and not well_formed:
            warnings.warn(
                f"model {self._name!r}: none of {len(inputs) * self.config.groups} hypotheses is a question, the "
                f"separator {self.format.separator!r} and an answer; every score is undefined. Does its format fit?",
                stacklevel=3,
            )
        return kept

    def _best_windows(
        self, asked: dict[str, list[Candidate]], texts: dict[str, _Text], spread: bool, progress: _Counter
    ) -> dict[tuple[str, bytes], Array]:
        """Step 3, the source's side: every pair's log-probabilities in the window that supports it best.

        Keyed by source and the pair's tokens, so that a source is read once for all its summaries.
        """
        items, owners = [], []
        for source, pairs in asked.items():
            distinct = {_key(pair): pair for pair in pairs}
            for window in texts[source].inputs() if distinct else ():
                items.append(ScoringRequest(window, [pair.tokens for pair in distinct.values()]))
                owners.append((source, list(distinct.values())))
        scores = self._engine.map(
            self._asking.log_likelihood,
            items,
            lambda item: len(item.source) + sum(map(len, item.targets)),
            spread=spread,
            on_batch=progress.stage(progress.total - len(items)),  # sources without a pair need no reading
        )
        best: dict[tuple[str, bytes], Array] = {}
        for (source, pairs), arrays in zip(owners, scores, strict=True):
            for pair, array in zip(pairs, arrays, strict=True):
                key = source, _key(pair)
                if key not in best or self._mean(pair, array) > self._mean(pair, best[key]):
                    best[key] = array
        return best

    def _mean(self, pair: Candidate, log_probs: Array) -> float:
        """The mean log-probability of the tokens that count, in nats."""
        start = pair.answer_start if self.config.tokens == "answer" else 0
        return float(log_probs[start:].mean(dtype=np.float64))

    def _pair_score(self, pair: Candidate, source_log_probs: Array) -> PairScore:
        """Step 3: `mean log p(token | source) - mean log p(token | summary)`."""
        score = self._mean(pair, source_log_probs) - self._mean(pair, pair.log_probs)
        pieces = self.model.text.pieces(pair.tokens)
        lists = tuple(map(float, pair.log_probs)), tuple(map(float, source_log_probs))
        return PairScore(pair.question, pair.answer, pair.start, pair.end, score, pieces, *lists)


def _load(config: QualsConfig, signature: str) -> QualsScorer:
    """The scorer that was pickled. Its signature tells pickles of changed weights or versions apart."""
    return QualsScorer(config)


@dataclass(frozen=True)
class _Counter:
    """One count of done windows, out of `total`, over the stages of a scoring."""

    on_batch: Progress | None
    total: int

    def stage(self, before: int) -> Progress | None:
        """The engine's callback for a stage that begins with `before` windows done."""
        on_batch = self.on_batch
        return None if on_batch is None else lambda done, _: on_batch(before + done, self.total)


def dtype_of(model: Model) -> str:
    """The type of a model's weights, as `QualsConfig.dtype` says it."""
    return str(model.model.dtype).removeprefix("torch.")


def _key(pair: Candidate) -> bytes:
    """A pair's tokens as a dictionary's key."""
    return pair.tokens.tobytes()
