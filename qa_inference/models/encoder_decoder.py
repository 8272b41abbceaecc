"""A Hugging Face encoder-decoder: encode every input once, search from it, score targets on it.

The two operations of a question-answer generator, `generate` and `log_likelihood`, for one batch; `engine.py` makes
the batches. Inputs and targets are token ids; results are arrays on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache, PreTrainedModel

from qa_inference.decoding import BeamSearch, DiverseBeamSearch, TopKSampling, Vocabulary, run_search
from qa_inference.models import attention
from qa_inference.models.decoder import Decoder, RunningRows, new_cache, real_places, to_device
from qa_inference.models.loading import Loading, load_pretrained
from qa_inference.models.projection import shift_targets
from qa_inference.rows import Array, Hypothesis
from qa_inference.tokenization import Ids, TextTokenizer

ROWS = 8  # targets of one source decoded at a time
PROBE_TOLERANCE = 1e-4
PROBE_IDS = list(range(3, 9))
Sharing = Literal["auto", "shared", "expanded"]


@dataclass(frozen=True)
class ScoringRequest:
    """What `log_likelihood` asks of one source: its input ids and the target sequences scored on it."""

    source: Ids
    targets: Sequence[Ids]


class Rounds:
    """The targets of a batch some at a time, the longest first: those decoded together are little padding.

    Iterating gives the numbers of the items that have targets left, and up to `ROWS` targets of each.
    """

    def __init__(self, items: Sequence[ScoringRequest]) -> None:
        self._items = items
        self._orders = [np.argsort([-len(target) for target in item.targets], kind="stable") for item in items]
        self._found: list[list[Array]] = [[] for _ in items]

    def __iter__(self) -> Iterator[tuple[list[int], list[list[Ids]]]]:
        for start in range(0, max(map(len, self._orders), default=0), ROWS):
            unfinished = [i for i, order in enumerate(self._orders) if len(order) > start]
            places = [self._orders[i][start : start + ROWS] for i in unfinished]
            yield (
                unfinished,
                [[self._items[i].targets[p] for p in ps] for i, ps in zip(unfinished, places, strict=True)],
            )

    def add(self, unfinished: Sequence[int], arrays: Sequence[list[Array]]) -> None:
        """Take what was found for the targets given last."""
        for i, each in zip(unfinished, arrays, strict=True):
            self._found[i] += each

    def results(self) -> list[list[Array]]:
        """What was found, in the items' own order of targets."""
        pairs = zip(self._found, self._orders, strict=True)
        return [[each[place] for place in np.argsort(order)] for each, order in pairs]


def fill_up(targets: Sequence[Sequence[Ids]]) -> tuple[list[Ids], Array]:
    """As many rows [S * R] for every source as the most of its targets, and of how many tokens each is asked, [S * R].

    Rows that fill up repeat a source's first target, and none of their tokens is asked for.
    """
    most = max(map(len, targets))
    rows = [row for each in targets for row in [*each, *[each[0]] * (most - len(each))]]
    return rows, np.array([len(row) for each in targets for row in [*each, *[()] * (most - len(each))]])


def by_target(scores: Array, targets: Sequence[Sequence[Ids]]) -> list[list[Array]]:
    """The scores of all targets' tokens in a row, one array for each target of every source."""
    flat = iter(np.split(scores, np.cumsum([len(target) for each in targets for target in each])[:-1]))
    return [[next(flat) for _ in each] for each in targets]


class EncoderDecoder:
    """An encoder-decoder in evaluation mode on one device, with its tokenizer.

    `sharing` says how many rows read one source: "shared" folds them in attention, "expanded" copies the source for
    each; "auto" shares where a probe at load finds that both give the same (`shared` then says which it is, and
    `sharing_note` why not).
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, *, sharing: Sharing = "auto") -> None:
        self.model: Any = model.eval()  # Any: the library's models are callables of their own signatures
        self.text = TextTokenizer(tokenizer)
        self.device = next(model.parameters()).device
        self.prefix = _decoder_prefix(model)
        self.vocabulary = Vocabulary(end_ids_of(model, tokenizer), pad_id_of(model, tokenizer))
        self.decoder = Decoder(self.model)
        self._find_projection()
        self.sharing_note = ""
        if sharing != "expanded":
            self._try_sharing(required=sharing == "shared")

    @classmethod
    def load(cls, name: str, *, sharing: Sharing = "auto", **options: Unpack[Loading]) -> EncoderDecoder:
        """Load a Hub name or a folder; see `pretrained.Loading` for what can be said of it.

        Raises OSError or ValueError, naming `name`, if there is no such checkpoint or it is no encoder-decoder.
        """
        model, tokenizer, _ = load_pretrained(AutoModelForSeq2SeqLM, "an encoder-decoder", name, **options)
        return cls(model, tokenizer, sharing=sharing)

    @property
    def shared(self) -> bool:
        """Whether the rows decoded from a source read one copy of it."""
        return self.decoder.shared

    @property
    def window(self) -> int | None:
        """The most tokens of an input that the model's positions and its tokenizer allow; None: no limit known."""
        config = getattr(self.model.config, "encoder", self.model.config)
        limits = (getattr(config, "max_position_embeddings", None), self.text.tokenizer.model_max_length)
        known = [int(limit) for limit in limits if limit and limit < 1_000_000]
        return min(known) if known else None

    @torch.inference_mode()
    def generate(
        self,
        inputs: Sequence[Ids],
        search: DiverseBeamSearch | BeamSearch | TopKSampling,
        *,
        end_ids: Sequence[int] = (),
        keys: Sequence[int] | None = None,
    ) -> list[list[Hypothesis]]:
        """Search from every input (token ids, special tokens included): its hypotheses, as `search` orders them.

        `end_ids` end a hypothesis beside end-of-sequence. `keys` are the sources' own numbers, for sampling. Raises
        ValueError if the search's longest hypothesis is longer than the decoder's positions.
        """
        config = getattr(self.model.config, "decoder", self.model.config)
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and len(self.prefix) + search.max_new_tokens - 1 > positions:
            raise ValueError(
                f"max_new_tokens: must leave room in the decoder's {positions} positions beside the {len(self.prefix)} "
                f"it starts from; got {search.max_new_tokens}"
            )
        state = RunningRows(self.decoder, *self.encode(inputs))
        prefix = np.tile(np.array(self.prefix), (len(inputs), 1))
        vocabulary = Vocabulary((*self.vocabulary.ends, *end_ids), self.vocabulary.pad)
        return run_search(search, state, prefix, vocabulary, keys)

    @torch.inference_mode()
    def log_likelihood(self, items: Sequence[ScoringRequest]) -> list[list[Array]]:
        """Teacher-forced token log-probabilities in nats: for every item, for every target an array [its length].

        Each source is encoded once; ends and separators count as any token.
        """
        encoded, mask = self.encode([item.source for item in items])
        rounds = Rounds(items)
        live, cross = list(range(len(items))), DynamicCache()
        for unfinished, targets in rounds:
            if len(unfinished) < len(live):
                index = to_device(np.array([live.index(i) for i in unfinished]), self.device)
                encoded, mask = encoded[index], mask[index]
                cross.batch_select_indices(index)
                live = unfinished
            rounds.add(unfinished, self._score_rows(encoded, mask, targets, cross))
        return rounds.results()

    def encode(self, inputs: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """The encoder's output [S, K, D] and the attention mask [S, K] for `inputs`, padded on the right."""
        ids = _pad(inputs, self.vocabulary.pad, self.device)
        mask = _pad([[1] * len(row) for row in inputs], 0, self.device)
        encoder = self.model.get_encoder()
        return encoder(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state, mask

    def _score_rows(
        self, encoded: Tensor, mask: Tensor, targets: Sequence[Sequence[Ids]], cross: DynamicCache
    ) -> list[list[Array]]:
        """Log-probabilities of some targets of every source, rows per source filled up to the most of them.

        `cross` keeps the keys and values of the sources for the next targets, but not of sources copied for each row.
        """
        filled, lengths = fill_up(targets)
        labels = _pad(filled, self.vocabulary.pad, self.device)
        prefix = to_device(np.array(self.prefix), self.device)
        cache = EncoderDecoderCache(DynamicCache(), cross) if self.shared else None
        hidden = self.decoder(encoded, mask, shift_targets(prefix, labels), cache)[:, len(prefix) - 1 :]
        # only tokens of targets are projected, not padding and rows that fill up
        real = real_places(lengths, labels.shape[1], self.device)
        scores = self.decoder.projection.log_probs(hidden[real], labels[real]).cpu().numpy()
        return by_target(scores, targets)

    # ---- sharing ----------------------------------------------------------------------------------------------------

    def _try_sharing(self, *, required: bool) -> None:
        """Switch shared-source attention on where a probe shows that it changes nothing."""
        before = getattr(self.model.config, "_attn_implementation", None)
        try:
            attention.switch_on(self.model)
            self.sharing_note = self._probe()
        except Exception as error:  # an architecture may fail anywhere inside its own attention
            self.sharing_note = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        self.decoder.shared = not self.sharing_note
        if self.shared:
            return
        if required:
            raise ValueError(
                f"model {type(self.model).__name__}: cannot share a source between rows ({self.sharing_note}); "
                f'use sharing="auto" or "expanded"'
            )
        if before is not None:
            self.model.set_attn_implementation(before)

    @torch.inference_mode()
    def _probe(self) -> str:
        """Compare shared with expanded on two sources of unlike length and three rows each, cached and teacher-forced.

        Returns what is wrong, "" for nothing.
        """
        encoded, mask = self.encode([PROBE_IDS, PROBE_IDS[:3]])
        rows = torch.tensor([*self.prefix, *PROBE_IDS[:3]], device=self.device).expand(6, -1).clone()
        rows[:, -1] = torch.tensor(PROBE_IDS, device=self.device)
        with attention.counting() as folded:
            self.decoder.shared = True
            shared = self._two_ways(encoded, mask, rows)
        if folded[0] == 0:
            return "the model's cross-attention does not use the registered function"
        self.decoder.shared = False
        expanded = self._two_ways(encoded, mask, rows)
        worst = float((shared - expanded).abs().max())
        return (
            ""
            if worst <= self._tolerance * max(1.0, float(expanded.abs().max()))
            else (f"shared and expanded decoding differ by {worst:.1e}")
        )

    def _two_ways(self, encoded: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """What the decoder says of `rows` at once, and of their last token from the cache: [N, T + 1, D]."""
        cache = new_cache()
        self.decoder(encoded, mask, rows[:, :-1], cache)
        return torch.cat([self.decoder(encoded, mask, rows), self.decoder(encoded, mask, rows[:, -1:], cache)], 1)

    @torch.inference_mode()
    def _find_projection(self) -> None:
        """Let the decoder use the model's matrix where that is all there is to its logits."""
        ids = torch.tensor([[*self.prefix, *PROBE_IDS[:2]]], device=self.device)
        self.decoder.find_projection(*self.encode([PROBE_IDS]), ids, self._tolerance)

    @property
    def _tolerance(self) -> float:
        """How far two ways to the same numbers may lie apart, as a share of the largest."""
        return PROBE_TOLERANCE * (1 if self.model.dtype == torch.float32 else 500)


def _pad(rows: Sequence[Ids], value: int, device: torch.device) -> Tensor:
    """One tensor of `rows`, padded on the right to the longest."""
    padded = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return to_device(padded, device)


def _setting(model: PreTrainedModel, name: str) -> Any:
    """A generation setting, from the generation config or, failing that, the model's."""
    value = getattr(model.generation_config, name, None)
    return value if value is not None else getattr(model.config, name, None)


def _decoder_prefix(model: PreTrainedModel) -> tuple[int, ...]:
    """The tokens a decoder starts from: its start and, where the checkpoint forces one, the first after it."""
    start, forced = _setting(model, "decoder_start_token_id"), _setting(model, "forced_bos_token_id")
    start = start if start is not None else _setting(model, "bos_token_id")
    if start is None:
        raise ValueError(
            f"model {type(model).__name__}: must name the token its decoder starts from; `decoder_start_token_id` and "
            f"`bos_token_id` are both None. Set one in its config.json or generation_config.json."
        )
    return (int(start),) if forced is None else (int(start), int(forced))


def end_ids_of(model: PreTrainedModel, tokenizer: Any) -> tuple[int, ...]:
    """The ids of end-of-sequence."""
    ends = _setting(model, "eos_token_id")
    ends = tokenizer.eos_token_id if ends is None else ends
    if ends is None:
        raise ValueError(
            f"model {type(model).__name__}: must have an end-of-sequence token; `eos_token_id` is None in its config "
            f"and its tokenizer. Set it in its config.json."
        )
    return tuple(ends) if isinstance(ends, list | tuple) else (int(ends),)


def pad_id_of(model: PreTrainedModel, tokenizer: Any) -> int:
    """The id that pads; any will do where a checkpoint has none, since padding is masked."""
    pad = _setting(model, "pad_token_id")
    pad = tokenizer.pad_token_id if pad is None else pad
    return int(pad) if pad is not None else 0
