"""`quals score` and `quals compare`: the commands that read and write files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quals_metric.cli.options import (
    CacheOption,
    DeviceOption,
    DtypeOption,
    GgufOption,
    JsonOption,
    MaxPairsOption,
    MaxPerAnswerOption,
    MaxQuestionsOption,
    Metric,
    MetricOption,
    ModelOption,
    OfflineOption,
    ReaderOption,
    ReaderRevisionOption,
    RevisionOption,
    SearchDtypeOption,
    SpacyModelOption,
    TokensOption,
    check_options,
    load_scorer,
)
from quals_metric.metrics import format_number

if TYPE_CHECKING:
    from quals_metric.files.compare import Comparison, SystemScore
    from quals_metric.files.scoring import FileScores
    from quals_metric.files.tables import Rows


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
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page that explains the scores too: an .html file. Implies --pairs.", dir_okay=False),
    ] = None,
    details: Annotated[
        int, typer.Option(help="How many rows it shows of the lowest, the highest and the undefined.", min=1)
    ] = 50,
    shard_rows: Annotated[
        int, typer.Option(help="How many rows are scored, and lost at most by a kill, at once.", min=1)
    ] = 128,
    metric: MetricOption = Metric.QUALS,
    model: ModelOption = "embedded",
    gguf: GgufOption = None,
    reader: ReaderOption = None,
    spacy_model: SpacyModelOption = None,
    tokens: TokensOption = None,
    max_pairs: MaxPairsOption = None,
    max_questions: MaxQuestionsOption = None,
    max_per_answer: MaxPerAnswerOption = None,
    cache: CacheOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    search_dtype: SearchDtypeOption = None,
    revision: RevisionOption = None,
    reader_revision: ReaderRevisionOption = None,
    local_files_only: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score the summaries of files: one row out for each row in, in order.

    A run that was killed goes on where it was when the same command is given again. Under `accelerate launch` the
    processes share the work.
    """
    from quals_metric.files.scoring import processes, score_files

    options = {
        "model": model,
        "gguf": gguf,
        "reader": reader,
        "spacy_model": spacy_model,
        "tokens": tokens,
        "max_pairs": max_pairs,
        "max_questions": max_questions,
        "max_per_answer": max_per_answer,
        "cache": cache,
        "device": device,
        "dtype": dtype,
        "search_dtype": search_dtype,
        "revision": revision,
        "reader_revision": reader_revision,
        "local_files_only": local_files_only,
    }
    check_options(metric, options)
    rows = _rows(inputs or [], summaries, sources, summary_column, source_column, keep)
    if report is not None:
        _check_report(report, rows, output)
    pairs = pairs or report is not None
    show = _show_progress if processes()[0] == 0 else None
    found = score_files(
        rows,
        output,
        lambda: load_scorer(metric, **options),
        metric=metric.value,
        pairs=pairs,
        shard_rows=shard_rows,
        overwrite=overwrite,
        on_shard=show,
    )
    if found is not None:
        if report is not None:
            _write_report(found, report, rows, details)
        typer.echo(_as_json(found) if as_json else _score_text(found))


def compare(
    a: Annotated[Path, typer.Argument(help="What `quals score` wrote for the one system,")],
    b: Annotated[Path, typer.Argument(help="and for the other, on the same sources.")],
    metric: Annotated[
        Metric | None, typer.Option(help="Which metric's scores they must be.  [default: the same metric's]")
    ] = None,
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
    from quals_metric.files.compare import compare_files

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = compare_files(a, b, metric=metric, source=source_column, resamples=resamples, trials=trials, seed=seed)
    for warning in caught:
        typer.echo(f"quals: warning: {warning.message}", err=True)
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else _comparison_text(found, a, b))


def _rows(
    inputs: list[str], summaries: Path | None, sources: Path | None, summary_column: str, source_column: str, keep: bool
) -> Rows:
    """What the arguments say is to be scored."""
    from quals_metric.files.tables import Table, TextFiles, expand

    if (summaries is None) != (sources is None) or bool(inputs) == (summaries is not None):
        raise typer.BadParameter("give INPUTS, or both --summaries and --sources")
    if summaries is not None and sources is not None:
        if keep:
            raise typer.BadParameter("text files have no columns to keep", param_hint="--keep")
        return TextFiles(summaries, sources)
    return Table(expand(inputs), summary_column, source_column, keep)


def _check_report(report: Path, rows: Rows, output: Path) -> None:
    """Raise before the work begins for what would stop the report after it."""
    from quals_metric.files.tables import STANDARD_INPUT

    if not report.parent.is_dir():
        raise FileNotFoundError(f"{report}: its folder must exist; {report.parent} does not. Make it first")
    if report.absolute() in {path.absolute() for path in (output, *rows.paths)}:
        raise ValueError(f"{report}: the report must not be the output or an input. Name another file")
    if rows.paths == (STANDARD_INPUT,) and not rows.keep:
        raise typer.BadParameter("standard input is read once only: add --keep", param_hint="--report")


def _write_report(found: FileScores, report: Path, rows: Rows, details: int) -> None:
    """The page of what was just written: the scores are read from the output, the texts from the input."""
    from dataclasses import replace

    from quals_metric.files.tables import STANDARD_INPUT, Table, records
    from quals_metric.report import write_rows

    if isinstance(rows, Table) and rows.paths == (STANDARD_INPUT,):
        rows = replace(rows, paths=(found.output,))  # which has the texts too, as they were kept
    scores = (row for _, row in records(found.output))
    texts = ((row.summary, row.source) for row in rows.read())
    write_rows(scores, texts, report, about=vars(found), details=details)


def _show_progress(done: int, total: int) -> None:
    typer.echo(f"{done:,} of {total:,} rows", err=True)


def _as_json(found: FileScores) -> str:
    return json.dumps(found.to_dict(), indent=2, ensure_ascii=False)


def _score_text(found: FileScores) -> str:
    from quals_metric.cli.terminal import VIEWS

    view = VIEWS[found.metric]
    in_01 = f"   (0 to 1: {format_number(found.score_01, 4)})" if view.shows_01 else ""
    windowed = f"{found.num_windowed_summaries:,} summaries and {found.num_windowed_sources:,} sources in windows"
    return "\n".join(
        (
            f"{view.title:<11}{_interval(found.score, found.low, found.high)}{in_01}",
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
    point, first, last = (format_number(one, 4) for one in (value, low, high))
    return f"{point}   95 % interval {first} to {last}"
