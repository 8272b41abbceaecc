"""The options that name a model, for every command that loads one."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Metric(StrEnum):
    """Which metric is computed."""

    QUALS = "quals"
    QAGS = "qags"


class Tokens(StrEnum):
    """Which tokens of a pair are scored."""

    ALL = "all"
    ANSWER = "answer"


MetricOption = Annotated[Metric, typer.Option(help="Which metric.")]
ModelOption = Annotated[str, typer.Option(help="What asks: a preset (see `quals models`), a Hub name or a folder.")]
TokensOption = Annotated[
    Tokens | None, typer.Option(help="QUALS: score a pair on all its tokens, or on its answer's.  [default: all]")
]
MaxPairsOption = Annotated[
    int | None, typer.Option(help="QUALS: about how many pairs of a summary are kept.  [default: 10]")
]
ReaderOption = Annotated[
    str | None, typer.Option(help="QAGS: what answers: a preset, a Hub name or a folder.  [default: embedded]")
]
ReaderRevisionOption = Annotated[str | None, typer.Option(help="QAGS: the commit or branch of the reader on the Hub.")]
SpacyModelOption = Annotated[
    str | None, typer.Option(help="QAGS: what finds names.  [default: the English one that is installed]")
]
MaxQuestionsOption = Annotated[
    int | None, typer.Option(help="QAGS: how many questions of a summary are kept at most.  [default: 20]")
]
MaxPerAnswerOption = Annotated[
    int | None, typer.Option(help="QAGS: how many of them may ask for the same answer.  [default: any number]")
]
CacheOption = Annotated[
    Path | None, typer.Option(help="QUALS: a folder that keeps what was computed, for the next time.", file_okay=False)
]
DeviceOption = Annotated[str | None, typer.Option(help="Where to compute, say cpu or cuda:0.  [default: the best]")]
DtypeOption = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.  [default: the device's]")]
SearchDtypeOption = Annotated[
    str | None, typer.Option(help="QUALS: that of the search alone, by a copy of the model.  [default: --dtype]")
]
RevisionOption = Annotated[str | None, typer.Option(help="The commit or branch of a model on the Hub.")]
GgufOption = Annotated[
    str | None, typer.Option(help="QUALS: a GGUF file in the model's folder or repository, of a decoder-only model.")
]
OfflineOption = Annotated[bool, typer.Option("--local-files-only", help="Never ask the Hub.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


_ONLY = {
    "tokens": Metric.QUALS,
    "max_pairs": Metric.QUALS,
    "cache": Metric.QUALS,
    "search_dtype": Metric.QUALS,
    "gguf": Metric.QUALS,
    "reader": Metric.QAGS,
    "reader_revision": Metric.QAGS,
    "spacy_model": Metric.QAGS,
    "max_questions": Metric.QAGS,
    "max_per_answer": Metric.QAGS,
}
"""The options that one metric knows and the other does not."""


def check_options(metric: Metric, options: Mapping[str, Any]) -> None:
    """Refuse options that were given, those that are not None, if `metric` does not know them."""
    for name, value in options.items():
        if value is not None and _ONLY.get(name, metric) is not metric:
            hint = "--" + name.replace("_", "-")
            raise typer.BadParameter(f"--metric {metric} does not know it; {_ONLY[name]} does", param_hint=hint)


def load_scorer(metric: Metric = Metric.QUALS, **options: Any) -> Any:
    """A metric's scorer with the options given; None stands for the default."""
    check_options(metric, options)
    given = {name: value for name, value in options.items() if value is not None}
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar for reading a file from the disk is noise; downloads keep theirs
    if metric is Metric.QAGS:
        from qags_metric.config import QagsConfig
        from qags_metric.scorer import QagsScorer

        return QagsScorer(QagsConfig(**given))
    from quals_metric.config import QualsConfig
    from quals_metric.scorer import QualsScorer

    return QualsScorer(QualsConfig(**given))
