from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from quals_metric.cli import file_commands
from quals_metric.cli.options import with_metrics
from quals_metric.config import QualsConfig
from quals_metric.files.shards import Job, Plan
from quals_metric.files.tables import records
from quals_metric.scorer import QualsScorer
from tests import tiny
from tests.qags_metric.conftest import FakeScorer as FakeQags
from tests.quals_metric.files.score_program import QuickScorer
from tests.quals_metric.report.compared_files import write_system

Quals = Callable[..., Result]
asked: list[dict[str, Any]] = []


def _load(metric: str, **options: Any) -> QuickScorer:
    asked.append({name: value for name, value in options.items() if value is not None})
    return QuickScorer()


@pytest.fixture
def quals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quals:
    """The two commands, with a quick scorer, in an empty folder with one input."""
    asked.clear()
    monkeypatch.setattr(file_commands, "load_scorer", _load)
    monkeypatch.chdir(tmp_path)
    rows = [{"id": n, "summary": f"summary {n}" if n else "", "source": f"source {n}"} for n in range(20)]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("score")(with_metrics(file_commands.score_command))
    app.command("compare")(with_metrics(file_commands.compare_command))
    return lambda *arguments, **options: CliRunner().invoke(app, list(arguments), **options)


def test_score(quals: Quals) -> None:
    result = quals("score", "in.jsonl", "-o", "out.jsonl")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("QUALS      -1.") and " 95 % interval -" in lines[0] and "(0 to 1: 0." in lines[0]
    assert lines[1:] == [
        "rows       20, of which 1 undefined; 0 summaries and 0 sources in windows",
        "written    out.jsonl",
        "signature: quick",
    ]
    assert result.stderr == ""  # it is no terminal
    assert len(list(records(Path("out.jsonl")))) == 20


def test_score_as_json(quals: Quals) -> None:
    output = json.loads(quals("score", "in.jsonl", "-o", "out.parquet", "--json", "--shard-rows", "7").stdout)
    assert output["rows"] == 20 and output["num_undefined"] == 1 and output["signature"] == "quick"
    assert output["output"] == "out.parquet" and output["low"] < output["score"] < output["high"]


def test_score_by_qags(quals: Quals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same scores with questions, in both formats; and what is unfinished of one metric is not the other's."""
    monkeypatch.setattr(file_commands, "load_scorer", lambda metric, **_: FakeQags())
    FakeQags.made = []
    Path("in.jsonl").write_text(
        "".join(json.dumps({"summary": f"word{n % 2} is" if n else "", "source": "word1", "num_pairs": n}) + "\n"
                for n in range(6))
    )  # fmt: skip
    rows = {}
    for ending in ("jsonl", "parquet"):
        arguments = ("score", "in.jsonl", "-o", f"out.{ending}", "--metric", "qags", "--pairs", "--keep")
        result = quals(*arguments)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[0].startswith("QAGS       0.6000   95 % interval ") and "(0 to 1" not in lines[0]
        assert lines[-1] == "signature: fake:20"
        rows[ending] = [row for _, row in records(Path(f"out.{ending}"))]
        assert json.loads(Path(f"out.{ending}.meta.json").read_text())["metric"] == "qags"
    assert rows["jsonl"] == rows["parquet"]
    assert [row["score"] for row in rows["jsonl"]] == [None, 1, 0, 1, 0, 1]
    first = rows["jsonl"][2]
    assert list(first) == ["summary", "source", "num_pairs", "score", "score_01", "num_questions", "note", "questions"]
    (question,) = first["questions"]
    assert question["answer"] == "word0" and question["summary_answer"]["text"] == "word0"
    assert question["source_answer"] == {"text": "", "start": -1, "end": -1, "confidence": None}


def test_scores_of_two_metrics_are_not_compared(quals: Quals, monkeypatch: pytest.MonkeyPatch) -> None:
    assert quals("score", "in.jsonl", "-o", "a.jsonl").exit_code == 0
    assert quals("compare", "a.jsonl", "a.jsonl", "--metric", "quals").exit_code == 0
    for metric, found in (("qags", "quals"), ("quals", "qags")):
        about = json.loads(Path("a.jsonl.meta.json").read_text())
        Path("a.jsonl.meta.json").write_text(json.dumps(about | {"metric": found}))
        with pytest.raises(ValueError, match=f"must be scores of {metric}; a.jsonl has those of {found}"):
            quals("compare", "a.jsonl", "a.jsonl", "--metric", metric, catch_exceptions=False)
    Path("b.jsonl").write_bytes(Path("a.jsonl").read_bytes())
    Path("b.jsonl.meta.json").write_text(json.dumps(about | {"metric": "quals"}))
    with pytest.raises(
        ValueError, match=r"must be scores of the same metric; a.jsonl has .* qags, b.jsonl has .* quals"
    ):
        quals("compare", "a.jsonl", "b.jsonl", catch_exceptions=False)


def test_a_job_of_one_metric_is_not_the_others() -> None:
    plan = Plan(("digest",), 1, 1, "sources")
    keys = {Job(plan, {"metric": metric, "signature": "same"}).key for metric in ("quals", "qags")}
    assert len(keys) == 2


def test_undefined_scores_are_said(quals: Quals) -> None:
    Path("in.jsonl").write_text('{"summary": "", "source": "b"}\n')
    assert quals("score", "in.jsonl", "-o", "out.jsonl").stdout.splitlines()[0] == (
        "QUALS      undefined   95 % interval undefined to undefined   (0 to 1: undefined)"
    )


def test_options_of_the_model(quals: Quals) -> None:
    options = "--model t5-small-squad-qag --tokens answer --max-pairs 3 --device cpu --dtype float32 --revision main"
    assert quals("score", "in.jsonl", "-o", "out.jsonl", *options.split(), "--local-files-only").exit_code == 0
    (found,) = asked
    assert QualsConfig(**found) == QualsConfig(
        model="t5-small-squad-qag", tokens="answer", max_pairs=3, device="cpu", dtype="float32", revision="main",
        local_files_only=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "embeded"], "model: must be a preset"),
        (["--dtype", "float8"], "dtype: must be one of float32, bfloat16, float16; got 'float8'"),
        (["--preset", "agreement", "--tokens", "all"], "'agreement' stands for tokens='balanced'; got tokens='all'"),
        (["--metric", "qags", "--reader", "reeder"], "reader: must be a preset"),
    ],
)
def test_options_are_checked_before_the_input_is_read(
    quals: Quals, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr(file_commands, "_input_rows", lambda *_: pytest.fail("the input was read first"))
    assert message in str(quals("score", "in.jsonl", "-o", "out.jsonl", *options).exception)
    assert asked == []


def test_columns_text_files_and_standard_input(quals: Quals) -> None:
    Path("hyp.txt").write_text("a b\nc d\n")
    Path("doc.txt").write_text("e\nf\n")
    assert quals("score", "--summaries", "hyp.txt", "--sources", "doc.txt", "-o", "text.jsonl").exit_code == 0
    lines = '{"hyp": "a b", "doc": "e"}\n{"hyp": "c d", "doc": "f"}\n'
    columns = ("--summary-column", "hyp", "--source-column", "doc")
    assert quals("score", "-", "-o", "stdin.jsonl", *columns, input=lines).exit_code == 0
    assert Path("stdin.jsonl").read_bytes() == Path("text.jsonl").read_bytes()
    Path("named.jsonl").write_text(lines)
    assert quals("score", "named.jsonl", "-o", "named-out.jsonl", *columns, "--keep", "--pairs").exit_code == 0
    (_, first), _ = records(Path("named-out.jsonl"))
    assert list(first) == ["hyp", "doc", "score", "score_01", "num_pairs", "note", "pairs"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "out.jsonl"],
        ["in.jsonl"],
        ["in.jsonl", "--summaries", "a", "--sources", "b", "-o", "out.jsonl"],
        ["--summaries", "a", "-o", "out.jsonl"],
        ["--summaries", "a", "--sources", "b", "--keep", "-o", "out.jsonl"],
        ["in.jsonl", "-o", "out.jsonl", "--shard-rows", "0"],
    ],
)
def test_wrong_usage(arguments: list[str], quals: Quals) -> None:
    result = quals("score", *arguments)
    assert result.exit_code == 2 and "Error: " in result.stderr
    assert not Path("out.jsonl").exists()


def test_only_rank_0_prints(quals: Quals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    result = quals("score", "in.jsonl", "-o", "out.jsonl")
    assert (result.exit_code, result.output) == (0, "")


def test_compare(quals: Quals) -> None:
    Path("a.jsonl").write_text("".join(json.dumps({"score": -n / 10}) + "\n" for n in range(10)))
    Path("b.jsonl").write_text("".join(json.dumps({"score": -n / 11 if n else None}) + "\n" for n in range(10)))
    result = quals("compare", "a.jsonl", "b.jsonl")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("a          -0.5000   95 % interval -0.") and lines[0].endswith("   a.jsonl")
    assert lines[1].startswith("b          -0.4545   95 % interval -0.") and lines[1].endswith("   b.jsonl")
    assert lines[2].startswith("b - a      0.0455   95 % interval 0.0")
    assert lines[3].startswith("p          0.0") and lines[3].endswith(" paired bootstrap (1,000 resamples)")
    assert lines[4].endswith(" paired approximate randomization (10,000 trials)")
    assert lines[5:] == ["rows       9 compared, 1 left out: undefined in a or b", "seed       12345"]
    assert [line[:50] for line in result.stderr.splitlines()] == [
        "quals: warning: a.jsonl and b.jsonl: it is unknown",
        "quals: warning: a.jsonl and b.jsonl: the signature",
        "quals: warning: only 9 rows are compared: below 10",
    ]


def test_compare_as_json(quals: Quals) -> None:
    for name in ("a", "b"):
        assert quals("score", "in.jsonl", "-o", f"{name}.jsonl").exit_code == 0
    result = quals("compare", "a.jsonl", "b.jsonl", "--json", "--trials", "50", "--resamples", "20", "--seed", "3")
    output = json.loads(result.stdout)
    assert result.stderr == ""
    assert output["difference"] == 0 and output["p_bootstrap"] == output["p_randomization"] == 1
    assert (output["trials"], output["resamples"], output["seed"], output["num_undefined"]) == (50, 20, 3, 1)


def test_23_10_several_systems(quals: Quals) -> None:
    """A table, the best first, and every pair; the same as JSON; and a page."""
    steps = {"a": 0.0, "b": 0.5, "c": -0.1}
    for name, step in steps.items():
        write_system(Path(f"{name}.jsonl"), [-n / 11 - step for n in range(12)])
    files = [f"{name}.jsonl" for name in steps]
    result = quals("compare", *files, "--report", "page.html", "--details", "3")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [(line[0], line[1], *line[-2:]) for line in lines[1:4]] == [
        ("c", "-0.4000", "0", "c.jsonl"), ("a", "-0.5000", "0", "a.jsonl"), ("b", "-1.0000", "0", "b.jsonl")
    ]  # fmt: skip
    assert [line[:4] for line in lines[6:9]] == [
        ["b", "-", "a", "-0.5000"], ["c", "-", "a", "0.1000"], ["c", "-", "b", "0.6000"]
    ]  # fmt: skip
    assert result.stdout.splitlines()[10:] == [
        "rows       12 compared, 0 left out: undefined in a system",
        "p          paired bootstrap (1,000 resamples), paired approximate randomization",
        "           (10,000 trials), and the latter after Holm's correction for 3 pairs",
        "seed       12345",
    ]
    assert Path("page.html").read_text().count('class="entry"') == 3
    output = json.loads(quals("compare", *files, "--json").stdout)
    assert [system["file"] for system in output["systems"].values()] == files
    assert [round(pair["difference"], 9) for pair in output["pairs"]] == [-0.5, 0.1, 0.6]
    assert all(pair["p_holm"] >= pair["p_randomization"] for pair in output["pairs"]) and output["num_rows"] == 12


def test_23_10_a_comparison_that_cannot_be(quals: Quals) -> None:
    """Whatever is wrong with the page is found before the work."""
    assert quals("score", "in.jsonl", "-o", "a.jsonl").exit_code == 0
    write_system(Path("full.jsonl"), [-1.0] * 20)
    assert "give the score files of two or more systems; got 1" in quals("compare", "a.jsonl").stderr
    assert "the page's name must end in .html" in quals("compare", "a.jsonl", "a.jsonl", "--report", "a.txt").stderr
    with pytest.raises(ValueError, match=r"a\.jsonl: must have the columns .* Score with --keep --pairs"):
        quals("compare", "full.jsonl", "a.jsonl", "--report", "page.html", catch_exceptions=False)
    with pytest.raises(ValueError, match=r"must have the columns 'summary' and 'document'"):
        quals("compare", "full.jsonl", "full.jsonl", "--report", "page.html", "--source-column", "document",
              catch_exceptions=False)  # fmt: skip
    assert not Path("page.html").exists()


def test_21_d26_a_comparison_of_few_rows_says_so(quals: Quals) -> None:
    for name, step in (("a", 0.0), ("b", 0.5)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps({"score": -n / 7 - step}) + "\n" for n in range(4)))
    result = quals("compare", "a.jsonl", "b.jsonl")
    assert "only 4 rows are compared: below 10 rows the tests and the intervals mean little." in result.stderr
    assert "With 4 rows, randomization gives a p of at least 0.12" in result.stderr


def test_21_d25_progress_by_row_with_rate_and_time_left(quals: Quals, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar on a terminal moves within a shard; a run that goes on does not count the rows of the run before."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    class Slow(QuickScorer):
        def score(self, *, on_batch: Any, **texts: Any) -> Any:  # type: ignore[override]
            for done in (5, 10):
                now[0] += 20
                on_batch(done, 10)
            return super().score(**texts)

    class Stopped(QuickScorer):
        def score(self, **texts: Any) -> Any:
            if "summary 19" in texts["summaries"]:
                raise KeyboardInterrupt
            return super().score(**texts)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    job = {"output": Path("out.jsonl"), "inputs": ["in.jsonl"], "shard_rows": 10}
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(file_commands, "load_scorer", lambda *_, **__: Stopped())
    with pytest.raises(KeyboardInterrupt):
        file_commands.score_command(**job)  # type: ignore[arg-type]
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setattr(file_commands, "load_scorer", lambda *_, **__: Slow())
    file_commands.score_command(**job)  # type: ignore[arg-type]
    shown = [line.strip() for line in terminal.getvalue().split("\r") if "/20" in line]
    assert [re.sub(r"\|.*\|", "", line) for line in shown] == [
        "QUALS:  75% 15/20 [00:20<00:20,  4.00s/row]",
        "QUALS: 100% 20/20 [00:40<00:00,  4.00s/row]",
        "QUALS: 100% 20/20 [00:40<00:00,  4.00s/row]",
    ]


def test_21_d27_scores_as_csv(quals: Quals) -> None:
    """With the kept columns in one header, and read again by `compare` and by `score`."""
    rows = [{"id": n, "summary": f"a {n}, \ud800", "source": 'b "c"\nd'} for n in range(11)]
    rows[0]["summary"], rows[9]["late"] = "", {"x": [1.5, None, True]}
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for ending in ("csv", "jsonl"):
        result = quals("score", "in.jsonl", "-o", f"out.{ending}", "--keep", "--shard-rows", "4")
        assert result.exit_code == 0, result.output
    written = [row for _, row in records(Path("out.csv"))]
    assert list(written[0]) == ["id", "summary", "source", "late", "score", "score_01", "num_pairs", "note"]
    assert [row["score"] == "" for row in written] == [n == 0 for n in range(11)]
    assert written[9]["late"] == '{"x": [1.5, null, true]}' and written[2]["summary"] == "a 2, \ufffd"
    assert written[2]["source"] == rows[2]["source"] and written[2]["id"] == "2"
    comparison = json.loads(quals("compare", "out.csv", "out.jsonl", "--json").stdout)
    assert comparison["difference"] == 0 and comparison["num_rows"] == 10
    for more in (["--pairs"], ["--report", "out.html"]):
        result = quals("score", "in.jsonl", "-o", "other.csv", *more)
        assert result.exit_code and "CSV" in (result.output + str(result.exception))
    assert not Path("other.csv.unfinished").exists()


def test_21_c19_nothing_of_a_file_moves_the_cursor(quals: Quals) -> None:
    evil = "a\x1b]0;x\x07\x1b[2J.jsonl"
    Path(evil).write_text("".join(json.dumps({"score": -n}) + "\n" for n in range(12)))
    result = quals("compare", evil, evil)
    assert result.exit_code == 0 and "\x1b" not in result.output and "\x07" not in result.output


def test_21_e_closed_standard_input(run_python: Callable[..., Any], tmp_path: Path) -> None:
    code = f"""
import os, sys
sys.stdin = None  # as Python has it after <&-
sys.argv = ["quals", "score", "-", "-o", {str(tmp_path / "out.jsonl")!r}]
from quals_metric.cli import main
main()
"""
    result = run_python("-c", code)
    assert result.returncode == 2
    assert result.stderr == "quals: -: standard input is closed. Send JSON lines to it, or name a file\n"


def test_nothing_heavy_is_imported_before_it_is_needed(run_python: Callable[..., Any]) -> None:
    code = """
import sys
import quals_metric.cli.file_commands
early = {"torch", "transformers", "numpy", "pyarrow"} & set(sys.modules)
import quals_metric.files.scoring, quals_metric.files.compare
print(sorted(early), sorted({"torch", "transformers", "pyarrow"} & set(sys.modules)))
"""
    result = run_python("-c", code)
    assert result.stdout.strip() == "[] []", result.stderr


def test_a_real_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as from Python, shard by shard."""
    folder = tiny.trained(tmp_path / "model")
    summaries = [tiny.CORPUS[0], "Anthony Joshua won.", "", tiny.CORPUS[3]] * 2
    sources = [tiny.CORPUS[n % 4] for n in range(8)]
    rows = zip(summaries, sources, strict=True)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"summary": a, "source": b}) + "\n" for a, b in rows))
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("score")(with_metrics(file_commands.score_command))
    arguments = [str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--model", str(folder), "--pairs"]
    result = CliRunner().invoke(app, [*arguments, "--shard-rows", "3", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    expected = QualsScorer(QualsConfig(model=str(folder), device="cpu")).score(summaries=summaries, sources=sources)
    written = [row for _, row in records(tmp_path / "out.jsonl")]
    assert [row["num_pairs"] for row in written] == [len(summary.pairs) for summary in expected.summaries]
    assert sum(row["num_pairs"] for row in written) > 0
    for row, summary in zip(written, expected.to_dict()["summaries"], strict=True):
        assert row["score"] == (None if summary["score"] is None else pytest.approx(summary["score"], abs=1e-5))
        assert [pair["answer"] for pair in row["pairs"]] == [pair["answer"] for pair in summary["pairs"]]
    assert result.stdout.splitlines()[-1] == f"signature: {expected.signature}"
    assert json.loads((tmp_path / "out.jsonl.meta.json").read_text())["signature"] == expected.signature
