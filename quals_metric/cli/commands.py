"""The command `quals`. Libraries that compute are imported only by the commands that compute."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quals_metric import __version__
from quals_metric.cli.agreement_commands import agree_command, calibrate_command
from quals_metric.cli.file_commands import check_page, compare_command, report_command, score_command
from quals_metric.cli.options import (
    AllowedHostOption,
    AuthOption,
    HostOption,
    JsonOption,
    MetricOption,
    PortOption,
    ThresholdOption,
    load_scorer,
    with_metrics,
)
from quals_metric.cli.study import study_app
from quals_metric.cli.terminal import printable
from quals_metric.metrics import METRICS, metric_spec

if TYPE_CHECKING:
    from qa_inference.metric_base.results import CorpusResult, ScoredSummary


def main() -> None:
    """Run the command. An error that the user can correct is one line on standard error, with exit code 2.

    If `QUALS_DEBUG` is set, the error comes with its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal may be unable to show a character
    try:
        app()
    except (ImportError, MemoryError, OSError, TypeError, ValueError) as error:
        if os.environ.get("QUALS_DEBUG"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"quals: {printable(message)}", file=sys.stderr)  # a file's text may be in it
        raise SystemExit(2) from error


def make_app() -> typer.Typer:
    """The command line, with an option for every field of a metric's configuration that is offered to it."""
    made = typer.Typer(
        help="QUALS: is a summary consistent with its source?",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain text reads well everywhere, screen readers and logs included
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_common_options)
    for name, command in _COMMANDS.items():
        made.command(name)(with_metrics(command))
    made.add_typer(study_app, name="study")
    return made


def demo_command(metric: MetricOption = "quals", as_json: JsonOption = False, **options: Any) -> None:
    """Score the examples that ship with the package."""
    from quals_metric.report.examples import EXAMPLES

    scorer = load_scorer(metric, **options)
    texts = [text for example in EXAMPLES for text in (example.faithful, example.unfaithful)]
    sources = [example.source for example in EXAMPLES for _ in range(2)]
    result = scorer.score(summaries=texts, sources=sources)
    labels = ["faithful", "unfaithful"] * len(EXAMPLES)
    if as_json:
        _print_json(result, labels, sources)
        return
    for number, example in enumerate(EXAMPLES):
        rows = slice(2 * number, 2 * number + 2)
        typer.echo(f"{number + 1}. {example.title}\n")
        _print_scores([example.source], labels[rows], result.summaries[rows])
    _print_legend(result)


def explain_command(
    summary: Annotated[list[str], typer.Option(help="Summary to score. Repeat the option to compare two.")],
    source: Annotated[
        list[str] | None,
        typer.Option(help="Text that the summary was written from. Repeat the option for several passages."),
    ] = None,
    source_file: Annotated[
        list[Path] | None,
        typer.Option(
            help="UTF-8 file with that text, instead of --source. Repeat the option for several passages.",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page that explains the scores: .html.", dir_okay=False)
    ] = None,
    threshold: ThresholdOption = None,
    metric: MetricOption = "quals",
    as_json: JsonOption = False,
    **options: Any,
) -> None:
    """Score one or two summaries and show why.

    The questions and answers behind each score are listed, the lowest first. Then come the sentences, if there are
    several, and the unsupported answers. If there are several passages, each question names the one that supports it
    best.
    """
    from qa_inference.metric_base.results import check_threshold
    from qa_inference.metric_base.texts import texts_of_scorer

    passages = _source_passages(source or [], source_file or [])
    if len(summary) > 2:
        raise typer.BadParameter(f"explain takes one or two summaries, got {len(summary)}", param_hint="--summary")
    if html is not None:
        check_page(html, "--html")
    if threshold is not None:
        check_threshold(threshold)
    sources = [passages[0] if len(passages) == 1 else tuple(passages)] * len(summary)
    result = load_scorer(metric, **options).score(summaries=summary, **texts_of_scorer(sources))
    labels = ["summary"] if len(summary) == 1 else ["summary 1", "summary 2"]
    if html is not None:
        from quals_metric.report import write

        write(
            result, html, summaries=summary, sources=sources, threshold=threshold,
            labels=[label.capitalize() for label in labels],
        )  # fmt: skip
    if as_json:
        _print_json(result, labels, sources, threshold)
        return
    _print_scores(passages, labels, result.summaries, threshold)
    _print_legend(result)


def serve_command(
    metric: MetricOption = "quals",
    model: Annotated[
        str | None,
        typer.Option(help="Question-generation model shown first: a preset, Hub name or folder.  [default: embedded]"),
    ] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 7860,
    auth: AuthOption = None,
    allowed_host: AllowedHostOption = None,
) -> None:
    """Serve a metric as a web page.

    The page is served until interrupted. Needs the extra `app`.
    """
    from quals_metric.app import serve

    typer.echo(f"serving http://{host}:{port}/ until Ctrl+C")
    serve(metric, host, port, model=model, auth=auth, allowed_hosts=allowed_host or ())


def models_command(as_json: JsonOption = False) -> None:
    """List the presets: checkpoints whose format is known.

    For every preset, the list has the option that takes it and its licence. "tried" is "yes" if this package was tested
    with these weights. If not, the format comes from the model's card.
    """
    from quals_metric.cli.terminal import rows_block

    keys = ("option", "name", "checkpoint", "licence", "tried", "about")
    rows = []
    for spec in METRICS.values():
        for option, presets in spec.preset_tables().items():
            for name, preset in presets.items():
                elsewhere = getattr(preset, "package", None) or preset.model
                checkpoint = "ships with the package" if name == "embedded" else elsewhere
                command = f"{spec.name} --{option}"
                rows.append((command, name, checkpoint, preset.licence, preset.tried, preset.about))
    as_text = json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2, ensure_ascii=False)
    typer.echo(as_text if as_json else rows_block(keys, rows))


def register_command() -> None:
    """Make evaluate.load find this package.

    Afterwards `evaluate.load("quals")` and `evaluate.load("qags")` work in any folder, with and without a network.
    """
    from quals_metric.registry import register

    for script in register():
        typer.echo(f"wrote {script}")


def unregister_command() -> None:
    """Remove what `quals register` wrote."""
    from quals_metric.registry import unregister

    removed = unregister()
    for folder in removed:
        typer.echo(f"removed {folder}")
    if not removed:
        typer.echo("nothing was registered")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"quals-metric {__version__}")
        raise typer.Exit


def _common_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def _source_passages(texts: list[str], files: list[Path]) -> list[str]:
    """The passages of the source, given as texts or as files; a source that is one text is one passage."""
    if bool(texts) == bool(files):
        raise typer.BadParameter("give the source's text or its file: one of --source and --source-file")
    return texts or [_text_of(file) for file in files]


def _text_of(file: Path) -> str:
    """The text of a UTF-8 file."""
    if file.is_char_device():
        raise ValueError(f"{file}: must be a file with an end; it is a device. Name a text file")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be UTF-8 text; at byte {error.start} it is not: save it as UTF-8") from error


def _print_scores(
    passages: Sequence[str],
    labels: Sequence[str],
    scores: Sequence[ScoredSummary],
    threshold: float | None = None,
) -> None:
    from quals_metric.cli.terminal import paragraph, summary_block

    names = ["source"] if len(passages) == 1 else [f"passage {number}" for number in range(1, len(passages) + 1)]
    shown = passages if len(passages) == 1 else [text if text.strip() else "(empty)" for text in passages]
    typer.echo("\n".join(map(paragraph, names, shown)) + "\n")
    for label, scored in zip(labels, scores, strict=True):
        typer.echo(summary_block(label, scored, passages, threshold) + "\n")


def _print_legend(result: CorpusResult[ScoredSummary]) -> None:
    from quals_metric.cli.terminal import probability_legend

    typer.echo(metric_spec(result.kind.metric).legend)
    if result.calibration:
        typer.echo(probability_legend(result.calibration))
    typer.echo(f"signature: {result.signature}")


def _print_json(
    result: CorpusResult[ScoredSummary],
    labels: Sequence[str],
    sources: Sequence[str | Sequence[str]],
    threshold: float | None = None,
) -> None:
    """Print the result, with the label, the texts, the sentences and the unsupported answers of every summary."""
    from qa_inference.tokenization import without_surrogates

    limit = metric_spec(result.kind.metric).threshold if threshold is None else threshold
    output = result.to_dict(threshold=limit)
    rows = zip(output["summaries"], labels, result.summaries, sources, strict=True)
    output["summaries"] = [
        {"label": label, "summary": scored.text, "source": source, **row} for row, label, scored, source in rows
    ]
    typer.echo(without_surrogates(json.dumps(output, indent=2, ensure_ascii=False, allow_nan=False)))


_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo_command,
    "explain": explain_command,
    "score": score_command,
    "report": report_command,
    "compare": compare_command,
    "agree": agree_command,
    "calibrate": calibrate_command,
    "serve": serve_command,
    "models": models_command,
    "register": register_command,
    "unregister": unregister_command,
}

app = make_app()
