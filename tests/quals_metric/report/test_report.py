from __future__ import annotations

import base64
import colorsys
import hashlib
import itertools
import json
import math
import random
import re
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from qags_metric.result import FoundAnswer, QagsResult, QuestionScore
from qags_metric.result import SummaryScore as QagsScore
from quals_metric import report
from quals_metric.cli import commands as cli
from quals_metric.cli import file_commands
from quals_metric.cli.options import with_metrics
from quals_metric.files.scored_files import sidecar
from quals_metric.report.excerpts import LENGTH, SourceExcerpts
from quals_metric.report.figures import STYLE, figure_svg, histogram_svg, marked_summary_html, readable
from quals_metric.report.rows import MOST_BARS, Entry, Histogram, ShownRows
from quals_metric.report.spelling import natural_question
from quals_metric.report.writing import MAX_BYTES
from quals_metric.result import PairScore, QualsResult, SummaryScore
from tests.quals_metric.files.score_program import QuickScorer
from tests.quals_metric.report.compared_files import write_system

SUMMARY = "Ann Lee won 5 million pounds in Perth."
SOURCE = "On Monday it rained. Ann Lee, a nurse, won 5.5 million pounds. She lives in the town of Perth, says Bob."

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</style></title><svg onload=alert(1)>",
    "\"'><a href='javascript:alert(1)'>x</a>",
    "{{ 7 * 7 }}{% raw %}",
    "\ud800 half \udfff",
    "\x00\x07\x1b[31m \ufffe",
    "\u202eright to left مرحبا بالعالم שלום",
    "<!-- <sep> [SEP] &amp; &#x3c;script>",
]
VOID = {"meta", "path", "br"}


class Page(HTMLParser):
    """A page's elements: (tag, attributes) in order, the text outside of styles, and whether all that opens closes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.styles if self._open[-1:] == ["style"] else self.texts).append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]


def check(html: str) -> Page:
    """What holds of every page: whole, self-contained, nothing that runs, described to all readers."""
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "img", "form", "base", "a:script", "image", "use"}
    for _, attributes in page.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "srcset", "style", "action")
        ]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for attributes in page.all("a"):
        assert attributes["href"].startswith("#") and attributes["href"][1:] in ids
    for name in ("aria-labelledby", "aria-describedby"):
        assert {attributes[name] for _, attributes in page.elements if name in attributes} <= set(ids)
    (style,) = page.styles
    assert "url(" not in style and "@import" not in style and "http" not in style
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert re.findall(r"https?://[^\s\"'<]*", html.replace("http://www.w3.org/2000/svg", "")) == []
    assert page.all("html") == [{"lang": "en"}] and page.all("meta", charset="utf-8")
    assert page.all("meta", name="viewport", content="width=device-width, initial-scale=1")
    for svg in page.all("svg"):
        assert svg["role"] == "img"
    assert len(page.all("svg")) == len(page.all("desc")) == html.count("<svg") and html.count("<title>") == 1 + len(
        page.all("svg")
    )
    # Headings go down one step at a time; one is the page's.
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    return page


def pair(answer: str, score: float, question: str = "Who won?", start: int | None = None) -> PairScore:
    first = SUMMARY.index(answer) if start is None else start
    tokens = ("who", "won", "##?", "<sep>", "▁Ann", "[SEP]")
    logs = tuple(math.log(value) for value in (0.5, 0.25, 0.9, 1.0, 0.75, 0.0625))
    return PairScore(question, answer, first, first + len(answer), score, tokens, logs, (*logs[:-1], -math.inf))


def written(tmp_path: Path, result: Any, **options: Any) -> str:
    count = len(result.summaries)
    texts = {"summaries": [SUMMARY] * count, "sources": [SOURCE] * count} | options
    report.write(result, tmp_path / "out.html", **texts)
    return (tmp_path / "out.html").read_bytes().decode()


QUALS = QualsResult(
    (
        SummaryScore(-0.45, (pair("Ann Lee", 0.1), pair("5 million pounds", -2.0, "How much did Ann win?"))),
        SummaryScore(math.nan, (), "no pair kept"),
    ),
    "quals|model:x",
    num_windowed_sources=1,
)


# --- The page


def test_a_page_of_two(tmp_path: Path) -> None:
    html = written(tmp_path, QUALS, labels=["Summary 1", "Summary 2"])
    assert written(tmp_path, QUALS, labels=pd.Series(["Summary 1", "Summary 2"])) == html
    page = check(html)
    assert page.all("title")[0] == {} and "QUALS report" in page.text
    for text in (
        "Summary 1: QUALS -0.450", "Between 0 and 1: 0.638", "Summary 2: QUALS undefined", "No score: no pair kept",
        "How much did Ann win?", "lowest", "highest", "-1.4 to -0.8", "quals|model:x",
        "Sources longer than the model's",
    ):  # fmt: skip
        assert text in page.text
    assert len(page.all("details", open="")) == len(page.all("details")) == 6  # two rows, two sources, two pairs
    assert not page.all("h2", id="all")  # no histogram of two
    assert len(page.all("svg")) == 2


def test_marks_lead_to_pairs(tmp_path: Path) -> None:
    html = written(tmp_path, QUALS)
    marked = html[html.index("Summary</h4>") :].split("</blockquote>")[0].split('dir="auto">')[1]
    assert marked == (
        '<mark class="q-mark q-band-4" title="highest">Ann Lee</mark>'
        '<sup class="q-ends"><a href="#row-1-pair-1">1</a></sup> won '
        '<mark class="q-mark q-band-2" title="low">5 million pounds</mark>'
        '<sup class="q-ends"><a href="#row-1-pair-2">2</a></sup> in Perth.'
    )


def test_both_colour_schemes_print_and_phone(tmp_path: Path) -> None:
    (style,) = check(written(tmp_path, QUALS)).styles
    assert style.count("@media screen and (prefers-color-scheme: dark)") == 2  # the page's and the marks'
    assert "@media print" in style and "details-content" in style and "overflow-x: auto" in style
    for band in range(5):  # in both schemes, and each with a line of its own kind
        assert style.count(f".q-band-{band} {{") == 2
    kinds = re.findall(r"\.q-band-\d \{[^}]*text-decoration-style: (\w+)", style)
    assert len(kinds) == len(set(kinds)) == 5
    assert STYLE in style


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("metric", ["quals", "qags"])
def test_texts_stay_texts(metric: str, text: str, tmp_path: Path) -> None:
    if metric == "quals":
        tokens = (text, "##x")
        part: Any = PairScore(text, text, 0, len(text), -1.0, tokens, (-1.0, -2.0), (-1.0, math.nan))
        result: Any = QualsResult((SummaryScore(-1.0, (part,)), SummaryScore(math.nan, (), text)), text)
    else:
        found = FoundAnswer(text, 0, len(text), 1.0)
        part = QuestionScore(text, text, 0, len(text), found, found, 1.0, -1.0)
        result = QagsResult((QagsScore(1.0, (part,)), QagsScore(math.nan, (), text)), text)
    html = written(tmp_path, result, summaries=[text] * 2, sources=[text] * 2, labels=[text, "other"])
    page = check(html)
    shown = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe]", "\ufffd", text)
    assert page.text.count(shown) >= 6
    plain = written(tmp_path, QUALS if metric == "quals" else qags())
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in check(plain).elements} | {"b"}


def qags() -> QagsResult:
    def answer(text: str, where: str) -> FoundAnswer:
        start = where.index(text) if text else -1
        return FoundAnswer(text, start, start + len(text) if text else -1, 2.0 if text else -1.0)

    questions = [
        ("How much was won?", "5 million pounds", "5 million", "5.5 million pounds", 0.4),
        ("Where did she win?", "Perth", "Perth", "", 0.0),
    ]
    parts = [
        QuestionScore(
            question, asked, SUMMARY.index(asked), SUMMARY.index(asked) + len(asked), answer(one, SUMMARY),
            answer(two, SOURCE), f1, -1.0,
        )
        for question, asked, one, two, f1 in questions
    ]  # fmt: skip
    return QagsResult((QagsScore(0.2, tuple(parts)), QagsScore(math.nan, (), "no question kept")), "qags|x:y")


def test_a_page_of_qags(tmp_path: Path) -> None:
    html = written(tmp_path, qags())
    page = check(html)
    for text in (
        "QAGS report", "Row 1: QAGS 0.200", "Answer from the source", "no answer", "No score: no question kept",
        "Where the reader found its answer in the source:", "The reader found no answer in the source. Sentences of",
    ):  # fmt: skip
        assert text in page.text
    assert '>Ann Lee, a nurse, won <b class="hit">5.5 million pounds</b>.</blockquote>' in html
    assert '<b class="hit">Perth</b>, says Bob.</blockquote>' in html
    assert not page.all("svg")


def test_undefined_numbers_everywhere(tmp_path: Path) -> None:
    odd = PairScore("q", "Ann", 0, 3, math.nan, ("a", "b"), (math.nan, -1.0), (-math.inf, 0.1))
    result = QualsResult((SummaryScore(math.nan, (odd,)),) * 6, "s")
    html = written(tmp_path, result)
    page = check(html)
    assert (
        "undefined" in page.text
        and not re.search(r"(?i)\bnan\b", re.sub("<[^>]*>", " ", html))
        and len(page.all("svg")) == 6
    )
    assert "Mean QUALSundefined" in page.text.replace("\n", "") and page.all("mark", **{"class": "q-mark q-band-0"})


# --- Many rows


def _rows(count: int, num_pairs: int = 2, seed: int = 0) -> Iterator[dict[str, Any]]:
    rng = random.Random(seed)
    for number in range(count):
        score = None if number % 10 == 9 else round(rng.gauss(-1, 0.7), 6)
        pairs = [vars(pair("Ann Lee", -1.0)) for _ in range(num_pairs if score is not None else 0)]
        yield {"score": score, "score_01": score and math.exp(min(score, 0)), "note": "no pair kept", "pairs": pairs}


def test_the_lowest_the_highest_and_the_undefined(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    report.write_rows(_rows(400), [(SUMMARY, SOURCE)] * 400, path, about={"score": -1.0, "low": -1.1, "high": -0.9})
    page = check(path.read_text())
    numbers = [int(found["id"][4:]) for found in page.all("details", **{"class": "entry"})]
    rows = list(_rows(400))
    order = sorted((n for n in range(1, 401) if n % 10), key=lambda n: rows[n - 1]["score"])
    assert numbers == [*order[:50], *order[:-51:-1], *range(10, 501, 10)][:140] and len(numbers) == 140
    assert "-1.000 (95 % interval -1.100 to -0.900)" in page.text
    counts = [int(n) for n in re.findall(r"(\d+)</td></tr>", path.read_text().split("</section>")[0])]
    assert sum(counts) == 360 and 5 < len(counts) <= MOST_BARS
    report.write_rows(_rows(400), [(SUMMARY, SOURCE)] * 400, path, about={}, details=3)
    assert len(check(path.read_text()).all("details", **{"class": "entry"})) == 9


def test_few_rows_are_shown_once(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    report.write_rows(_rows(30), [(SUMMARY, SOURCE)] * 30, path, about={})
    page = check(path.read_text())
    assert "All with a score, lowest first (27)" in page.text and "Undefined (3)" in page.text
    report.write_rows(_rows(3), [(SUMMARY, SOURCE)] * 3, path, about={}, details=1)
    assert len(check(path.read_text()).all("details", **{"class": "entry"})) == 2


@pytest.mark.parametrize(("details", "num_pairs", "most"), [(50, 10, MAX_BYTES), (10, 60, 1_000_000)])
def test_a_page_has_a_greatest_size(details: int, num_pairs: int, most: int, tmp_path: Path) -> None:
    """Long sources, full of what is written longer in HTML, with many pairs: more than fits."""
    source, path = '<"&> ' * 4000 + "Ann Lee won.", tmp_path / "out.html"
    rows = _rows(11 * details, num_pairs)
    report.write_rows(
        rows, itertools.repeat((SUMMARY, source), 11 * details), path, about={}, details=details, max_bytes=most
    )
    assert 0.9 * most < path.stat().st_size <= most
    page = check(path.read_text())
    left_out = re.search(r"(\d+) more rows did not fit on this page", page.text)
    shown = page.all("details", **{"class": "entry"})
    assert left_out is not None and len(shown) + int(left_out[1]) == 3 * details and len(shown) >= 6
    assert "The figure did not fit on this page." in page.text
    with pytest.raises(ValueError, match="max_bytes: must be an integer of at least 100000; got 5"):
        report.write_rows(_rows(6), [(SUMMARY, source)] * 6, path, about={}, max_bytes=5)


def test_what_fits_has_its_figures(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    report.write_rows(_rows(200, 3), [(SUMMARY, SOURCE)] * 200, path, about={})
    page = check(path.read_text())
    assert len(page.all("svg")) == 1 + 100 * 3 and "did not fit" not in page.text


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (400, 400, 4000):
        tracemalloc.start()
        texts = ((f"{SUMMARY} {number}", SOURCE) for number in range(count))
        report.write_rows(_rows(count), texts, tmp_path / "out.html", about={}, details=5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    with pytest.raises(ValueError, match="one of them ends before row 3"):
        report.write_rows(_rows(2), [(SUMMARY, SOURCE)] * 3, path, about={})
    with pytest.raises(ValueError, match="rows: must hold scores with their questions and answers"):
        report.write_rows([{"score": 1.0, "score_01": 1.0, "note": ""}], [(SUMMARY, SOURCE)], path, about={})
    with pytest.raises(ValueError, match=r"summaries: must be those of the result.*got 1 texts and 2 scores"):
        report.write(QUALS, path, summaries=[SUMMARY], sources=[SOURCE])
    with pytest.raises(ValueError, match="details: must be an integer of at least 1; got 0"):
        report.write(QUALS, path, summaries=[SUMMARY] * 2, sources=[SOURCE] * 2, details=0)
    assert not path.exists()


def test_a_threshold_says_which_answers_are_unsupported(tmp_path: Path) -> None:
    """Ann Lee has 0.1, 5 million pounds -2."""
    heading = "Unsupported answers (below {})"
    assert heading.format(-2.6) not in written(tmp_path, QUALS)  # the metric's threshold
    page = written(tmp_path, QUALS, threshold=-1)
    assert f"{heading.format(-1)}: <b><bdi>5 million pounds</bdi></b> (-2.000)." in page
    with pytest.raises(ValueError, match="threshold: must be a number"):
        written(tmp_path, QUALS, threshold=math.nan)


def test_the_selection_against_sorting() -> None:
    rng = random.Random(1)
    for size, count in itertools.product((1, 3, 10), (0, 1, 5, 7, 40)):
        scores = [rng.choice([math.nan, -2.0, -1.0, -1.0, 0.0, rng.random()]) for _ in range(count)]
        selection = ShownRows(size, Histogram())
        for number, score in enumerate(scores, 1):
            entry = Entry(number, "", "", "", SummaryScore(score, ()))
            selection.add(score, lambda entry=entry: entry)
        defined = [number for number in range(1, count + 1) if not math.isnan(scores[number - 1])]
        lowest = sorted(defined, key=lambda n: scores[n - 1])[:size]
        highest = [n for n in sorted(defined, key=lambda n: -scores[n - 1])[:size] if n not in lowest]
        undefined = [number for number in range(1, count + 1) if math.isnan(scores[number - 1])][:size]
        found = {name: [entry.number for entry in entries] for name, entries in selection.groups}
        if len(lowest) + len(highest) == len(defined):
            whole = found.pop("All with a score, lowest first", [])
            assert sorted(whole) == defined and [scores[n - 1] for n in whole] == sorted(scores[n - 1] for n in whole)
        else:
            assert found.pop("Lowest scores") == lowest and found.pop("Highest scores", []) == highest
        assert found.pop("Undefined", []) == undefined and not found
        assert selection.num_undefined == count - len(defined) and selection.num_rows == count


@pytest.mark.parametrize(
    ("top", "scores", "expected"),
    [
        (math.inf, [0.29, 0.29, 0.31], [(0.29, 0.3, 2), (0.3, 0.31, 0), (0.31, 0.32, 1)]),
        (math.inf, [-1.0, -0.95, 0.0], 20),
        (1.0, [1.0, 1.0, 0.0], [(0.0, 0.05, 1), *((n / 20, (n + 1) / 20, 0) for n in range(1, 19)), (0.95, 1.0, 2)]),
        (math.inf, [-math.inf, math.inf],
         [(-100.0, -90.0, 1), *((n, n + 10, 0) for n in range(-90, 100, 10)), (100, 110, 1)]),
        (math.inf, [], []),
    ],
)  # fmt: skip
def test_histograms(top: float, scores: list[float], expected: Any) -> None:
    histogram = Histogram(top)
    for score in scores:
        histogram.add(score)
    bars = histogram.bars()
    assert len(bars) <= MOST_BARS and sum(count for _, _, count in bars) == len(scores)
    if isinstance(expected, int):
        assert bars[0] == pytest.approx((-1.0, -0.95, 1)) and bars[-1][0] == pytest.approx(0.0)
    else:
        assert [tuple(bar) for bar in bars] == [pytest.approx(bar) for bar in expected]
    if bars:
        svg = histogram_svg([(f"{low:g}", count) for low, _, count in bars], "T <i>")
        assert "<title>T &lt;i&gt;</title>" in svg


# --- Pictures


def test_the_figure_by_hand() -> None:
    svg = figure_svg(pair("Ann Lee", 0.0))
    assert (
        "who 0.50, 0.50; won 0.25, 0.25; ? 0.90, 0.90; &lt;sep&gt; 1.00, 1.00; Ann 0.75, 0.75; [SEP] 0.06, 0.00" in svg
    )
    summary, source = (re.search(rf'class="q-{side}" fill="(#\w+)" d="([^"]*)"', svg) for side in ("summary", "source"))
    assert summary is not None and source is not None and summary[1] == "#2f73d8" and source[1] == "#d2690a"
    heights = [float(value) for value in re.findall(r"v-([\d.]+)", summary[2])]
    assert heights == pytest.approx([120 * value for value in (0.5, 0.25, 0.9, 1.0, 0.75, 0.0625)])
    assert [float(value) for value in re.findall(r"v-([\d.]+)", source[2])] == pytest.approx(heights[:-1])
    lefts = [[int(value) for value in re.findall(r"M(\d+) ", path[2])] for path in (summary, source)]
    assert [b - a for a, b in zip(*lefts, strict=False)] == [9] * 5  # of a token, the source's bar is on the right
    labels = re.findall(r"<text x=[^>]*>([^<]*)</text>", svg.split("rotate(90)")[1])
    assert labels == ["who", "won", "?", "&lt;sep&gt;", "Ann", "[SEP]"]
    assert Page(svg).all("svg")[0]["width"] == str(34 + 6 * 24 + 6)
    assert figure_svg(PairScore("q", "a", 0, 1, 0.0, (), (), ())) == ""


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("##ing", "ing"),
        ("Ġthe", "the"),
        ("▁the", "the"),
        ("##", "##"),
        ("Ġ", "Ġ"),
        ("▁", "▁"),
        ("a", "a"),
        ("#1", "#1"),
    ],
)
def test_tokens_as_people_write_them(token: str, expected: str) -> None:
    assert readable(token) == expected


def test_marks_that_overlap() -> None:
    score = SummaryScore(
        -1.0,
        (pair("5 million pounds", -4.0), pair("million", 0.0), pair("million pounds in", -1.0), pair("Perth", math.nan),
         pair("", 0.0, start=3), pair("beyond", 0.0, start=90)),
    )  # fmt: skip
    html = marked_summary_html(SUMMARY, score)
    plain = re.sub(r"<sup.*?</sup>", "", html)
    assert re.sub("<[^>]*>", "", plain) == SUMMARY
    assert re.findall(r'q-band-(\d)" title="[^"]*">([^<]*)</mark>(?:<sup class="q-ends">([^<]*)</sup>)?', html) == [
        ("1", "5 ", ""), ("1", "million", "2"), ("1", " pounds", "1"), ("3", " in", "3"), ("0", "Perth", "4")
    ]  # fmt: skip
    assert marked_summary_html("  a\n b ", SummaryScore(math.nan, ())) == "  a\n b "


def test_excerpts() -> None:
    source = SourceExcerpts(SOURCE)
    (found,) = source.about("Who won 5.5 million pounds?", "Ann Lee")
    assert "".join(part.text for part in found) == "Ann Lee, a nurse, won 5.5 million pounds."
    assert [part.text for part in found if part.hit] == ["Ann", "Lee", "won", "5.5", "million", "pounds"]
    assert source.about("Who was that?", "of the") == ()  # common words point nowhere
    assert SourceExcerpts("").about("Who?", "Ann") == ()
    chinese = SourceExcerpts("他赢了。她在珀斯。")
    assert "".join(part.text for part in chinese.around(4, 5)) == "她在珀斯。"
    long = SourceExcerpts("x " * 5000 + "Ann won " + "y " * 5000)
    for excerpt in (*long.about("Who won?", "Ann"), long.around(10_000, 10_003)):
        text = "".join(part.text for part in excerpt)
        assert text.startswith("… ") and text.endswith(" …") and "Ann won" in text and len(text) <= LENGTH + 4
    start = SOURCE.index("Monday")
    assert "".join(part.text for part in source.around(start, SOURCE.index("won"))).endswith("million pounds.")


# --- The commands


def test_explain_writes_a_page(fake_scorer: Any, tmp_path: Path) -> None:
    texts = ["--source", SOURCE, "--summary", "Ann won.", "--summary", "<script>"]
    result = CliRunner().invoke(cli.app, ["explain", *texts, "--html", str(tmp_path / "out.html"), "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)["signature"] == "fake:all", result.output
    page = check((tmp_path / "out.html").read_text())
    assert "Summary 1: QUALS 0.000" in page.text and "Summary 2: QUALS -1.000" in page.text


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(file_commands, "load_scorer", lambda *_, **__: QuickScorer())
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"summary": f"summary {n} \ud800" if n else "", "source": f"source {n}"}) for n in range(20)]
    Path("in.jsonl").write_text("\n".join(lines))
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("score")(with_metrics(file_commands.score_command))
    return lambda *arguments, **options: CliRunner().invoke(app, list(arguments), **options)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_score_writes_a_page(ending: str, score: Any) -> None:
    result = score("in.jsonl", "-o", f"out.{ending}", "--report", "out.html", "--details", "4", "--shard-rows", "6")
    assert result.exit_code == 0, result.output
    page = check(Path("out.html").read_text())
    rows = page.all("details", **{"class": "entry"})
    assert len(rows) == 9 and "Signaturequick" in page.text.replace("\n", "")
    found = QuickScorer().score(
        summaries=[f"summary {n} \ud800" for n in range(20)], sources=[f"source {n}" for n in range(20)]
    )
    lowest = min(range(1, 20), key=lambda n: found.scores[n])
    assert rows[0]["id"] == f"row-{lowest + 1}" and f"Row {lowest + 1}: QUALS {found.scores[lowest]:.3f}" in page.text
    assert f"summary {lowest} \ufffd" in page.text and "95 % interval" in page.text


def test_score_of_standard_input_and_text_files(score: Any) -> None:
    lines = Path("in.jsonl").read_text()
    result = score("-", "-o", "out.jsonl", "--report", "out.html", input=lines)
    assert result.exit_code == 2 and "standard input is read once only: add --keep" in result.output
    assert not Path("out.jsonl").exists()
    assert score("-", "-o", "out.jsonl", "--report", "out.html", "--keep", input=lines).exit_code == 0
    assert "summary 7" in check(Path("out.html").read_text()).text
    Path("hyp.txt").write_text("a b\nc d\n")
    Path("doc.txt").write_text("e\nf\n")
    texts = ("--summaries", "hyp.txt", "--sources", "doc.txt")
    assert score(*texts, "-o", "text.jsonl", "--report", "out.html").exit_code == 0
    assert "c d" in check(Path("out.html").read_text()).text


def test_21_b9_a_report_that_could_not_be_written_is_refused_first(score: Any) -> None:
    Path("in.html").write_bytes(Path("in.jsonl").read_bytes())
    for name, message in (
        ("in.html", "must not be the output or an input"),
        ("no/out.html", "its folder must exist"),
        ("x" * 256 + ".html", "File name too long"),
    ):
        inputs = ("--summaries", "in.html", "--sources", "in.jsonl") if name == "in.html" else ("in.jsonl",)
        result = score(*inputs, "-o", "out.jsonl", "--report", name)
        assert message in str(result.exception)
    result = score("in.jsonl", "-o", "out.jsonl", "--report", "in.jsonl")
    assert result.exit_code == 2 and "the page's name must end in .html; got 'in.jsonl'" in result.output
    assert not Path("out.jsonl").exists()


def test_21_b9_a_run_killed_before_its_report_is_finished_by_the_same_command(
    score: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("in.jsonl", "-o", "out.jsonl", "--report", "out.html")
    with monkeypatch.context() as patch:
        patch.setattr(file_commands, "_write_report", lambda *_: 1 / 0)  # as if it were killed here
        assert isinstance(score(*arguments).exception, ZeroDivisionError)
    written = Path("out.jsonl").read_bytes()
    monkeypatch.setattr(QuickScorer, "score", lambda *_, **__: pytest.fail("scored again"))
    result = score(*arguments)
    assert result.exit_code == 0, result.output
    assert "QUALS" in result.stdout and "summary 7" in check(Path("out.html").read_text()).text
    assert Path("out.jsonl").read_bytes() == written
    # Without a report, or for other rows, the output is in the way as ever.
    assert "there is a file of that name" in str(score("in.jsonl", "-o", "out.jsonl", "--pairs").exception)
    Path("in.jsonl").write_text('{"summary": "a", "source": "b"}\n')
    assert "there is a file of that name" in str(score(*arguments).exception)


def test_a_score_file_without_texts_must_be_scored_with_them(score: Any) -> None:
    assert score("in.jsonl", "-o", "out.jsonl", "--pairs").exit_code == 0
    has = r"line 1: must have a column 'summary'; it has 'score', "
    with pytest.raises(ValueError, match=has + ".*Score with --keep --pairs, or name yours with --summary-column"):
        report.report_file("out.jsonl", "out.html")
    assert score("in.jsonl", "-o", "kept.jsonl", "--pairs", "--keep").exit_code == 0
    with pytest.raises(ValueError, match=r"must have a column 'document'; .*or name yours with --source-column"):
        report.report_file("kept.jsonl", "out.html", source="document")
    Path("empty.jsonl").touch()
    with pytest.raises(ValueError, match=r"empty\.jsonl: must hold at least one row; there is none"):
        report.report_file("empty.jsonl", "out.html")


def test_an_edited_output_is_not_reported_as_it_was(score: Any) -> None:
    arguments = ("in.jsonl", "-o", "out.jsonl", "--report", "out.html")
    assert score(*arguments).exit_code == 0
    lines = Path("out.jsonl").read_text().splitlines(keepends=True)
    Path("out.jsonl").write_text("".join(lines[:-1]))
    assert "there is a file of that name" in str(score(*arguments).exception)


def test_a_page_has_nothing_of_another_files_sidecar(tmp_path: Path) -> None:
    """A file that was shortened after its scoring has another number of rows than its sidecar says."""
    path, page = write_system(tmp_path / "a.jsonl", [-1.0, -2.0, -3.0]), tmp_path / "page.html"
    about = {"rows": 3, "metric": "quals", "signature": "quals|of:three", "threshold": -0.5, "num_windowed_sources": 7}
    sidecar(path).write_text(json.dumps(about | {"calibration": "Made from labels."}))
    facts = ("quals|of:three", "Made from labels.", "longer than the model", "below -0.5")
    report.report_file(path, page)
    assert all(fact in page.read_text() for fact in facts)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    report.report_file(path, page)
    assert not any(fact in page.read_text() for fact in facts)
    sidecar(path).write_text("{")
    with pytest.raises(ValueError, match=r"a\.jsonl\.meta\.json: must be JSON; .*Delete it"):
        report.report_file(path, page)


@pytest.mark.parametrize("keep", [(), ("--keep",)])
def test_21_d27_a_report_shows_the_users_columns(keep: tuple[str, ...], score: Any) -> None:
    rows = [
        {"id": n, "model": "<b>", "summary": f"a {n}", "source": "c", "more": ["x"], "none": None, "note": "mine"}
        for n in range(3)
    ]
    if keep:  # a kept column must not have the name of a written one
        rows = [{name: value for name, value in row.items() if name != "note"} for row in rows]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert score("in.jsonl", "-o", "out.jsonl", "--report", "out.html", *keep).exit_code == 0
    html = Path("out.html").read_text()
    check(html)
    assert html.count('<dt dir="auto">id</dt>') == html.count('<dd dir="auto">&lt;b&gt;</dd>') == 3
    assert '<dd dir="auto">2</dd>' in html and "mine" not in html
    assert ">more</dt>" not in html and ">none</dt>" not in html  # nothing to show in one line


def test_21_d22_bands_order_scores_and_judge_nothing(tmp_path: Path) -> None:
    html = written(tmp_path, QUALS)
    assert "they are no verdict on an answer or a summary" in html and "on XSum two thirds of the pairs" in html
    assert not re.search("support(ed)? by|hardly|weakly|partly", html)
    hues = {colorsys.rgb_to_hsv(*bytes.fromhex(colour))[0] for colour in
            re.findall(r"q-band-[1-4] \{ background: #(\w{6})", STYLE)}  # fmt: skip
    assert max(hues) - min(hues) < 0.05  # shades of one colour, no red and green


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("how did klitschko ' s armor take the chink ?", "How did Klitschko's armor take the chink?"),
        ("how well - known is ann lee ?", "How well-known is Ann Lee?"),
        ("did it cost 3 , 000 u . s . dollars ?", "Did it cost 3,000 U.S. dollars?"),
        ("who isn ' t there ?", "Who isn't there?"),
        ("what about 5 . 5 pounds ?", "What about 5.5 pounds?"),
        ("did the man - or the woman - win ?", "Did the man - or the woman - win?"),
        ("who beat the klitschko, says lewis?", "Who beat the Klitschko, says Lewis?"),
        ("(ann lee)", "(Ann Lee)"),
        ("Who won?", "Who won?"),
        ("что сказала ann ?", "Что сказала Ann?"),
        ("", ""),
    ],
)
def test_21_d22_questions_are_written_as_people_write(question: str, expected: str) -> None:
    text = "The Klitschko's well-known armour cost 3,000 U.S. dollars, says Lewis."
    assert natural_question(question, text, "Ann Lee took it.") == expected


def test_21_d22_a_page_has_the_question_as_people_write_it(tmp_path: Path) -> None:
    result = QualsResult((SummaryScore(-1.0, (pair("Perth", -1.0, "where did ann lee win 5 million ?"),)),), "s")
    html = written(tmp_path, result)
    assert html.count("Where did Ann Lee win 5 million?") == 2 and "ann lee win" not in html
    assert ">won<" in html  # the figure has the pieces as they are
