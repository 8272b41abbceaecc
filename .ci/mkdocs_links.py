"""A hook of mkdocs: files outside `docs/` that a page links to become a part of the site.

On GitHub a page in `docs/` links to `../benchmarks/RESULTS.md`. In the site the pages of `docs/` are the root, so that
file is added as `benchmarks/RESULTS.md`, and the link loses its `../`. A page that is added may link to further files.
A link to a file that does not exist stays as it is, and `mkdocs build --strict` reports it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add every file of the repository that a page links to, and those that these link to."""
    pages = [file for file in files if file.is_documentation_page()]
    while pages:
        page = pages.pop()
        for target in LINK.findall(page.content_string):
            path = _in_repository(page.src_uri, target)
            uri = _in_site(path)
            if (ROOT / path).is_file() and files.get_file_from_path(uri) is None:
                file = File.generated(config, uri, abs_src_path=str(ROOT / path))
                files.append(file)
                pages += [file] if file.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Write each link to a file of the repository as one between files of the site."""
    folder = posixpath.dirname(page.file.src_uri) or "."

    def replaced(match: re.Match[str]) -> str:
        uri = _in_site(_in_repository(page.file.src_uri, match[0]))
        return posixpath.relpath(uri, folder) if files.get_file_from_path(uri) else match[0]

    return LINK.sub(replaced, markdown)


def _in_repository(page: str, target: str) -> str:
    """The path in the repository that a page of the site links to; the page's own place there is looked up."""
    home = page if not (ROOT / "docs" / page).is_file() else f"docs/{page}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(home), target))


def _in_site(path: str) -> str:
    """The place in the site of a path in the repository: `docs/` is the root; the README is a page of its own."""
    return "readme.md" if path == "README.md" else path.removeprefix("docs/")
