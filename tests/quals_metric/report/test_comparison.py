from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from pathlib import Path

import pytest

from quals_metric.files.compare import compare_score_files
from quals_metric.files.scored_files import ScoreFile, check_same, read_scores, sidecar
from quals_metric.report.comparison import explained_metric, write_comparison
from tests.quals_metric.report.compared_files import write_system

HOSTILE = "</script><script>alert(1)</script> & <b>"

pytestmark = [
    pytest.mark.filterwarnings("ignore:only .* rows are compared"),
    pytest.mark.filterwarnings("ignore:.* the signature is unknown"),
]


def page_of(folder: Path, *scores: list[float], **options: int) -> str:
    files = [read_scores(write_system(folder / f"{name}.jsonl", of)) for name, of in zip("xyz", scores, strict=False)]
    write_comparison(files, compare_score_files(files), folder / "page.html", **options)
    return (folder / "page.html").read_text(encoding="utf-8")


def shown_rows(page: str) -> list[int]:
    return [int(number) for number in re.findall(r'class="entry" id="row-(\d+)"', page)]


A = [-1.0, -1.0, -1.0, math.nan, -1.0]
B = [-1.1, -3.0, -1.5, -9.0, -1.0]
C = [-0.9, -1.0, -0.2, -1.0, -1.0]


def test_the_rows_that_differ_most_come_first(tmp_path: Path) -> None:
    """The difference is that of the highest and the lowest system; a row where one is undefined has none."""
    page = page_of(tmp_path, A, B, C)
    assert shown_rows(page) == [2, 3, 1, 5]
    assert 'id="row-3" data-highest="c" data-lowest="b" data-difference="1.3"' in page
    assert shown_rows(page_of(tmp_path, A, B, C, details=2)) == [2, 3]
    assert shown_rows(page_of(tmp_path, A, B)) == [2, 3, 1, 5]


def test_the_summaries_stand_side_by_side_with_their_questions(tmp_path: Path) -> None:
    page = page_of(tmp_path, A, B, C)
    row = page[page.index('id="row-2"') : page.index('id="row-3"')]
    assert row.count("<mark") == 6 and row.lower().count("who was it?") == 3
    assert row.count("Source 1.</blockquote>") == 1
    assert re.findall(r"<h4 id=\S+>(\w): QUALS (\S+)", row) == [("a", "-1.000"), ("b", "-3.000"), ("c", "-1.000")]
    assert row.count('<dt dir="auto">id</dt>') == 1 and row.count('<dt dir="auto">system</dt>') == 3
    targets, links = re.findall(r' id="(\S+?)"', page), re.findall(r'href="#(\S+?)"', page)
    assert len(set(targets)) == len(targets) and set(links) <= set(targets)
    assert (
        "Rows compared: 4. Rows left out because a system has no score there: 1." in page
        and "after Holm's correction for 3 pairs" in page
    )


def test_a_source_may_be_passages(tmp_path: Path) -> None:
    passages = ["It rained.", HOSTILE]
    files = [write_system(tmp_path / f"{name}.jsonl", of, passages=passages) for name, of in (("x", A), ("y", B))]
    read = [read_scores(path) for path in files]
    assert read[0].sources is not None and read[0].sources[0] == (*passages, "Source 0.")
    check_same(*read)
    write_comparison(read, compare_score_files(read), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    row = page[page.index('id="row-2"') : page.index('id="row-3"')]
    shown = re.findall(r'<p class="note">(Passage \d)</p>\n<blockquote class="text" dir="auto">(.*?)</blockquote>', row)
    assert shown == [("Passage 1", "It rained."), ("Passage 2", html.escape(HOSTILE)), ("Passage 3", "Source 1.")]
    assert row.count('<th scope="col">Passage</th>') == 2 and row.count('<td class="value">3</td>') == 2
    other = read_scores(write_system(tmp_path / "z.jsonl", B, passages=["It snowed.", HOSTILE]))
    with pytest.raises(ValueError, match="must be scores of the same sources in the same order; row 1 differs"):
        check_same(read[0], other)


def test_a_probability_is_shown_as_one(tmp_path: Path) -> None:
    """Where the sidecar says that the scores are calibrated; another column of that name is the user's."""
    for name, scores, probability in (("x", A, 0.7071), ("y", B, 0.125)):
        path = write_system(tmp_path / f"{name}.jsonl", scores, probability=probability)
        about = {"rows": len(scores), "metric": "quals", "signature": "quals|torch:1"}
        calibrated = about | {"calibration": f"Calibration {name} was made <somewhere>."}
        sidecar(path).write_text(json.dumps(calibrated))
    # z has a signature that only looks like one of calibrated scores, as a folder of that name may make it.
    looks_calibrated = about | {"signature": "quals|model:a|calibration:b", "calibration": ""}
    sidecar(write_system(tmp_path / "z.jsonl", C, probability=0.5)).write_text(json.dumps(looks_calibrated))
    sidecar(write_system(tmp_path / "v.jsonl", C)).write_text(json.dumps(calibrated))  # its column was taken out
    files = [read_scores(tmp_path / f"{name}.jsonl") for name in "xyzv"]
    write_comparison(files, compare_score_files(files), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    row = page[page.index('id="row-2"') : page.index('id="row-3"')]
    assert re.findall(r"Probability that people call it consistent, by the calibration: (\S+)</p>", row) == [
        "0.707", "0.125"
    ]  # fmt: skip
    assert row.count('<dt dir="auto">probability</dt>') == 1 and page.count("&lt;somewhere&gt;") == 2


def test_the_page_is_all_there_is(tmp_path: Path) -> None:
    """Nothing of a network, one style and one script, which its policy allows by their digests; texts are data."""
    write_system(tmp_path / "x.jsonl", A, claim=HOSTILE)
    write_system(tmp_path / "y.jsonl", B, claim=HOSTILE)
    files = [read_scores(tmp_path / f"{name}.jsonl") for name in "xy"]
    files = [ScoreFile(file.path, file.scores, file.sources, {"signature": HOSTILE}) for file in files]
    write_comparison(files, compare_score_files(files), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; ") and "alert(1)</script>" not in page
    assert page.count("alert(1)&lt;/script&gt;") > 2 and "://" not in page


def test_rows_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    scores = [[-1.0] * 100, [-2.0] * 100]
    page = page_of(tmp_path, *scores, details=100, max_bytes=100_000)
    left = len(shown_rows(page))
    assert 0 < left < 100 and f"{100 - left} more rows did not fit" in page and len(page.encode()) <= 100_000


def test_files_that_explain_nothing_are_refused(tmp_path: Path) -> None:
    good = write_system(tmp_path / "good.jsonl", A)
    assert explained_metric([good, good]).name == "quals"
    rows = [json.loads(line) for line in good.read_text().splitlines()]
    for column in ("pairs", "summary", "source"):
        bad = tmp_path / "bad.jsonl"
        bad.write_text(json.dumps({name: value for name, value in rows[0].items() if name != column}) + "\n")
        with pytest.raises(
            ValueError, match=r"bad\.jsonl: must have .* and the questions; it has 'id', .*--keep --pai"
        ):
            explained_metric([good, bad])
    (empty := tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="it has no rows"):
        explained_metric([good, empty])
    row = {name: value for name, value in rows[0].items() if name != "pairs"} | {"questions": []}
    bad.write_text(json.dumps(row) + "\n")
    with pytest.raises(
        ValueError, match=r"must be of one metric; .*good\.jsonl has those of quals, .* of qags\. Score"
    ):
        explained_metric([good, bad])
    rows[1]["source"] = None
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [read_scores(path) for path in (good, good)]
    files[1] = ScoreFile(bad, files[1].scores, None, {})
    with pytest.raises(ValueError, match=r"bad\.jsonl.* line 2: column 'source' must be text; got None"):
        write_comparison(files, compare_score_files(files), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
