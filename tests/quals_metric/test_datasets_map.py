"""Scoring inside `datasets.map`, in several processes."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dill
import numpy as np
import pytest
from datasets.fingerprint import Hasher

from qa_inference.models.encoder_decoder import EncoderDecoder
from quals_metric import QualsConfig, QualsScorer
from quals_metric.report.examples import EXAMPLES
from tests import tiny
from tests.quals_metric.test_scorer import SOURCES, SUMMARIES, _same

PAGE = Path(__file__).parents[2] / "docs" / "several-gpus.md"


def config(model: str, groups: int = 30) -> QualsConfig:
    return QualsConfig(model, groups=groups, min_new_tokens=2, max_new_tokens=14, device="cpu")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> QualsScorer:
    return QualsScorer(config(str(tiny.trained(tmp_path_factory.mktemp("model") / "bart"))))


def test_a_function_takes_its_scorer_into_another_process(scorer: QualsScorer) -> None:
    def add_quals(batch: dict[str, list[str]]) -> dict[str, list[float]]:
        return {"quals": scorer.score(summaries=batch["summary"], sources=batch["document"]).scores}

    sent = dill.dumps(add_quals, recurse=True)  # as datasets sends it
    assert len(sent) < 10_000
    rows = {"summary": SUMMARIES, "document": SOURCES}
    np.testing.assert_array_equal(dill.loads(sent)(rows)["quals"], add_quals(rows)["quals"])


def test_the_example_of_the_guide(run_python: Callable[..., Any], tmp_path: Path) -> None:
    (program,) = (
        block
        for block in re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        if "with_rank" in block
    )
    (tmp_path / "program.py").write_text(program)
    found = run_python(str(tmp_path / "program.py"))
    assert found.returncode == 0, found.stderr
    result = QualsScorer(QualsConfig(device="cpu")).score(
        summaries=[example.faithful for example in EXAMPLES], sources=[example.source for example in EXAMPLES]
    )
    assert json.loads(found.stdout.splitlines()[-1]) == pytest.approx(result.scores, abs=1e-5)


def test_a_scorer_is_pickled_as_its_configuration(scorer: QualsScorer) -> None:
    data = pickle.dumps(scorer)
    assert len(data) < 4096
    again = pickle.loads(data)
    assert again.config == scorer.config and again.model is not scorer.model
    assert again.score(summaries=SUMMARIES, sources=SOURCES) == scorer.score(summaries=SUMMARIES, sources=SOURCES)


def test_a_given_model_is_pickled_with_its_scorer(scorer: QualsScorer, tmp_path: Path) -> None:
    given = QualsScorer(scorer.config, model=scorer.model)
    data = pickle.dumps(given)
    assert len(data) > sum(parameter.numel() for parameter in scorer.model.model.parameters())
    again = pickle.loads(data)
    # but for rounding: how copied weights lie in memory can change the last digit
    _same(*(each.score(summaries=SUMMARIES, sources=SOURCES) for each in (again, given)))


def test_a_given_searcher_is_pickled_with_its_scorer(scorer: QualsScorer, tmp_path: Path) -> None:
    other = EncoderDecoder.load(str(tiny.save("bart", tmp_path / "other")))
    given = QualsScorer(scorer.config, searcher=other)
    again = pickle.loads(pickle.dumps(given))
    weights = [next(each.parameters()) for each in (again.searcher.model, other.model, given.model.model)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])


def test_the_hash_is_of_what_scores_depend_on(scorer: QualsScorer, tmp_path: Path) -> None:
    model = str(tiny.trained(tmp_path / "model"))
    fresh = QualsScorer(config(model))
    before = Hasher.hash(fresh)
    fresh.score(summaries=SUMMARIES[:1], sources=SOURCES[:1])
    assert Hasher.hash(fresh) == before == Hasher.hash(QualsScorer(config(model)))
    assert Hasher.hash(QualsScorer(config(model, groups=31))) != before
    path = tmp_path / "model" / "generation_config.json"
    path.write_text(path.read_text() + "\n")
    assert Hasher.hash(QualsScorer(config(model))) != before  # retrained into the same folder
