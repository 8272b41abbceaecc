"""A Hugging Face decoder-only model: read every input once, search from it, score targets on it.

This file has the same two operations as `encoder_decoder.py`, `generate` and `log_likelihood`, for one batch. An input
is a prompt with a text. Its *prefix*, all tokens but the last, is read once for all rows; every row begins with the
last token. Tokens that all inputs begin with, for example the examples in a prompt, are read once and remembered from
batch to batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, Cache, DynamicCache, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from qa_inference.decoding import (
    Array,
    BeamSearch,
    DiverseBeamSearch,
    Hypothesis,
    TopKSampling,
    Vocabulary,
    run_search,
)
from qa_inference.models._cpu_modules import use_fast_modules
from qa_inference.models._shared_prefix import Prefix, reading, shared_prefix_attention, shared_prefix_mask
from qa_inference.models.inference import check_ids, count_embeddings, ids_to_device, inference_operation, to_device
from qa_inference.models.loading import DEFAULT_LOADING, LoadingOptions, find_end_ids, find_pad_id, load_pretrained
from qa_inference.models.projection import Projection, find_projection
from qa_inference.models.shared_rows import (
    RunningRows,
    ScoringRequest,
    Sharing,
    TargetBatch,
    TargetRounds,
    attempt,
    enable_sharing,
    new_cache,
    probe_tolerance,
    use_attention,
)
from qa_inference.tokenization import Ids, TextTokenizer

WINDOW = 2048  # tokens of an input; modern models allow many more, but are slower and less exact on long texts
RESERVED = 128  # positions left for the tokens that the model writes, or a quarter of all if that is less

# A probe at load reads two contexts of different lengths with a common beginning, and continues each by three rows.
PROBE_CONTEXTS = (list(range(3, 9)), [3, 4, 7])
PROBE_ROWS = [[5, 3, 4], [6, 8, 3], [7, 7, 5]]
PROBE_PARTS = ([2, 1], [1, 2])  # the numbers of the rows' tokens that are appended together, in two trials


class DecoderOnly:
    """A decoder-only model in evaluation mode, with its tokenizer.

    `sharing` tells how many rows read one source: "shared" keeps its keys and values once and folds rows in attention,
    "expanded" copies them for each row; "auto" shares where a probe at load finds that both give the same. `shared`
    then tells which it is, and `sharing_note` the reason sharing is off, or "". Raises ValueError if the model's memory
    of a prefix cannot be continued in either way.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, *, sharing: Sharing = "auto") -> None:
        self.model: Any = model.eval()  # Any: the library's models are callables of their own signatures
        self.text = TextTokenizer(tokenizer)
        self.device = next(model.parameters()).device
        self.vocabulary = Vocabulary(find_end_ids(model, tokenizer), find_pad_id(model, tokenizer))
        self.decoder = PrefixDecoder(self.model)
        self.sharing_note = self._choose_sharing(sharing)

    @classmethod
    def load(
        cls,
        name: str,
        options: LoadingOptions = DEFAULT_LOADING,
        *,
        sharing: Sharing = "auto",
        gguf_file: str | None = None,
        device_map: str | None = None,
    ) -> DecoderOnly:
        """Load a Hub name or a folder, or the GGUF file of that name in it (needs the package `gguf`).

        `device_map` spreads the model as accelerate does ("auto"). Raises what `load_pretrained` does, if there is no
        such checkpoint, it is no decoder-only model, or its weights do not fit into memory.
        """
        model, tokenizer = load_pretrained(
            AutoModelForCausalLM, "a decoder-only model", name, options, gguf_file=gguf_file, device_map=device_map
        )
        if device_map is None:  # else accelerate has put hooks on the modules
            use_fast_modules(model)
        return cls(model, tokenizer, sharing=sharing)

    @property
    def shared(self) -> bool:
        """Whether the rows that continue a source read one copy of it."""
        return self.decoder.shared

    @property
    def positions(self) -> int | None:
        """The most tokens that the model reads and writes together; None: no limit known."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit and 0 < limit < 1_000_000_000 else None

    @property
    def window(self) -> int:
        """The most tokens of an input: 2048, or as many as the positions leave beside a pair."""
        return WINDOW if self.positions is None else min(WINDOW, self.positions - min(RESERVED, self.positions // 4))

    @inference_operation
    def generate(
        self,
        inputs: Sequence[Ids],
        search: DiverseBeamSearch | BeamSearch | TopKSampling,
        *,
        end_ids: Sequence[int] = (),
        keys: Sequence[int] | None = None,
    ) -> list[list[Hypothesis]]:
        """Search from every input (token ids, prompt included): its hypotheses, in the order of `search`.

        `end_ids` end a hypothesis beside end-of-sequence. `keys` are numbers that identify the inputs, for sampling.
        Raises ValueError if an input with the search's longest hypothesis is longer than the model's positions, or an
        id has no embedding, or the model computes NaN.
        """
        self._check_length(max(map(len, inputs)), search.max_new_tokens)
        rows = PrefixRows(self.decoder, self.decoder.read([ids[:-1] for ids in inputs]))
        last = np.array([[int(ids[-1])] for ids in inputs])
        check_ids(last, self.decoder.embeddings)
        vocabulary = Vocabulary((*self.vocabulary.ends, *end_ids), self.vocabulary.pad)
        return run_search(search, rows, last, vocabulary, keys)

    @inference_operation
    def log_likelihood(self, requests: Sequence[ScoringRequest]) -> list[list[Array]]:
        """Teacher-forced token log-probabilities in nats: for every request, for every target an array [its length].

        Each source is read once. Ends and separators count as any token. Raises ValueError if a source with a target is
        longer than the model's positions, or an id has no embedding, or a log-probability is not finite.
        """
        for request in requests:
            self._check_length(len(request.source), max(map(len, request.targets), default=0))
        prefix = self.decoder.read([request.source[:-1] for request in requests])
        rounds = TargetRounds(requests)
        for unfinished, targets in rounds:
            # 1. Sources without further targets leave; while there are none, all share the memory of `prefix`.
            live = prefix
            if len(unfinished) < len(requests):
                live = prefix.selected(to_device(np.array(unfinished), self.device))
            # 2. The model continues with the last token of the source and all but the last of every target.
            batch = TargetBatch.of(targets, self.vocabulary.pad, self.decoder.embeddings, self.device)
            last = ids_to_device([requests[i].source[-1:] for i in unfinished], 0, self.decoder.embeddings, self.device)
            last = last.repeat_interleave(batch.rows_per_source, 0)
            hidden = PrefixRows(self.decoder, live).append(torch.cat([last, batch.labels[:, :-1]], 1))
            rounds.add(unfinished, batch.log_probs(hidden, self.decoder.projection))
        return rounds.results()

    def _check_length(self, read: int, written: int) -> None:
        """Raise ValueError unless the model has positions for so many tokens."""
        if self.positions is not None and read + written - 1 > self.positions:
            raise ValueError(
                f"input and max_new_tokens: must fit the model's {self.positions} positions; got {read} tokens to read "
                f"and {written} to write. Give the format a smaller window"
            )

    @inference_operation
    def _choose_sharing(self, sharing: Sharing) -> str:
        """Find the decoder's projection, and let rows share a prefix if that is wanted and changes nothing.

        Returns the reason sharing is off, or "". Raises ValueError if "shared" is impossible, or if the model computes
        other numbers when it continues a prefix than when it reads all at once.
        """
        # Logits [R, T, V] of the rows after each context, by the model as the library made it and without a cache.
        expected = []
        for context in PROBE_CONTEXTS:
            ids = torch.tensor([context + row for row in PROBE_ROWS], device=self.device)
            logits = self.model(input_ids=ids, use_cache=False, return_dict=True).logits
            expected.append(logits[:, -len(PROBE_ROWS[0]) :].float())
        ids = torch.tensor([PROBE_CONTEXTS[0]], device=self.device)
        self.decoder.find_projection(ids, probe_tolerance(self.model))
        reason = enable_sharing(self.model, sharing, lambda: self._probe(expected, shared=True))
        if sharing == "expanded" or reason:
            wrong, _ = attempt(lambda: self._probe(expected, shared=False))
            if wrong:
                raise ValueError(
                    f"model {type(self.model).__name__}: must continue a prefix that it has read; {wrong}. Use a "
                    f"model with plain attention"
                )
        self.decoder.forget()
        return reason

    def _probe(self, expected: Sequence[Tensor], *, shared: bool) -> str:
        """Let rows share their prefix or not, and compare their logits; returns the difference in words, or ""."""
        self.decoder.shared = shared
        self.decoder.forget()
        if shared:
            use_attention(self.model, "shared_prefix", shared_prefix_attention, shared_prefix_mask)
        worst = 0.0
        for parts in PROBE_PARTS:
            rows = PrefixRows(self.decoder, self.decoder.read(PROBE_CONTEXTS))
            ids = np.split(np.array(PROBE_ROWS * len(PROBE_CONTEXTS)), np.cumsum(parts)[:-1], axis=1)
            hidden = torch.cat([rows.append(to_device(part, self.device)) for part in ids], 1)
            logits = self.decoder.projection.logits(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1).float()
            worst = max(worst, float((logits - torch.cat(list(expected)).to(logits.device)).abs().max()))
        allowed = probe_tolerance(self.model) * max(1.0, *(float(logits.abs().max()) for logits in expected))
        return "" if worst <= allowed else f"continuing a prefix and reading all at once differ by {worst:.1e}"


class PrefixDecoder:
    """A decoder-only model with the projection of its hidden states and the prefix it read last."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.body = model.get_decoder()
        self._takes_positions = "position_ids" in inspect.signature(self.body.forward).parameters
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.device = next(model.parameters()).device
        self.embeddings = count_embeddings(model)
        self.projection = Projection()
        self.shared = False  # whether the rows of a source read one copy of it
        self.tokens_read = 0
        self.forget()

    def forget(self) -> None:
        """Drop the prefix that was read last."""
        self._known: tuple[list[int], Prefix] = [], Prefix((), (), torch.zeros(1, dtype=torch.long, device=self.device))

    def read(self, contexts: Sequence[Ids]) -> Prefix:
        """Read the token ids of every source; the tokens that all begin with are read once."""
        rows = [[int(i) for i in context] for context in contexts]
        common = _common_length(rows)
        head = self._head(rows[0][:common])
        rest = [row[common:] for row in rows]
        if not any(rest):
            return head.expanded(len(rows))
        lengths = to_device(np.array([len(row) for row in rows]), self.device)
        return Prefix(*self._extended(head, rest), lengths)

    def find_projection(self, ids: Tensor, tolerance: float) -> None:
        """Use the model's matrix if it gives the model's logits for `ids` [S, T]; see `projection.find_projection`.

        Raises what the model does.
        """
        logits = self.model(input_ids=ids, use_cache=False, return_dict=True).logits.float()

        def hidden_states() -> Tensor:
            return self.body(input_ids=ids, use_cache=False, return_dict=True).last_hidden_state  # type: ignore[no-any-return]  # untyped

        self.projection = find_projection(self.model, logits, hidden_states, tolerance)

    def continue_rows(
        self, ids: Tensor, positions: Tensor, cache: Cache, *, prefix: Prefix | None, mask: Tensor | None, scored: bool
    ) -> Tensor:
        """The projection's input [N, T, D] for `ids` [N, T] at `positions` [N, T], after the tokens in `cache`.

        The rows continue `prefix`. If that is None, `cache` holds the prefix too, and `mask` [N, P + L] marks its real
        tokens. Without `scored`, only the cache is needed, and the result may be that of the last token alone.
        """
        settings: dict[str, Any] = {"past_key_values": cache, "use_cache": True, "attention_mask": mask}
        if self._takes_positions:
            settings["position_ids"] = positions
        if not scored and self.projection.weight is None and self._keeps_logits:
            settings["logits_to_keep"] = 1
        if prefix is None:
            return self._run(ids, settings)
        with reading(prefix):
            return self._run(ids, settings)

    def _run(self, ids: Tensor, settings: dict[str, Any]) -> Tensor:
        if self.projection.weight is None:
            return self.model(input_ids=ids, return_dict=True, **settings).logits  # type: ignore[no-any-return]
        output = self.body(input_ids=ids, return_dict=True, **settings)
        return output.last_hidden_state.to(self.projection.weight.device)  # type: ignore[no-any-return]  # untyped

    def _head(self, ids: list[int]) -> Prefix:
        """A single source of the tokens `ids`. Tokens with which the last one began are not read again."""
        known, prefix = self._known
        common = _common_length([known, ids])
        if common < len(ids):
            lengths = torch.tensor([len(ids)], device=self.device)
            prefix = Prefix(*self._extended(prefix.cropped(common), [ids[common:]]), lengths)
            self._known = ids, prefix
        return prefix.cropped(len(ids))

    def _extended(self, head: Prefix, rest: Sequence[Sequence[int]]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The keys and values of `head`, a single source, followed by each of `rest`, padded on the right."""
        self.tokens_read += sum(map(len, rest))
        # 1. The model reads the rest as rows that continue the head.
        rows = PrefixRows(self, head)
        rows.append(ids_to_device(rest, 0, self.embeddings, self.device), scored=False)
        new = tuple(zip(*[(layer.keys, layer.values) for layer in rows.cache.layers], strict=True))
        # 2. Rows that share the head cached the rest alone, so the head goes in front; other rows cached both.
        copies = head.expanded(len(rest))
        old = ([], []) if rows.prefix is None or not head.keys else (copies.keys, copies.values)
        keys, values = (
            tuple(torch.cat(pair, 2) for pair in zip(before, after, strict=True)) if before else after
            for before, after in zip(old, new, strict=True)
        )
        return keys, values


class PrefixRows(RunningRows):
    """Rows of a search that continue prefixes: the decoder and the cache of the rows' own tokens.

    Where rows cannot share, the cache holds the prefixes too, padded on the left, and `visible` [N, P + L] marks real
    tokens.
    """

    def __init__(self, decoder: PrefixDecoder, prefix: Prefix) -> None:
        super().__init__(decoder.projection, len(prefix.lengths), prefix.lengths.device)
        self.decoder, self.lengths, self.written = decoder, prefix.lengths, 0
        self.prefix: Prefix | None = None
        self.cache: Any = DynamicCache()  # Any: of layers that keep keys and values, which the library's may not
        self.visible: Tensor | None = None
        if decoder.shared:
            self.prefix, self.cache = prefix, new_cache().self_attention_cache
        else:
            prefix, self.visible = prefix.left_padded()
            for layer, states in enumerate(zip(prefix.keys, prefix.values, strict=True)):
                self.cache.update(*states, layer)

    def append(self, ids: Tensor, *, scored: bool = True) -> Tensor:
        """Append `ids` [S * R, T], R rows for every source from the first call on; returns the projection's input.

        Without `scored`, the result may be that of the last token alone.
        """
        rows_per_source = len(ids) // len(self.lengths)
        if self.visible is not None:
            if rows_per_source != self.rows:
                if self.cache.get_seq_length():
                    self.cache.batch_repeat_interleave(rows_per_source)
                self.visible = self.visible.repeat_interleave(rows_per_source, 0)
            self.visible = torch.cat([self.visible, self.visible.new_ones(ids.shape)], 1)
        self.rows = rows_per_source
        positions = self.lengths[:, None] + self.written + torch.arange(ids.shape[1], device=ids.device)
        self.written += ids.shape[1]
        positions = positions.repeat_interleave(rows_per_source, 0)
        return self.decoder.continue_rows(
            ids, positions, self.cache, prefix=self.prefix, mask=self.visible, scored=scored
        )

    def __call__(self, tokens: Array) -> None:
        """Append `tokens` [S, P, n] to the rows."""
        ids = to_device(tokens.reshape(-1, tokens.shape[-1]), self.device)
        self.last = self.append(ids)[:, -1]

    def keep(self, rows: Tensor, sources: Tensor | None) -> None:
        """Make the batch a copy of `rows` [S' * P'], and keep `sources` [S'] only, or all of them for None."""
        for layer in self.cache.layers:
            layer.batch_select_indices(rows.to(layer.keys.device))
        if self.visible is not None:
            self.visible = self.visible[rows]
        if sources is not None:
            self.lengths = self.lengths[sources]
            self.prefix = None if self.prefix is None else self.prefix.selected(sources)


def is_decoder_only(name: str, options: LoadingOptions = DEFAULT_LOADING) -> bool:
    """Whether a Hub name or a folder is a checkpoint of a decoder-only language model; False if it cannot be read."""
    try:
        config = AutoConfig.from_pretrained(name, **options.reaching(name)[0].hub())
    except Exception:  # the loader that is tried next raises an error with the reason
        return False
    # The library can load an encoder such as BERT as a decoder-only model too, but weights would be missing.
    decoder_only = {str(kind) for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    return not config.is_encoder_decoder and bool(decoder_only & set(config.architectures or ()))


def _common_length(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with in common."""
    first, last = min(map(list, rows)), max(map(list, rows))  # the tokens that these two share, all rows share
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, rows)))
