"""Do wheels of all dependencies exist for other versions of Python? Usage: python .ci/wheels.py [VERSION ...].

For each version (default: 3.12, 3.13 and 3.14) pip resolves the package with its extras to wheels for this platform,
with the pins of `constraints.txt` and without a compiler. Nothing is installed. It needs a package index. The exit
status is 1 if a version has no such wheels; pip says what is missing.

Left out are the extras that need a package of which no wheel exists: `train` and `lm-eval`. Their packages are pure
Python, and pip builds them. `inspect` and `lighteval` are left out because they contradict a pin.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {"dev", "inspect", "lighteval", "lm-eval", "train"}


def requirements() -> list[str]:
    """What the package and its extras require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return project["dependencies"] + [line for name in sorted(extras.keys() - LEFT_OUT) for line in extras[name]]


def wheels(version: str) -> list[str]:
    """The files that pip would install for a version of Python; empty if it finds none."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--only-binary=:all:", "--python-version", version, "--target", str(Path(folder, "target"))]
        command += ["--report", str(report), "--constraint", str(ROOT / "constraints.txt"), *requirements()]
        if subprocess.run(command, check=False).returncode:
            return []
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    return sorted(item["download_info"]["url"].rpartition("/")[2] for item in installed)


def main(versions: list[str]) -> int:
    """Print the wheels that are built for each version of Python. Returns the exit status."""
    status = 0
    for version in versions or ["3.12", "3.13", "3.14"]:
        files = wheels(version)
        compiled = [name for name in files if not name.endswith("-none-any.whl")]
        print(f"Python {version}:", f"{len(files)} wheels, {len(compiled)} of them compiled" if files else "no wheels")
        print("".join(f"  {name}\n" for name in compiled), end="", flush=True)
        status = status or int(not files)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
