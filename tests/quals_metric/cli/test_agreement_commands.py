from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from qa_inference.calibration import read_calibration
from qa_inference.metric_base.key import ResultKey
from qa_inference.metric_base.question_scorer import QuestionScorer
from qa_inference.metric_base.results import CorpusResult
from quals_metric.agreement import page
from quals_metric.cli import agreement_commands
from quals_metric.cli.options import with_metrics
from quals_metric.result import QualsResult, SummaryScore

Quals = Callable[..., Result]
loaded: list[tuple[str, dict[str, Any]]] = []


class LengthScorer(QuestionScorer[CorpusResult[Any]]):
    """The score of a summary is less, the longer it is. An empty one has none."""

    def __init__(self, metric: str, calibration: str | None = None) -> None:
        self.key = ResultKey(metric, {"model": "toy@1", "tokens": "all"})
        self._use_calibration(calibration)

    def _score(self, summaries: list[str], sources: list[str], spread: bool, on_batch: Any) -> Any:
        scores = [-len(summary) / 4 if summary else float("nan") for summary in summaries]
        return QualsResult(tuple(SummaryScore(score, ()) for score in scores), self.signature)

    def _english_model(self) -> None:
        return None


def _load(metric: str, **options: Any) -> LengthScorer:
    loaded.append((metric, options))
    return LengthScorer(metric, options.get("calibration"))


@pytest.fixture
def quals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quals:
    """The two commands, with a scorer by length, in a folder with labels that follow the length with noise."""
    loaded.clear()
    monkeypatch.setattr(agreement_commands, "load_scorer", _load)
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(3)
    lengths = random.integers(1, 24, 120)
    labels = (random.random(120) < 1 / (1 + np.exp((lengths - 12) / 4))).astype(int)
    rows = [
        {"source": f"source {row // 2}", "summary": "x" * length, "label": int(label), "theirs": float(label)}
        for row, (length, label) in enumerate(zip(lengths, labels, strict=True))
    ]
    rows.append({"source": "source 0", "summary": "", "label": 1, "theirs": 0.5})
    Path("labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("second.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:60]))
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("agree")(with_metrics(agreement_commands.agree_command))
    app.command("calibrate")(with_metrics(agreement_commands.calibrate_command))
    return lambda *arguments, **options: CliRunner().invoke(app, list(arguments), **options)


def test_agree(quals: Quals) -> None:
    result = quals("agree", "labelled.jsonl", "--metric", "quals", "--score-column", "theirs")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert re.fullmatch(
        r"labelled.jsonl: 120 summaries of 60 sources, \d+ consistent; 1 left out: a score is undefined", lines[0]
    )
    rows = [re.split(r"  +", line.strip()) for line in lines]
    heads = [row for row in rows if row[0] == "score"]
    assert heads == [
        ["score", "Pearson", "Spearman", "ROC AUC", "ROC AUC less QUALS"],
        ["score", heads[1][1], "balanced accuracy, best", "… cross-validated", "best threshold"],
    ]
    assert re.fullmatch(r"pairwise accuracy \(\d+ pairs\)", heads[1][1])
    first, second = ([row for row in rows if row[0] == name] for name in ("QUALS", "theirs"))
    assert second[0][1:4] == ["1.000 [1.000, 1.000]"] * 3 and second[1][1:] == ["1.000 [1.000, 1.000]"] * 3 + ["1.000"]
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", first[0][1]) and len(first[0]) == 4
    assert second[0][4].startswith("0.") and [row[0] for row in rows].count("copied 4-grams") == 2
    assert lines[-1] == f"signature of QUALS: {LengthScorer('quals').signature}"
    assert loaded == [("quals", {})] and result.stderr == ""


def test_agree_as_json_by_both_metrics(quals: Quals) -> None:
    options = ("--metric", "quals", "--metric", "qags", "--tokens", "answer", "--reader", "a/b", "--device", "cpu")
    result = quals("agree", "labelled.jsonl", "second.jsonl", "--json", *options)
    first, second = json.loads(result.stdout)
    assert list(first["scores"]) == ["QUALS", "QAGS", *(f"copied {n}-grams" for n in (1, 2, 3, 4))]
    assert first["scores"]["QAGS"]["roc_auc_less_first"] == {"value": 0, "interval": [0, 0]}
    assert first["signatures"].keys() == {"QUALS", "QAGS"} and first["reliability"] == []
    assert (second["num_summaries"], second["num_sources"]) == (60, 30) and first["num_undefined"] == 1
    assert loaded == [  # each metric with its own options
        ("quals", {"tokens": "answer", "device": "cpu"}),
        ("qags", {"reader": "a/b", "device": "cpu"}),
    ]


def test_columns_alone_need_no_model(quals: Quals) -> None:
    result = quals("agree", "labelled.jsonl", "--score-column", "theirs", "--json")
    (found,) = json.loads(result.stdout)
    assert next(iter(found["scores"])) == "theirs" and found["num_summaries"] == 121 and loaded == []
    refused = quals("agree", "labelled.jsonl", "--score-column", "theirs", "--tokens", "answer")
    assert refused.exit_code == 2 and "a score column does not have this option; quals has it" in refused.stderr


def test_a_page_with_reliability(quals: Quals) -> None:
    options = ("--metric", "quals", "--score-column", "theirs", "--html", "page.html")
    result = quals("agree", "labelled.jsonl", *options)
    assert result.exit_code == 0, result.output
    page = Path("page.html").read_text()
    assert page.count("<svg") == 2 and "Reliability: labelled.jsonl: QUALS, cross-validated" in page
    assert "QUALS, cross-validated" in result.stdout and "Signature of QUALS" in page


def test_few_sources_give_a_warning(quals: Quals) -> None:
    rows = Path("labelled.jsonl").read_text().splitlines()[:10]
    labels = [json.loads(row)["label"] for row in rows]
    assert 0 < sum(labels) < 10
    Path("few.jsonl").write_text("\n".join(rows))
    result = quals("agree", "few.jsonl")
    assert "quals: warning: few.jsonl: only 5 sources: below 30 the intervals are too narrow" in result.stderr


def test_calibrate_offers_no_calibration(quals: Quals) -> None:
    assert "--calibration" in quals("agree", "--help").output
    assert "--calibration " not in quals("calibrate", "--help").output.replace("`--calibration FILE`", "")


def test_calibrate_and_use(quals: Quals) -> None:
    result = quals("calibrate", "labelled.jsonl", "second.jsonl", "-o", "calibration.json", "--html", "page.html")
    assert result.exit_code == 0, result.output
    calibration = read_calibration(Path("calibration.json"))
    assert calibration.metric == "quals" and calibration.settings == {"model": "toy@1", "tokens": "all"}
    assert [each["summaries"] for each in calibration.about["data"]] == [120, 60]
    assert [each["name"] for each in calibration.about["left_out"]] == ["labelled.jsonl", "second.jsonl"]
    assert f"written    calibration.json ({calibration.digest})" in result.stdout
    assert re.search(r"the probability is .5 or more from a score of -\d\.\d+ on", result.stdout)
    assert "signature: quals|model:toy@1|tokens:all|" in result.stdout
    assert Path("page.html").read_text().count("<svg") == 3
    # It is kept, until it is to be replaced.
    for name, value in (("kept", []), ("replaced", ["--overwrite"])):
        again = quals("calibrate", "second.jsonl", "-o", "calibration.json", "--json", *value)
        assert (again.exit_code == 0) == (name == "replaced"), name
        assert value or "exists, and is kept" in str(again.exception)
    assert json.loads(again.stdout)["digest"] == read_calibration(Path("calibration.json")).digest
    # With it, `agree` measures its own reliability.
    measured = quals("agree", "labelled.jsonl", "--calibration", "calibration.json", "--json")
    (found,) = json.loads(measured.stdout)
    (reliability,) = found["reliability"]
    assert reliability["name"] == "QUALS, by the calibration" and reliability["num_summaries"] == 120
    assert "second.jsonl" not in measured.stderr  # of which it was made; this file is another
    own = quals("agree", "second.jsonl", "--calibration", "calibration.json")
    assert "second.jsonl: the calibration was made from this file, so it looks better here than it is" in own.stderr
    assert "|calibration:" in found["signatures"]["QUALS"]


def test_a_calibration_of_little_use_says_so(quals: Quals) -> None:
    rows = [json.loads(row) for row in Path("labelled.jsonl").read_text().splitlines()[:80]]
    text = "".join(json.dumps(row | {"label": number // 2 % 2}) + "\n" for number, row in enumerate(rows))
    Path("noise.jsonl").write_text(text)
    result = quals("calibrate", "noise.jsonl", "-o", "calibration.json")
    assert result.exit_code == 0 and Path("calibration.json").exists()
    assert "only 80 labelled summaries: below 100 the probabilities mean little" in result.stderr
    assert "all, cross-validated: the probabilities are no better than one probability for all" in result.stderr


def test_what_is_wrong_is_said_before_the_work(quals: Quals) -> None:
    for arguments, message in (
        (["calibrate", "labelled.jsonl", "-o", "calibration.txt"], "the name must end in .json"),
        (["calibrate", "labelled.jsonl", "-o", "c.json", "--calibration", "c.json"], "makes one and takes none"),
        (["calibrate", "labelled.jsonl", "-o", "c.json", "--html", "page.txt"], "must end in .html"),
        (["calibrate", "nothing.jsonl", "-o", "c.json"], "none is there"),
        (["agree", "labelled.jsonl", "--html", "page.txt"], "must end in .html"),
        (["agree", "labelled.jsonl", "--label-column", "gold"], "column 'gold' must be a number or null"),
        (["agree", "labelled.jsonl", "--consistent-from", "7"], "0 have one of at least 7"),
        (["agree", "labelled.jsonl", "--reader", "x"], "--metric quals does not have this option; qags has it"),
    ):
        result = quals(*arguments)
        assert result.exit_code and message in result.output + str(result.exception), arguments
    assert loaded == []


def test_all_scorers_load_before_one_scores(quals: Quals, monkeypatch: pytest.MonkeyPatch) -> None:
    assert quals("calibrate", "labelled.jsonl", "-o", "c.json").exit_code == 0
    monkeypatch.setattr(LengthScorer, "_score", lambda *_: pytest.fail("scored before the last scorer was loaded"))
    result = quals("agree", "labelled.jsonl", "--metric", "quals", "--metric", "qags", "--calibration", "c.json")
    assert "here metric is qags, not quals" in str(result.exception)


def test_labels_of_one_source_are_refused_before_the_work(quals: Quals) -> None:
    rewrite("one.jsonl", source="the source")
    result = quals("calibrate", "one.jsonl", "-o", "c.json")
    assert "must come from two sources or more, some consistent and some not" in str(result.exception)
    assert loaded == [] and not Path("c.json").exists()


@pytest.mark.parametrize("command", [["agree", "labelled.jsonl"], ["calibrate", "labelled.jsonl", "-o", "c.json"]])
def test_the_numbers_are_printed_before_the_page(
    quals: Quals, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    for name in ("agreement_page", "calibration_page"):
        monkeypatch.setattr(page, name, full)
    result = quals(*command, "--html", "page.html")
    assert "no space left" in str(result.exception) and "cross-validated" in result.stdout


def test_a_calibration_without_digests_of_its_data_can_be_measured(quals: Quals) -> None:
    assert quals("calibrate", "labelled.jsonl", "-o", "c.json").exit_code == 0
    shortened = json.loads(Path("c.json").read_text())
    for described in shortened["about"]["data"]:
        del described["sha256"]
    Path("short.json").write_text(json.dumps(shortened))
    assert quals("agree", "labelled.jsonl", "--calibration", "short.json").exit_code == 0


def rewrite(name: str, count: int | None = None, **columns: Any) -> None:
    """The first rows of the labels, with other columns; a function makes a value from the number of the row."""
    rows = [json.loads(row) for row in Path("labelled.jsonl").read_text().splitlines()][:count]
    made = (
        row | {column: value(number) if callable(value) else value for column, value in columns.items()}
        for number, row in enumerate(rows)
    )
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in made))


@pytest.mark.parametrize("column", ["QUALS", "copied 1-grams"])
def test_a_column_with_the_name_of_another_score(quals: Quals, column: str) -> None:
    rewrite("named.jsonl", **{column: 1})
    result = quals("agree", "named.jsonl", "--score-column", column, "--metric", "quals")
    assert f"a score column must not be named {column!r}: that is a score of this command" in str(result.exception)
    assert loaded == []


def test_labels_of_one_class_and_scores_that_say_nothing(quals: Quals) -> None:
    """One class is refused; equal scores are chance; two summaries are measured, with a warning."""
    rewrite("one.jsonl", label=1)
    refused = quals("agree", "one.jsonl")
    assert "must have consistent summaries and others; of 121 with a label, 121 have one of at least 1" in str(
        refused.exception
    )
    rewrite("equal.jsonl", 40, theirs=0.25, summary="x", label=lambda number: number % 2)
    equal = quals("agree", "equal.jsonl", "--score-column", "theirs", "--html", "page.html", "--json")
    assert equal.exit_code == 0, equal.output
    (found,) = json.loads(equal.stdout)
    statistics = found["scores"]["theirs"]["statistics"]
    assert statistics["Pearson"]["value"] is None and statistics["ROC AUC"] == {"value": 0.5, "interval": [0.5, 0.5]}
    assert len(found["reliability"][0]["bins"]) == 1
    assert "40 summaries. One point stands for all" in Path("page.html").read_text()
    rewrite("two.jsonl", 2, label=lambda number: number)
    two = quals("agree", "two.jsonl", "--score-column", "theirs", "--html", "page.html")
    assert two.exit_code == 0 and two.stdout.startswith("two.jsonl: 2 summaries of 1 source, 1 consistent\n")
    assert "only 1 source: below 30" in two.stderr and "<svg" not in Path("page.html").read_text()
    assert loaded == []


def test_a_calibration_of_scores_that_say_nothing(quals: Quals) -> None:
    for share, told in ((2, "every score has a probability of .5 or more"), (3, "no score has a probability of .5")):
        rewrite("equal.jsonl", 120, summary="x", label=lambda number, share=share: int(number % share == 0))
        result = quals("calibrate", "equal.jsonl", "-o", "c.json", "--overwrite")
        assert result.exit_code == 0 and told in result.stdout, result.output
        assert "all, cross-validated: the probabilities are no better than one probability for all" in result.stderr
    as_json = quals("calibrate", "equal.jsonl", "-o", "c.json", "--overwrite", "--json", "--html", "page.html")
    about = json.loads(as_json.stdout, parse_constant=pytest.fail)
    assert about["threshold"] is None and about["data"][0]["summaries"] == 120
    page = Path("page.html").read_text()
    assert "No score has a probability of .5." in page and "was made from 120 labelled summaries, of which 40" in page


def test_the_calibration_of_another_metric_or_model(quals: Quals) -> None:
    assert quals("calibrate", "labelled.jsonl", "-o", "c.json").exit_code == 0
    other = json.loads(Path("c.json").read_text())
    other["settings"]["model"] = "toy@2"
    Path("other.json").write_text(json.dumps(other))
    for options, message in (
        (["--metric", "qags", "--calibration", "c.json"], "here metric is qags, not quals. Make one for them"),
        (["--calibration", "other.json"], "here model is toy@1, not toy@2. Make one for them"),
    ):
        result = quals("agree", "labelled.jsonl", *options)
        assert message in str(result.exception), result.output


def test_passages(quals: Quals) -> None:
    """Labels of answers from retrieved passages: every answer is scored against all of its own."""
    rewrite("passages.jsonl", source=lambda number: [f"passage {number // 2}", "another"])
    result = quals("agree", "passages.jsonl")
    assert result.stdout.startswith("passages.jsonl: 120 summaries of 60 sources"), result.output
    assert result.stdout.rstrip().endswith("|passages:best")
    assert quals("calibrate", "passages.jsonl", "-o", "c.json").exit_code == 0


def test_without_scikit_learn(quals: Quals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what needs it asks for it."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for arguments in (["calibrate", "labelled.jsonl", "-o", "c.json"], ["agree", "labelled.jsonl", "--html", "p.html"]):
        with pytest.raises(ImportError, match=r"needs scikit-learn; .* pip install 'quals-metric\[calibrate\]'"):
            quals(*arguments, catch_exceptions=False)
    assert quals("agree", "second.jsonl").exit_code == 0
