"""A Hugging Face decoder-only model: read every input once, search from it, score targets on it.

The same two operations as `qa_inference.models.encoder_decoder`, `generate` and `log_likelihood`, for one batch. An
input is a prompt with a text; all but its last token is read once for all rows, which begin with the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from qa_inference.decoding import BeamSearch, DiverseBeamSearch, TopKSampling, Vocabulary, run_search
from qa_inference.models.decoder import real_places, to_device
from qa_inference.models.encoder_decoder import (
    Rounds,
    ScoringRequest,
    Sharing,
    by_target,
    end_ids_of,
    fill_up,
    pad_id_of,
)
from qa_inference.models.loading import Loading, Source, load_pretrained
from qa_inference.models.memory import check_fits, free_bytes, parameter_bytes
from qa_inference.models.prefix_decoder import PrefixDecoder, PrefixRows, padded
from qa_inference.models.prefix_probe import choose_sharing
from qa_inference.rows import Array, Hypothesis
from qa_inference.tokenization import Ids, TextTokenizer

WINDOW = 2048  # tokens of an input: modern models allow many times more, but read long texts less well, and slowly
ROOM = 128  # positions left for what is written, at most a quarter of them


class DecoderOnly:
    """A decoder-only model in evaluation mode, with its tokenizer.

    `sharing` says how many rows read one source: "shared" keeps its keys and values once and folds rows in attention,
    "expanded" copies them for each; "auto" shares where a probe at load finds that both give the same (`shared` then
    says which it is, and `sharing_note` why not). Raises ValueError if the model's memory of what it has read cannot
    be continued in either way.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, *, sharing: Sharing = "auto") -> None:
        self.model: Any = model.eval()  # Any: the library's models are callables of their own signatures
        self.text = TextTokenizer(tokenizer)
        self.device = next(model.parameters()).device
        self.vocabulary = Vocabulary(end_ids_of(model, tokenizer), pad_id_of(model, tokenizer))
        self.decoder = PrefixDecoder(self.model)
        self.sharing_note = choose_sharing(self.decoder, sharing)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        sharing: Sharing = "auto",
        gguf_file: str | None = None,
        device_map: str | None = None,
        **options: Unpack[Loading],
    ) -> DecoderOnly:
        """Load a Hub name or a folder, or the GGUF file of that name in it (needs the package `gguf`).

        `device_map` spreads the model as accelerate does ("auto"); a quantized checkpoint goes where its library puts
        it. See `pretrained.Loading` for the rest. Raises MemoryError if the weights cannot fit; OSError or ValueError,
        naming `name`, if there is no such checkpoint or it is no decoder-only model.
        """
        model, tokenizer, _ = load_pretrained(
            AutoModelForCausalLM,
            "a decoder-only model",
            name,
            gguf_file=gguf_file,
            device_map=device_map,
            check=partial(_check_memory, name) if device_map is None else None,
            **options,
        )
        return cls(model, tokenizer, sharing=sharing)

    @property
    def shared(self) -> bool:
        """Whether the rows that continue a source read one copy of it."""
        return self.decoder.shared

    @property
    def positions(self) -> int | None:
        """How many tokens the model reads and writes at most; None: no limit known."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit and limit < 1_000_000_000 else None

    @property
    def window(self) -> int:
        """The most tokens of an input: 2048, or what the positions leave beside a pair."""
        return WINDOW if self.positions is None else min(WINDOW, self.positions - min(ROOM, self.positions // 4))

    @torch.inference_mode()
    def generate(
        self,
        inputs: Sequence[Ids],
        search: DiverseBeamSearch | BeamSearch | TopKSampling,
        *,
        end_ids: Sequence[int] = (),
        keys: Sequence[int] | None = None,
    ) -> list[list[Hypothesis]]:
        """Search from every input (token ids, prompt included): its hypotheses, as `search` orders them.

        `end_ids` end a hypothesis beside end-of-sequence. `keys` are the sources' own numbers, for sampling. Raises
        ValueError if an input with the search's longest hypothesis is longer than the model's positions.
        """
        self._check_length(max(map(len, inputs)), search.max_new_tokens)
        state = PrefixRows(self.decoder, self.decoder.read([ids[:-1] for ids in inputs]))
        prefix = np.array([[int(ids[-1])] for ids in inputs])
        vocabulary = Vocabulary((*self.vocabulary.ends, *end_ids), self.vocabulary.pad)
        return run_search(search, state, prefix, vocabulary, keys)

    @torch.inference_mode()
    def log_likelihood(self, items: Sequence[ScoringRequest]) -> list[list[Array]]:
        """Teacher-forced token log-probabilities in nats: for every item, for every target an array [its length].

        Each source is read once; ends and separators count as any token. Raises ValueError if a source with a target is
        longer than the model's positions.
        """
        for item in items:
            self._check_length(len(item.source), max(map(len, item.targets), default=0))
        prefix = self.decoder.read([item.source[:-1] for item in items])
        rounds = Rounds(items)
        for unfinished, targets in rounds:
            last = [int(items[i].source[-1]) for i in unfinished]
            some = prefix  # in the memory of all, where all are wanted
            if len(unfinished) < len(items):
                some = prefix.selected(to_device(np.array(unfinished), self.device))
            rows = PrefixRows(self.decoder, some)
            rounds.add(unfinished, self._score_rows(rows, last, targets))
        return rounds.results()

    def _score_rows(self, rows: PrefixRows, last: list[int], targets: Sequence[Sequence[Ids]]) -> list[list[Array]]:
        """Log-probabilities of some targets of every source, rows per source filled up to the most of them."""
        filled, lengths = fill_up(targets)
        labels = padded(filled, self.vocabulary.pad, self.device)
        first = to_device(np.array(last), self.device).repeat_interleave(len(filled) // len(targets))[:, None]
        hidden = rows.append(torch.cat([first, labels[:, :-1]], 1))
        # only tokens of targets are projected, not padding and rows that fill up
        real = real_places(lengths, labels.shape[1], self.device)
        chosen = hidden[tuple(places.to(hidden.device) for places in real)]
        scores = self.decoder.projection.log_probs(chosen, labels[real].to(hidden.device)).cpu().numpy()
        return by_target(scores, targets)

    def _check_length(self, read: int, written: int) -> None:
        """Raise ValueError if so many tokens have no positions."""
        if self.positions is not None and read + written - 1 > self.positions:
            raise ValueError(
                f"input and max_new_tokens: must fit the model's {self.positions} positions; got {read} tokens to read "
                f"and {written} to write. Give the format a smaller window"
            )


def is_decoder_only(name: str, **source: Unpack[Source]) -> bool:
    """Whether a Hub name or a folder is a checkpoint of a decoder-only language model; False if it cannot be read."""
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **source)
    except Exception:  # whoever loads it says what is wrong, with its own words
        return False
    # an encoder such as BERT has a class for this too, whose weights it would lack
    causal = {str(kind) for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}
    return not config.is_encoder_decoder and bool(causal & set(config.architectures or ()))


def _check_memory(name: str, config: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Raise MemoryError if the weights of a checkpoint cannot fit; of a quantized one, nobody knows before."""
    needed = parameter_bytes(config, dtype)
    if needed is not None:
        check_fits(name, needed, free_bytes(device), dtype)
