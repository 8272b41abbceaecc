"""`quals score` and `quals compare`: the commands that read and write files."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quals_metric.options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    MaxPairsOption,
    ModelOption,
    OfflineOption,
    RevisionOption,
    Tokens,
    TokensOption,
    load_scorer,
)

if TYPE_CHECKING:
    from quals_metric.compare import Comparison, SystemScore
    from quals_metric.files import FileScores
    from quals_metric.tables import Rows


def score(
    output: Annotated[Path, typer.Option("--output", "-o", help="What to write: a .jsonl or .parquet file.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files (.jsonl, .csv, .parquet, .gz of the first two), folders or globs of them; - for "
            "JSON lines from standard input."
        ),
    ] = None,
    summaries: Annotated[Path | None, typer.Option(help="Instead of INPUTS: a text file, a summary per line,")] = None,
    sources: Annotated[Path | None, typer.Option(help="and a text file with the source of each.")] = None,
    summary_column: Annotated[str, typer.Option(help="The column of the summaries.")] = "summary",
    source_column: Annotated[str, typer.Option(help="The column of the sources.")] = "source",
    keep: Annotated[bool, typer.Option("--keep", help="Write the input's own columns too.")] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="Write the questions and answers too.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    shard_rows: Annotated[
        int, typer.Option(help="How many rows are scored, and lost at most by a kill, at once.", min=1)
    ] = 128,
    model: ModelOption = "embedded",
    tokens: TokensOption = Tokens.ALL,
    max_pairs: MaxPairsOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    revision: RevisionOption = None,
    local_files_only: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score the summaries of files: one row out for each row in, in order.

    A run that was killed goes on where it was when the same command is given again. Under `accelerate launch` the
    processes share the work.
    """
    from quals_metric.files import processes, score_files

    def load() -> Any:
        return load_scorer(
            model=model,
            tokens=tokens.value,
            max_pairs=max_pairs,
            device=device,
            dtype=dtype,
            revision=revision,
            local_files_only=local_files_only,
        )

    rows = _rows(inputs or [], summaries, sources, summary_column, source_column, keep)
    show = _show_progress if processes()[0] == 0 else None
    found = score_files(rows, output, load, pairs=pairs, shard_rows=shard_rows, overwrite=overwrite, on_shard=show)
    if found is not None:
        typer.echo(_as_json(found) if as_json else _score_text(found))


def compare(
    a: Annotated[Path, typer.Argument(help="What `quals score` wrote for the one system,")],
    b: Annotated[Path, typer.Argument(help="and for the other, on the same sources.")],
    resamples: Annotated[int, typer.Option(help="Resamples of the paired bootstrap and the intervals.", min=1)] = 1000,
    trials: Annotated[int, typer.Option(help="Trials of the paired approximate randomization.", min=1)] = 10000,
    seed: Annotated[int, typer.Option(help="Of both.", min=0)] = 12345,
    source_column: Annotated[str, typer.Option(help="The column of the sources, where it was kept.")] = "source",
    as_json: JsonOption = False,
) -> None:
    """Compare two systems: is the difference of their scores more than chance?

    Paired bootstrap (Koehn 2004) and paired approximate randomization (Riezler and Maxwell 2005), as sacreBLEU's
    --paired-bs and --paired-ar.
    """
    from quals_metric.compare import compare_files

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = compare_files(a, b, source=source_column, resamples=resamples, trials=trials, seed=seed)
    for warning in caught:
        typer.echo(f"quals: warning: {warning.message}", err=True)
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else _comparison_text(found, a, b))


def _rows(
    inputs: list[str], summaries: Path | None, sources: Path | None, summary_column: str, source_column: str, keep: bool
) -> Rows:
    """What the arguments say is to be scored."""
    from quals_metric.tables import Table, TextFiles, expand

    if (summaries is None) != (sources is None) or bool(inputs) == (summaries is not None):
        raise typer.BadParameter("give INPUTS, or both --summaries and --sources")
    if summaries is not None and sources is not None:
        if keep:
            raise typer.BadParameter("text files have no columns to keep", param_hint="--keep")
        return TextFiles(summaries, sources)
    return Table(expand(inputs), summary_column, source_column, keep)


def _show_progress(done: int, total: int) -> None:
    typer.echo(f"{done:,} of {total:,} rows", err=True)


def _as_json(found: FileScores) -> str:
    return json.dumps(found.to_dict(), indent=2, ensure_ascii=False)


def _score_text(found: FileScores) -> str:
    windowed = f"{found.num_windowed_summaries:,} summaries and {found.num_windowed_sources:,} sources in windows"
    return "\n".join(
        (
            f"QUALS      {_interval(found.score, found.low, found.high)}   (0 to 1: {_number(found.score_01)})",
            f"rows       {found.rows:,}, of which {found.num_undefined:,} undefined; {windowed}",
            f"written    {found.output}",
            f"signature: {found.signature}",
        )
    )


def _comparison_text(found: Comparison, a: Path, b: Path) -> str:
    def line(label: str, system: SystemScore) -> str:
        return f"{label:<11}{_interval(system.score, system.low, system.high)}"

    return "\n".join(
        (
            f"{line('a', found.a)}   {a}",
            f"{line('b', found.b)}   {b}",
            f"b - a      {_interval(found.difference, found.low, found.high)}",
            f"p          {found.p_bootstrap:.4f} paired bootstrap ({found.resamples:,} resamples)",
            f"           {found.p_randomization:.4f} paired approximate randomization ({found.trials:,} trials)",
            f"rows       {found.num_rows:,} compared, {found.num_undefined:,} left out: undefined in a or b",
            f"seed       {found.seed}",
        )
    )


def _interval(value: float, low: float, high: float) -> str:
    return f"{_number(value)}   95 % interval {_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{round(value, 4) + 0.0:.4f}"
