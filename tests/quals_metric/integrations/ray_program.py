"""What `test_rows.py` runs: `ray_program.py PROGRAM OPTIONS MARKER`, a program of the guide with the real Ray.

The scorer has the options of a JSON file. The first actor that gets a batch is killed, as a lost machine would be.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import ray

import quals_metric.integrations
from quals_metric import QualsConfig
from quals_metric.integrations import QualsRows

PROGRAM, OPTIONS, MARKER = map(Path, sys.argv[1:])


class Killed(QualsRows):
    """Kills the first process that gets a batch, once."""

    marker = str(MARKER)

    def __call__(self, batch: Any, rank: int | None = None) -> Any:
        try:
            Path(self.marker).touch(exist_ok=False)
        except FileExistsError:
            return super().__call__(batch, rank)
        os.kill(os.getpid(), signal.SIGKILL)


FOLDER = tempfile.mkdtemp(prefix="ray")  # short: a socket's path has at most 107 characters
while not ray.is_initialized():
    try:  # Four slots, two of them for reading and writing; no dashboard, and a small store for objects.
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            _temp_dir=FOLDER,
        )
    except Exception as error:  # its own limit of 30 seconds is not for a busy machine
        if "timed out during startup" not in str(error):
            raise
        ray.shutdown()
quals_metric.QualsConfig = partial(QualsConfig, **json.loads(OPTIONS.read_text()))  # type: ignore[misc,assignment]
quals_metric.integrations.QualsRows = Killed  # type: ignore[misc]
exec(compile(PROGRAM.read_text(), str(PROGRAM), "exec"), {"__name__": "program"})
ray.shutdown()
shutil.rmtree(FOLDER, ignore_errors=True)
