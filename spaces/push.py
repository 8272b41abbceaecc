"""Upload a metric's Space to the Hub, with every dependency pinned.

    python spaces/push.py quals OWNER/quals            # dry run: lists the files
    python spaces/push.py quals OWNER/quals --push     # uploads as the user of `hf auth login` or HF_TOKEN

`evaluate.load("OWNER/quals")` loads the newest commit. A Space gets no tags: evaluate would load a tag that has the
name of evaluate's own release. The package must be on the package index before its Space.
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
    """Upload a Space, or list its files.

    Args:
        argv: the command line; None: that of the process.
        api: a `huggingface_hub.HfApi`; None: made when needed.

    Raises:
        ValueError: if a dependency is not pinned, or the card names a Gradio version that was not tested.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES, help="metric")
    parser.add_argument("repo", help="Space: OWNER/NAME, where NAME is the metric's")
    parser.add_argument("--push", action="store_true", help="upload; without it this is a dry run")
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
    """The files of a Space by path, with the requirements pinned."""
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
    """The requirement on the package, pinned to this version, and its dependencies, pinned to the tested versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    package = (ROOT / "qa_inference" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "([^"]+)"', package, flags=re.MULTILINE)
    requirement = re.fullmatch(rf"{PACKAGE}(?:\[([\w,-]+)\])?>=\S+", requirements.strip())
    if version is None or requirement is None:  # the package has a version, so the requirement is wrong
        raise ValueError(f"requirements.txt: must be one line, {PACKAGE}>=VERSION; got {requirements!r}")
    extras = requirement[1].split(",") if requirement[1] else []
    optional = project["optional-dependencies"]
    needed = [*project["dependencies"], *(name for extra in extras for name in optional[extra])]
    names = sorted({_normal(re.split(r"[\s<>=!~;\[]", specifier)[0]) for specifier in needed})
    if missing := [name for name in names if name not in pins]:
        raise ValueError(
            f"constraints.txt: must pin all dependencies; {', '.join(missing)} is not. Add the tested version"
        )
    own = f"{PACKAGE}[{requirement[1]}]" if requirement[1] else PACKAGE
    return "\n".join([f"{own}=={version[1]}", *(f"{name}=={pins[name]}" for name in names)]) + "\n"


def upload(staged: dict[str, bytes], repo: str, api: Any = None) -> None:
    """Create the Space if it does not exist, and upload the files in one commit."""
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
    """The normalized name of a distribution, by which the package index compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"push: {error}")
