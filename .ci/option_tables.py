"""Write the tables of options in `docs/` from the fields of the configurations. Usage: python .ci/option_tables.py.

A table stands between `<!-- options: METRIC -->` and `<!-- /options -->`. `tests/test_readme.py` fails where a table is
not what this program writes.
"""

from __future__ import annotations

import re
import sys
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from quals_metric.metrics import METRICS  # noqa: E402  # the checkout's, as for the tests

BLOCK = re.compile(r"(?<=<!-- options: )(\w+)( -->\n\n).*?(?=\n\n<!-- /options -->)", re.DOTALL)


def table(metric: str) -> str:
    """The options of a metric: name, default and meaning."""
    rows = ["| option | default | meaning |", "| --- | --- | --- |"]
    for field in fields(METRICS[metric].config_type()):
        about = field.metadata["option"]
        words = f" Default: {about.default_help}." if about.default_help else ""
        meaning = f"{about.help}{words}".replace("<", "&lt;")
        rows.append(f"| `{field.name}` | `{_default(field)}` | {meaning} |")
    return "\n".join(rows)


def written(page: str) -> str:
    """A page with its tables as they should be."""
    return BLOCK.sub(lambda match: match[1] + match[2] + table(match[1]), page)


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return f"{type(field.default_factory()).__name__}()"
    return repr(field.default).replace("'", '"')


if __name__ == "__main__":
    for path in sorted((ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if written(text) != text:
            path.write_text(written(text), encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
