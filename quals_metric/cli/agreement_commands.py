"""`quals agree` and `quals calibrate`: the commands that read labelled summaries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qa_inference.metric_base.results import json_ready
from quals_metric.cli.file_commands import check_page, warnings_as_lines
from quals_metric.cli.options import JsonOption, MetricOption, check_options, load_scorer
from quals_metric.cli.terminal import agreement_text, fit_text
from quals_metric.metrics import metric_spec

if TYPE_CHECKING:
    from qa_inference.metric_base.results import CorpusResult, ScoredSummary
    from quals_metric.agreement.agreement import Agreement
    from quals_metric.agreement.fitting import Reliability
    from quals_metric.agreement.labelled import LabelledSet

LabelledArgument = Annotated[
    list[str],
    typer.Argument(
        help="Files of labelled summaries: .jsonl, .csv, .parquet, .gz of the first two; folders or globs of them. A "
        "row has a source, a summary and a label; or a source, and a faithful and an unfaithful summary. A source may "
        "be a list of passages."
    ),
]
SummaryColumnOption = Annotated[str, typer.Option(help="Column of the summaries.")]
SourceColumnOption = Annotated[str | None, typer.Option(help="Column of the sources.  [default: source, or document]")]
LabelColumnOption = Annotated[
    str, typer.Option(help="Column of the labels: numbers. Rows with an empty label are left out.")
]
ConsistentFromOption = Annotated[float, typer.Option(help="Least label of a summary that counts as consistent.")]
PageOption = Annotated[
    Path | None,
    typer.Option(help="Also write a page with reliability plots: .html. Needs the extra `calibrate`.", dir_okay=False),
]


def agree_command(
    inputs: LabelledArgument,
    score_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of the file with the scores of another metric. Repeat the option for several. In a file of "
            "pairs, NAME stands for NAME_faithful and NAME_unfaithful."
        ),
    ] = None,
    summary_column: SummaryColumnOption = "summary",
    source_column: SourceColumnOption = None,
    label_column: LabelColumnOption = "label",
    consistent_from: ConsistentFromOption = 1.0,
    html: PageOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Metric to compute. Repeat the option for both.  [default: quals, or none with --score-column]"
        ),
    ] = None,
    as_json: JsonOption = False,
    **options: Any,
) -> None:
    """Measure how far scores agree with people's labels.

    The statistics are correlations, the area under the ROC curve, the accuracy of pairs, and the balanced accuracy at
    the best and at a cross-validated threshold. All have bootstrap intervals by source. The shares of a summary's
    n-grams that are copied from the source are shown too. A useful metric agrees better than these shares.
    """
    from quals_metric.agreement.agreement import defined_rows, measure_agreement
    from quals_metric.agreement.fitting import check_scikit_learn
    from quals_metric.agreement.labelled import COPIED_SHARES
    from quals_metric.agreement.measuring import array_of, measure_reliabilities, warn_of_few_sources

    metrics = metric or ([] if score_column else ["quals"])
    if options:
        check_options(metrics, options)
    if html is not None:
        check_page(html, "--html")
        check_scikit_learn()
    columns = dict(summary=summary_column, source=source_column, label=label_column)
    own = {metric_spec(name).title for name in metrics} | set(COPIED_SHARES)
    if taken := sorted(own & set(score_column or ())):
        raise ValueError(f"a score column must not be named {taken[0]!r}: that is a score of this command. Rename it")
    sets = _read_sets(inputs, consistent_from, scores=list(dict.fromkeys(score_column or ())), **columns)
    agreements: list[Agreement] = []
    reliabilities: list[list[Reliability]] = []
    with warnings_as_lines():
        results = _score(sets, metrics, options)
        for labelled, of_metrics in zip(sets, results, strict=True):
            scores = {metric_spec(name).title: array_of(result.scores) for name, result in of_metrics.items()}
            probabilities = {
                metric_spec(name).title: array_of(result.probabilities)
                for name, result in of_metrics.items()
                if result.probabilities is not None
            }
            signatures = {metric_spec(name).title: result.signature for name, result in of_metrics.items()}
            every = {**scores, **labelled.columns, **labelled.copied_shares()}
            agreements.append(measure_agreement(labelled, every, signatures))
            warn_of_few_sources(agreements[-1])
            kept = defined_rows(every)
            plotted = {**scores, **labelled.columns} if html is not None else {}
            reliabilities.append(measure_reliabilities(labelled, kept, plotted, probabilities))
    pairs = list(zip(agreements, reliabilities, strict=True))
    described = [
        agreement.to_dict() | {"reliability": [reliability.to_dict() for reliability in of_set]}
        for agreement, of_set in pairs
    ]
    as_text = json.dumps(described, indent=2, ensure_ascii=False) if as_json else None
    typer.echo(as_text or "\n\n".join(agreement_text(*pair) for pair in pairs))
    if html is not None:  # last: a disk that is full must not take the numbers
        from quals_metric.agreement.page import agreement_page
        from quals_metric.files import durable

        durable.write_file(html, agreement_page(pairs, consistent_from))


def calibrate_command(
    inputs: LabelledArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .json.", dir_okay=False)],
    summary_column: SummaryColumnOption = "summary",
    source_column: SourceColumnOption = None,
    label_column: LabelColumnOption = "label",
    consistent_from: ConsistentFromOption = 1.0,
    html: PageOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    metric: MetricOption = "quals",
    as_json: JsonOption = False,
    calibration: Annotated[str | None, typer.Option(hidden=True)] = None,
    **options: Any,
) -> None:
    """Make a calibration from labelled summaries: a map from scores to probabilities.

    `--calibration FILE` then adds to every score the probability that people call the summary consistent. Each file is
    a data set, and all data sets have the same weight. With several files, each is left out once, to measure how well a
    map from the others fits it. Needs the extra `calibrate`.
    """
    from quals_metric.agreement.fitting import ScoredSet, check_can_be_fitted, check_scikit_learn, fit_calibration
    from quals_metric.agreement.measuring import array_of, score_set, warn_of_weak_fit
    from quals_metric.files import durable

    check_scikit_learn()
    if calibration is not None:
        raise typer.BadParameter("calibrate makes one and takes none", param_hint="--calibration")
    if output.suffix.lower() != ".json":
        raise typer.BadParameter(f"the name must end in .json; got {output.name!r}", param_hint="--output")
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output}: exists, and is kept. Name another output, or replace it: --overwrite")
    durable.check_writable(output)
    if html is not None:
        check_page(html, "--html")
    columns = dict(summary=summary_column, source=source_column, label=label_column)
    sets = _read_sets(inputs, consistent_from, **columns)
    check_can_be_fitted([(labelled.good, labelled.sources) for labelled in sets])
    with warnings_as_lines():
        scorer = load_scorer(metric, **options)
        results = [score_set(scorer, labelled) for labelled in sets]
        scored = [
            ScoredSet.of(labelled, array_of(result.scores)) for labelled, result in zip(sets, results, strict=True)
        ]
        fit = fit_calibration(scored, metric, scorer.key.settings)
        warn_of_weak_fit(fit)
    durable.write_file(output, fit.calibration.to_json().encode())
    about = {
        "output": str(output),
        "digest": fit.calibration.digest,
        "threshold": fit.threshold,
        "signature": scorer.signature,
        **fit.calibration.about,
    }
    as_text = json.dumps(json_ready(about), indent=2, ensure_ascii=False)
    typer.echo(as_text if as_json else fit_text(fit, output, scorer.signature))
    if html is not None:
        from quals_metric.agreement.page import calibration_page

        durable.write_file(html, calibration_page(fit, scorer.signature))


def _read_sets(inputs: list[str], consistent_from: float, **columns: Any) -> list[LabelledSet]:
    """The labelled sets of all files."""
    from quals_metric.agreement.labelled import read_labelled
    from quals_metric.files.tables import expand

    return [read_labelled(path, consistent_from=consistent_from, **columns) for path in expand(inputs)]


def _score(
    sets: Sequence[LabelledSet], metrics: Sequence[str], options: dict[str, Any]
) -> list[dict[str, CorpusResult[ScoredSummary]]]:
    """For every set, its result by every metric. A metric gets those options that it has."""
    from quals_metric.agreement.measuring import score_set, warn_of_own_labels

    scorers = {}  # all are loaded first: an error of the last one must not come after the work of the others
    for name in dict.fromkeys(metrics):
        known = metric_spec(name).options()
        scorers[name] = load_scorer(name, **{option: value for option, value in options.items() if option in known})
    results: list[dict[str, CorpusResult[ScoredSummary]]] = [{} for _ in sets]
    for name, scorer in scorers.items():
        for labelled, of_metrics in zip(sets, results, strict=True):
            warn_of_own_labels(scorer.calibration, labelled)
            of_metrics[name] = score_set(scorer, labelled)
    return results
