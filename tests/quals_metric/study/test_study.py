from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import quals_metric
from quals_metric.cli import commands as cli
from quals_metric.cli.study import study_app
from quals_metric.study.judgments import (
    QUESTIONS,
    AnnotationSession,
    Judgment,
    JudgmentFile,
    StudyJudgments,
    annotator_name,
)
from quals_metric.study.summary_pairs import Study, SummaryPair, prepare, read_study
from quals_metric.study.table import agreement, sign_test, table_text, tabulate
from tests import PATIENCE

SOURCES = [f"source {n}" for n in range(60)]


def _write(path: Path, summaries: list[str], sources: list[str] | None = None) -> Path:
    rows = zip(sources or SOURCES, summaries, strict=True)
    lines = [{"source": x, "summary": y, "score": -n / 10 if n else None} for n, (x, y) in enumerate(rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two systems' score files: one row has a blank summary, two the same one."""
    second = [f"b says {n}" for n in range(60)]
    second[3], second[5], second[7] = " ", "a says 5", "a says 7 "
    return _write(tmp_path / "bart.jsonl", [f"a says {n}" for n in range(60)]), _write(
        tmp_path / "conseq.jsonl", second
    )


@pytest.fixture
def pairs(files: tuple[Path, Path], tmp_path: Path) -> Path:
    prepare(*files, tmp_path / "pairs.jsonl", size=20)
    return tmp_path / "pairs.jsonl"


# --- prepare


@pytest.mark.parametrize("size", [1, 20, 21, 57, 1000])
def test_pairs_are_balanced_and_true_to_the_files(size: int, files: tuple[Path, Path], tmp_path: Path) -> None:
    found = prepare(*files, tmp_path / "pairs.jsonl", size=size)
    study = read_study(tmp_path / "pairs.jsonl")
    assert found.pairs == len(study.pairs) == min(size, 57)
    assert (found.blank, found.equal, study.a, study.b) == (1, 2, "bart.jsonl", "conseq.jsonl")
    sides = Counter(pair.left_system for pair in study.pairs)
    assert abs(sides["a"] - sides["b"]) == found.pairs % 2
    for pair in study.pairs:
        row = pair.number - 1
        left, right = (pair.left, pair.right) if pair.left_system == "a" else (pair.right, pair.left)
        assert (pair.source, left, right) == (f"source {row}", f"a says {row}", f"b says {row}")
        assert pair.left_score == pair.right_score == (-row / 10 if row else None)
        assert row not in (3, 5, 7)


def test_the_seed_decides(files: tuple[Path, Path], tmp_path: Path) -> None:
    texts = []
    for name, seed in (("1", 1), ("again", 1), ("2", 2)):
        prepare(*files, tmp_path / f"{name}.jsonl", size=30, seed=seed)
        texts.append((tmp_path / f"{name}.jsonl").read_bytes())
    assert texts[0] == texts[1] != texts[2]


def test_the_sides_say_nothing(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Over seeds every row is as often on the one side as on the other: neither the order nor the row tells whose."""
    left = Counter[int]()
    for seed in range(200):
        prepare(*files, tmp_path / "pairs.jsonl", size=57, seed=seed, overwrite=True)
        left.update(pair.number for pair in read_study(tmp_path / "pairs.jsonl").pairs if pair.left_system == "a")
    assert len(left) == 57 and all(60 < count < 140 for count in left.values())  # 5.7 standard deviations


def test_scores_of_csv_files_are_numbers(files: tuple[Path, Path], tmp_path: Path) -> None:
    written = []
    for path in files:
        with path.with_suffix(".csv").open("w", newline="") as file:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        written.append(path.with_suffix(".csv"))
    prepare(*written, tmp_path / "of-csv.jsonl", size=20)
    prepare(*files, tmp_path / "of-json.jsonl", size=20)
    of_csv, of_json = (read_study(tmp_path / f"of-{kind}.jsonl") for kind in ("csv", "json"))
    assert [pair.left_score for pair in of_csv.pairs] == [pair.left_score for pair in of_json.pairs]
    assert any(pair.left_score for pair in of_csv.pairs)
    # Passages are JSON in a cell of CSV.
    (tmp_path / "a.csv").write_text('source,summary,score\n"[""p"", ""q""]",x,0\n')
    (tmp_path / "b.jsonl").write_text('{"source": ["p", "q"], "summary": "y", "score": 0}\n')
    prepare(tmp_path / "a.csv", tmp_path / "b.jsonl", tmp_path / "passages.jsonl")
    assert read_study(tmp_path / "passages.jsonl").pairs[0].source == "p\n\nq"


def test_half_characters_and_nothing_to_draw(tmp_path: Path) -> None:
    a, b = (_write(tmp_path / f"{name}.jsonl", [f"{name}\ud800 <sep>"], ["x"]) for name in "ab")
    prepare(a, b, tmp_path / "pairs.jsonl")
    assert {read_study(tmp_path / "pairs.jsonl").pairs[0].left[1]} == {"\ud800"}
    with pytest.raises(ValueError, match="must have a row with two different summaries; none has"):
        prepare(a, a, tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_what_cannot_be_prepared(files: tuple[Path, Path], tmp_path: Path) -> None:
    other = _write(tmp_path / "other.jsonl", ["x"] * 60, [*SOURCES[:-1], "another"])
    with pytest.raises(ValueError, match="same sources in the same order; row 60 differs"):
        prepare(files[0], other, tmp_path / "out.jsonl")
    (tmp_path / "bare.jsonl").write_text('{"score": 1}\n')
    with pytest.raises(ValueError, match=r"it has no 'summary'\. Score with --keep"):
        prepare(files[0], tmp_path / "bare.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match=r"must end in \.jsonl"):
        prepare(*files, tmp_path / "out.csv")
    with pytest.raises(FileExistsError, match="it is kept"):
        prepare(*files, other)
    with pytest.raises(ValueError, match="size: must be an integer of at least 1; got 0"):
        prepare(*files, tmp_path / "out.jsonl", size=0)


def test_files_that_are_no_study(files: tuple[Path, Path], pairs: Path) -> None:
    with pytest.raises(ValueError, match="line 1: must be a pair as `quals study prepare` writes it"):
        read_study(files[0])
    pairs.write_bytes(pairs.read_bytes() * 2)
    with pytest.raises(ValueError, match="each pair once"):
        read_study(pairs)


# --- Answers


def _study(sides: str) -> Study:
    pairs = [SummaryPair(n, "source", "left", "right", side, None, None) for n, side in enumerate(sides, 1)]
    return Study("a.jsonl", "b.jsonl", tuple(pairs), "key")


def _answer(pair: int, annotator: str = "ann", choice: str = "left", **choices: str) -> Judgment:
    chosen = dict.fromkeys(QUESTIONS, choice) | choices
    return Judgment("key", pair, annotator, time="2024-01-01T00:00:00+00:00", **chosen)


def test_the_last_answer_to_a_pair_counts(tmp_path: Path) -> None:
    file = JudgmentFile(tmp_path / "answers.jsonl")
    assert file.read(_study("ab")) == StudyJudgments((), 0)
    for answer in (_answer(1), _answer(2), _answer(1, "Zoë"), _answer(1, choice="equal")):
        file.append(answer)
    assert file.read(_study("ab")) == StudyJudgments((_answer(2), _answer(1, "Zoë"), _answer(1, choice="equal")), 0)


def test_every_torn_end_costs_one_answer_only(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    file = JudgmentFile(path)
    file.append(_answer(1))
    one = path.read_bytes()
    for cut in range(1, len(one) - 1):
        path.write_bytes(one + one[:cut])
        file.append(_answer(2))
        assert file.read(_study("ab")) == StudyJudgments((_answer(1), _answer(2)), 1)
    path.write_bytes(one[:-1])  # only the line's end was lost: nothing else is
    file.append(_answer(2))
    assert file.read(_study("ab")) == StudyJudgments((_answer(1), _answer(2)), 0)


WRITER = """
import sys
from quals_metric.study.judgments import AnnotationSession, JudgmentFile
from quals_metric.study.summary_pairs import read_study
session = AnnotationSession(read_study(sys.argv[1]), JudgmentFile(sys.argv[2]))
while (pair := session.next_pair("ann")) is not None:
    session.record("ann", pair.number, dict.fromkeys(("consistency", "informativeness", "grammar"), "left"))
    print(pair.number, flush=True)
"""


def test_a_kill_loses_at_most_the_answer_being_sent(files: tuple[Path, Path], tmp_path: Path) -> None:
    prepare(*files, tmp_path / "pairs.jsonl", size=57)
    study, answers = read_study(tmp_path / "pairs.jsonl"), JudgmentFile(tmp_path / "answers.jsonl")
    root = str(Path(quals_metric.__file__).parents[1])
    command = [sys.executable, "-c", WRITER, str(tmp_path / "pairs.jsonl"), str(answers.path)]
    told: list[int] = []
    rng = random.Random(0)
    for _ in range(57):  # each is killed after an answer or more
        process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": root}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        told += [int(process.stdout.readline() or 0)]
        time.sleep(rng.random() / 200)
        process.send_signal(signal.SIGKILL)
        output, error = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, -signal.SIGKILL), error
        told += map(int, output.split())
        found = answers.read(study)
        written = [answer.pair for answer in found.answers]
        # What was said to be saved is; beyond it at most what each killed process was about to tell.
        assert set(told) - {0} <= set(written)
        if len(written) == 57:
            break
    assert len(told) == len(set(told)) and len(written) == 57


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"study": "another"}, "line 1: must be an answer to these pairs"),
        ({"pair": 3}, "line 1: must be an answer to these pairs"),
        ({"pair": True}, "line 1: must be an answer as"),
        ({"grammar": "both"}, "line 1: must be an answer as"),
        ({"more": 1}, "line 1: must be an answer as"),
    ],
)
def test_lines_that_are_no_answers(line: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps(vars(_answer(1)) | line))
    with pytest.raises(ValueError, match=message):
        JudgmentFile(tmp_path / "answers.jsonl").read(_study("ab"))


def test_a_session_hands_out_every_pair_once_and_resumes(pairs: Path, tmp_path: Path) -> None:
    study, file = read_study(pairs), JudgmentFile(tmp_path / "answers.jsonl")
    choices = dict.fromkeys(QUESTIONS, "equal")
    orders: dict[str, list[int]] = {"ann": [], "ben": []}
    for turn, name in product(range(10), orders):
        session = AnnotationSession(study, file)  # as after a restart
        assert session.num_judged(name) == 2 * turn
        for _ in range(2):
            pair = session.next_pair(name)
            assert pair is not None
            orders[name].append(pair.number)
            session.record(name, pair.number, choices)
    numbers = sorted(pair.number for pair in study.pairs)
    assert all(sorted(order) == numbers != order for order in orders.values()) and orders["ann"] != orders["ben"]
    assert AnnotationSession(study, file).next_pair("ann") is None


def test_a_session_takes_whole_answers_only(pairs: Path, tmp_path: Path) -> None:
    session = AnnotationSession(read_study(pairs), JudgmentFile(tmp_path / "answers.jsonl"))
    pair = session.next_pair("ann")
    assert pair is not None
    whole = dict.fromkeys(QUESTIONS, "left")
    for choices in ({}, whole | {"grammar": None}, whole | {"grammar": "Left is better"}):
        with pytest.raises(ValueError, match="choose left, equal or right"):
            session.record("ann", pair.number, choices)
    with pytest.raises(ValueError, match="must be one of the study; got 0"):
        session.record("ann", 0, whole)
    assert not (tmp_path / "answers.jsonl").exists() and session.next_pair("ann") == pair


def test_names() -> None:
    assert annotator_name("  Ann\tSmith ") == annotator_name("ann smith") == "ann smith"
    for name in ("", " \n", "x" * 41):
        with pytest.raises(ValueError, match="name: must have 1 to 40 characters"):
            annotator_name(name)


# --- The table


# Two-sided binomial tests of 1/2 by R's binom.test.
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 5, 1.0),
        (9, 1, 22 / 1024),
        (1, 9, 22 / 1024),
        (10, 0, 2 / 1024),
        (60, 40, 0.05688793364098078),
        (1200, 1000, 2.2e-05),
    ],
)
def test_sign_test(first: int, second: int, expected: float) -> None:
    assert sign_test(first, second) == pytest.approx(expected, rel=0.01)
    from scipy.stats import binomtest

    if first + second:
        assert sign_test(first, second) == pytest.approx(binomtest(first, first + second).pvalue, rel=1e-9)


def test_agreement_is_krippendorffs() -> None:
    """Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", example C: four observers, twelve units; the
    paper has alpha 0.743 for nominal, 0.815 for ordinal and 0.849 for interval data."""
    rows = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    units = [[int(value) for value in unit if value != "."] for unit in zip(*map(str.split, rows), strict=True)]
    assert agreement(units) == pytest.approx(0.815, abs=0.0005)


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ([], math.nan),
        ([[1], [-1], [0]], math.nan),
        ([[1, 1], [1, 1]], math.nan),
        ([[1, 1], [-1, -1], [0, 0]], 1.0),
    ],
)
def test_agreement_where_there_is_little_to_say(units: list[list[int]], expected: float) -> None:
    assert agreement(units) == pytest.approx(expected, nan_ok=True)


def test_a_table_by_hand() -> None:
    """Three annotators, four pairs. Of consistency, as b against a (b is on the left in pairs 2 and 4):

    ann +1 +1 -1 0; ben +1 -1 -1; cid +1 0. So 4 of 9 better, 3 worse, 2 equal; by pairs + 0 - 0.
    """
    answers = (
        _answer(1, "ann", "right", grammar="equal"),
        _answer(2, "ann", "left", grammar="equal"),
        _answer(3, "ann", "left", grammar="equal"),
        _answer(4, "ann", "equal", grammar="equal"),
        _answer(1, "ben", "right", grammar="equal"),
        _answer(2, "ben", "right", grammar="equal"),
        _answer(3, "ben", "left", grammar="equal"),
        _answer(1, "cid", "right", grammar="equal"),
        _answer(2, "cid", "equal", grammar="equal"),
    )
    table = tabulate(_study("abab"), StudyJudgments(answers, 1))
    row = table.questions[0]
    assert (row.question, row.better, row.worse, row.equal) == ("consistency", 4 / 9, 3 / 9, 2 / 9)
    assert (row.pairs_better, row.pairs_worse, row.p_value) == (1, 1, 1.0)
    assert row.alpha == pytest.approx(agreement([[1, 1, 1], [1, -1, 0], [-1, -1]]))
    assert table.questions[1] == replace(row, question="informativeness")
    grammar = table.questions[2]
    assert (grammar.better, grammar.worse, grammar.equal, grammar.p_value) == (0, 0, 1, 1)
    assert math.isnan(grammar.alpha) and table.to_dict()["questions"][2]["alpha"] is None
    assert (table.num_answers, table.num_pairs, table.num_annotators, table.num_torn) == (9, 4, 3, 1)
    lines = table_text(table).splitlines()
    assert lines[0] == "b: b.jsonl, judged against a: a.jsonl"
    assert lines[2].split() == ["b", "better", "b", "worse", "equal", "p", "alpha"]
    assert lines[3].split()[:5] == ["consistency", "44.4%", "33.3%", "22.2%", "1.0000"]
    assert lines[5].split() == ["grammar", "0.0%", "0.0%", "100.0%", "1.0000", "undefined"]
    assert lines[7] == "9 answers by 3 annotators to 4 pairs" and lines[-1].startswith("1 incomplete lines skipped")


def test_exchanging_the_systems_turns_the_table() -> None:
    rng = random.Random(3)
    answers = [_answer(n, who, rng.choice(["left", "equal", "right"])) for n in range(1, 31) for who in ("x", "y")]
    sides = "".join(rng.choice("ab") for _ in range(30))
    found = [
        tabulate(_study(order), StudyJudgments(tuple(answers), 0)).questions[0]
        for order in (sides, sides.translate(str.maketrans("ab", "ba")))
    ]
    assert (found[0].better, found[0].worse, found[0].equal) == (found[1].worse, found[1].better, found[1].equal)
    assert (found[0].p_value, found[0].alpha) == pytest.approx((found[1].p_value, found[1].alpha))


def test_no_answers() -> None:
    with pytest.raises(ValueError, match="answers: must not be empty; got 0"):
        tabulate(_study("ab"), StudyJudgments((), 0))


# --- The command


def test_from_score_files_to_the_table(files: tuple[Path, Path], tmp_path: Path) -> None:
    def quals(*arguments: object) -> str:
        result = CliRunner().invoke(cli.app, ["study", *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.stdout

    pairs, answers = tmp_path / "pairs.jsonl", tmp_path / "answers.jsonl"
    assert quals("prepare", *files, "-o", pairs, "--size", 10, "--seed", 4) == (
        f"wrote {pairs}: 10 pairs\nleft out: 1 rows with a blank text, 2 with the same summary twice\n"
    )
    study = read_study(pairs)
    session = AnnotationSession(study, JudgmentFile(answers))
    for name in ("ann", "ben"):
        for pair in study.pairs:  # b is better, but for one pair
            left = (pair.left_system == "b") == (pair is not study.pairs[0])
            session.record(name, pair.number, dict.fromkeys(QUESTIONS, "left" if left else "right"))
    row = json.loads(quals("report", pairs, "--answers", answers, "--json"))["questions"][0]
    assert (row["better"], row["worse"], row["equal"], row["alpha"]) == (0.9, 0.1, 0.0, 1.0)
    assert row["p_value"] == pytest.approx(22 / 1024)
    assert quals("report", pairs, "--answers", answers).splitlines()[3].split() == [
        "consistency", "90.0%", "10.0%", "0.0%", "0.0215", "1.000"
    ]  # fmt: skip
    assert {command.name for command in study_app.registered_commands} == {"prepare", "serve", "report"}
    assert "prepare" in quals("--help") and "serve" in quals("--help")


def test_21_c19_a_pairs_file_moves_no_cursor(pairs: Path, tmp_path: Path) -> None:
    """Whoever wrote the pairs may have named a system so that a terminal hides or rewrites what follows."""
    evil = "\x1b[2J\x1b]0;title\x07\x9b31mb\u202e.jsonl\n"
    lines = [json.loads(line) | {"b": evil} for line in pairs.read_text().splitlines()]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    study, answers = read_study(pairs), JudgmentFile(tmp_path / "answers.jsonl")
    AnnotationSession(study, answers).record("ann", study.pairs[0].number, dict.fromkeys(QUESTIONS, "equal"))
    for options in ([], ["--json"]):
        arguments = ["study", "report", str(pairs), "--answers", str(answers.path), *options]
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, result.output
        assert all(line.isprintable() for line in result.stdout.split("\n")), result.stdout
        assert "jsonl" in result.stdout


def test_21_c18_the_command_takes_a_password(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr("quals_metric.study.interface.serve", lambda *files, **options: served.append(options))
    monkeypatch.delenv("QUALS_AUTH", raising=False)
    for arguments in ([], ["--host", "0.0.0.0", "--auth", "ann:secret", "--allowed-host", "lab.edu"]):
        files = [str(pairs), "--answers", str(tmp_path / "answers.jsonl")]
        assert CliRunner().invoke(cli.app, ["study", "serve", *files, *arguments]).exit_code == 0
    assert served == [
        {"host": "127.0.0.1", "port": 7860, "auth": None, "allowed_hosts": ()},
        {"host": "0.0.0.0", "port": 7860, "auth": "ann:secret", "allowed_hosts": ["lab.edu"]},
    ]


# --- The page


@pytest.fixture
def gradio() -> Any:
    return pytest.importorskip("gradio", reason="the extra `app` is not installed")


def _page(pairs: Path, answers: Path) -> Any:
    from quals_metric.study.interface import AnnotationPage

    return AnnotationPage(AnnotationSession(read_study(pairs), JudgmentFile(answers)))


@pytest.mark.usefixtures("gradio")
def test_a_page_leads_through_the_pairs(pairs: Path, tmp_path: Path) -> None:
    page = _page(pairs, tmp_path / "answers.jsonl")
    shown = page.start(" Ann ")
    seen = []
    for done in range(20):
        message, annotator, number, source, left, right, form, *radios = shown
        assert message == f"{done} of 20 pairs judged. " and annotator == "ann" and form["visible"]
        assert radios == [None] * 3 and source.startswith("source ") and left != right
        seen.append(number)
        if done == 7:  # another day
            page = _page(pairs, tmp_path / "answers.jsonl")
            assert page.start("ANN") == shown
        shown = page.save(annotator, number, "left", "equal", "right")
    assert len(set(seen)) == 20
    assert shown[0].startswith("20 of 20 pairs judged. You have judged all pairs") and not shown[6]["visible"]
    found = JudgmentFile(tmp_path / "answers.jsonl").read(read_study(pairs)).answers
    assert [answer.pair for answer in found] == seen
    assert {(x.consistency, x.informativeness, x.grammar) for x in found} == {("left", "equal", "right")}


@pytest.mark.usefixtures("gradio")
def test_a_page_saves_nothing_by_halves(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = _page(pairs, tmp_path / "answers.jsonl")
    assert page.start(" ")[0].startswith("Please enter a name") and page.start("x" * 50)[1] == ""
    number = page.start("ann")[2]
    assert page.save("", None, "left", "left", "left")[0] == "Please start with your name."
    assert page.save("ann", number, "left", None, "left")[0].startswith("**Not saved:** please answer all three")
    assert not (tmp_path / "answers.jsonl").exists()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    shown = page.save("ann", number, "left", "left", "left")
    assert "No space left on device" in shown[0] and len(shown) == 10
    monkeypatch.undo()
    assert page.start("ann")[2] == number
    assert page.save("ann", number, "left", "left", "left")[0].startswith("1 of 20")


@pytest.mark.usefixtures("gradio")
def test_the_page_is_built_without_analytics(pairs: Path, run_python: Callable[..., Any]) -> None:
    """In a process of its own: building a page leaves event loops open, which is an error here."""
    code = f"""
import json, os
from quals_metric import study
from quals_metric.study import judgments, summary_pairs
session = judgments.AnnotationSession(summary_pairs.read_study({str(pairs)!r}), judgments.JudgmentFile("answers.jsonl"))
blocks = study.build(session)
print(json.dumps([
    blocks.analytics_enabled,
    os.environ["GRADIO_ANALYTICS_ENABLED"],
    sorted({{function.api_visibility for function in blocks.fns.values()}}),
    [getattr(block, "label", None) for block in blocks.blocks.values()],
    json.dumps(blocks.get_config_file(), default=str),
]))
"""
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr
    enabled, variable, visibility, labels, config = json.loads(result.stdout.splitlines()[-1])
    assert (enabled, variable, visibility) == (False, "False", ["private"])
    assert {"Source", "Left summary", "Right summary", *QUESTIONS.values()} <= set(labels)
    # The people must not see whose summary is whose.
    assert not [name for name in ("left_system", "bart.jsonl", "conseq.jsonl") if name in config]


@pytest.mark.usefixtures("gradio")
def test_serve(pairs: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = str(Path(quals_metric.__file__).parents[1])
    arguments = ["study", "serve", str(pairs), "--answers", str(tmp_path / "answers.jsonl"), "--port", str(port)]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "quals_metric", *arguments],
            env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        page = ""
        while not page and process.poll() is None:
            time.sleep(0.2)
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/config") as answer:
                page = answer.read().decode()
        assert "Which summary is better?" in page, log.read_text()
        assert not [name for name in ("left_system", "bart.jsonl", "conseq.jsonl", "a says") if name in page]
        stranger = json.dumps(
            {"data": [{"path": f"http://127.0.0.1:{port}/config"}], "fn_index": 0, "session_hash": "s"}
        )
        request = urllib.request.Request(f"http://127.0.0.1:{port}/gradio_api/queue/join", stranger.encode())
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request)
    finally:
        process.kill()
        process.wait()


def test_without_the_extra(pairs: Path, run_python: Callable[..., Any], tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["gradio"] = sys.modules["krippendorff"] = None
from quals_metric import study
from quals_metric.study import table
for call in (lambda: study.serve({str(pairs)!r}, "answers.jsonl"), lambda: table.agreement([[0, 1]])):
    try:
        call()
    except ImportError as error:
        print(error, "|", type(error.__cause__).__name__)
"""
    result = run_python("-c", code)
    assert result.stdout.splitlines() == [
        f"{name}: must be installed for `quals study {command}`. pip install 'quals-metric[app]' | ModuleNotFoundError"
        for name, command in (("gradio", "serve"), ("krippendorff", "report"))
    ], result.stderr


def test_nothing_heavy_is_imported_early(run_python: Callable[..., Any]) -> None:
    code = """
import sys
import quals_metric.study.interface, quals_metric.cli.study, quals_metric.study.table
print(sorted({"gradio", "torch", "transformers", "krippendorff"} & set(sys.modules)))
"""
    result = run_python("-c", code)
    assert result.stdout.strip() == "[]", result.stderr
