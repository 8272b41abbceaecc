"""Does the installed package work, and is it the installed one? Usage: python -I smoke.py ENVIRONMENT [qags]."""

import math
import sys
from pathlib import Path

import evaluate

import qa_inference
import qags_metric
import quals_metric

environment = Path(sys.argv[1]).resolve()
for package in (quals_metric, qags_metric, qa_inference):
    assert package.__file__ is not None
    assert Path(package.__file__).resolve().is_relative_to(environment), package.__file__

source = "Ann Lee won the cup in Perth on Monday. Bo Ray, who had won it in 1998, came last."
if sys.argv[2:] == ["qags"]:
    results = evaluate.load("qags").compute(predictions=[source, ""], sources=[source] * 2)
    print(results)
    assert results["scores"][0] == 1.0, results["scores"]
    assert results["num_undefined"] == 1
    sys.exit()
quals = evaluate.load("quals")
results = quals.compute(predictions=[source, "Ann Lee won the cup.", ""], sources=[source] * 3, return_pairs=True)
print({name: value for name, value in results.items() if name != "pairs"})
assert abs(results["scores"][0]) < 1e-3, results["scores"]
assert math.isfinite(results["quals"]), results["quals"]
assert results["num_undefined"] >= 1
assert math.isnan(results["scores"][2])
assert f"version:{quals_metric.__version__}" in results["signature"]
