"""The configuration of QUALS: every option, with its help and its check."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from qa_inference.checks import check_folder_name, finite_from, integer_from
from qa_inference.metric_base.options import LOADING, ModelOptions, option

if TYPE_CHECKING:
    from qa_inference.formats import PairFormat
    from qa_inference.presets import Preset

PresetName = Literal["default", "fast", "agreement"]
PRESET_SETTINGS: Mapping[PresetName, dict[str, Any]] = {
    "default": {"groups": 60, "by_sentence": False, "tokens": "all", "normalize": False},
    "fast": {"groups": 20},
    "agreement": {"groups": 20, "by_sentence": True, "tokens": "balanced", "normalize": True},
}
"""What each value of the option `preset` stands for; the first, also for options that another one does not name.

`benchmarks/RESULTS.md` has what they cost and gain.
"""

DEFAULT_CACHE_SIZE = 2**30  # bytes
LEAST_CACHE_SIZE = 2**20  # bytes; an empty cache takes about 40,000


@dataclass(frozen=True)
class QualsConfig(ModelOptions):
    """Options of QUALS. The defaults are the paper's where it gives them; the others are the published code's.

    `model` is a preset's name (`qa_inference.presets.PRESETS`), a Hub name (`owner/name`) or a folder. An option that
    `preset` can set (`groups`, `by_sentence`, `tokens`, `normalize`) is None if it was not given; see `settings`.
    """

    format: PairFormat | None = option(
        None,
        help="How the model writes a pair: a PairFormat, or a CausalFormat for a decoder-only model.",
        models=LOADING,
        default_help="the preset's",
        kw_only=False,
    )
    preset: PresetName = option(
        "default",
        help="Sets other options. fast: 20 groups. agreement: by sentence, 20 groups, balanced tokens, normalized.",
        choices=get_args(PresetName),
        kind=str,
    )
    groups: int = option(
        None,
        help="Groups of the diverse beam search: pairs generated per searched text.",
        check=integer_from(1),
        default_help="60",
    )
    strength: float = option(0.5, help="Diversity strength of the search.", check=finite_from(0))
    min_new_tokens: int = option(8, help="The fewest tokens of a pair before its end.", check=integer_from(0))
    max_new_tokens: int = option(61, help="The most tokens of a pair, its end included.", check=integer_from(1))
    max_pairs: int = option(
        10,
        help="About how many pairs are kept per searched text. The last round of the selection may add a few.",
        check=integer_from(1),
        kind=int,
    )
    by_sentence: bool = option(
        None,
        help="Search every sentence of a summary by itself. The published search reads the whole summary.",
        kind=bool,
        default_help="False",
    )
    tokens: Literal["all", "answer", "balanced"] = option(
        None,
        help="Which tokens of a pair count: all, or those of its answer. balanced: question and answer count the same.",
        choices=("all", "answer", "balanced"),
        kind=str,
        default_help="all",
    )
    normalize: bool = option(
        None,
        help="Divide the scores of a summary by its information: how much likelier it makes its pairs than an "
        "unrelated text does.",
        kind=bool,
        default_help="False",
    )
    whole_answers: bool = option(
        False,
        help="Keep a pair only if its answer is whole words. The published selection also keeps parts of words.",
        kind=bool,
    )
    search_dtype: str | None = option(
        None,
        help="Floating-point type of the search alone. It uses a copy of the model.",
        kind=str,
        models=LOADING,
        default_help="that of `dtype`",
    )
    gguf: str | None = option(
        None,
        help="GGUF file of a decoder-only model, in the folder or repository of the model.",
        kind=str,
        models=("generator",),
    )
    device_map: str | None = option(
        None,
        help='How accelerate spreads a decoder-only model over devices, for example "auto". Replaces the device.',
        models=("generator",),
    )
    cache: str | os.PathLike[str] | None = option(
        None,
        help="Folder that keeps generated pairs and likelihoods for later runs on this machine.",
        check=check_folder_name,
        kind=Path,
        models=LOADING,
    )
    cache_size: int = option(
        DEFAULT_CACHE_SIZE,
        help="Largest size of the cache, in bytes.",
        check=integer_from(LEAST_CACHE_SIZE),
        models=LOADING,
        default_help="1 GiB",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_new_tokens >= self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens: must be less than max_new_tokens, or no pair could end; got {self.min_new_tokens} "
                f"and {self.max_new_tokens}"
            )
        own_settings = PRESET_SETTINGS[self.preset] if self.preset != "default" else {}
        for name, value in own_settings.items():
            if getattr(self, name) not in (None, value):
                raise ValueError(
                    f"preset: {self.preset!r} stands for {name}={value!r}; got {name}={getattr(self, name)!r} beside "
                    f"it. Give one of the two"
                )

    @property
    def settings(self) -> QualsConfig:
        """The configuration without its preset: options that are None have the values that the preset stands for."""
        of_preset = PRESET_SETTINGS["default"] | PRESET_SETTINGS[self.preset]
        values = {name: value for name, value in of_preset.items() if getattr(self, name) is None}
        return replace(self, preset="default", **values)

    def model_preset(self) -> Preset[PairFormat]:
        """The preset that `model` names, by its own name or its checkpoint's; a new preset for any other checkpoint.

        Raises ValueError if `model` is neither a preset, nor an `owner/name`, nor a folder.
        """
        from qa_inference.formats import PairFormat
        from qa_inference.presets import PRESETS, preset_of

        return preset_of(self.model, PRESETS, self.format, PairFormat())
