"""The command `quals`. What needs torch is imported only by the commands that compute."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quals_metric import __version__
from quals_metric.cli import file_commands, study
from quals_metric.cli.options import (
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
    SpacyModelOption,
    TokensOption,
    load_scorer,
)

if TYPE_CHECKING:
    from qa_inference.metric_base import CorpusResult, ScoredSummary

app = typer.Typer(
    help="QUALS: is a summary consistent with its source?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text reads well everywhere, screen readers and logs included
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command; what the user can put right becomes one line on standard error and exit code 2.

    With `QUALS_DEBUG` set to anything, the error comes with its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to stop
    try:
        app()
    except (ImportError, MemoryError, OSError, TypeError, ValueError) as error:
        if os.environ.get("QUALS_DEBUG"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"quals: {message}", file=sys.stderr)
        raise SystemExit(2) from error


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"quals-metric {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    metric: MetricOption = Metric.QUALS,
    model: ModelOption = "embedded",
    gguf: GgufOption = None,
    reader: ReaderOption = None,
    tokens: TokensOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the examples that ship with the package."""
    from quals_metric.report.examples import EXAMPLES

    scorer = load_scorer(metric, model=model, gguf=gguf, reader=reader, tokens=tokens)
    texts = [text for example in EXAMPLES for text in (example.faithful, example.unfaithful)]
    sources = [example.source for example in EXAMPLES for _ in range(2)]
    result = scorer.score(summaries=texts, sources=sources)
    labels = ["faithful", "unfaithful"] * len(EXAMPLES)
    if as_json:
        _print_json(result, labels, texts, sources)
        return
    for number, example in enumerate(EXAMPLES):
        rows = slice(2 * number, 2 * number + 2)
        typer.echo(f"{number + 1}. {example.title}\n")
        _print_scores(example.source, labels[rows], texts[rows], result.summaries[rows])
    _print_legend(result)


@app.command()
def explain(
    summary: Annotated[list[str], typer.Option(help="A summary; give the option twice to compare two.")],
    source: Annotated[str | None, typer.Option(help="The text it was written from.")] = None,
    source_file: Annotated[
        Path | None, typer.Option(help="A UTF-8 file with that text.", exists=True, dir_okay=False, readable=True)
    ] = None,
    metric: MetricOption = Metric.QUALS,
    model: ModelOption = "embedded",
    gguf: GgufOption = None,
    reader: ReaderOption = None,
    spacy_model: SpacyModelOption = None,
    tokens: TokensOption = None,
    max_pairs: MaxPairsOption = None,
    max_questions: MaxQuestionsOption = None,
    max_per_answer: MaxPerAnswerOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    revision: RevisionOption = None,
    reader_revision: ReaderRevisionOption = None,
    local_files_only: OfflineOption = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page that explains the scores too: an .html file.", dir_okay=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score one or two summaries of a source, and show the questions and answers behind it."""
    text = _source_text(source, source_file)
    if len(summary) > 2:
        raise typer.BadParameter(f"explain takes one or two summaries, got {len(summary)}", param_hint="--summary")
    scorer = load_scorer(
        metric,
        model=model,
        gguf=gguf,
        reader=reader,
        spacy_model=spacy_model,
        tokens=tokens,
        max_pairs=max_pairs,
        max_questions=max_questions,
        max_per_answer=max_per_answer,
        device=device,
        dtype=dtype,
        revision=revision,
        reader_revision=reader_revision,
        local_files_only=local_files_only,
    )
    sources = [text] * len(summary)
    result = scorer.score(summaries=summary, sources=sources)
    labels = ["summary"] if len(summary) == 1 else ["summary 1", "summary 2"]
    if html is not None:
        from quals_metric.report import write

        write(result, html, summaries=summary, sources=sources, labels=[label.capitalize() for label in labels])
    if as_json:
        _print_json(result, labels, summary, sources)
        return
    _print_scores(text, labels, summary, result.summaries)
    _print_legend(result)


app.command()(file_commands.score)
app.command()(file_commands.compare)
app.add_typer(study.study_app, name="study")


@app.command()
def serve(
    metric: MetricOption = Metric.QUALS,
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="And the port.", min=1, max=65535)] = 7860,
) -> None:
    """Show the metric as a web page, until interrupted. Needs the extra `app`."""
    from quals_metric.app import serve as start

    typer.echo(f"serving http://{host}:{port}/ until Ctrl+C")
    start(metric.value, host, port)


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the presets: checkpoints that are known to ask or to answer, for which metric, and under which licence.

    Tried: whether we have scored with these weights; if not, their cards say how they write.
    """
    from qa_inference.presets import PRESETS, QUESTION_PRESETS, READERS
    from quals_metric.cli.terminal import rows_block

    keys = ("option", "name", "checkpoint", "licence", "tried", "about")
    groups: dict[str, Mapping[str, Any]]
    groups = {"quals --model": PRESETS, "qags --model": QUESTION_PRESETS, "qags --reader": READERS}
    rows = []
    for option, presets in groups.items():
        for name, preset in presets.items():
            elsewhere = getattr(preset, "package", None) or preset.model
            checkpoint = "ships with the package" if name == "embedded" else elsewhere
            rows.append((option, name, checkpoint, preset.licence, preset.tried, preset.about))
    as_text = json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2, ensure_ascii=False)
    typer.echo(as_text if as_json else rows_block(keys, rows))


@app.command()
def register() -> None:
    """Make `evaluate.load("quals")` and `("qags")` find this package, in any folder, with and without a network."""
    from quals_metric.registry import register as write

    for script in write():
        typer.echo(f"wrote {script}")


@app.command()
def unregister() -> None:
    """Take the registration back."""
    from quals_metric.registry import unregister as remove

    removed = remove()
    for folder in removed:
        typer.echo(f"removed {folder}")
    if not removed:
        typer.echo("nothing was registered")


def _source_text(text: str | None, file: Path | None) -> str:
    """The source, given as text or as a file."""
    if text is not None and file is None:
        return text
    if file is None or text is not None:
        raise typer.BadParameter("give the source's text or its file: one of --source and --source-file")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be UTF-8 text; at byte {error.start} it is not: save it as UTF-8") from error


def _print_scores(
    source: str, labels: Sequence[str], summaries: Sequence[str], scores: Sequence[ScoredSummary]
) -> None:
    from quals_metric.cli.terminal import paragraph, summary_block

    typer.echo(paragraph("source", source) + "\n")
    for label, summary, score in zip(labels, summaries, scores, strict=True):
        typer.echo(summary_block(label, summary, score) + "\n")


def _print_legend(result: CorpusResult[ScoredSummary]) -> None:
    from quals_metric.cli.terminal import VIEWS

    typer.echo(VIEWS[result.kind.metric].legend)
    typer.echo(f"signature: {result.signature}")


def _print_json(
    result: CorpusResult[ScoredSummary], labels: Sequence[str], summaries: Sequence[str], sources: Sequence[str]
) -> None:
    """The result, each summary's part with its label and its texts."""
    output = result.to_dict()
    texts = zip(output["summaries"], labels, summaries, sources, strict=True)
    output["summaries"] = [
        {"label": label, "summary": summary, "source": source, **part} for part, label, summary, source in texts
    ]
    from qa_inference.tokenization import without_surrogates

    typer.echo(without_surrogates(json.dumps(output, indent=2, ensure_ascii=False, allow_nan=False)))
