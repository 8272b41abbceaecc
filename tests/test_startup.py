"""benchmarks/startup.py: processes that are started and timed, and the table."""

from __future__ import annotations

import os

import pytest

from tests import programs

startup = programs.load("benchmarks/startup.py")


def test_a_process_is_timed_as_a_whole() -> None:
    """Its waiting on the clock only, its work on the processor too."""
    waiting = startup.run("waiting", "import time; time.sleep(0.5)", os.environ)
    working = startup.run("working", "import time\nwhile time.process_time() < 0.5: pass", os.environ)
    assert waiting.clock - waiting.processor > 0.45  # whatever the rest of it takes; the processor's clock has steps
    assert 0.5 <= working.processor <= working.clock + 0.1


def test_what_the_program_measured_itself() -> None:
    assert startup.run(startup.LOADING, "print(1.5, 0.25)", os.environ) == startup.Taken(1.5, 0.25)


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(SystemExit, match=r"(?s)it failed:.*no-such-thing"):
        startup.run("it", "raise RuntimeError('no-such-thing')", os.environ)


def test_every_repeat_but_the_first_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([9.0, 9.0, 2.0, 1.0, 4.0, 3.0, 3.0, 1.0])
    monkeypatch.setattr(startup, "PROGRAMS", {"import transformers": "", "other": "", "rouge": "{rouge}"})
    monkeypatch.setattr(
        startup,
        "run",
        lambda name, *_: startup.Taken(0, 0) if name == "registering" else startup.Taken(next(seconds), 0.5),
    )
    startup.main(["--repeats", "3"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows == [
        "| import transformers | 3.00 (2.00 to 4.00) | 0.50 | 1.00 |",
        "| other | 1.00 (1.00 to 3.00) | 0.50 | 0.50 |",
    ]
    with pytest.raises(SystemExit):
        startup.main(["--repeats", "0"])


def test_the_programs_of_the_table_run() -> None:
    """Those that take less than a second; the others are what tests of evaluate's door and of the scorer do."""
    for name in ("python", "import quals_metric", "quals --help"):
        assert startup.run(name, startup.PROGRAMS[name], os.environ).clock > 0
