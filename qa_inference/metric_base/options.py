"""Options: fields of a configuration, each with its help, its check and the place where users set it.

The class for evaluate, the command line and the documentation are derived from these fields.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, Literal, Self, TypeVar

from qa_inference.calibration import check_calibration
from qa_inference.checks import Check, check_bool, integer_from, one_of


@dataclass(frozen=True)
class Option:
    """One option of a configuration: the facts about a field beside its type and default.

    Attributes:
        help: one or two sentences.
        checks: run when a configuration is made; not for None where that is the default.
        kind: the type of its value on the command line; None: the command line does not have the option.
        choices: all values that it may have; empty: any.
        models: the loaded models that depend on it; empty: none does, and every call of `compute` may change it.
        evaluate_name: its name as an option of `evaluate.load`; None: evaluate does not have it.
        default_help: the default in words; "": as it is in the code.
    """

    help: str
    checks: tuple[Check, ...] = ()
    kind: type | None = None
    choices: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    evaluate_name: str | None = None
    default_help: str = ""

    @property
    def is_per_call(self) -> bool:
        """Whether `compute` may override it: no loaded model depends on it."""
        return not self.models


EVERY_MODEL = ("*",)
LOADING = ("loading",)  # not part of any model's identity, yet fixed when the metric is loaded


def option(
    default: Any = MISSING,
    *,
    help: str,
    default_factory: Any = MISSING,
    check: Check | Sequence[Check] = (),
    kind: type | None = None,
    choices: Sequence[str] = (),
    models: Sequence[str] = (),
    evaluate_name: str | None = "",
    default_help: str = "",
    kw_only: bool = True,
) -> Any:
    """Declare a dataclass field as an option of a metric; see `Option`. `evaluate_name` "": the field's own name."""
    checks = (check,) if callable(check) else tuple(check)
    if choices:
        checks = (*checks, one_of(*choices))
    if kind is bool:
        checks = (*checks, check_bool)
    about = Option(help, checks, kind, tuple(choices), tuple(models), evaluate_name, default_help)
    return field(default=default, default_factory=default_factory, metadata={"option": about}, kw_only=kw_only)


@dataclass(frozen=True)
class ModelOptions:
    """Options of every metric: the model that asks, its origin, and the device and type of its computation.

    A metric's configuration extends this class and adds its own fields to the same flat constructor.
    """

    model: str = option(
        "embedded",
        help="Question-generation model: a preset (see `quals models`), a Hub name or a folder.",
        kind=str,
        models=("generator",),
        kw_only=False,
    )
    format: Any = option(
        None,
        help="How the model reads and writes questions.",
        models=LOADING,
        default_help="the preset's",
        kw_only=False,
    )
    revision: str | None = option(
        None,
        help="Commit or branch of the model on the Hub.",
        kind=str,
        models=("generator",),
        evaluate_name="model_revision",
        default_help="the preset's",
    )
    token: str | None = option(None, help="Access token for the Hub.", models=EVERY_MODEL)
    cache_dir: str | None = option(
        None, help="Folder where files from the Hub are kept.", models=EVERY_MODEL, evaluate_name=None
    )
    local_files_only: bool = option(False, help="Never ask the Hub.", kind=bool, models=EVERY_MODEL)
    device: str | None = option(
        None,
        help="Device to compute on, for example cpu or cuda:0.",
        kind=str,
        models=EVERY_MODEL,
        default_help="the best there is",
    )
    dtype: str | None = option(
        None,
        help="Floating-point type: float32, bfloat16 or float16.",
        kind=str,
        models=EVERY_MODEL,
        default_help="bfloat16 on a GPU that computes in it, else float32",
    )
    sharing: Literal["auto", "shared", "expanded"] = option(
        "auto",
        help="Whether rows of a batch share one source in attention.",
        choices=("auto", "shared", "expanded"),
        models=("generator",),
        evaluate_name=None,
    )
    token_budget: int | None = option(
        None,
        help="The most tokens in a batch: fewer take less memory and more time.",
        check=integer_from(1),
        kind=int,
        models=LOADING,
        default_help="8192",
    )
    calibration: str | os.PathLike[str] | None = option(
        None,
        help="File of `quals calibrate`, which adds a probability to every score. `embedded`: one that ships.",
        check=check_calibration,
        kind=str,
    )

    def __post_init__(self) -> None:
        for config_field, about in options_of(type(self)):
            value = getattr(self, config_field.name)
            for check in about.checks if value is not None or config_field.default is not None else ():
                check(config_field.name, value)

    def model_options(self, part: str = "generator") -> Self:
        """A copy in which only the options of one loaded model are set: the key of that model.

        All other options have their defaults.

        Args:
            part: the model: "generator", or another model of the metric, for example "reader".
        """
        kept = {
            config_field.name: getattr(self, config_field.name)
            for config_field, about in options_of(type(self))
            if about.models == EVERY_MODEL or part in about.models
        }
        return type(self)(**kept)


Config = TypeVar("Config", bound=ModelOptions)


def options_of(config_type: type) -> tuple[tuple[Field[Any], Option], ...]:
    """The fields of a configuration that are options, each with its `Option`, in the order of the fields."""
    declared = ((config_field, config_field.metadata.get("option")) for config_field in fields(config_type))
    return tuple((config_field, about) for config_field, about in declared if about is not None)


def default_text(config_field: Field[Any], about: Option) -> str:
    """The default of an option in words, for a help text."""
    if about.default_help:
        return about.default_help
    return "" if config_field.default in (None, MISSING) else str(config_field.default)


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """A copy of `config` with those `options` that are not None."""
    return replace(config, **{name: value for name, value in options.items() if value is not None})


def as_config(config: Config | str | None, config_type: type[Config]) -> Config:
    """`config` as a configuration: a str is the name of a model, and None means the defaults.

    Raises TypeError for anything else.
    """
    if config is None:
        return config_type()
    if isinstance(config, str):
        return config_type(config)
    if not isinstance(config, config_type):
        raise TypeError(
            f"config: must be a {config_type.__name__} or the name of a model; got {type(config).__name__}. Options go "
            f"into the configuration: {config_type.__name__}(…)"
        )
    return config


def refuse_unknown(metric: str, options: Iterable[str], known: Collection[str]) -> None:
    """Raise TypeError if an option is not among the known ones."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        plural = "s" * (len(unknown) > 1)
        raise TypeError(f"{metric}: unknown option{plural} {', '.join(unknown)}; see help({metric.title()})")
