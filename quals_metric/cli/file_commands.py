"""`quals score`, `quals report` and `quals compare`: the commands that read and write files."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qa_inference.metric_base.question_scorer import progress_bar
from quals_metric.cli.options import JsonOption, MetricOption, ThresholdOption, load_scorer
from quals_metric.cli.terminal import comparison_text, file_scores_text, printable, systems_text
from quals_metric.metrics import metric_spec

if TYPE_CHECKING:
    from quals_metric.files.scoring import FileScores
    from quals_metric.files.tables import Row, Rows


ByOption = Annotated[str, typer.Option(help="Column to group by: show the scores for each of its values.")]
SourceOption = Annotated[
    str, typer.Option(help="Column of the sources. A source may be a list of passages, as in retrieval.")
]
DetailsOption = Annotated[
    int, typer.Option(help="Rows in each list of the report: lowest, highest and undefined.", min=1)
]


def score_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .jsonl, .parquet or .csv.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files (.jsonl, .csv, .parquet, .gz of the first two), folders or globs; - reads JSON lines from "
            "standard input."
        ),
    ] = None,
    summaries: Annotated[
        Path | None, typer.Option(help="Text file with one summary per line, instead of INPUTS.")
    ] = None,
    sources: Annotated[Path | None, typer.Option(help="Text file with the source of each line of --summaries.")] = None,
    summary_column: Annotated[str, typer.Option(help="Column of the summaries.")] = "summary",
    source_column: SourceOption = "source",
    keep: Annotated[bool, typer.Option("--keep", help="Write the columns of the input too.")] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="Write the questions and answers too.")] = False,
    spans: Annotated[
        bool, typer.Option("--spans", help="Write the sentences and the unsupported answers of each summary too.")
    ] = False,
    threshold: ThresholdOption = None,
    by: ByOption = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Also write a page that explains the scores: .html. Implies --pairs.", dir_okay=False),
    ] = None,
    details: DetailsOption = 50,
    shard_rows: Annotated[
        int, typer.Option(help="Rows scored and written at once; a killed run loses at most these.", min=1)
    ] = 128,
    metric: MetricOption = "quals",
    as_json: JsonOption = False,
    **options: Any,
) -> None:
    """Score the summaries of files.

    Each input row gives one output row, in the same order. A killed run continues where it was when the same command
    is given again. Under `accelerate launch` the processes share the work.
    """
    from quals_metric.files.scoring import rank_and_size, score_files

    spec = metric_spec(metric)
    spec.check(spec.make_config(**options))
    rows = _input_rows(inputs or [], summaries, sources, summary_column, source_column, keep, by)
    if report is not None:
        _check_report(report, rows, output)
    with warnings_as_lines(), progress_bar(spec.title, "row", only_on_terminal=True, is_resumed=True) as show_progress:
        scores = score_files(
            rows,
            output,
            lambda: load_scorer(metric, **options),
            metric=metric,
            pairs=pairs or report is not None,
            calibrated=options.get("calibration") is not None,
            spans=spans,
            threshold=threshold,
            shard_rows=shard_rows,
            overwrite=overwrite,
            accept_finished=report is not None,  # a run that was killed before its report only needs the report
            on_shard=show_progress if rank_and_size()[0] == 0 else None,
        )
    if scores is not None:
        if report is not None:
            _write_report(scores, report, rows, details)
        as_text = json.dumps(scores.to_dict(), indent=2, ensure_ascii=False)
        typer.echo(as_text if as_json else file_scores_text(scores, spans))


def report_command(
    scores: Annotated[
        Path, typer.Argument(help="Output of `quals score --keep --pairs`.", exists=True, dir_okay=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write: .html.", dir_okay=False)],
    by: ByOption = "",
    threshold: ThresholdOption = None,
    summary_column: Annotated[str, typer.Option(help="Column of the summaries.")] = "summary",
    source_column: SourceOption = "source",
    details: DetailsOption = 50,
) -> None:
    """Write a page that explains the scores of a file."""
    from quals_metric.report import report_file

    check_page(output, "--output")
    report_file(
        scores,
        output,
        summary=summary_column,
        source=source_column,
        by=by,
        threshold=threshold,
        details=details,
    )
    typer.echo(f"written    {printable(str(output))}")


def compare_command(
    scores: Annotated[
        list[Path], typer.Argument(help="Outputs of `quals score`, one for each system, on the same sources.")
    ],
    metric: Annotated[
        str | None, typer.Option(help="Metric that the scores must be of.  [default: the same in all files]")
    ] = None,
    resamples: Annotated[
        int, typer.Option(help="Resamples of the paired bootstrap and of the intervals.", min=1)
    ] = 1000,
    trials: Annotated[int, typer.Option(help="Trials of the paired approximate randomization.", min=1)] = 10000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples and of the trials.", min=0)] = 12345,
    summary_column: Annotated[str, typer.Option(help="Column of the summaries, for --report.")] = "summary",
    source_column: Annotated[str, typer.Option(help="Column of the sources, if the files have it.")] = "source",
    report: Annotated[
        Path | None,
        typer.Option(
            help="Also write a page with the rows on which the systems differ most: .html. The files must be of "
            "`quals score --keep --pairs`.",
            dir_okay=False,
        ),
    ] = None,
    details: Annotated[int, typer.Option(help="Rows in the report.", min=1)] = 50,
    as_json: JsonOption = False,
) -> None:
    """Compare the scores of two or more systems.

    Two tests tell whether a difference is more than chance: the paired bootstrap (Koehn 2004) and paired approximate
    randomization (Riezler and Maxwell 2005). They are those of --paired-bs and --paired-ar of sacreBLEU. With more than
    two systems, each pair of them is tested. The table then also has the p-values of randomization after Holm's
    correction for the number of tests.
    """
    from quals_metric.files.compare import compare_score_files
    from quals_metric.files.scored_files import read_comparable

    if len(scores) < 2:
        raise typer.BadParameter(f"give the score files of two or more systems; got {len(scores)}", param_hint="SCORES")
    if report is not None:
        from quals_metric.report.comparison import explained_metric, write_comparison

        check_page(report, "--report")
        explained_metric(scores, summary_column, source_column)
    with warnings_as_lines():
        files = read_comparable(scores, metric=metric, source=source_column)
        comparison = compare_score_files(files, resamples=resamples, trials=trials, seed=seed)
    if report is not None:
        write_comparison(files, comparison, report, summary=summary_column, source=source_column, details=details)
    if len(scores) == 2:
        of_two = comparison.pairs[0].comparison
        as_dict, as_text = of_two.to_dict(), comparison_text(of_two, *scores)
    else:
        as_dict, as_text = comparison.to_dict(), systems_text(comparison, scores)
        for system, path in zip(as_dict["systems"].values(), scores, strict=True):
            system["file"] = str(path)
    typer.echo(json.dumps(as_dict, indent=2, ensure_ascii=False) if as_json else as_text)


def _input_rows(
    inputs: list[str],
    summaries: Path | None,
    sources: Path | None,
    summary_column: str,
    source_column: str,
    keep: bool,
    by: str,
) -> Rows:
    """The rows to score that the arguments name."""
    from quals_metric.files.tables import Table, TextFiles, expand

    if (summaries is None) != (sources is None) or bool(inputs) == (summaries is not None):
        raise typer.BadParameter("give INPUTS, or both --summaries and --sources")
    if summaries is not None and sources is not None:
        if keep:
            raise typer.BadParameter("text files have no columns to keep", param_hint="--keep")
        if by:
            raise typer.BadParameter("text files have no columns to group by", param_hint="--by")
        return TextFiles(summaries, sources)
    return Table(expand(inputs), summary_column, source_column, keep, by=by)


def _check_report(report: Path, rows: Rows, output: Path) -> None:
    """Raise before the work for anything that would stop the report after it."""
    from quals_metric.files.tables import STANDARD_INPUT

    check_page(report, "--report")
    if output.name.lower().endswith(".csv"):
        raise typer.BadParameter("CSV holds no questions; write .jsonl or .parquet", param_hint="--report")
    if report.absolute() in {path.absolute() for path in (output, *rows.paths)}:
        raise ValueError(f"{report}: the report must not be the output or an input. Name another file")
    if rows.paths == (STANDARD_INPUT,) and not rows.keep:
        raise typer.BadParameter("standard input is read once only: add --keep", param_hint="--report")


def _write_report(scores: FileScores, report: Path, rows: Rows, details: int) -> None:
    """Write the page of a score file: the scores are read from the output, the texts from the input."""
    from dataclasses import replace

    from quals_metric.files.tables import STANDARD_INPUT, Table, records
    from quals_metric.report import write_rows

    if isinstance(rows, Table):
        # For standard input, --keep is required, so the output has the texts. The page shows all columns.
        paths = (scores.output,) if rows.paths == (STANDARD_INPUT,) else rows.paths
        rows = replace(rows, paths=paths, keep=True)
    written = (row for _, row in records(scores.output))
    texts, columns = tee(rows.read())
    write_rows(
        _with_columns(written, columns),
        ((row.summary, row.source) for row in texts),
        report,
        about=vars(scores),
        details=details,
    )


def _with_columns(written: Iterator[dict[str, Any]], inputs: Iterator[Row]) -> Iterator[dict[str, Any]]:
    """The rows of the output with the columns of the input."""
    for scored in written:
        row = next(inputs, None)
        yield scored if row is None else {**row.columns, **scored}


def check_page(path: Path, option: str) -> None:
    """Raise before the work for anything that would stop a page from being written after it."""
    from quals_metric.files import durable

    if path.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"the page's name must end in .html; got {path.name!r}", param_hint=option)
    durable.check_writable(path)


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print warnings to users as lines on standard error, at once."""

    def show(message: Warning | str, category: type[Warning], *details: Any, **more: Any) -> None:
        if issubclass(category, UserWarning):
            typer.echo(f"quals: warning: {printable(str(message))}", err=True)
        else:
            usual(message, category, *details, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        usual, warnings.showwarning = warnings.showwarning, show
        yield
