"""Public names that are imported when they are first used (PEP 562), so that importing a package costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: dict[str, Any], homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`.

    A type checker does not look in here: let the package import the same names under `TYPE_CHECKING`.

    Args:
        package: its `globals()`, with `__all__` in them.
        homes: the file, within the package, of every name.
    """
    title = package["__name__"]

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {title!r} has no attribute {name!r}")
        value = package[name] = getattr(import_module(f"{title}.{homes[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*package, *package["__all__"]})

    return __getattr__, __dir__
