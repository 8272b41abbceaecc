from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qa_inference.significance import bootstrap_interval, holm, paired_bootstrap, paired_randomization
from quals_metric.files.compare import compare, compare_files, compare_systems
from quals_metric.files.scoring import score_files
from quals_metric.files.tables import Table
from tests.quals_metric.files.score_program import QuickScorer

A = [((i * 104729) % 1009) / 1009 - 2 for i in range(60)]
B = [a + 0.1 + (((i * 7907) % 499) / 499 - 0.5) for i, a in enumerate(A)]


def test_what_is_compared() -> None:
    found = compare(A, B)
    assert (found.a.low, found.a.high) == bootstrap_interval(A) and (found.b.low, found.b.high) == bootstrap_interval(B)
    assert found.a.score == pytest.approx(sum(A) / 60) and found.b.score == pytest.approx(sum(B) / 60)
    paired = paired_bootstrap(A, B)
    assert (found.difference, found.low, found.high, found.p_bootstrap) == (
        paired.difference, paired.low, paired.high, paired.p_value
    )  # fmt: skip
    assert found.difference == pytest.approx(found.b.score - found.a.score)
    assert found.p_randomization == paired_randomization(A, B)
    assert (found.num_rows, found.num_undefined, found.resamples, found.trials, found.seed) == (
        60, 0, 1000, 10_000, 12345
    )  # fmt: skip


def test_the_other_way_round() -> None:
    one, other = compare(A, B), compare(B, A)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert (one.p_bootstrap, one.p_randomization) == (other.p_bootstrap, other.p_randomization)


def test_undefined_rows_are_left_out_and_counted() -> None:
    a, b = [math.nan, *A, 3.0, math.nan], [5.0, *B, math.nan, math.nan]
    found = compare(a, b)
    assert found.num_undefined == 3 and found.num_rows == 60
    assert found.to_dict() == {**compare(A, B).to_dict(), "num_undefined": 3}


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="must have a score for the same rows; got 60 and 59"):
        compare(A, B[1:])
    with pytest.raises(ValueError, match="must have a row where both are defined; of 2 rows there is none"):
        compare([1.0, math.nan], [math.nan, 1.0])
    with pytest.raises(ValueError, match="must have a row where both are defined; of 0 rows"):
        compare([], [])
    with pytest.raises(ValueError, match="trials: must be an integer of at least 1"):
        compare(A, B, trials=0)


C = [b - 0.3 if i % 2 else b for i, b in enumerate(B)]


def test_several_systems() -> None:
    """Every two are compared on the rows where all are defined."""
    a, b, c = [math.nan, *A, 1.0], [5.0, *B, 1.0], [1.0, *C, math.nan]
    found = compare_systems([a, b, c], resamples=100, trials=200)
    expected = {
        names: compare(*of, resamples=100, trials=200)
        for names, of in {("a", "b"): (A, B), ("a", "c"): (A, C), ("b", "c"): (B, C)}.items()
    }
    assert [(pair.a, pair.b) for pair in found.pairs] == list(expected)
    for pair, alone in zip(found.pairs, expected.values(), strict=True):
        assert {**pair.comparison.to_dict(), "num_undefined": 0} == alone.to_dict()
    assert [pair.p_holm for pair in found.pairs] == holm([pair.comparison.p_randomization for pair in found.pairs])
    assert found.systems == {"a": expected["a", "b"].a, "b": expected["a", "b"].b, "c": expected["b", "c"].b}
    assert found.undefined == {"a": 1, "b": 0, "c": 1} and (found.num_rows, found.num_undefined) == (60, 2)
    as_dict = json.loads(json.dumps(found.to_dict()))
    assert as_dict["pairs"][2]["difference"] == found.pairs[2].comparison.difference
    assert as_dict["systems"]["c"]["num_undefined"] == 1 and as_dict["trials"] == 200


def test_systems_that_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="systems: must be 2 to 26; got 1"):
        compare_systems([A])
    with pytest.raises(ValueError, match="scores: must be of the same rows for all systems; got 59, 60"):
        compare_systems([A, B, C[1:]])
    with pytest.raises(ValueError, match="must have a row where both are defined; of 2 rows there is none"):
        compare_systems([[1.0, 1.0], [math.nan, 1.0], [1.0, math.nan]])


def _scored(folder: Path, name: str, summaries: list[str], sources: list[str], **options: Any) -> Path:
    """A score file as `quals score` writes it."""
    keep, load = options.pop("keep", False), options.pop("load", QuickScorer)
    rows = [json.dumps({"summary": a, "source": b}) for a, b in zip(summaries, sources, strict=True)]
    (folder / f"{name}-in.jsonl").write_text("\n".join(rows))
    output = folder / f"{name}{options.pop('ending', '.jsonl')}"
    score_files(Table((folder / f"{name}-in.jsonl",), keep=keep), output, load, **options)
    return output


SOURCES = [f"source {n}" for n in range(40)]
FIRST = [f"first {n}" for n in range(40)]
SECOND = [f"second {n}" if n else "" for n in range(40)]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("endings", [(".jsonl", ".jsonl"), (".parquet", ".jsonl")])
def test_files(endings: tuple[str, str], keep: bool, tmp_path: Path) -> None:
    a = _scored(tmp_path, "a", FIRST, SOURCES, ending=endings[0], keep=keep)
    b = _scored(tmp_path, "b", SECOND, SOURCES, ending=endings[1])
    score = QuickScorer().score
    expected = compare(*(score(summaries=texts, sources=SOURCES).scores for texts in (FIRST, SECOND)))
    found = compare_files(a, b)  # and no warning: they are errors here
    assert found == expected and found.num_undefined == 1
    assert compare_files(a, b, seed=1, resamples=10, trials=20).trials == 20


@pytest.mark.parametrize("keep", [False, True])
def test_different_sources(keep: bool, tmp_path: Path) -> None:
    a = _scored(tmp_path, "a", FIRST, SOURCES, keep=keep)
    b = _scored(tmp_path, "b", SECOND, [*SOURCES[:20], "another", *SOURCES[21:]], keep=keep)
    message = r"a\.jsonl and .*b\.jsonl: must be scores of the same sources in the same order"
    with pytest.raises(ValueError, match=message + ("; row 21 differs" if keep else r"\. Score both")):
        compare_files(a, b)
    shorter = _scored(tmp_path, "c", SECOND[:-1], SOURCES[:-1], keep=keep)
    with pytest.raises(ValueError, match="must have the same rows; they have 40 and 39"):
        compare_files(a, shorter)


class PassageScorer(QuickScorer):
    """Takes passages too."""

    def score(self, *, summaries: Any, sources: Any = None, contexts: Any = None, **more: Any) -> Any:
        joined = [" ".join(passages) for passages in contexts] if sources is None else sources
        return super().score(summaries=summaries, sources=joined, **more)


@pytest.mark.parametrize("endings", [(".jsonl", ".jsonl"), (".csv", ".jsonl")])
def test_passages_are_the_same_sources_in_every_format(endings: tuple[str, str], tmp_path: Path) -> None:
    passages = [[text, "more"] if n % 2 else [text] for n, text in enumerate(SOURCES)]
    texts = [[text, "more"] if n % 2 else text for n, text in enumerate(SOURCES)]
    a = _scored(tmp_path, "a", FIRST, passages, ending=endings[0], keep=True, load=PassageScorer)
    b = _scored(tmp_path, "b", SECOND, texts, ending=endings[1], keep=True, load=PassageScorer)
    assert compare_files(a, b).num_rows == 39
    c = _scored(tmp_path, "c", SECOND, [*texts[:-1], ["other", "more"]], keep=True, load=PassageScorer)
    with pytest.raises(ValueError, match="row 40 differs"):
        compare_files(a, c)


def test_signatures_that_differ(tmp_path: Path) -> None:
    other = type("Other", (QuickScorer,), {"signature": "other"})
    a, b = (_scored(tmp_path, name, FIRST, SOURCES, load=load) for name, load in (("a", QuickScorer), ("b", other)))
    with pytest.warns(UserWarning, match=r"the signatures differ.*: quick of .*a\.jsonl, other of .*b\.jsonl"):
        compare_files(a, b)


def test_files_without_a_sidecar(tmp_path: Path) -> None:
    a, b = (_scored(tmp_path, name, FIRST, SOURCES, keep=True) for name in "ab")
    (tmp_path / "b.jsonl.meta.json").unlink()
    with pytest.warns(UserWarning, match=r"b\.jsonl: the signature is unknown, as no NAME\.meta\.json beside it fits"):
        compare_files(a, b)
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"score": 0.5}\n' * 40)
    with _two_warnings():
        compare_files(a, plain)
    # One that was edited afterwards is not described by its sidecar.
    b.write_text('{"score": 0.5}\n' * 39)
    plain.write_text('{"score": 0.5}\n' * 39)
    with _two_warnings():
        compare_files(b, plain)


@contextlib.contextmanager
def _two_warnings() -> Iterator[None]:
    sources = "it is unknown if they have the same sources. Keep the column 'source'"
    with pytest.warns(UserWarning, match="the signature is unknown"), pytest.warns(UserWarning, match=sources):
        yield


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"summary": "a"}', r"line 2: column 'score' must be a number or null; got a row without it\. Was it written"),
        ('{"score": "1"}', r"line 2: column 'score' must be a number or null; got '1'"),
        ('{"score": true}', r"line 2: column 'score' must be a number or null; got True"),
        ("{", r"line 2: must be a JSON object"),
    ],
)
def test_files_that_are_no_scores(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"score": null}\n' + line)
    with pytest.raises(ValueError, match=message):
        compare_files(path, path)
    path.with_name("b.jsonl").write_text('{"score": 1}')
    path.with_name("b.jsonl.meta.json").write_text("{")
    with pytest.raises(ValueError, match=r"b\.jsonl\.meta\.json: must be JSON; .*Delete it"):
        compare_files(path.with_name("b.jsonl"), path)
