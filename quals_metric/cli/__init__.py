"""The command line of the package: the command `quals`.

- `commands`: its commands, `file_commands` those that read and write files, `agreement_commands` those that read labels
- `options`: the options of the models, derived from the fields of the metrics' configurations
- `terminal`: results as plain text
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference.lazy import lazily

if TYPE_CHECKING:
    from quals_metric.cli.commands import app, main

__all__ = ["app", "main"]

_HOMES = {"app": "commands", "main": "commands"}

__getattr__, __dir__ = lazily(globals(), _HOMES)
