"""What README.md and the metric cards tell people to type is run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qa_inference.presets import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CARD = (ROOT / "spaces" / "quals" / "README.md").read_text(encoding="utf-8")
TRAINING = "trainer.train()"

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


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert found
    return found


def test_readme_python(run_python: Callable[..., Any]) -> None:
    assert run_python("-m", "quals_metric", "register").returncode == 0
    result = run_python("-c", "\n".join(block for block in blocks(README, "python") if TRAINING not in block))
    assert result.returncode == 0, result.stderr
    assert "nan" not in result.stdout


def test_readme_training(run_python: Callable[..., Any], tmp_path: Path) -> None:
    (block,) = (block for block in blocks(README, "python") if TRAINING in block)
    result = run_python("-c", block)
    assert result.returncode == 0, result.stderr
    samples = [json.loads(line) for line in next(tmp_path.rglob("quals_samples.jsonl")).read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [6] * 4 + [12] * 4
    assert result.stdout.count("'eval_quals': ") == 2 and any(sample["score"] is not None for sample in samples[4:])


def test_card_python(run_python: Callable[..., Any]) -> None:
    result = run_python("-c", "\n".join(blocks(CARD, "python")))
    assert result.returncode == 0, result.stderr


def test_readme_commands(run_python: Callable[..., Any]) -> None:
    lines = [line for block in blocks(README, "bash") for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("quals ")]
    assert len(commands) > 3
    for command in commands:
        result = run_python("-m", "quals_metric", *command)
        assert result.returncode == 0, result.stderr
        assert result.stdout


def test_readme_names_the_two_commands() -> None:
    assert blocks(README, "bash")[:2] == [
        "pip install -c constraints.txt . && quals demo\n",
        "pip install -c constraints.txt '.[dev]' && pytest\n",
    ]


def test_readme_names_the_presets() -> None:
    for preset in PRESETS.values():
        assert f"`{preset.name}`" in README
        assert f'`"{preset.name}"`' in CARD
        assert f"| {preset.licence} |" in README


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")), ids=lambda path: path.name)
def test_links_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_card_has_the_sections_of_the_template() -> None:
    headings = [line for line in CARD.splitlines() if line.startswith("#")]
    assert [heading.removesuffix(" QUALS") for heading in headings] == SECTIONS


def test_card_front_matter() -> None:
    front = CARD.split("---\n")[1].splitlines()
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    version = next(line for line in front if line.startswith("sdk_version: ")).removeprefix("sdk_version: ")
    assert f"gradio=={version}" in pins
    assert {"sdk: gradio", 'python_version: "3.11"', "- evaluate", "- metric", "license: apache-2.0"} <= set(front)
