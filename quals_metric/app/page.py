"""The metrics as a web page: source and summary in, score, marked summary, pairs and figures out.

It may stand in public: what a request may hold and take is bounded (`Limits`), one scoring runs at a time and the queue
is short, errors are told without their traces, and no address or path of a visitor's is opened (`Guard`).
"""

from __future__ import annotations

import html
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from qa_inference.metric_base import CorpusResult
from quals_metric.app.files import ENDINGS, read_upload, write_scores
from quals_metric.app.limits import Limits, RefusedError, Tell
from quals_metric.app.scoring import Chosen, Desk, Load
from quals_metric.app.server import HOST, PORT, Page, launch, library, upload_folder
from quals_metric.app.views import CSS, corpus_html, result_html
from quals_metric.cli.options import Metric, load_scorer
from quals_metric.report.examples import EXAMPLES
from quals_metric.report.page import METRICS
from quals_metric.report.writing import write

Answer = TypeVar("Answer")

_CLEAN_EVERY, _CLEAN_AGE = 300, 3600  # seconds: visitors' files do not stay, but as long as their turn may take
_SESSIONS = 200  # pages whose state the server remembers
_COLUMN = 280  # pixels: on a phone the two stand one below the other
_WRONG = "Something went wrong here. It has been noted; please try again, or with other texts."


class AppPage:
    """What the page's buttons do.

    Args:
        metric: "quals" or "qags".
        desk: where scores are made.
        limits: what is taken.
        folder: where files for visitors are written.
    """

    def __init__(self, metric: str, desk: Desk, limits: Limits, folder: Path) -> None:
        self.metric, self.desk, self.limits, self._folder = metric, desk, limits, folder

    def texts(self, source: str, first: str, second: str, chosen: Chosen, tell: Tell) -> list[str]:
        """The HTML of one or two summaries' scores; "" for a second that is blank."""
        summaries = [first, second] if second.strip() else [first]
        for summary in summaries:
            self.limits.check(summary, source)
        sources = [source] * len(summaries)
        scores = self.desk.score(summaries, sources, chosen, self.limits.text_seconds, tell).summaries
        labels = ["Summary"] if len(summaries) == 1 else ["Summary 1", "Summary 2"]
        shown = [result_html(*one) for one in zip(labels, summaries, scores, strict=True)]
        return [*shown, ""][:2]

    def file(self, path: str | None, chosen: Chosen, tell: Tell) -> tuple[str, list[str]]:
        """The HTML of a file's scores, and the paths of the scored file and of its report."""
        if path is None:
            raise RefusedError("Please choose a file first.")
        rows = read_upload(Path(path), self.metric, self.limits)
        summaries, sources = [row.summary for row in rows], [row.source for row in rows]
        result: CorpusResult[Any] = self.desk.score(summaries, sources, chosen, self.limits.file_seconds, tell)
        scored = write_scores(self._folder, Path(path).suffix.lower(), rows, result)
        page = scored.with_name("report.html")
        write(result, page, summaries=summaries, sources=sources)
        return corpus_html(result), [str(scored), str(page)]


def build(metric: str = "quals", *, load: Load | None = None, limits: Limits | None = None) -> Page:
    """The page. Launched by other than `serve` it has no guard before it: do that only where you trust everybody.

    Args:
        metric: "quals" or "qags".
        load: makes a scorer of the presets chosen; None: `QualsScorer` or `QagsScorer`.
        limits: what is taken; None: the defaults.

    Raises:
        ImportError: if the extra `app`, or for QAGS `qags`, is not installed.
        ValueError: if it is no such metric.
    """
    gr = library("quals serve")
    limits = limits or Limits()
    desk = Desk(metric, load or (lambda chosen: load_scorer(Metric(metric), **chosen)))
    page = AppPage(metric, desk, limits, _folder())
    blocks: Page
    title = METRICS[metric].name
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(_CLEAN_EVERY, _CLEAN_AGE)) as blocks:
        gr.Markdown(f"# {title}\n\nIs a summary consistent with its source? {METRICS[metric].meaning}")
        chosen = {option: _dropdown(gr, option, list(presets)) for option, presets in desk.presets.items()}
        with gr.Tab("Summaries"):
            _texts_tab(gr, page, chosen)
        with gr.Tab("A file"):
            _file_tab(gr, page, chosen)
        blocks.queue(max_size=limits.waiting, api_open=False, default_concurrency_limit=1)
    return blocks


def serve(
    metric: str = "quals",
    host: str = HOST,
    port: int = PORT,
    *,
    load: Load | None = None,
    limits: Limits | None = None,
) -> None:
    """Serve the page until interrupted.

    Args:
        metric: "quals" or "qags".
        host: the address to listen at; 0.0.0.0: all of this machine's.
        port: and the port.
        load: as in `build`.
        limits: as in `build`.

    Raises:
        ImportError: if the extra `app`, or for QAGS `qags`, is not installed.
        ValueError: if it is no such metric.
        OSError: if the port is taken.
    """
    limits = limits or Limits()
    with upload_folder("quals-app-") as folder:
        launch(
            build(metric, load=load, limits=limits),
            folder,
            host,
            port,
            body=limits.body,
            upload=limits.file,
            max_file_size=limits.file,
            state_session_capacity=_SESSIONS,
            css=CSS,
        )


def _texts_tab(gr: Any, page: AppPage, chosen: dict[str, Any]) -> None:
    """A source and two summaries, and what is said of them, side by side."""
    source = gr.Textbox(label="Source", lines=4, max_lines=16, placeholder="The text that was summarized")
    with gr.Row():
        first = gr.Textbox(label="Summary", lines=3, max_lines=8, min_width=_COLUMN)
        second = gr.Textbox(label="Another summary of it (if you like)", lines=3, max_lines=8, min_width=_COLUMN)
    button = gr.Button("Score", variant="primary")
    examples = gr.Examples(
        [[one.source, one.faithful, one.unfaithful] for one in EXAMPLES],
        [source, first, second],
        example_labels=[one.title for one in EXAMPLES],
        label="Examples: a faithful summary, and one that is not",
        cache_examples=False,
        api_visibility="private",
    )
    shown = []
    with gr.Row():
        for _ in range(2):
            with gr.Column(min_width=_COLUMN):
                shown.append(gr.HTML())

    def score(values: dict[Any, Any], progress: Any = gr.Progress()) -> list[str]:  # noqa: B008  (how Gradio finds it)
        a, b, c = (_text(values[box]) for box in (source, first, second))
        return _answer(gr, lambda: page.texts(a, b, c, _values(values, chosen), progress))

    inputs = {source, first, second, *chosen.values()}
    for event in (button.click, examples.load_input_event.then):
        _on(event, score, inputs, shown)


def _file_tab(gr: Any, page: AppPage, chosen: dict[str, Any]) -> None:
    """A file up, scores down."""
    most = page.limits
    gr.Markdown(
        f"A CSV file with a header, or JSON lines, in UTF-8, with the columns `summary` and `source`: at most "
        f"{most.rows:,} rows and {most.file:,} bytes, {most.summary:,} characters a summary and {most.source:,} a "
        f"source. You get your columns back with the scores, and a report. Files are deleted after "
        f"{_CLEAN_AGE // 60} minutes."
    )
    upload = gr.File(label="Your file", file_types=list(ENDINGS), type="filepath")
    button = gr.Button("Score the file", variant="primary")
    about = gr.HTML()
    scored = gr.File(label="Scores and report", file_count="multiple", interactive=False)

    def score(values: dict[Any, Any], progress: Any = gr.Progress()) -> tuple[str, list[str]]:  # noqa: B008  (the same)
        return _answer(gr, lambda: page.file(values[upload], _values(values, chosen), progress))

    _on(button.click, score, {upload, *chosen.values()}, [about, scored])


def _on(event: Callable[..., Any], function: Callable[..., Any], inputs: set[Any], outputs: list[Any]) -> None:
    """Let an event score: nothing else is scored meanwhile, whichever button it was."""
    event(function, inputs, outputs, concurrency_limit=1, concurrency_id="scoring", api_visibility="private")


def _answer(gr: Any, work: Callable[[], Answer]) -> Answer:
    """The result of `work`; what stops it becomes a message that holds no HTML of a visitor's and no trace."""
    try:
        return work()
    except RefusedError as error:
        raise gr.Error(html.escape(str(error)), title="Not scored", print_exception=False) from None
    except Exception:
        traceback.print_exc()  # for whoever runs the app
        raise gr.Error(_WRONG, title="Not scored", print_exception=False) from None


def _dropdown(gr: Any, option: str, presets: list[str]) -> Any:
    return gr.Dropdown(presets, value="embedded", label=f"The {option}", filterable=False, allow_custom_value=False)


def _values(values: dict[Any, Any], chosen: dict[str, Any]) -> dict[str, str]:
    """What was chosen, by option."""
    return {option: values[box] for option, box in chosen.items()}


def _text(value: object) -> str:
    """A text box's value: a visitor's program may send anything."""
    return value if isinstance(value, str) else ""


def _folder() -> Path:
    """Where Gradio keeps uploaded files, and what it may send."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")).resolve()
