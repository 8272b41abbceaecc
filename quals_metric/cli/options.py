"""The options of the metrics' models on the command line, derived from the fields of the metrics' configurations."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field
from enum import StrEnum
from inspect import Parameter
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from qa_inference.checks import check_folder_name
from qa_inference.metric_base.options import Option, default_text, options_of
from quals_metric.metrics import METRICS, MetricSpec, metric_spec

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        help="Score below which an answer counts as unsupported. "
        f" [default: {', '.join(f'{spec.threshold:g} for {spec.name}' for spec in METRICS.values())}]"
    ),
]
MetricOption = Annotated[str, typer.Option(help="Metric to compute.")]
HostOption = Annotated[
    str, typer.Option(help="Address to listen at; 0.0.0.0 stands for all addresses of this machine.")
]
PortOption = Annotated[int, typer.Option(help="Port to listen at.", min=1, max=65535)]
AuthOption = Annotated[
    str | None,
    typer.Option(help="USER:PASSWORD that visitors must enter.", envvar="QUALS_AUTH", metavar="USER:PASSWORD"),
]
AllowedHostOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Host name that the server also answers for, for example the name of a proxy in front of it. "
        "Repeat the option for several names."
    ),
]


def with_metrics(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with `--metric NAME` for all metrics, and with the options of all metrics in place of `**options`.

    A parameter `metric` takes the names in `METRICS`. Where the command has `**options`, it gets every option that a
    metric's configuration offers to the command line, if its user has set it, except those that it declares itself. An
    option that the chosen metric does not have is refused.
    """
    signature = inspect.signature(command, eval_str=True)
    takes_options = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    owners = _owners() if takes_options else {}
    owners = {name: owned for name, owned in owners.items() if name not in signature.parameters}
    parameters: list[Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name == "metric":
            parameters.append(parameter.replace(annotation=_with_choices(parameter.annotation, METRICS)))
            parameters += [_parameter(name, *owned) for name, owned in owners.items()]
        elif parameter.kind is not Parameter.VAR_KEYWORD:
            parameters.append(parameter)
    # By keyword, so that a parameter without a default may follow one that has a default.
    parameters = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        values = {name: _plain(value) for name, value in values.items()}
        options = {name: values.pop(name) for name in owners}
        options = {name: value for name, value in options.items() if value is not None and value is not False}
        if options and values["metric"]:  # without a metric, the command knows the default
            check_options(values["metric"], options)
        return command(**values, **options)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what Typer reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def check_options(metric: str | Sequence[str], options: Mapping[str, Any]) -> None:
    """Raise typer.BadParameter for an option that is not None and that `metric`, or none of several, has."""
    metrics = [metric] if isinstance(metric, str) else list(metric)
    for name, value in options.items():
        if value is not None and not any(name in metric_spec(metric_name).options() for metric_name in metrics):
            owners = [spec.name for spec in METRICS.values() if name in spec.options()]
            have = "has" if len(owners) == 1 else "have"
            asked = f"--metric {' --metric '.join(metrics)}" if metrics else "a score column"
            raise typer.BadParameter(
                f"{asked} does not have this option; {' and '.join(owners)} {have} it", param_hint=_dashed(name)
            )


def load_scorer(metric: str = "quals", **options: Any) -> Any:
    """A scorer of a metric with the options that are not None; the others have their defaults."""
    check_options(metric, options)
    return metric_spec(metric).load_scorer(**options)


def _owners() -> dict[str, tuple[Field[Any], Option, list[MetricSpec]]]:
    """Every option for the command line by its name: its field, its `Option`, and the metrics that have it."""
    owners: dict[str, tuple[Field[Any], Option, list[MetricSpec]]] = {}
    for spec in METRICS.values():
        for config_field, about in options_of(spec.config_type()):
            if about.kind is not None:
                owners.setdefault(config_field.name, (config_field, about, []))[2].append(spec)
    return owners


def _parameter(name: str, config_field: Field[Any], about: Option, specs: list[MetricSpec]) -> Parameter:
    """An option as a parameter that Typer reads; a help text names the metrics if only some have the option."""
    titles = "" if len(specs) == len(METRICS) else f"{', '.join(spec.title for spec in specs)}: "
    default = default_text(config_field, about)
    help_text = titles + about.help + (f"  [default: {default}]" if default and about.kind is not bool else "")
    if about.kind is bool:
        annotation: Any = Annotated[bool, typer.Option(_dashed(name), help=help_text)]
    else:
        option = typer.Option(help=help_text, file_okay=check_folder_name not in about.checks)
        annotation = Annotated[Union[about.kind, None], option]  # noqa: UP007  (a type known at run time only)
        annotation = _with_choices(annotation, about.choices) if about.choices else annotation
    default_value = False if about.kind is bool else None
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default_value, annotation=annotation)


def _with_choices(annotation: Any, choices: Iterable[str]) -> Any:
    """An `Annotated[str | None, …]`, `Annotated[str, …]` or one of a list of str that takes these values only."""
    hint, *details = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    choice_type: Any = StrEnum("Choice", [(choice, choice) for choice in choices])  # type: ignore[misc]  # made at run time
    kind: Any = list[choice_type] if list[str] in (hint, *get_args(hint)) else choice_type
    return Annotated[(kind | None if type(None) in get_args(hint) else kind, *details)]


def _plain(value: Any) -> Any:
    """The value of a parameter with its choices as texts."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, StrEnum) else value


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")
