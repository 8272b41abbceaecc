"""`quals study`: prepares the pairs, serves the page, prints the outcome."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from quals_metric.cli.options import AllowedHostOption, AuthOption, HostOption, JsonOption, PortOption
from quals_metric.cli.terminal import printable

study_app = typer.Typer(help="Have people judge two systems' summaries.", no_args_is_help=True, rich_markup_mode=None)

_PairsArgument = Annotated[
    Path, typer.Argument(help="File of pairs from `quals study prepare`.", exists=True, dir_okay=False)
]
_ANSWERS_HELP = "File of answers (.jsonl), one line per answer."


@study_app.command("prepare")
def prepare_study(
    a: Annotated[Path, typer.Argument(help="Score file of system a, from `quals score --keep`.", exists=True)],
    b: Annotated[Path, typer.Argument(help="Score file of system b, on the same sources.", exists=True)],
    output: Annotated[Path, typer.Option("--output", "-o", help="File of pairs to write (.jsonl).")],
    size: Annotated[int, typer.Option(help="Number of pairs.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the draw and of the sides.", min=0)] = 12345,
    summary_column: Annotated[str, typer.Option(help="Column of the summaries.")] = "summary",
    source_column: Annotated[str, typer.Option(help="Column of the sources.")] = "source",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output. Answers to it become invalid.")
    ] = False,
) -> None:
    """Draw the pairs that people will judge from two score files."""
    from quals_metric.study.summary_pairs import prepare

    prepared = prepare(
        a, b, output, size=size, seed=seed, summary=summary_column, source=source_column, overwrite=overwrite
    )
    typer.echo(f"wrote {printable(str(prepared.output))}: {prepared.pairs:,} pairs")
    typer.echo(f"left out: {prepared.blank:,} rows with a blank text, {prepared.equal:,} with the same summary twice")


@study_app.command("serve")
def serve_study(
    pairs: _PairsArgument,
    answers: Annotated[Path, typer.Option(help=_ANSWERS_HELP)],
    host: HostOption = "127.0.0.1",
    port: PortOption = 7860,
    auth: AuthOption = None,
    allowed_host: AllowedHostOption = None,
) -> None:
    """Serve the pairs as a web page and write the answers.

    The page is served until interrupted. Needs the extra `app`.
    """
    from quals_metric.study.interface import serve

    typer.echo(f"serving http://{host}:{port}/ until Ctrl+C; answers are written to {printable(str(answers))}")
    serve(pairs, answers, host=host, port=port, auth=auth, allowed_hosts=allowed_host or ())


@study_app.command("report")
def report_study(
    pairs: _PairsArgument,
    answers: Annotated[Path, typer.Option(help=_ANSWERS_HELP, exists=True, dir_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Print how often people prefer b to a.

    The table also shows whether this may be chance. Needs the extra `app`.
    """
    from quals_metric.study.judgments import JudgmentFile
    from quals_metric.study.summary_pairs import read_study
    from quals_metric.study.table import table_text, tabulate

    study = read_study(pairs)
    table = tabulate(study, JudgmentFile(answers).read(study))
    if as_json:
        typer.echo(json.dumps(table.to_dict(), indent=2))  # in ASCII, with escapes
    else:  # anybody may have named the systems in the file
        typer.echo(table_text(replace(table, a=printable(table.a), b=printable(table.b))))
