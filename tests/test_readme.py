"""What README.md, the pages in docs/ and the metric cards tell people to type is run."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qa_inference.presets import PRESETS
from tests import programs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CARDS = {name: (ROOT / "spaces" / name / "README.md").read_text(encoding="utf-8") for name in ("quals", "qags")}
# The log is a record: what its commands did depends on files that are gone.
GUIDE = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.md"))
    if path.name != "training-log.md"
}
PAGES = {"README.md": README, **GUIDE}
TRAINING = "trainer.train()"
LEARNING = ("training.md", "conseq.md")  # pages whose examples train a model

# Every language that a block may have, and what happens to it. `python` and `bash` are run here as they stand. `sh`
# needs more than this machine, or people, or does not end by itself: its options are looked up. `py` is a whole
# program, which a test of its own runs: test_datasets_map.py and, in integrations/, test_inspect_ai.py,
# test_lighteval.py, test_rows.py and test_trl.py. `slurm` is a batch script, which test_rows.py runs. The rest is not
# to be typed.
LANGUAGES = {"python", "bash", "sh", "py", "slurm", "text", "bibtex"}

# The sections of evaluate's metric card template, in its order.
SECTIONS = """
# Metric Card for
## Metric Description
## How to Use
### Inputs
### Output Values
#### Values from Popular Papers
### Examples
## Limitations and Bias
## Citation
## Further References
""".strip().splitlines()

# Runs the examples of all pages in one process, which imports everything once. A page has its own names and folder.
EXAMPLES_PROGRAM = """
import json, os, sys
from pathlib import Path

sources, files = (json.loads(Path(path).read_text()) for path in sys.argv[1:])
for page, source in sources.items():
    Path(page).mkdir()
    os.chdir(page)
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    print("page", page)
    exec(compile(source, page, "exec"), {"__name__": page})
    os.chdir("..")
"""

# A page's `quals` commands, one after the other, each as its own process would: by the package's __main__.
COMMANDS_PROGRAM = """
import shlex
for line in {lines!r}:
    print("command", line, flush=True)
    sys.argv = shlex.split(line)
    try:
        runpy.run_module("quals_metric", run_name="__main__")
    except SystemExit as error:
        if error.code:
            raise
"""

# What evaluate.load("rouge") finds without a network: a metric that needs references, as ROUGE does.
ROUGE = """
import datasets
import evaluate


class Rouge(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {"rouge1": sum(map(str.__eq__, predictions, references)) / len(predictions)}
"""


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert found
    return found


def lines(text: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in found for line in block.splitlines()]


def given_files() -> dict[str, str]:
    """The files that a page's commands read: three systems' summaries of the same sources, and their labels."""
    sources = ["The council approved the new bridge on Monday.", "Ann Lee won the cup in Perth in 1998."]
    systems = {
        "outputs_a.jsonl": ["The council approved a bridge.", "Ann Lee won the cup in Perth."],
        "outputs_b.jsonl": ["The mayor rejected a tunnel.", "Bo Ray won the cup."],
        "outputs_c.jsonl": ["The council approved a bridge on Monday.", "Ann Lee won in 1998."],
    }
    systems["summaries.jsonl"] = systems["outputs_a.jsonl"]
    files = {
        name: "".join(
            json.dumps({"summary": a, "source": b, "kind": kind}) + "\n"
            for a, b, kind in zip(summaries, sources, ("council", "sports"), strict=True)
        )
        for name, summaries in systems.items()
    }
    labelled = [
        {"source": source, "summary": summary, "label": label, "their_score": 2 * label}
        for label, name in enumerate(("outputs_b.jsonl", "outputs_a.jsonl"))
        for summary, source in zip(systems[name], sources, strict=True)
    ]
    files["labelled.jsonl"] = "".join(json.dumps(row) + "\n" for row in labelled)
    texts = {"out.txt": systems["summaries.jsonl"], "in.txt": sources}
    return files | {name: "\n".join(some) + "\n" for name, some in texts.items()}


def run_pages(run_python: Callable[..., Any], folder: Path, sources: dict[str, str]) -> Any:
    (folder / "pages.json").write_text(json.dumps(sources))
    (folder / "files.json").write_text(json.dumps({**given_files(), "rouge/rouge.py": ROUGE}))
    result = run_python("-c", EXAMPLES_PROGRAM, str(folder / "pages.json"), str(folder / "files.json"))
    assert result.returncode == 0, result.stderr + result.stdout
    assert result.stdout.count("page ") >= len(sources)
    return result


def test_every_block_says_what_it_is() -> None:
    for name, text in PAGES.items():
        fences = re.findall(r"^ *```(.*)$", text, flags=re.MULTILINE)
        assert len(fences) % 2 == 0 and not any(fences[1::2]), name
        assert set(fences[::2]) <= LANGUAGES, name
        assert not re.search(r"^ +```", text, flags=re.MULTILINE), f"{name}: an indented block would not be run"
    programs = {name: len(blocks(text, "py")) for name, text in PAGES.items() if "```py\n" in text}
    assert programs == {"several-gpus.md": 1, "harnesses.md": 2, "rewards.md": 2, "scale.md": 2}


def test_readme_python(run_python: Callable[..., Any]) -> None:
    assert run_python("-m", "quals_metric", "register").returncode == 0
    result = run_python("-c", "\n".join(blocks(README, "python")))
    assert result.returncode == 0, result.stderr
    assert "nan" not in result.stdout


def test_guide_python(run_python: Callable[..., Any], tmp_path: Path) -> None:
    pages = {
        name: "\n".join(blocks(text, "python"))
        for name, text in GUIDE.items()
        if "```python\n" in text and name not in LEARNING
    }
    assert len(pages) > 4
    register = {"register": "import quals_metric\nquals_metric.register()"}
    result = run_pages(run_python, tmp_path, register | pages)
    assert "nan" not in result.stdout


def test_guide_training(run_python: Callable[..., Any], tmp_path: Path) -> None:
    pages = {name: "\n".join(blocks(GUIDE[name], "python")) for name in LEARNING}
    assert all(TRAINING in source for source in pages.values())
    result = run_pages(run_python, tmp_path, pages)
    samples = [json.loads(line) for line in next(tmp_path.rglob("quals_samples.jsonl")).read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [6] * 4 + [12] * 4
    assert result.stdout.count("'eval_quals': ") == 2 and any(sample["score"] is not None for sample in samples[4:])
    assert "'unlikelihood': " in result.stdout.partition("page conseq.md")[2]


def test_card_python(run_python: Callable[..., Any], tmp_path: Path) -> None:
    run_pages(run_python, tmp_path, {name: "\n".join(blocks(card, "python")) for name, card in CARDS.items()})


def test_readme_commands(run_python: Callable[..., Any]) -> None:
    commands = [shlex.split(line)[1:] for line in lines(README, "bash") if line.startswith("quals ")]
    assert len(commands) > 3
    for command in commands:
        result = run_python("-m", "quals_metric", *command)
        assert result.returncode == 0, result.stderr
        assert result.stdout


def test_guide_commands(run_python: Callable[..., Any], tmp_path: Path) -> None:
    commands = {name: lines(text, "bash") for name, text in GUIDE.items()}
    assert all(line.startswith("quals ") for some in commands.values() for line in some)
    sources = {
        name: "import runpy, sys\n" + COMMANDS_PROGRAM.format(lines=some) for name, some in commands.items() if some
    }
    assert len(sources) > 5
    result = run_pages(run_python, tmp_path, sources)
    printed = re.split(r"^command .*\n", result.stdout, flags=re.MULTILINE)[1:]
    assert len(printed) == sum(map(len, commands.values()))
    assert all(re.sub(r"^page .*\n", "", text, flags=re.MULTILINE).strip() for text in printed)
    assert {path.suffix for path in tmp_path.rglob("scores.*")} >= {".jsonl", ".parquet"}


def test_commands_that_are_not_run_have_these_options(run_python: Callable[..., Any]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    helps: dict[tuple[str, ...], str] = {}
    for name, text in PAGES.items():
        for line in lines(text, "sh"):
            words = shlex.split(line)
            if words[0] == "pip":
                for some in re.findall(r"\.\[([^]]*)\]", line):
                    assert set(some.split(",")) <= set(extras), f"{name}: {line}"
            elif words[0] in ("torchrun", "accelerate") and words[-1] == "program.py":
                continue
            elif words[0] in ("lm_eval", "lighteval", "inspect"):
                continue  # commands of other libraries
            elif words[0] == "python":
                path = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
                source = (ROOT / path).read_text(encoding="utf-8")
                assert all(f'"{word}"' in source for word in words if word.startswith("--")), f"{name}: {line}"
            else:
                rest = words[words.index("quals_metric" if words[0] == "accelerate" else "quals") + 1 :]
                command = tuple(rest[: 2 if rest[0] == "study" else 1])
                if command not in helps:
                    helps[command] = run_python("-m", "quals_metric", *command, "--help").stdout
                    assert "Usage" in helps[command], f"{name}: {line}"
                options = [word for word in rest if re.match("--?[a-z]", word)]
                assert all(re.search(rf"(?<![\w-]){word}(?![\w-])", helps[command]) for word in options), line


def test_readme_names_the_two_commands() -> None:
    assert blocks(README, "bash")[:2] == [
        "pip install -c constraints.txt . && quals demo\n",
        "pip install -c constraints.txt '.[dev]' && pytest\n",
    ]


def test_the_guide_names_the_presets() -> None:
    page = GUIDE["models.md"]
    for preset in PRESETS.values():
        assert f"`{preset.name}`" in page
        assert f'`"{preset.name}"`' in CARDS["quals"]
        assert f"| {preset.licence} |" in page


def test_options_are_those_of_the_configurations() -> None:
    tables = programs.load(".ci/option_tables.py")
    assert "<!-- options: quals -->" in GUIDE["python.md"] and "<!-- options: qags -->" in GUIDE["qags.md"]
    for name, text in GUIDE.items():
        assert tables.written(text) == text, f"{name}: run python .ci/option_tables.py"


def test_numbers_in_the_guide_are_those_of_the_results() -> None:
    measured = " ".join(
        (ROOT / path).read_text(encoding="utf-8") for path in ("benchmarks/RESULTS.md", "docs/training-log.md")
    )
    number = r"-?(?<![\w.])\d*\.\d+|\d{3,}"
    known = {value.lstrip("0").replace("-0.", "-.") for value in re.findall(number, measured)}
    for name in ("README.md", "agreement.md", "speed.md"):
        rows = [line for line in PAGES[name].splitlines() if line.startswith("|") and not line.startswith("| I want")]
        assert rows
        for row in rows:
            values = re.findall(number, row.replace("SmolLM2-135M", "").replace("Gemma 3 270M", ""))
            assert {value.lstrip("0").replace("-0.", "-.") for value in values} <= known, f"{name}: {row}"


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "RESULTS.md"]),
    ids=lambda path: path.name,
)
def test_links_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("name", CARDS)
def test_card_has_the_sections_of_the_template(name: str) -> None:
    headings = [line for line in CARDS[name].splitlines() if line.startswith("#")]
    assert [heading.removesuffix(f" {name.upper()}") for heading in headings] == SECTIONS


@pytest.mark.parametrize("name", CARDS)
def test_card_front_matter(name: str) -> None:
    front = CARDS[name].split("---\n")[1].splitlines()
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    version = next(line for line in front if line.startswith("sdk_version: ")).removeprefix("sdk_version: ")
    assert f"gradio=={version}" in pins
    assert {"sdk: gradio", 'python_version: "3.11"', "- evaluate", "- metric", "license: apache-2.0"} <= set(front)
