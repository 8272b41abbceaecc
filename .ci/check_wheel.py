"""Is the wheel small enough for the package index, and is in it what belongs there? Usage: check_wheel.py WHEEL."""

import sys
import zipfile
from pathlib import Path

LIMIT = 95_000_000  # bytes; the index takes 100 MB
NEEDED = (
    "qa_inference/checkpoints/qagen/weights.int8.safetensors",
    "qa_inference/checkpoints/reader/model.safetensors",
    "qa_inference/checkpoints/calibrations/quals-all-tokens.json",
    "qa_inference/checkpoints/calibrations/qags.json",
    "qa_inference/py.typed",
    "quals_metric/py.typed",
    "qags_metric/py.typed",
    "quals_metric/cli/commands.py",
    "quals_metric/metric.py",
    "quals_metric/report/templates/app.html.jinja",
    "quals_metric/report/templates/report.html.jinja",
    "qags_metric/metric.py",
)

wheel = Path(sys.argv[1])
size = wheel.stat().st_size
names = zipfile.ZipFile(wheel).namelist()
folders = {name.split("/")[0] for name in names}
packages = {folder for folder in folders if not folder.endswith(".dist-info")}
print(f"{wheel.name}: {size / 1e6:.1f} MB, {len(names)} files in {', '.join(sorted(folders))}")
problems = [f"{name} is missing" for name in NEEDED if name not in names]
if size > LIMIT:
    problems.append(f"it has {size} bytes, more than {LIMIT}")
if extra := packages - {"qa_inference", "qags_metric", "quals_metric"}:
    problems.append(f"it must not contain {', '.join(sorted(extra))}")
if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
    problems.append("the licence is missing")
sys.exit("\n".join(problems) or 0)
