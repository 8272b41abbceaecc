"""`quals agree` and `quals calibrate`: the commands that read labelled summaries."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qa_inference.metric_base.results import json_ready
from qa_inference.metric_base.texts import texts_of_scorer
from quals_metric.cli.file_commands import check_page, warnings_as_lines
from quals_metric.cli.options import JsonOption, MetricOption, check_options, load_scorer
from quals_metric.cli.terminal import printable, statistics_text
from quals_metric.metrics import format_number, metric_spec

if TYPE_CHECKING:
    from qa_inference.calibration import Calibration
    from qa_inference.metric_base.results import CorpusResult, ScoredSummary
    from quals_metric.agreement.agreement import Agreement
    from quals_metric.agreement.fitting import Fit, Reliability
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

FEWEST_SOURCES = 30  # with fewer, an interval by source is too narrow
FEWEST_LABELS = 100  # with fewer, an isotonic map follows chance


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
            scores = {metric_spec(name).title: _array(result.scores) for name, result in of_metrics.items()}
            probabilities = {
                metric_spec(name).title: _array(result.probabilities)
                for name, result in of_metrics.items()
                if result.probabilities is not None
            }
            signatures = {metric_spec(name).title: result.signature for name, result in of_metrics.items()}
            every = {**scores, **labelled.columns, **labelled.copied_shares()}
            agreements.append(measure_agreement(labelled, every, signatures))
            _warn_of_few_sources(agreements[-1])
            kept = defined_rows(every)
            plotted = {**scores, **labelled.columns} if html is not None else {}
            reliabilities.append(_reliabilities(labelled, kept, plotted, probabilities))
    pairs = list(zip(agreements, reliabilities, strict=True))
    described = [
        agreement.to_dict() | {"reliability": [reliability.to_dict() for reliability in of_set]}
        for agreement, of_set in pairs
    ]
    as_text = json.dumps(described, indent=2, ensure_ascii=False) if as_json else None
    typer.echo(as_text or "\n\n".join(_agreement_text(*pair) for pair in pairs))
    if html is not None:  # last: a disk that is full must not take the numbers
        _write_agreement_page(html, pairs, consistent_from)


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
        results = [_scored(scorer, labelled) for labelled in sets]
        scored = [ScoredSet.of(labelled, _array(result.scores)) for labelled, result in zip(sets, results, strict=True)]
        fit = fit_calibration(scored, metric, scorer.key.settings)
        _warn_of_weak_fit(fit)
    durable.write_file(output, fit.calibration.to_json().encode())
    about = {
        "output": str(output),
        "digest": fit.calibration.digest,
        "threshold": fit.threshold,
        "signature": scorer.signature,
        **fit.calibration.about,
    }
    as_text = json.dumps(json_ready(about), indent=2, ensure_ascii=False)
    typer.echo(as_text if as_json else _fit_text(fit, output, scorer.signature))
    if html is not None:
        _write_calibration_page(html, fit, scorer.signature)


def _read_sets(inputs: list[str], consistent_from: float, **columns: Any) -> list[LabelledSet]:
    """The labelled sets of all files."""
    from quals_metric.agreement.labelled import read_labelled
    from quals_metric.files.tables import expand

    return [read_labelled(path, consistent_from=consistent_from, **columns) for path in expand(inputs)]


def _score(
    sets: Sequence[LabelledSet], metrics: Sequence[str], options: dict[str, Any]
) -> list[dict[str, CorpusResult[ScoredSummary]]]:
    """For every set, its result by every metric. A metric gets those options that it has."""
    scorers = {}  # all are loaded first: an error of the last one must not come after the work of the others
    for name in dict.fromkeys(metrics):
        known = metric_spec(name).options()
        scorers[name] = load_scorer(name, **{option: value for option, value in options.items() if option in known})
    results: list[dict[str, CorpusResult[ScoredSummary]]] = [{} for _ in sets]
    for name, scorer in scorers.items():
        for labelled, of_metrics in zip(sets, results, strict=True):
            _warn_of_own_labels(scorer.calibration, labelled)
            of_metrics[name] = _scored(scorer, labelled)
    return results


def _scored(scorer: Any, labelled: LabelledSet) -> CorpusResult[ScoredSummary]:
    """The result of a set; on a terminal with a progress bar."""
    texts = {"summaries": labelled.summaries, **texts_of_scorer(labelled.sources)}
    result: CorpusResult[ScoredSummary] = scorer.score(**texts, progress=sys.stderr.isatty())
    return result


def _array(values: Sequence[float]) -> Any:
    import numpy as np

    return np.array(values, dtype=float)


def _reliabilities(
    labelled: LabelledSet, kept: Any, scores: dict[str, Any], probabilities: dict[str, Any]
) -> list[Reliability]:
    """The reliability of the probabilities that a calibration gave, or else of cross-validated ones of the scores."""
    import numpy as np

    from quals_metric.agreement.fitting import measure_reliability, out_of_fold
    from quals_metric.agreement.statistics import DocumentSample

    good = labelled.good[kept]
    sample = DocumentSample([source for source, is_kept in zip(labelled.sources, kept, strict=True) if is_kept])
    measured = []
    for name in {**scores, **probabilities}:
        if name in probabilities:
            values = probabilities[name][kept]
            measured.append(measure_reliability(f"{name}, by the calibration", values, values, good, sample))
        elif len(sample.of_document) > 1:
            values = scores[name][kept]
            fitted = out_of_fold(values, good, np.ones(len(values)), sample.documents)
            measured.append(measure_reliability(f"{name}, cross-validated", fitted, values, good, sample))
    return measured


def _warn_of_own_labels(calibration: Calibration | None, labelled: LabelledSet) -> None:
    if calibration is None:
        return
    if labelled.digest in {data.get("sha256") for data in calibration.about.get("data", ())}:
        warnings.warn(
            f"{labelled.name}: the calibration was made from this file, so it looks better here than it is. Measure it "
            f"on other labels",
            UserWarning,
            stacklevel=2,
        )


def _warn_of_few_sources(agreement: Agreement) -> None:
    if agreement.num_sources < FEWEST_SOURCES:
        warnings.warn(
            f"{agreement.name}: only {_sources(agreement.num_sources)}: below {FEWEST_SOURCES} the intervals are too "
            f"narrow, and hardly any difference shows",
            UserWarning,
            stacklevel=2,
        )


def _warn_of_weak_fit(fit: Fit) -> None:
    reliability = fit.cross_validated
    if reliability.num_summaries < FEWEST_LABELS:
        warnings.warn(
            f"only {reliability.num_summaries} labelled summaries: below {FEWEST_LABELS} the probabilities mean little",
            UserWarning,
            stacklevel=2,
        )
    for measured in (reliability, *fit.left_out):
        if measured.brier.value >= measured.brier_of_share:
            warnings.warn(
                f"{measured.name}: the probabilities are no better than one probability for all: Brier score "
                f"{format_number(measured.brier.value)}, that of the share {format_number(measured.brier_of_share)}",
                UserWarning,
                stacklevel=2,
            )


def _sources(count: int) -> str:
    return f"{count:,} {'source' if count == 1 else 'sources'}"


def _counts_line(agreement: Agreement) -> str:
    """The numbers of summaries in one line."""
    left_out = [
        f"{count:,} {reason}"
        for count, reason in (
            (agreement.num_undefined, "left out: a score is undefined"),
            (agreement.num_unlabelled, "without a label"),
        )
        if count
    ]
    about = (
        f"{agreement.num_summaries:,} summaries of {_sources(agreement.num_sources)}, {agreement.num_consistent:,} "
        f"consistent"
    )
    return "; ".join([about, *left_out])


def _tables(agreement: Agreement, reliabilities: Sequence[Reliability]) -> list[Any]:
    """The tables of one set: its statistics, and the reliability where it was measured."""
    from quals_metric.agreement.page import agreement_tables, reliability_table

    return agreement_tables(agreement) + ([reliability_table(reliabilities)] if reliabilities else [])


def _agreement_text(agreement: Agreement, reliabilities: Sequence[Reliability]) -> str:
    """An agreement as plain text."""
    return "\n\n".join(
        [
            f"{printable(agreement.name)}: {_counts_line(agreement)}",
            *map(statistics_text, _tables(agreement, reliabilities)),
            *(f"signature of {name}: {printable(text)}" for name, text in agreement.signatures.items()),
        ]
    )


def _write_agreement_page(
    path: Path, pairs: Sequence[tuple[Agreement, Sequence[Reliability]]], consistent_from: float
) -> None:
    from dataclasses import replace

    from quals_metric.agreement.page import agreement_html
    from quals_metric.files import durable

    intro = (
        f"How far do scores agree with people's labels? A summary counts as consistent if its label is "
        f"{consistent_from:g} or more.",
        "The shares of copied n-grams say how many of a summary's words, and of its runs of 2, 3 and 4 words, are in "
        "the source. They need no model. A useful metric agrees better than they do.",
    )
    facts, tables, plots = [], [], []
    for agreement, reliabilities in pairs:
        facts.append((agreement.name, _counts_line(agreement)))
        tables += [
            replace(table, title=f"{table.title}: {agreement.name}") for table in _tables(agreement, reliabilities)
        ]
        plots += [replace(reliability, name=f"{agreement.name}: {reliability.name}") for reliability in reliabilities]
    signatures = {name: text for agreement, _ in pairs for name, text in agreement.signatures.items()}
    facts += [(f"Signature of {name}", text) for name, text in signatures.items()]
    durable.write_file(path, agreement_html("Agreement with people", facts, tables, plots, intro))


def _write_calibration_page(path: Path, fit: Fit, signature: str) -> None:
    from quals_metric.agreement.page import agreement_html, reliability_table
    from quals_metric.files import durable

    reliabilities = [fit.cross_validated, *fit.left_out]
    intro = [
        "A calibration is a map from a score to the probability that people call the summary consistent. The tables "
        "and plots are of summaries that the map has not seen.",
        fit.calibration.origin,
        f"{_threshold_text(fit).capitalize()}.",
    ]
    if fit.left_out:
        intro.append("Each file was also left out once: its numbers are those of a map that was made from the others.")
    facts = [
        ("Metric", metric_spec(fit.calibration.metric).title),
        ("Calibration", fit.calibration.digest),
        ("Signature", signature),
    ]
    page = agreement_html("Calibration", facts, [reliability_table(reliabilities)], reliabilities, intro)
    durable.write_file(path, page)


def _threshold_text(fit: Fit) -> str:
    """The scores with a probability of at least .5, in words."""
    if math.isnan(fit.threshold):
        return "no score has a probability of .5"
    if fit.calibration.probabilities[0] >= 0.5:
        return "every score has a probability of .5 or more"
    return f"the probability is .5 or more from a score of {format_number(fit.threshold)} on"


def _fit_text(fit: Fit, output: Path, signature: str) -> str:
    """A calibration as plain text."""
    from quals_metric.agreement.page import reliability_table

    return "\n\n".join(
        [
            statistics_text(reliability_table([fit.cross_validated, *fit.left_out])),
            f"{_threshold_text(fit)}\nwritten    {printable(str(output))} ({fit.calibration.digest})\n"
            f"signature: {printable(signature)}",
        ]
    )
