"""Options as callers give them: checked, put into a configuration, refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from qa_inference.results import check_texts
from qa_inference.tokenization import without_surrogates

Config = TypeVar("Config")


class NamedCheckpoint(Protocol):
    """A preset: whatever else it says, the checkpoint it stands for."""

    @property
    def model(self) -> str:
        """A Hub name or a folder."""


Preset = TypeVar("Preset", bound=NamedCheckpoint)


def check_integers(config: object, **least: int) -> None:
    """Raise ValueError unless each named attribute is an integer of at least so much."""
    for name, low in least.items():
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(f"{name}: must be an integer of at least {low}; got {value!r}")


def check_choices(config: object, **allowed: Sequence[str]) -> None:
    """Raise ValueError unless each named attribute is one of some strings."""
    for name, choices in allowed.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"{name}: must be one of {', '.join(choices)}; got {getattr(config, name)!r}")


def find_preset(option: str, name: str, presets: Mapping[str, Preset]) -> Preset | None:
    """The preset that `name` means by its name or its checkpoint; None for another checkpoint.

    Raises ValueError, naming the option, if it is no preset, no Hub name (`owner/name`) and no folder.
    """
    known = presets.get(name) or next((preset for preset in presets.values() if preset.model == name), None)
    if known is None and "/" not in name and not Path(name).is_dir():
        raise ValueError(
            f"{option}: must be a preset ({', '.join(presets)}), a Hub name (owner/name) or a folder; got {name!r}"
        )
    return known


def given(config: Config, **options: Any) -> Config:
    """A dataclass with the options that are not None in place."""
    return replace(config, **{name: value for name, value in options.items() if value is not None})  # type: ignore[type-var]  # any dataclass


def only(config: Config, names: Iterable[str]) -> Config:
    """A dataclass with the named options alone, all others as by default: what a loaded model is remembered by."""
    return type(config)(**{name: getattr(config, name) for name in names})


def refuse_unknown(metric: str, options: Iterable[str], known: Collection[str]) -> None:
    """Raise TypeError if there are options beside the known ones."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        title = metric.title()
        raise TypeError(f"{metric}: unknown option{'s' * (len(unknown) > 1)} {', '.join(unknown)}; see help({title})")


def choose_model(metric: str, config_name: str | None, model: str | None, presets: Mapping[str, Any]) -> str:
    """The model meant: a preset by `config_name`, or any other by `model`; "embedded" if neither is given.

    Raises ValueError if both are given, or `config_name` is no preset.
    """
    if config_name in (None, "default"):
        return "embedded" if model is None else model
    if model is not None:
        raise ValueError(
            f"{metric}: give config_name or model, not both; got config_name={config_name!r}, model={model!r}"
        )
    if config_name not in presets:
        raise ValueError(
            f"{metric}: config_name must be a preset ({', '.join(presets)}), got {config_name!r}; "
            f"for a model on the Hub or in a folder use model={config_name!r}"
        )
    return config_name


def storable_texts(predictions: Sequence[str], sources: Sequence[str]) -> dict[str, list[str]]:
    """Both lists under evaluate's names, checked, and as its Arrow file can hold them: without lone surrogates.

    evaluate itself looks at the first text only, and would take a string for a list of its characters.
    """
    check_texts(predictions, sources, ("predictions", "sources"))
    texts = {"predictions": predictions, "sources": sources}
    return {name: list(map(without_surrogates, some)) for name, some in texts.items()}
