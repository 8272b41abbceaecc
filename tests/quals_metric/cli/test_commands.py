from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from qa_inference import significance
from qa_inference.presets import PRESETS, QUESTION_PRESETS, READERS
from quals_metric import __version__
from quals_metric.app import server
from quals_metric.cli import commands as cli
from quals_metric.cli import file_commands, study
from quals_metric.cli.terminal import WIDTH, printable, rows_block, summary_block
from quals_metric.files import scoring
from quals_metric.files.tables import records
from quals_metric.metrics import METRICS
from quals_metric.report import writing
from quals_metric.report.examples import EXAMPLES
from quals_metric.result import PairScore, SummaryScore
from quals_metric.study import summary_pairs
from tests.qags_metric.conftest import FakeScorer as FakeQags
from tests.quals_metric.toy_metric import TOY


@pytest.fixture
def quals(fake_scorer: Any) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))


@pytest.mark.parametrize(
    ("command", "constants"),
    [
        (file_commands.score_command, {"shard_rows": scoring.SHARD_ROWS, "details": writing.DETAILS}),
        (file_commands.report_command, {"details": writing.DETAILS}),
        (
            file_commands.compare_command,
            {"resamples": significance.RESAMPLES, "trials": significance.TRIALS, "seed": significance.SEED,
             "details": writing.DETAILS},
        ),
        (cli.serve_command, {"host": server.HOST, "port": server.PORT}),
        (study.prepare_study, {"size": summary_pairs.SIZE, "seed": summary_pairs.SEED}),
        (study.serve_study, {"host": server.HOST, "port": server.PORT}),
    ],
)  # fmt: skip
def test_defaults_are_those_of_the_functions(command: Callable[..., None], constants: dict[str, Any]) -> None:
    """The command line states them again: its start must not import the files that have them."""
    parameters = inspect.signature(command).parameters
    assert {name: parameters[name].default for name in constants} == constants


def test_demo(quals: Callable[..., Result]) -> None:
    output = quals("demo").output
    for number, example in enumerate(EXAMPLES, start=1):
        assert f"{number}. {example.title}" in output
    assert output.count("QUALS ") == 2 * len(EXAMPLES)
    assert output.index("Klitschko has a chink") < output.index("Anthony Joshua has a chink") < output.index("2. ")
    assert output.splitlines()[-1] == "signature: fake:all"


def test_demo_as_json(quals: Callable[..., Result]) -> None:
    output = json.loads(quals("demo", "--json").output)
    assert [row["label"] for row in output["summaries"]] == ["faithful", "unfaithful"] * len(EXAMPLES)
    assert [row["source"] for row in output["summaries"][::2]] == [example.source for example in EXAMPLES]
    assert output["signature"] == "fake:all"


def test_the_examples_differ() -> None:
    for example in EXAMPLES:
        assert len({example.source, example.faithful, example.unfaithful}) == 3


def test_explain(quals: Callable[..., Result]) -> None:
    lines = quals("explain", "--source", "Ann won.", "--summary", "Bob won.").output.splitlines()
    assert lines == [
        "source: Ann won.",
        "",
        "summary: Bob won.",
        "  QUALS -1.000   (0 to 1: 0.368)",
        "    support  answer  question",
        "    -1.000   Bob     What is the first word?",
        "",
        "support: nats per token, the source against the summary. 0: the source supports a pair as well.",
        "signature: fake:all",
    ]


def test_explain_has_one_threshold_for_terminal_and_page(
    quals: Callable[..., Result], fake_scorer: Any, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    texts = ("--source", "Ann won.", "--summary", "Bob won.", "--html", str(page))
    assert "unsupported" not in quals("explain", *texts).output and "below -1.4" not in page.read_text()
    assert "unsupported (below -0.5): Bob" in quals("explain", *texts, "--threshold", "-0.5").output
    assert "below -0.5" in page.read_text()
    fake_scorer.made.clear()
    refused = quals("explain", *texts, "--threshold", "nan")
    assert "threshold: must be a number" in str(refused.exception) and not fake_scorer.made


def test_explain_two_summaries_of_a_file(quals: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "source.txt").write_text("Ann won €5.", encoding="utf-8")
    output = quals(
        "explain", "--source-file", str(tmp_path / "source.txt"), "--summary", "Ann won.", "--summary", " ", "--json"
    ).output
    rows = json.loads(output)["summaries"]
    assert [(row["label"], row["source"], row["score"]) for row in rows] == [
        ("summary 1", "Ann won €5.", 0.0),
        ("summary 2", "Ann won €5.", None),
    ]
    assert rows[0]["pairs"][0]["answer"] == "Ann"
    assert rows[1]["note"] == "blank summary"


def test_explain_by_passages(quals: Callable[..., Result], tmp_path: Path) -> None:
    """The source is what is repeated: texts or files. A question names its passage, in every output."""
    passages = ["Cy lost.", "Bob won."]
    files = [tmp_path / name for name in ("one.txt", "two.txt")]
    for file, text in zip(files, passages, strict=True):
        file.write_text(text)
    page = tmp_path / "page.html"
    of_texts = quals("explain", "--source", passages[0], "--source", passages[1], "--summary", "Bob won.")
    of_files = quals("explain", *(f"--source-file={file}" for file in files), "--summary=Bob won.", f"--html={page}")
    assert of_texts.output == of_files.output
    assert of_texts.output.splitlines()[:7] == [
        "passage 1: Cy lost.",
        "passage 2: Bob won.",
        "",
        "summary: Bob won.",
        "  QUALS 0.000   (0 to 1: 1.000)",
        "    support  answer  passage  question",
        "    0.000    Bob     2        What is the first word?",
    ]
    html = page.read_text()
    assert '<p class="note">Passage 2. ' in html and '<th scope="col">Passage</th>' in html
    assert html.count('<p class="note">Passage 1</p>') == 1  # above the first passage of the source
    output = quals("explain", "--source", passages[0], "--source", passages[1], "--summary", "Bob won.", "--json")
    (row,) = json.loads(output.output)["summaries"]
    assert row["source"] == passages and row["pairs"][0]["passage"] == 1
    empty = quals("explain", "--source", " ", "--source", "Bob", "--summary", "Bob won.")
    assert empty.output.splitlines()[:2] == ["passage 1: (empty)", "passage 2: Bob"]
    for wrong in ((), ("--source", "a", "--source-file", str(files[0]))):
        refused = quals("explain", "--summary", "b", *wrong)
        assert refused.exit_code == 2 and "one of --source and --source-file" in refused.output


def test_options_reach_the_scorer(quals: Callable[..., Result], fake_scorer: Any) -> None:
    options = "--model t5-small-squad-qag --tokens answer --max-pairs 3 --device cpu --revision main --local-files-only"
    result = quals("explain", "--source", "a", "--summary", "b", *options.split())
    assert result.exit_code == 0, result.output
    (config,) = fake_scorer.made
    assert (config.model, config.tokens, config.max_pairs) == ("t5-small-squad-qag", "answer", 3)
    assert (config.device, config.revision, config.local_files_only) == ("cpu", "main", True)


@pytest.fixture
def qags(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command with a scorer of QAGS that asks for the first word."""
    monkeypatch.setattr("qags_metric.scorer.QagsScorer", FakeQags)
    FakeQags.made = []
    return lambda command, *arguments: CliRunner().invoke(cli.app, [command, "--metric", "qags", *arguments])


def test_explain_by_qags(qags: Callable[..., Result]) -> None:
    lines = qags("explain", "--source", "Ann won.", "--summary", "Bob won.", "--summary", " ").output.splitlines()
    assert lines == [
        "source: Ann won.",
        "",
        "summary 1: Bob won.",
        "  QAGS 0.000",
        "    F1     summary says  source says  question",
        "    0.000  Bob           (nothing)    What is the first word?",
        "    unsupported (below 0.5): Bob (0.000)",
        "",
        "summary 2:",
        "  QAGS undefined: blank summary",
        "",
        "F1: the words that the answers from the summary and from the source share. 1: the same answer.",
        "signature: fake:20",
    ]


def test_demo_by_qags_as_json(qags: Callable[..., Result]) -> None:
    output = json.loads(qags("demo", "--json").output)
    assert len(output["summaries"]) == 2 * len(EXAMPLES) and output["signature"] == "fake:20"
    assert output["summaries"][0]["questions"][0]["summary_answer"]["text"] == "Klitschko"


def test_options_reach_the_scorer_of_qags(qags: Callable[..., Result]) -> None:
    options = "--model t5-base-qg-hl --reader tinyroberta-squad2 --max-questions 3 --reader-revision v1 --spacy-model x"
    options += " --max-per-answer 2"
    result = qags("explain", "--source", "a", "--summary", "b", *options.split())
    assert result.exit_code == 0, result.output
    (config,) = FakeQags.made
    assert (config.model, config.reader, config.max_questions) == ("t5-base-qg-hl", "tinyroberta-squad2", 3)
    assert (config.reader_revision, config.spacy_model, config.max_per_answer) == ("v1", "x", 2)


@pytest.mark.parametrize(
    ("metric", "arguments"),
    [
        ("qags", ["--tokens", "answer"]),
        ("qags", ["--max-pairs", "3"]),
        ("quals", ["--reader", "embedded"]),
        ("quals", ["--max-questions", "3"]),
        ("quals", ["--spacy-model", "x"]),
        ("quals", ["--reader-revision", "x"]),
    ],
)
def test_options_of_the_other_metric_are_refused(
    metric: str, arguments: list[str], quals: Callable[..., Result]
) -> None:
    result = quals("explain", "--metric", metric, "--source", "a", "--summary", "b", *arguments)
    other = {"quals": "qags", "qags": "quals"}[metric]
    assert result.exit_code == 2
    assert (
        f"Invalid value for {arguments[0]}: --metric {metric} does not have this option; {other} has it"
        in result.stderr
    )


@pytest.mark.parametrize("command", ["demo", "explain", "score"])
def test_the_options_are_those_of_the_configurations(command: str) -> None:
    """Every field that is offered to the command line, with its kind, its choices and its metrics, and no other."""
    declared = {name: (spec, about) for spec in METRICS.values() for name, about in spec.options().items()}
    offered = {name: both for name, both in declared.items() if both[1].kind is not None}
    group: Any = get_command(cli.app)
    parameters = {parameter.name: parameter for parameter in group.commands[command].params}
    assert {name for name in declared if name in parameters} == set(offered)
    for name, (spec, about) in offered.items():
        parameter = parameters[name]
        assert parameter.opts == ["--" + name.replace("_", "-")] and about.help in parameter.help
        shared = all(name in other.options() for other in METRICS.values())
        assert parameter.help.startswith(about.help if shared else f"{spec.title}: {about.help}")
        assert parameter.default == (False if about.kind is bool else None)
    assert "[default: 10]" in parameters["max_pairs"].help and "[default: embedded]" in parameters["reader"].help
    assert "[default: the best there is]" in parameters["device"].help and "[default" not in parameters["gguf"].help


def test_an_option_is_one_field(fake_scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field more in the configuration of QUALS: every command has the option, and it reaches the scorer."""
    spec = dataclasses.replace(METRICS["quals"], config="tests.quals_metric.toy_metric:ToyQualsConfig")
    monkeypatch.setitem(METRICS, "quals", spec)
    app = cli.make_app()
    for command in ("demo", "explain", "score"):
        output = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
        assert "--flavour <plain|spicy> QUALS: Flavour of the search. [default: plain]" in output
    assert CliRunner().invoke(app, ["demo", "--flavour", "spicy"]).exit_code == 0
    assert CliRunner().invoke(app, ["demo"]).exit_code == 0
    assert [config.flavour for config in fake_scorer.made] == ["spicy", "plain"]
    result = CliRunner().invoke(app, ["demo", "--metric", "qags", "--flavour", "spicy"])
    assert "Invalid value for --flavour: --metric qags does not have this option; quals has it" in result.stderr
    assert CliRunner().invoke(app, ["demo", "--flavour", "sweet"]).exit_code == 2


def test_a_metric_is_one_row_of_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A third metric on the command line, in a score file of either format, in a comparison and in a report."""
    monkeypatch.setitem(METRICS, "toy", TOY)
    monkeypatch.chdir(tmp_path)
    app = cli.make_app()

    def quals(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    helped = " ".join(quals("explain", "--help").split())
    assert "--metric <quals|qags|toy>" in helped and "--strict TOY: Compare capital letters too." in helped
    assert "QUALS: About how many pairs" in helped  # that only some metrics have it is said as before
    texts = ("--source", "Ann won.", "--summary", "Ann lost.")
    lines = quals("explain", "--metric", "toy", *texts, "--html", "one.html").splitlines()
    assert lines[2:7] == ["summary: Ann lost.", "  TOY 0.500", "    share  word", "    0.000  lost.", "    1.000  Ann"]
    assert lines[7:9] == ["    unsupported (below 0.5): lost. (0.000)", ""]
    assert lines[-2] == "share: 1 if the source has the word."
    assert lines[-1].startswith("signature: toy|words:2|strict:False|torch:")
    refused = CliRunner().invoke(app, ["demo", "--metric", "toy", "--max-pairs", "3"])
    assert "--metric toy does not have this option; quals has it" in refused.stderr

    rows = [{"summary": text, "source": "Ann won the cup."} for text in ("Ann won", "ann lost", "")]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for ending in ("jsonl", "parquet"):
        options = ("--metric", "toy", "--strict", "--words", "1", "--pairs", "--report", f"{ending}.html")
        assert quals("score", "in.jsonl", "-o", f"out.{ending}", *options).startswith("TOY        0.5")
        written = [row for _, row in records(Path(f"out.{ending}"))]
        assert [(row["score"], row["num_words"], row["note"]) for row in written] == [
            (1.0, 1, ""), (0.0, 1, ""), (None, 0, "blank summary")
        ]  # fmt: skip
        assert written[0]["words"][0]["answer"] == "Ann"
        assert json.loads(Path(f"out.{ending}.meta.json").read_text())["metric"] == "toy"
        page = Path(f"{ending}.html").read_text()
        for text in ("TOY report", "Every word is looked for", "Row 2: TOY 0.000", '<th scope="col">Word</th>'):
            assert text in page
        assert "<svg" not in page and "TOY 0.500" in Path("one.html").read_text()
    assert "\nb - a      0.0000 " in quals("compare", "out.jsonl", "out.parquet", "--metric", "toy")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--summary", "a"],
        ["--source", "a"],
        ["--source", "a", "--source-file", __file__, "--summary", "a"],
        ["--source", "a", "--summary", "a", "--summary", "b", "--summary", "c"],
        ["--source-file", "no such file", "--summary", "a"],
        ["--source", "a", "--summary", "a", "--tokens", "some"],
        ["--source", "a", "--summary", "a", "--beams", "4"],
    ],
)
def test_wrong_usage(arguments: list[str], quals: Callable[..., Result]) -> None:
    result = quals("explain", *arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "a", "--model", "no such folder"], "quals: model: must be a preset (embedded, "),
        (["--source", "a", "--max-pairs", "0"], "quals: max_pairs: must be an integer of at least 1; got 0"),
        (["--source-file", "latin1.txt"], "quals: latin1.txt must be UTF-8 text; at byte 3 it is not"),
    ],
)
def test_wrong_input_is_one_line_without_a_traceback(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9 ")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["quals", "explain", "--summary", "b", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_the_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUALS_DEBUG", "1")
    monkeypatch.setattr(
        "sys.argv", ["quals", "explain", "--source", "a", "--summary", "b", "--model", "no such folder"]
    )
    with pytest.raises(ValueError, match="must be a preset"):
        cli.main()


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("page.txt", "the page's name must end in .html; got 'page.txt'"),
        ("no/page.html", "its folder must exist; no does not"),
        ("x" * 256 + ".html", "cannot be written: File name too long"),
    ],
)
def test_21_d27_a_page_that_cannot_be_written_is_refused_before_scoring(
    page: str, message: str, quals: Callable[..., Result], fake_scorer: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = quals("explain", "--source", "a", "--summary", "b", "--html", page)
    assert result.exit_code and message in result.output + str(result.exception)
    assert fake_scorer.made == [] and list(tmp_path.iterdir()) == []


def test_21_d27_serve_takes_a_model(quals: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("quals_metric.app.serve", lambda *values, **more: calls.append((values, more)))
    quals("serve")
    quals("serve", "--metric", "qags", "--port", "1234", "--model", "owner/name")
    assert calls == [
        (("quals", "127.0.0.1", 7860), {"model": None, "auth": None, "allowed_hosts": ()}),
        (("qags", "127.0.0.1", 1234), {"model": "owner/name", "auth": None, "allowed_hosts": ()}),
    ]


def test_21_e_a_device_is_no_source(quals: Callable[..., Result]) -> None:
    result = quals("explain", "--source-file", "/dev/zero", "--summary", "b")
    assert "/dev/zero: must be a file with an end; it is a device" in str(result.exception)


def test_21_d22_a_question_is_printed_in_the_spelling_of_the_texts() -> None:
    pair = PairScore("what did ann lee ' s dog eat ?", "it", 0, 2, -1.0, (), (), ())
    block = summary_block("summary", SummaryScore(-1.0, (pair,), text="Ann Lee's dog ate it."))
    assert "What did Ann Lee's dog eat?" in block


def test_21_c19_one_function_makes_any_text_printable() -> None:
    assert printable("a\x1b[31mb\x07\x9bc\u202ed\ud800\ne") == "a [31mb  c d  e"
    assert printable("Ωmega – 他赢了 é") == "Ωmega – 他赢了 é"


def test_models(quals: Callable[..., Result]) -> None:
    rows = json.loads(quals("models", "--json").output)
    assert [row["name"] for row in rows] == [*PRESETS, *QUESTION_PRESETS, *READERS]
    assert {row["option"] for row in rows} == {"quals --model", "qags --model", "qags --reader"}
    assert all(row["licence"] and row["about"] and row["checkpoint"] for row in rows)
    assert str(Path.home()) not in quals("models").output
    assert all(name in quals("models").output for name in PRESETS)


def test_version_and_help(quals: Callable[..., Result]) -> None:
    assert quals("--version").output == f"quals-metric {__version__}\n"
    for command in ("compare", "demo", "explain", "models", "register", "score", "unregister"):
        assert command in quals("--help").output
        assert quals(command, "--help").exit_code == 0


@pytest.mark.parametrize(("command", "needed"), [("--help", set()), ("models", {"numpy"})])
def test_what_computes_nothing_imports_nothing_heavy(
    command: str, needed: set[str], run_python: Callable[..., Any]
) -> None:
    code = f"""
import sys
from quals_metric.app import server
from quals_metric.cli import commands as cli
from quals_metric.cli import file_commands, study
try:
    cli.app([{command!r}])
except SystemExit as ended:
    assert not ended.code
print(sorted({{"torch", "transformers", "datasets", "evaluate", "pandas", "numpy"}} & set(sys.modules)))
"""
    lines = run_python("-c", code).stdout.splitlines()
    assert len(lines) > 10 and lines[-1] == repr(sorted(needed))


def test_a_terminal_without_unicode(run_python: Callable[..., Any]) -> None:
    result = run_python("-m", "quals_metric", "models", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr


def test_pairs_with_least_support_come_first() -> None:
    pairs = tuple(
        PairScore(question=name, answer=name, start=0, end=1, score=score, tokens=(), summary_log_probs=(),
                  source_log_probs=())
        for name, score in (("fine", 0.25), ("zero", -0.0), ("bad", -2.0))
    )  # fmt: skip
    lines = summary_block("summary", SummaryScore(-0.583, pairs, text="x")).splitlines()
    assert [line.split()[:2] for line in lines[3:]] == [["-2.000", "bad"], ["0.000", "zero"], ["0.250", "fine"]]


def test_long_cells_are_wrapped_and_terminal_codes_removed() -> None:
    block = rows_block(("short", "long"), [("a\x1b[31m", "word " * 60), ("b" * 80, "")])
    assert "\x1b" not in block
    assert max(map(len, block.splitlines())) <= WIDTH + 2
