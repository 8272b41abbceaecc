"""The options that name a model, for every command that loads one."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from quals_metric.scorer import QualsScorer


class Tokens(StrEnum):
    """Which tokens of a pair are scored."""

    ALL = "all"
    ANSWER = "answer"


ModelOption = Annotated[str, typer.Option(help="A preset (see `quals models`), a Hub name or a folder.")]
TokensOption = Annotated[Tokens, typer.Option(help="Score a pair on all its tokens, or on its answer's.")]
MaxPairsOption = Annotated[int | None, typer.Option(help="About how many pairs of a summary are kept.  [default: 10]")]
DeviceOption = Annotated[str | None, typer.Option(help="Where to compute, say cpu or cuda:0.  [default: the best]")]
DtypeOption = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.  [default: the device's]")]
RevisionOption = Annotated[str | None, typer.Option(help="The commit or branch of a model on the Hub.")]
OfflineOption = Annotated[bool, typer.Option("--local-files-only", help="Never ask the Hub.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def load_scorer(**options: Any) -> QualsScorer:
    """A scorer with the options given; None stands for the default."""
    from transformers.utils.logging import disable_progress_bar

    from quals_metric.scorer import QualsConfig, QualsScorer

    disable_progress_bar()  # a bar for reading a file from the disk is noise; downloads keep theirs
    return QualsScorer(QualsConfig(**{name: value for name, value in options.items() if value is not None}))
