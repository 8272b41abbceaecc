"""The configuration of QAGS, and the models it names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import get_args

from qa_inference.formats import QuestionFormat
from qa_inference.models.encoder_decoder import EncoderDecoder
from qa_inference.models.loading import LoadingOptions
from qa_inference.models.reader import Reader, ReaderConfig
from qa_inference.models.shared_rows import Sharing
from qa_inference.options import check_choices, check_integers, find_preset
from qa_inference.presets import QUESTION_PRESETS, READERS, Preset, ReaderPreset


@dataclass(frozen=True)
class QagsConfig:
    """Which models ask and answer, how many questions, and which of them count. The defaults are the paper's.

    `model` writes questions: a preset's name (`qa_inference.presets.QUESTION_PRESETS`), a Hub name (`owner/name`) or a
    folder; `format` says what it reads (None: the preset's, or a bare text with `<hl>` around the answer). `reader`
    answers them: a preset's name (`…presets.READERS`), a Hub name or a folder, read as `reader_config` says.
    `spacy_model` finds the answers to ask for (None: the first English one installed).

    Of a summary's names and noun phrases the first `num_candidates` are asked for (10), each by beam search of
    `beam_width` (10), of whose results the `hypotheses` best count (10), with `min_question_tokens` before the end (5)
    and `max_question_tokens` with it (32: of 7,190 questions of SQuAD 9 are longer in the embedded model's tokens). At
    most `max_questions` are kept (20; also published: 5, 10, 50), the likeliest. Those are often one question in twenty
    forms: `max_per_answer` is how many may ask for the same answer (None: any number, as published). `exact`: the
    reader must give the intended answer to the character, as published; else after SQuAD's normalization.

    `device`, `dtype` None: chosen (`qa_inference.batching`); `token_budget` is the engine's, in tokens per batch.
    `sharing`: whether rows share one text in attention (`qa_inference.models.encoder_decoder.EncoderDecoder`).
    `revision` (of `model`), `reader_revision`, `token`, `cache_dir` and `local_files_only` go to the Hub loader.
    """

    model: str = "embedded"
    format: QuestionFormat | None = None
    reader: str = "embedded"
    reader_config: ReaderConfig = field(default_factory=ReaderConfig)
    spacy_model: str | None = None
    num_candidates: int = 10
    beam_width: int = 10
    hypotheses: int = 10
    min_question_tokens: int = 5
    max_question_tokens: int = 32
    max_questions: int = 20
    max_per_answer: int | None = None
    exact: bool = False
    device: str | None = None
    dtype: str | None = None
    token_budget: int | None = None
    sharing: Sharing = "auto"
    revision: str | None = None
    reader_revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        check_integers(self, num_candidates=1, beam_width=1, hypotheses=1, max_questions=1)
        check_integers(self, min_question_tokens=0, max_question_tokens=1)
        if self.min_question_tokens >= self.max_question_tokens:
            raise ValueError(
                f"min_question_tokens: must be less than max_question_tokens, or no question could end; got "
                f"{self.min_question_tokens} and {self.max_question_tokens}"
            )
        if self.hypotheses > self.beam_width:
            raise ValueError(
                f"hypotheses: must be at most beam_width, as many as the search gives; got {self.hypotheses} and "
                f"{self.beam_width}"
            )
        check_choices(self, sharing=get_args(Sharing))
        for name in ("token_budget", "max_per_answer"):
            if getattr(self, name) is not None:
                check_integers(self, **{name: 1})

    def preset(self) -> Preset[QuestionFormat]:
        """The preset that `model` names by its name or its checkpoint, or one made for another checkpoint.

        Raises ValueError if `model` is no preset, no `owner/name` and no folder.
        """
        known = find_preset("model", self.model, QUESTION_PRESETS)
        preset = known or Preset(self.model, self.model, QuestionFormat(), "see its card", "")
        return preset if self.format is None else replace(preset, format=self.format)

    def reader_preset(self) -> ReaderPreset:
        """The same for `reader`."""
        known = find_preset("reader", self.reader, READERS)
        return known or ReaderPreset(self.reader, self.reader, "see its card", "")


def load_generator(config: QagsConfig) -> EncoderDecoder:
    """The question generator a configuration names. Raises what `EncoderDecoder.load` does."""
    preset = config.preset()
    return EncoderDecoder.load(
        preset.model, _loading(config, config.revision or preset.revision), sharing=config.sharing
    )


def load_reader(config: QagsConfig) -> Reader:
    """The reader a configuration names. Raises what `Reader.load` does."""
    preset = config.reader_preset()
    options = _loading(config, config.reader_revision or preset.revision)
    return Reader.load(preset.model, options, config=config.reader_config)


def _loading(config: QagsConfig, revision: str | None) -> LoadingOptions:
    """How either model is loaded."""
    return LoadingOptions(
        revision=revision,
        token=config.token,
        cache_dir=config.cache_dir,
        local_files_only=config.local_files_only,
        device=config.device,
        dtype=config.dtype,
    )
