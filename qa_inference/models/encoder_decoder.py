"""A Hugging Face encoder-decoder: encode every input once, search from it, score targets on it.

This file has the two operations of a question-answer generator, `generate` and `log_likelihood`, for one batch
(`batching.py` makes the batches). Inputs and targets are token ids; results are arrays on the CPU.

A decoder layer computes the keys and values of its cross-attention from the encoder's output, one copy for each row of
the batch. Here the rows of one source are folded into one longer query, so that 60 hypotheses of a summary, or ten
pairs scored on a source, read a single copy of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutput

from qa_inference.decoding import (
    Array,
    BeamSearch,
    DiverseBeamSearch,
    Hypothesis,
    TopKSampling,
    Vocabulary,
    run_search,
)
from qa_inference.models._bfloat16_attention import attention_forward
from qa_inference.models._cpu_modules import use_fast_modules
from qa_inference.models.inference import count_embeddings, ids_to_device, inference_operation, to_device
from qa_inference.models.loading import (
    DEFAULT_LOADING,
    LoadingOptions,
    count_positions,
    find_end_ids,
    find_pad_id,
    generation_setting,
    input_limit,
    load_pretrained,
)
from qa_inference.models.projection import Projection, find_projection
from qa_inference.models.shared_rows import (
    RunningRows,
    ScoringRequest,
    Sharing,
    TargetBatch,
    TargetRounds,
    count_folded_call,
    enable_sharing,
    new_cache,
    probe_tolerance,
    use_attention,
)
from qa_inference.tokenization import Ids, TextTokenizer, pad_rows

PROBE_IDS = list(range(3, 9))


class EncoderDecoder:
    """An encoder-decoder in evaluation mode on one device, with its tokenizer.

    `sharing` tells how many rows read one source: "shared" folds them in attention, "expanded" copies the source for
    each; "auto" shares where a probe at load finds that both give the same. `shared` then tells which it is, and
    `sharing_note` the reason sharing is off, or "".
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, *, sharing: Sharing = "auto") -> None:
        self.model: Any = model.eval()  # Any: the library's models are callables of their own signatures
        self.text = TextTokenizer(tokenizer)
        self.device = next(model.parameters()).device
        self.prefix = _decoder_prefix(model)
        self.vocabulary = Vocabulary(find_end_ids(model, tokenizer), find_pad_id(model, tokenizer))
        self._input_ids, self._output_ids = map(count_embeddings, (self.model.get_encoder(), self.model.get_decoder()))
        self.decoder = SourceDecoder(self.model)
        self._find_projection()
        self.sharing_note = enable_sharing(model, sharing, self._probe)
        self.decoder.shared = sharing != "expanded" and not self.sharing_note

    @classmethod
    def load(cls, name: str, options: LoadingOptions = DEFAULT_LOADING, *, sharing: Sharing = "auto") -> EncoderDecoder:
        """Load a Hub name or a folder.

        Raises what `load_pretrained` does, if there is no such checkpoint or it is no encoder-decoder.
        """
        model, tokenizer = load_pretrained(AutoModelForSeq2SeqLM, "an encoder-decoder", name, options)
        use_fast_modules(model)  # not in a model that is given, which may be in training
        return cls(model, tokenizer, sharing=sharing)

    @property
    def shared(self) -> bool:
        """Whether the rows decoded from a source read one copy of it."""
        return self.decoder.shared

    @property
    def window(self) -> int | None:
        """The most tokens of an input that the model's positions and its tokenizer allow; None: no limit known."""
        return input_limit(self.model, self.text.tokenizer)

    @inference_operation
    def generate(
        self,
        inputs: Sequence[Ids],
        search: DiverseBeamSearch | BeamSearch | TopKSampling,
        *,
        end_ids: Sequence[int] = (),
        keys: Sequence[int] | None = None,
    ) -> list[list[Hypothesis]]:
        """Search from every input (token ids, special tokens included): its hypotheses, in the order of `search`.

        `end_ids` end a hypothesis beside end-of-sequence. `keys` are numbers that identify the inputs, for sampling.
        Raises ValueError if the search's longest hypothesis is longer than the decoder's positions, or an id has no
        embedding, or the model computes NaN.
        """
        positions = count_positions(self.model, "decoder")
        if positions is not None and len(self.prefix) + search.max_new_tokens - 1 > positions:
            raise ValueError(
                f"max_new_tokens: must leave room in the decoder's {positions} positions beside the {len(self.prefix)} "
                f"it starts from; got {search.max_new_tokens}"
            )
        rows = SourceRows(self.decoder, *self.encode(inputs))
        prefix = np.tile(np.array(self.prefix), (len(inputs), 1))
        vocabulary = Vocabulary((*self.vocabulary.ends, *end_ids), self.vocabulary.pad)
        return run_search(search, rows, prefix, vocabulary, keys)

    @inference_operation
    def log_likelihood(self, requests: Sequence[ScoringRequest]) -> list[list[Array]]:
        """Teacher-forced token log-probabilities in nats: for every request, for every target an array [its length].

        Each source is encoded once. Ends and separators count as any token. Raises ValueError if an id has no
        embedding, or a log-probability is not finite.
        """
        encoded, mask = self.encode([request.source for request in requests])
        prefix = to_device(np.array(self.prefix), self.device)
        rounds = TargetRounds(requests)
        live, cross = list(range(len(requests))), DynamicCache()
        for unfinished, targets in rounds:
            # 1. Sources without further targets leave the batch.
            if len(unfinished) < len(live):
                index = to_device(np.array([live.index(i) for i in unfinished]), self.device)
                encoded, mask = encoded[index], mask[index]
                cross.batch_select_indices(index)
                live = unfinished
            # 2. The decoder reads its prefix and all but the last token of every target. `cross` keeps the keys and
            #    values of the sources for the next round, but not of sources that are copied for each row.
            batch = TargetBatch.of(targets, self.vocabulary.pad, self._output_ids, self.device)
            ids = torch.cat([prefix.expand(len(batch.labels), -1), batch.labels[:, :-1]], 1)
            cache = EncoderDecoderCache(DynamicCache(), cross) if self.shared else None
            # 3. The last token of the prefix predicts the first of the target.
            hidden = self.decoder(encoded, mask, ids, cache)[:, len(prefix) - 1 :]
            rounds.add(unfinished, batch.log_probs(hidden, self.decoder.projection))
        return rounds.results()

    def encode(self, inputs: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """The encoder's output [S, K, D] and the attention mask [S, K] for `inputs`, padded on the right."""
        ids = ids_to_device(inputs, self.vocabulary.pad, self._input_ids, self.device)
        mask = to_device(pad_rows([[1] * len(row) for row in inputs], 0), self.device)
        encoder = self.model.get_encoder()
        return encoder(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state, mask

    @inference_operation
    def _find_projection(self) -> None:
        """Let the decoder use the model's matrix if it alone gives the model's logits."""
        ids = torch.tensor([[*self.prefix, *PROBE_IDS[:2]]], device=self.device)
        self.decoder.find_projection(*self.encode([PROBE_IDS]), ids, probe_tolerance(self.model))

    @inference_operation
    def _probe(self) -> str:
        """Switch shared attention on, and compare it with expanded sources; returns the difference in words, or ""."""
        use_attention(self.model, "shared_source", shared_source_attention, sdpa_mask)
        # Two sources of different lengths have three rows each, which differ in their last token.
        encoded, mask = self.encode([PROBE_IDS, PROBE_IDS[:3]])
        rows = torch.tensor([*self.prefix, *PROBE_IDS[:3]], device=self.device).expand(6, -1).clone()
        rows[:, -1] = torch.tensor(PROBE_IDS, device=self.device)
        outputs = []
        for is_shared in (True, False):
            self.decoder.shared = is_shared
            # All tokens at once, and then the last one again from the cache: [6, T + 1, D].
            cache = new_cache()
            self.decoder(encoded, mask, rows[:, :-1], cache)
            last = self.decoder(encoded, mask, rows[:, -1:], cache)
            outputs.append(torch.cat([self.decoder(encoded, mask, rows), last], 1))
        shared, expanded = outputs
        worst = float((shared - expanded).abs().max())
        allowed = probe_tolerance(self.model) * max(1.0, float(expanded.abs().max()))
        return "" if worst <= allowed else f"shared and expanded decoding differ by {worst:.1e}"


class SourceDecoder:
    """The decoder of a model over encoded sources, and the projection of its hidden states."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.projection = Projection()
        self.shared = False  # whether the rows of a source read one copy of it

    def __call__(self, encoded: Tensor, mask: Tensor, ids: Tensor, cache: EncoderDecoderCache | None = None) -> Tensor:
        """The projection's input [S * R, T, D] for `ids` [S * R, T] over `encoded` [S, K, D] with `mask` [S, K].

        `cache` holds the tokens before `ids` and is extended.
        """
        if not self.shared and len(ids) != len(encoded):
            rows_per_source = len(ids) // len(encoded)
            encoded, mask = encoded.repeat_interleave(rows_per_source, 0), mask.repeat_interleave(rows_per_source, 0)
        if self.projection.weight is None:
            return self._logits(encoded, mask, ids, cache)
        return self._hidden_states(encoded, mask, ids, cache)

    def find_projection(self, encoded: Tensor, mask: Tensor, ids: Tensor, tolerance: float) -> None:
        """Use the model's matrix if it gives the model's logits for `ids` [S, T]; see `projection.find_projection`."""
        logits = self._logits(encoded, mask, ids, None).float()
        self.projection = find_projection(
            self.model, logits, lambda: self._hidden_states(encoded, mask, ids, None), tolerance
        )

    def _hidden_states(self, encoded: Tensor, mask: Tensor, ids: Tensor, cache: EncoderDecoderCache | None) -> Tensor:
        output = self.model.get_decoder()(
            input_ids=ids,
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            return_dict=True,
        )
        return output.last_hidden_state  # type: ignore[no-any-return]  # untyped in the library

    def _logits(self, encoded: Tensor, mask: Tensor, ids: Tensor, cache: EncoderDecoderCache | None) -> Tensor:
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=mask,
            decoder_input_ids=ids,
            past_key_values=cache,
            use_cache=cache is not None,
            return_dict=True,
        )
        return output.logits  # type: ignore[no-any-return]  # untyped in the library


class SourceRows(RunningRows):
    """Rows of a search over encoded sources: the decoder and its cache."""

    def __init__(self, decoder: SourceDecoder, encoded: Tensor, mask: Tensor) -> None:
        super().__init__(decoder.projection, len(encoded), encoded.device)
        self.decoder, self.encoded, self.mask = decoder, encoded, mask
        self.cache = new_cache()

    def __call__(self, tokens: Array) -> None:
        """Append `tokens` [S, P, n] to the rows."""
        ids = to_device(tokens.reshape(-1, tokens.shape[-1]), self.device)
        self.last = self.decoder(self.encoded, self.mask, ids, self.cache)[:, -1]

    def keep(self, rows: Tensor, sources: Tensor | None) -> None:
        """Make the batch a copy of `rows` [S' * P'], and keep `sources` [S'] only, or all of them for None."""
        self.cache.self_attention_cache.batch_select_indices(rows)
        if not self.decoder.shared:
            self.cache.cross_attention_cache.batch_select_indices(rows)
        if sources is not None:
            if self.decoder.shared:
                self.cache.cross_attention_cache.batch_select_indices(sources)
            self.encoded, self.mask = self.encoded[sources], self.mask[sources]


def shared_source_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of `query` [S * R, H, T, D] over `key` and `value` [S, H, K, D]; R adjacent rows share a source.

    `attention_mask` [S, 1, T or 1, K] hides padding of the sources (True or 0: visible) and must not depend on the
    query's position, as a mask over an encoder's output never does. Where queries and keys have the same number of
    rows, this is the library's own attention. Returns [S * R, T, H, D].
    """
    rows, sources = query.shape[0], key.shape[0]
    if rows == sources:
        return attention_forward(module, query, key, value, attention_mask, position_bias=position_bias, **kwargs)
    count_folded_call()
    rows_per_source, heads, length, width = rows // sources, *query.shape[1:]
    # 1. The rows of a source become one longer query: [S * R, H, T, D] -> [S, H, R * T, D].
    by_source = query.view(sources, rows_per_source, heads, length, width)
    folded = by_source.transpose(1, 2).reshape(sources, heads, -1, width)
    # 2. The bias, the same for every row, is repeated along that query: [1, H, T, K] -> [1, H, R * T, K].
    if not getattr(module, "has_relative_attention_bias", True):
        position_bias = None  # T5's cross-attention passes zeros
    elif position_bias is not None:
        position_bias = position_bias.repeat(1, 1, rows_per_source, 1)
    # 3. The mask of one position is right for all positions.
    if attention_mask is not None:
        attention_mask = attention_mask[:, :, :1]
    kwargs["is_causal"] = False
    kwargs["position_bias"] = position_bias
    output, _ = attention_forward(module, folded, key, value, attention_mask, **kwargs)
    # 4. The long queries become rows again: [S, R * T, H, D] -> [S * R, T, H, D].
    return output.view(sources, rows_per_source, length, heads, width).flatten(0, 1), None


def _decoder_prefix(model: PreTrainedModel) -> tuple[int, ...]:
    """The tokens a decoder starts from: its start and, where the checkpoint forces one, the first after it."""
    start = generation_setting(model, "decoder_start_token_id")
    start = start if start is not None else generation_setting(model, "bos_token_id")
    forced = generation_setting(model, "forced_bos_token_id")
    if start is None:
        raise ValueError(
            f"model {type(model).__name__}: must name the token its decoder starts from; `decoder_start_token_id` and "
            f"`bos_token_id` are both None. Set one in its config.json or generation_config.json."
        )
    return (int(start),) if forced is None else (int(start), int(forced))
