"""A file imports only downwards, and one library has one door (CONTRIBUTING.md): read off the syntax trees."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("qa_inference", "quals_metric", "qags_metric")

# From the ground up. A file may import from lower rows only; a new file is put into a row on purpose.
# ruff: noqa: E501
LAYERS = (
    ("qa_inference.lazy", "qa_inference.decoding", "qa_inference.tokenization", "qa_inference.models.projection",
     "qa_inference.distributed", "qa_inference.metric_base", "qa_inference.significance"),
    ("qa_inference.batching", "qa_inference.formats", "qa_inference.models.loading"),
    ("qa_inference.presets", "qa_inference.models.shared_rows"),
    ("qa_inference.models._shared_prefix",),
    ("qa_inference.models.encoder_decoder", "qa_inference.models.decoder_only", "qa_inference.models.reader",
     "qa_inference.answer_candidates"),
    ("qa_inference.cache",),
    ("quals_metric.numbers", "quals_metric.selection", "quals_metric.result", "qags_metric.overlap", "qags_metric.result",
     "qags_metric.config", "quals_metric.files.durable", "quals_metric.files.tables", "quals_metric.report.passages",
     "quals_metric.app.limits", "quals_metric.app.guard"),
    ("qags_metric.selection", "quals_metric.files.scored_rows", "quals_metric.report.evidence", "quals_metric.study.pairs",
     "quals_metric.app.server"),
    ("quals_metric.scorer", "qags_metric.scorer"),
    ("quals_metric.metric", "qags_metric.metric",
     "quals_metric.registry", "quals_metric.report.examples", "quals_metric.cli.terminal", "quals_metric.files.shards",
     "quals_metric.report.figures", "quals_metric.report.rows", "quals_metric.study.answers"),
    ("quals_metric.training.state", "quals_metric.training.measuring", "quals_metric.training.trainers",
     "quals_metric.training.selection", "quals_metric.training.rouge", "quals_metric.report.page"),
    ("quals_metric.training.examples",),
    ("quals_metric.training.generation", "quals_metric.training.samples"),
    ("quals_metric.training.callback", "quals_metric.training.predictions", "quals_metric.training.candidates",
     "quals_metric.training.conseq"),
    ("quals_metric.training.collection",),
    ("quals_metric.training.collector",),
    ("quals_metric.files.scoring", "quals_metric.files.compare", "quals_metric.cli.options",
     "quals_metric.report.writing", "quals_metric.study.page", "quals_metric.study.table", "quals_metric.app.files",
     "quals_metric.app.views", "quals_metric.app.scoring"),
    ("quals_metric.app.page", "quals_metric.cli.file_commands", "quals_metric.study.commands"),
    ("quals_metric.cli.commands",),
    ("quals_metric.__main__",),
)  # fmt: skip

DOORS = {
    "diskcache": ("qa_inference.cache",),
    "accelerate": ("qa_inference.distributed", "quals_metric.training.*"),
    "evaluate": ("quals_metric.metric", "qags_metric.metric", "quals_metric.registry"),
    "spacy": ("qa_inference.answer_candidates",),
    "gradio": ("quals_metric.app.server",),
    "jinja2": ("quals_metric.report.figures",),
    "krippendorff": ("quals_metric.study.table",),
}

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
MODULES = {name: path for name, path in FILES.items() if not name.endswith("__init__")}


def imports(path: Path) -> set[str]:
    """What a file imports, wherever in it, by full names: `from a.b import c` counts as `a.b.c` and as `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def layer(name: str) -> int:
    rows = [row for row, patterns in enumerate(LAYERS) if any(fnmatch(name, pattern) for pattern in patterns)]
    assert len(rows) == 1, f"{name} must be in one row of LAYERS, and is in {len(rows)}"
    return rows[0]


@cache
def homes() -> dict[str, str]:
    """The file of every public name that a package imports when it is first used, by the name's full name."""
    found = {}
    for name in FILES.keys() - MODULES.keys():
        package = name.removesuffix(".__init__")
        for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{package}."):
                found |= {f"{package}.{alias.name}": str(node.module) for alias in node.names}
    return found


def ours(name: str) -> set[str]:
    """Which of the packages' files a file imports, by themselves or by a public name."""
    found = imports(FILES[name])
    return (found | {home for public, home in homes().items() if public in found}) & MODULES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_a_file_imports_only_downwards(name: str) -> None:
    row = layer(name)
    for other in ours(name):
        assert layer(other) < row, f"{name} must not import {other}"


@pytest.mark.parametrize("name", FILES)
def test_one_library_has_one_door(name: str) -> None:
    for library, doors in DOORS.items():
        uses = any(imported.split(".")[0] == library for imported in imports(FILES[name]))
        assert not uses or any(fnmatch(name, door) for door in doors), f"{name} must not import {library}"


def test_metrics_are_independent() -> None:
    """The scorers never import each other, and what asks and answers questions knows no metric."""
    for name in FILES:
        packages = {imported.split(".")[0] for imported in imports(FILES[name])}
        if name.startswith("qa_inference."):
            assert not packages & {"quals_metric", "qags_metric", "recipes", "benchmarks", "spaces"}, name
        if name in ("quals_metric.scorer", "quals_metric.selection", "quals_metric.result"):
            assert "qags_metric" not in packages, name
        if name.startswith("qags_metric."):
            assert "quals_metric" not in packages, name


def test_a_public_name_is_its_file() -> None:
    assert homes()["quals_metric.app.serve"] == "quals_metric.app.page"
    assert "quals_metric.app.page" in ours("quals_metric.cli.commands")  # which imports `serve` from the package


def test_the_rules_see_a_breach(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text("def late():\n    from quals_metric.cli.commands import app\n    import evaluate.config\n")
    assert {"quals_metric.cli.commands", "quals_metric.cli.commands.app", "evaluate.config"} <= imports(file)


@pytest.mark.parametrize("name", ["quals", "qags"])
def test_module_scripts_name_a_class_and_nothing_else(name: str) -> None:
    """evaluate's loader takes the first metric it finds, and reads `import` lines as requirements."""
    package = f"{name}_metric.metric"
    assert imports(ROOT / "spaces" / name / f"{name}.py") == {package, f"{package}.{name.title()}"}
