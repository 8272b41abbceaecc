"""The configuration of QAGS: every option, with its help and its check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qa_inference.checks import check_bool, integer_from
from qa_inference.metric_base.options import LOADING, ModelOptions, option

if TYPE_CHECKING:
    from qa_inference.formats import QuestionFormat
    from qa_inference.models.reader import ReaderConfig
    from qa_inference.presets import Preset, ReaderPreset


def _default_reading() -> ReaderConfig:
    from qa_inference.models.reader import ReaderConfig

    return ReaderConfig()


@dataclass(frozen=True)
class QagsConfig(ModelOptions):
    """Options of QAGS. The defaults are the paper's where it gives them.

    `model` writes the questions: a preset's name (`qa_inference.presets.QUESTION_PRESETS`), a Hub name (`owner/name`)
    or a folder. `reader` answers them: a preset's name (`qa_inference.presets.READERS`), a Hub name or a folder.
    """

    format: QuestionFormat | None = option(
        None,
        help="Format of the model's input: a QuestionFormat.",
        models=LOADING,
        default_help="the preset's, else the text with <hl> around the answer",
        kw_only=False,
    )
    reader: str = option(
        "embedded", help="Question-answering model: a preset, Hub name or folder.", kind=str, models=("reader",)
    )
    reader_config: ReaderConfig = option(
        default_factory=_default_reading,
        help="Settings of the reader: a ReaderConfig, with the window, the stride and the longest answer.",
        models=("reader",),
    )
    reader_revision: str | None = option(
        None,
        help="Commit or branch of the reader on the Hub.",
        kind=str,
        models=("reader",),
        default_help="the preset's",
    )
    spacy_model: str | None = option(
        None,
        help="spaCy model that finds names and noun phrases.",
        kind=str,
        models=("finder",),
        default_help="the first English one that is installed",
    )
    num_candidates: int = option(
        10, help="Answer candidates of a summary: its first names and noun phrases.", check=integer_from(1)
    )
    beam_width: int = option(10, help="Beams of the search for questions.", check=integer_from(1))
    hypotheses: int = option(10, help="Results of a search that are used: the best ones.", check=integer_from(1))
    min_question_tokens: int = option(5, help="The fewest tokens of a question before its end.", check=integer_from(0))
    max_question_tokens: int = option(
        32, help="The most tokens of a question, its end included.", check=integer_from(1)
    )
    max_questions: int = option(
        20, help="The most questions kept per summary: the likeliest.", check=integer_from(1), kind=int
    )
    max_per_answer: int | None = option(
        None,
        help="The most questions kept for the same answer.",
        check=integer_from(1),
        kind=int,
        default_help="any number",
    )
    exact: bool = option(
        False,
        help="Keep a question only if the reader returns its answer character for character, as the published code "
        "does. Otherwise answers are normalized first, as SQuAD does.",
        check=check_bool,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def model_preset(self) -> Preset[QuestionFormat]:
        """The preset that `model` names, by its own name or its checkpoint's; a new preset for any other checkpoint.

        Raises ValueError if `model` is neither a preset, nor an `owner/name`, nor a folder.
        """
        from qa_inference.formats import QuestionFormat
        from qa_inference.presets import QUESTION_PRESETS, preset_of

        return preset_of(self.model, QUESTION_PRESETS, self.format, QuestionFormat())

    def reader_preset(self) -> ReaderPreset:
        """The preset that `reader` names, or a new one; see `model_preset`."""
        from qa_inference.presets import READERS, ReaderPreset, find_preset

        return find_preset("reader", self.reader, READERS) or ReaderPreset(self.reader, self.reader, "see its card", "")
