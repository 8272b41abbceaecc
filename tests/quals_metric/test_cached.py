"""QUALS with a cache is QUALS: the same result, computed once, alone and spread over processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import quals_metric
from qa_inference import evaluate_metric
from qa_inference.models.encoder_decoder import EncoderDecoder
from quals_metric import QualsConfig, QualsScorer
from quals_metric.cli.options import check_options
from quals_metric.metric import Quals
from quals_metric.result import QualsResult
from tests import PATIENCE, tiny
from tests.quals_metric.test_scorer import SOURCES, SUMMARIES, _same

PROGRAM = Path(__file__).with_name("cache_program.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A toy BART that writes pairs about the toy corpus."""
    return str(tiny.trained(tmp_path_factory.mktemp("model") / "bart"))


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many inputs were searched from and how many targets were scored, by models."""
    counts: Counter[str] = Counter()
    generate, log_likelihood = EncoderDecoder.generate, EncoderDecoder.log_likelihood

    def counting_generate(self: EncoderDecoder, inputs: Any, *args: Any, **settings: Any) -> Any:
        counts["searched"] += len(inputs)
        return generate(self, inputs, *args, **settings)

    def counting_log_likelihood(self: EncoderDecoder, items: Any) -> Any:
        counts["scored"] += sum(len(item.targets) for item in items)
        return log_likelihood(self, items)

    monkeypatch.setattr(EncoderDecoder, "generate", counting_generate)
    monkeypatch.setattr(EncoderDecoder, "log_likelihood", counting_log_likelihood)
    return counts


def _score(folder: str, cache: Path | None, rows: slice = slice(None), **settings: Any) -> QualsResult:
    """By a scorer of its own, as another run has."""
    defaults = {"groups": 30, "min_new_tokens": 2, "max_new_tokens": 14, "device": "cpu"}
    scorer = QualsScorer(QualsConfig(folder, cache=cache, **{**defaults, **settings}))
    result = scorer.score(summaries=SUMMARIES[rows], sources=SOURCES[rows])
    if scorer._cache is not None:
        scorer._cache.close()
    return result


def test_a_cache_changes_no_bit(folder: str, tmp_path: Path, worked: Counter[str]) -> None:
    """At the same composition of batches: with an empty cache, and with one that has all of it."""
    without = _score(folder, None)
    once = dict(worked)
    assert once["searched"] == 4 and once["scored"] > 10
    first = _score(folder, tmp_path / "cache")
    assert worked == {name: 2 * count for name, count in once.items()}
    assert repr(first) == repr(without)  # every number of it; NaN is no equal of itself
    assert repr(_score(folder, tmp_path / "cache")) == repr(without)
    assert worked == {name: 2 * count for name, count in once.items()}


def test_passages_and_their_joined_text_do_not_share_results(folder: str, tmp_path: Path, worked: Counter[str]) -> None:
    settings: dict[str, Any] = {"groups": 30, "min_new_tokens": 2, "max_new_tokens": 14, "device": "cpu"}
    scorer = QualsScorer(QualsConfig(folder, cache=tmp_path / "cache", **settings))
    passages = SOURCES[:2]
    joined = scorer.score(SUMMARIES[:1], [" ".join(passages)])
    before = worked["scored"]
    apart = scorer.score(SUMMARIES[:1], contexts=[passages])
    assert worked["scored"] == 3 * before and worked["searched"] == 1  # each passage is read; the pairs are known
    assert apart.signature != joined.signature and apart.scores != joined.scores
    assert scorer.score(SUMMARIES[:1], contexts=[passages]) == apart
    assert scorer.score(SUMMARIES[:1], passages[:1]).summaries[0].pairs
    assert worked["scored"] == 3 * before  # a passage is the same text as a source


def test_what_is_half_there_is_completed(folder: str, tmp_path: Path, worked: Counter[str]) -> None:
    without = _score(folder, None)
    once = dict(worked)
    _score(folder, tmp_path / "cache", slice(1, 3))
    completed = _score(folder, tmp_path / "cache")
    assert worked == {name: 2 * count for name, count in once.items()}
    assert [[p.tokens for p in s.pairs] for s in completed.summaries] == [
        [p.tokens for p in s.pairs] for s in without.summaries
    ]
    np.testing.assert_allclose(completed.scores, without.scores, atol=1e-5)  # of other batches


def test_how_pairs_are_chosen_and_averaged_needs_nothing_new(folder: str, tmp_path: Path, worked: Counter[str]) -> None:
    _score(folder, tmp_path / "cache")
    worked.clear()
    fewer = _score(folder, tmp_path / "cache", tokens="answer", max_pairs=2)
    assert not worked
    _same(fewer, _score(folder, None, tokens="answer", max_pairs=2))  # but for rounding: more were scored then


@pytest.mark.parametrize(
    ("settings", "searches", "scores"),
    [
        ({"groups": 31}, True, False),
        ({"strength": 0.49}, True, False),  # near enough to find some of the same pairs
        ({"max_new_tokens": 13}, True, False),
        ({"dtype": "bfloat16"}, True, True),
        ({"sharing": "expanded"}, True, True),
    ],
)
def test_other_settings_find_nothing_of_these(
    settings: dict[str, Any], searches: bool, scores: bool, folder: str, tmp_path: Path, worked: Counter[str]
) -> None:
    """The log-probabilities of a pair on a source do not depend on the search that wrote it; new pairs are scored."""
    _score(folder, tmp_path / "cache")
    worked.clear()
    found = _score(folder, tmp_path / "cache", **settings)
    again = dict(worked)
    assert (again["searched"] == 4) is searches
    worked.clear()
    without = _score(folder, None, **settings)
    assert (again.get("scored", 0) == worked["scored"]) is scores
    np.testing.assert_allclose(found.scores, without.scores, atol=1e-5)


@pytest.mark.parametrize("caches", [("half", "empty"), ("same", "same")])
def test_processes_with_unlike_caches(caches: tuple[str, str], folder: str, tmp_path: Path) -> None:
    expected = _score(folder, None)
    _score(folder, tmp_path / "half", slice(1, 3))
    (tmp_path / "texts.json").write_text(json.dumps([SUMMARIES, SOURCES]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(PROGRAM)]
    package = str(Path(quals_metric.__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": package, "PYTHONWARNINGS": "error::UserWarning"}
    folders = [str(tmp_path / name) for name in caches]
    arguments = [folder, str(tmp_path / "texts.json"), str(tmp_path), *folders]
    subprocess.run([*command, *arguments], env=environment, check=True, timeout=PATIENCE)
    for rank in range(2):
        for found in json.loads((tmp_path / f"{rank}.json").read_text()):
            scores = [row["score"] for row in found["summaries"]]
            np.testing.assert_allclose(np.array(scores, float), expected.scores, atol=1e-5)
            assert [[pair["tokens"] for pair in row["pairs"]] for row in found["summaries"]] == [
                [list(pair.tokens) for pair in row.pairs] for row in expected.summaries
            ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache": " "}, "cache: must be the name of a folder"),
        ({"cache": "x", "cache_size": 1000}, "cache_size: must be an integer of at least 1048576; got 1000"),
        ({"cache": "x", "cache_size": 2e9}, "cache_size: must be an integer of at least 1048576; got 2000000000.0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QualsConfig(**settings)


def test_the_extra_is_asked_for_before_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "diskcache", None)
    monkeypatch.delitem(sys.modules, "qa_inference.cache", raising=False)
    monkeypatch.setattr("quals_metric.scorer.load_model", lambda config: pytest.fail("loaded"))
    with pytest.raises(ImportError, match=r"pip install 'quals-metric\[cache\]'") as told:
        QualsScorer(QualsConfig(cache=tmp_path / "cache"))
    assert isinstance(told.value.__cause__, ImportError)
    QualsConfig(cache=tmp_path / "cache")  # says what is wanted; only a scorer needs it


@pytest.mark.usefixtures("own_evaluate_cache")
def test_evaluates_metric_takes_a_cache(folder: str, tmp_path: Path, worked: Counter[str]) -> None:
    """It computes once what another of the same settings computes again from the folder, to the same numbers."""
    settings = {"groups": 30, "min_new_tokens": 2, "max_new_tokens": 14, "device": "cpu"}
    found = []
    for _ in range(2):
        evaluate_metric.loaded.cache_clear()  # as in another process
        quals = Quals(model=folder, cache=tmp_path / "cache", **settings)
        found.append(quals.compute(predictions=SUMMARIES, sources=SOURCES))
        assert worked["searched"] == 4 and worked["scored"] > 10
    assert repr(found[0]) == repr(found[1])
    evaluate_metric.loaded.cache_clear()


def test_qags_knows_no_cache() -> None:
    with pytest.raises(typer.BadParameter, match="--metric qags does not have this option; quals has it") as told:
        check_options("qags", {"cache": Path("x")})
    assert told.value.param_hint == "--cache"


def test_files_are_scored_with_a_cache(folder: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps({"summary": a, "source": b}) for a, b in zip(SUMMARIES, SOURCES, strict=True))
    )
    package = str(Path(quals_metric.__file__).parents[1])
    for name in ("one", "other"):
        command = [sys.executable, "-m", "quals_metric", "score", "rows.jsonl", "-o", f"{name}.jsonl"]
        subprocess.run(
            [*command, "--model", folder, "--device", "cpu", "--cache", "cache"],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": package}, cwd=tmp_path, check=True,
            timeout=PATIENCE,
        )  # fmt: skip
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "other.jsonl").read_bytes()
    assert (tmp_path / "cache" / "cache.db").stat().st_size > 10_000
