"""The house of CONTRIBUTING.md, read off the syntax trees: rooms, doors, and each name once."""

from __future__ import annotations

import ast
from collections import defaultdict
from fnmatch import fnmatch
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("qa_inference", "quals_metric", "qags_metric")

# From the ground up. A file imports from its own room and from those above it in this list; the first pattern counts.
ROOMS = (
    ("qa_inference.lazy", "qa_inference.checks", "qa_inference.decoding", "qa_inference.tokenization",
     "qa_inference.formats", "qa_inference.presets", "qa_inference.significance", "qa_inference.language",
     "qa_inference.overlap", "qa_inference.calibration", "qa_inference.sentences"),
    ("qa_inference.models.*", "qa_inference.batching", "qa_inference.distributed", "qa_inference.cache",
     "qa_inference.answer_candidates"),
    ("qa_inference.metric_base.*",),
    ("quals_metric.config", "quals_metric.selection", "quals_metric.result", "quals_metric.scorer",
     "qags_metric.config", "qags_metric.selection", "qags_metric.result", "qags_metric.scorer"),
    ("qa_inference.evaluate_metric", "quals_metric.metric", "qags_metric.metric"),
    ("quals_metric.metrics", "quals_metric.registry", "quals_metric.one_call"),
    ("quals_metric.files.*", "quals_metric.report.*", "quals_metric.training.*"),
    ("quals_metric.agreement.*",),
    ("quals_metric.integrations.*",),
    ("quals_metric.app.*", "quals_metric.study.*", "quals_metric.cli.*", "quals_metric.__main__"),
)  # fmt: skip

DOORS = {
    "diskcache": ("qa_inference.cache",),
    "accelerate": ("qa_inference.distributed", "quals_metric.training.*"),
    "evaluate": ("qa_inference.evaluate_metric", "quals_metric.registry"),
    "spacy": ("qa_inference.answer_candidates",),
    "gradio": ("quals_metric.app.*", "quals_metric.study.*"),
    "jinja2": ("quals_metric.report.*",),
    "krippendorff": ("quals_metric.study.*",),
    "sklearn": ("quals_metric.agreement.*",),
    "typer": ("quals_metric.cli.*",),
    **dict.fromkeys(
        ("trl", "ray", "pyspark", "lighteval", "lm_eval", "inspect_ai", "torchmetrics"),
        ("quals_metric.integrations.*",),
    ),
}

# Public names that twins share: both metrics, and both apps.
PUBLIC_TWINS = {"SummaryScore", "build", "serve"}  # of the metrics; of the app and the study

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
MODULES = {name: path for name, path in FILES.items() if not name.endswith("__init__")}


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """The full names that a file imports, anywhere in it: `from a.b import c` counts as `a.b.c` and as `a.b`."""
    names = set()
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def room(name: str) -> int:
    rooms = [index for index, patterns in enumerate(ROOMS) if any(fnmatch(name, pattern) for pattern in patterns)]
    assert len(rooms) == 1, f"{name} must be in one room, and is in {len(rooms)}"
    return rooms[0]


@cache
def homes() -> dict[str, str]:
    """The file of every public name that a package imports when it is first used, by the name's full name."""
    files = {}
    for name in FILES.keys() - MODULES.keys():
        package = name.removesuffix(".__init__")
        for node in ast.walk(syntax_tree(FILES[name])):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{package}."):
                files |= {f"{package}.{alias.name}": str(node.module) for alias in node.names}
    return files


def ours(name: str) -> set[str]:
    """Which of the packages' files a file imports, by themselves or by a public name."""
    names = imports(FILES[name])
    return (names | {home for public, home in homes().items() if public in names}) & MODULES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_a_file_imports_only_downwards(name: str) -> None:
    for imported in ours(name):
        assert room(imported) <= room(name), f"{name} must not import {imported}"


def test_no_imports_go_in_a_circle() -> None:
    TopologicalSorter({name: ours(name) - {name} for name in MODULES}).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize("name", FILES)
def test_one_library_has_one_door(name: str) -> None:
    for library, doors in DOORS.items():
        uses = any(imported.split(".")[0] == library for imported in imports(FILES[name]))
        assert not uses or any(fnmatch(name, door) for door in doors), f"{name} must not import {library}"


def test_metrics_are_independent() -> None:
    """The scorers never import each other, and the package that asks and answers questions knows no metric."""
    for name in FILES:
        packages = {imported.split(".")[0] for imported in imports(FILES[name])}
        if name.startswith("qa_inference."):
            assert not packages & {"quals_metric", "qags_metric", "recipes", "benchmarks", "spaces"}, name
        if name.startswith("qags_metric."):
            assert "quals_metric" not in packages, name
        # QAGS's own parts are named in the table of metrics alone.
        if name.startswith("quals_metric.") and name != "quals_metric.metrics":
            assert "qags_metric" not in packages, name


def test_twins_have_the_same_files() -> None:
    files = ["config.py", "metric.py", "result.py", "scorer.py", "selection.py"]
    assert sorted(path.name for path in (ROOT / "qags_metric").glob("*.py")) == ["__init__.py", *files]
    at_root = {path.name for path in (ROOT / "quals_metric").glob("*.py")}
    assert at_root == {"__init__.py", "__main__.py", "metrics.py", "one_call.py", "registry.py", *files}


def test_a_top_level_name_is_defined_once() -> None:
    homes_of: dict[str, list[str]] = defaultdict(list)
    for name, path in FILES.items():
        for node in syntax_tree(path).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                homes_of[node.name].append(name)
    twice = {name: files for name, files in homes_of.items() if len(files) > 1}
    assert twice.keys() - {"main"} == PUBLIC_TWINS, twice


def test_a_public_name_is_its_file() -> None:
    (serve,) = (home for public, home in homes().items() if public == "quals_metric.app.serve")
    assert serve in ours("quals_metric.cli.commands")  # which imports `serve` from the package


def test_the_rules_see_a_breach(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text("def late():\n    from quals_metric.cli.commands import app\n    import evaluate.config\n")
    assert {"quals_metric.cli.commands", "quals_metric.cli.commands.app", "evaluate.config"} <= imports(file)


@pytest.mark.parametrize("name", ["quals", "qags"])
def test_module_scripts_name_a_class_and_nothing_else(name: str) -> None:
    """evaluate's loader takes the first metric it finds, and reads `import` lines as requirements."""
    package = f"{name}_metric.metric"
    assert imports(ROOT / "spaces" / name / f"{name}.py") == {package, f"{package}.{name.title()}"}
