"""What is pushed to the Hub: the Spaces' folders, and the program that uploads them."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from quals_metric import __version__
from tests import programs

ROOT = Path(__file__).parents[1]
NAMES = ("quals", "qags")


@pytest.fixture(scope="module")
def push() -> ModuleType:
    return programs.load("spaces/push.py")


class FakeApi:
    """Knows two calls: any other is an AttributeError, one that tags a Space above all."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, *, repo_type: str, space_sdk: str, exist_ok: bool) -> None:
        self.calls.append(f"create {repo_type} {repo_id} {space_sdk} {exist_ok}")

    def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: str, commit_message: str) -> str:
        self.calls.append(f"upload {repo_type} {repo_id}: {commit_message}")
        self.files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        return "https://hub/commit"


def test_the_real_api_takes_these_arguments() -> None:
    from inspect import signature

    from huggingface_hub import HfApi

    for name in ("create_repo", "upload_folder"):
        assert set(signature(getattr(FakeApi, name)).parameters) <= set(signature(getattr(HfApi, name)).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_dry_run_is_the_default(name: str, push: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    api = FakeApi()
    push.main([name, f"somebody/{name}"], api)
    assert api.calls == []
    assert "dry run" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "extra"), [("quals", ""), ("qags", "[qags-en]")])
def test_push(name: str, extra: str, push: ModuleType) -> None:
    api = FakeApi()
    push.main([name, f"somebody/{name}", "--push"], api)
    own = f"quals-metric{extra}=={__version__}"
    assert api.calls == [f"create space somebody/{name} gradio True", f"upload space somebody/{name}: {own}"]
    folder = ROOT / "spaces" / name
    assert set(api.files) == {"README.md", "app.py", f"{name}.py", "requirements.txt"}
    for path in set(api.files) - {"requirements.txt"}:
        assert api.files[path] == (folder / path).read_bytes()
    lines = api.files["requirements.txt"].decode().splitlines()
    assert lines[0] == own and all("==" in line for line in lines)
    constraints = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    assert set(lines[1:]) <= set(constraints) and any(line.startswith("torch==") for line in lines)
    assert any(line.startswith("spacy==") for line in lines) == (name == "qags")


@pytest.mark.parametrize("repo", ["quals", "somebody/other", "somebody/quals/x", "a b/quals"])
def test_the_space_is_called_as_the_metric(repo: str, push: ModuleType) -> None:
    with pytest.raises(SystemExit):
        push.main(["quals", repo, "--push"], FakeApi())


def test_what_is_not_pinned_is_refused(push: ModuleType) -> None:
    pins = push._pins()
    with pytest.raises(ValueError, match="torch is not"):
        push.pinned("quals-metric>=0.1.0", {name: pin for name, pin in pins.items() if name != "torch"})
    with pytest.raises(ValueError, match="must be one line"):
        push.pinned("quals-metric\n", pins)


@pytest.mark.parametrize("name", NAMES)
def test_the_app_is_three_lines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr("quals_metric.app.serve", lambda metric, **settings: served.append((metric, settings)))
    path = ROOT / "spaces" / name / "app.py"
    assert len(path.read_text().splitlines()) == 3
    runpy.run_path(str(path), run_name="__main__")
    assert served == [(name, {"host": "0.0.0.0"})]


@pytest.mark.parametrize("name", NAMES)
def test_front_matter(name: str) -> None:
    front = (ROOT / "spaces" / name / "README.md").read_text(encoding="utf-8").split("---\n")[1].splitlines()
    assert {"sdk: gradio", 'python_version: "3.11"', "app_file: app.py", "- evaluate", "- metric"} <= set(front)
