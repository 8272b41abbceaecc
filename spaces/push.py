"""Upload a metric's Space to the Hub, every version pinned.

    python spaces/push.py quals OWNER/quals            # a dry run: says what would be uploaded
    python spaces/push.py quals OWNER/quals --push     # uploads, as whoever `hf auth login` or HF_TOKEN says

The metric of `evaluate.load("OWNER/quals")` is the newest commit: a Space gets no tags, because evaluate would take one
that is named as its own release for the metric's. The package has to be on the package index first.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "quals-metric"
NAMES = ("quals", "qags")


def main(argv: Sequence[str] | None = None, api: Any = None) -> None:
    """Upload a Space, or say what would be.

    Args:
        argv: the command line; None: the process's.
        api: a `huggingface_hub.HfApi`; None: made when it is needed.

    Raises:
        ValueError: if something that must be pinned is not, or the card names another Gradio than was tested.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES, help="which metric")
    parser.add_argument("repo", help="the Space: OWNER/NAME, the name being the metric's")
    parser.add_argument("--push", action="store_true", help="upload; otherwise this is a dry run")
    options = parser.parse_args(argv)
    if not re.fullmatch(rf"[\w.-]+/{options.name}", options.repo):
        parser.error(f"repo: must be OWNER/{options.name}, as evaluate looks for {options.name}.py; got {options.repo}")
    staged = contents(options.name)
    for path, data in staged.items():
        print(f"{path}: {len(data):,} bytes")
    print(staged["requirements.txt"].decode(), end="")
    if options.push:
        upload(staged, options.repo, api)
    else:
        print(f"dry run: nothing was uploaded to {options.repo}; add --push")


def contents(name: str) -> dict[str, bytes]:
    """What a Space holds, by path: its folder's files with the requirements pinned."""
    folder = ROOT / "spaces" / name
    staged = {path: (folder / path).read_bytes() for path in ("README.md", f"{name}.py", "app.py")}
    pins = _pins()
    sdk = re.search(r"^sdk_version: (\S+)$", staged["README.md"].decode(), flags=re.MULTILINE)
    if sdk is None or sdk[1] != pins["gradio"]:
        raise ValueError(
            f"spaces/{name}/README.md: sdk_version must be constraints.txt's gradio, {pins['gradio']}; got "
            f"{sdk[1] if sdk else 'none'}. Test the app with the version, then change both"
        )
    staged["requirements.txt"] = pinned((folder / "requirements.txt").read_text(encoding="utf-8"), pins).encode()
    return staged


def pinned(requirements: str, pins: dict[str, str]) -> str:
    """Requirements on the package as this version of it with the tested version of all it depends on, a line each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    package = (ROOT / "qa_inference" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "([^"]+)"', package, flags=re.MULTILINE)
    found = re.fullmatch(rf"{PACKAGE}(?:\[([\w,-]+)\])?>=\S+", requirements.strip())
    if version is None or found is None:  # the package's own file has one, so it is the requirement
        raise ValueError(f"requirements.txt: must be one line, {PACKAGE}>=VERSION; got {requirements!r}")
    extras = found[1].split(",") if found[1] else []
    needed = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    names = sorted({_normal(re.split(r"[\s<>=!~;\[]", requirement)[0]) for requirement in needed})
    if missing := [name for name in names if name not in pins]:
        raise ValueError(
            f"constraints.txt: must pin all dependencies; {', '.join(missing)} is not. Add what was tested"
        )
    own = f"{PACKAGE}[{found[1]}]" if found[1] else PACKAGE
    return "\n".join([f"{own}=={version[1]}", *(f"{name}=={pins[name]}" for name in names)]) + "\n"


def upload(staged: dict[str, bytes], repo: str, api: Any = None) -> None:
    """Make the Space if it is not there, and upload the files in one commit."""
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    with tempfile.TemporaryDirectory() as folder:
        for path, data in staged.items():
            Path(folder, path).write_bytes(data)
        api.create_repo(repo, repo_type="space", space_sdk="gradio", exist_ok=True)
        first = staged["requirements.txt"].decode().splitlines()[0]
        commit = api.upload_folder(repo_id=repo, repo_type="space", folder_path=folder, commit_message=first)
    print(f"uploaded to {repo}: {commit}")


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    split = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {_normal(name): version.strip() for name, version in split}


def _normal(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"push: {error}")
