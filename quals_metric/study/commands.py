"""`quals study`: prepare the pairs, serve the page, print the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quals_metric.cli.options import JsonOption

app = typer.Typer(help="Have people judge two systems' summaries.", no_args_is_help=True, rich_markup_mode=None)

_PairsArgument = Annotated[Path, typer.Argument(help="What `quals study prepare` wrote.", exists=True, dir_okay=False)]
_ANSWERS = "A .jsonl file with a line for every answer."


@app.command()
def prepare(
    a: Annotated[Path, typer.Argument(help="What `quals score --keep` wrote for the one system,", exists=True)],
    b: Annotated[Path, typer.Argument(help="and for the other, on the same sources.", exists=True)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The pairs: a .jsonl file.")],
    size: Annotated[int, typer.Option(help="How many pairs.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the draw, and of who is on the left.", min=0)] = 12345,
    summary_column: Annotated[str, typer.Option(help="The column of the summaries.")] = "summary",
    source_column: Annotated[str, typer.Option(help="The column of the sources.")] = "source",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that exists; answers to it become worthless.")
    ] = False,
) -> None:
    """Draw the pairs that people are to judge from two score files."""
    from quals_metric.study.pairs import prepare as write

    found = write(a, b, output, size=size, seed=seed, summary=summary_column, source=source_column, overwrite=overwrite)
    typer.echo(f"wrote {found.output}: {found.pairs:,} pairs")
    typer.echo(f"left out: {found.blank:,} rows with a blank text, {found.equal:,} with the same summary twice")


@app.command()
def serve(
    pairs: _PairsArgument,
    answers: Annotated[Path, typer.Option(help=_ANSWERS)],
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="And the port.", min=1, max=65535)] = 7860,
) -> None:
    """Show the pairs in a browser and write the answers down, until interrupted. Needs the extra `app`."""
    from quals_metric.study.page import serve as start

    typer.echo(f"serving http://{host}:{port}/ until Ctrl+C; the answers are in {answers}")
    start(pairs, answers, host=host, port=port)


@app.command()
def report(
    pairs: _PairsArgument,
    answers: Annotated[Path, typer.Option(help=_ANSWERS, exists=True, dir_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Print how often people find b better than a, and whether that may be chance. Needs the extra `app`."""
    from quals_metric.study.answers import AnswerFile
    from quals_metric.study.pairs import read_study
    from quals_metric.study.table import tabulate, text

    study = read_study(pairs)
    found = tabulate(study, AnswerFile(answers).read(study))
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else text(found))
