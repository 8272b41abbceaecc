"""The metrics as a web page: a visitor enters a source and summaries and sees scores, questions and figures.

It is fit to stand in public: `Limits` bounds the content and time of a request, one scoring runs at a time, the queue
is short, error messages hold no traceback, and `Guard` opens no address or path that a visitor sends.
"""

from __future__ import annotations

import html
import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from qa_inference.metric_base import CorpusResult
from quals_metric.app.limits import Limits, RefusedError, ShowProgress
from quals_metric.app.scoring_queue import ChosenPresets, LoadScorer, ScoringQueue
from quals_metric.app.server import HOST, PORT, Page, load_gradio, on_event, serve_page
from quals_metric.app.uploads import ENDINGS, read_upload, write_scores
from quals_metric.app.views import CSS, corpus_html, result_html
from quals_metric.metrics import metric_spec
from quals_metric.report.examples import EXAMPLES
from quals_metric.report.writing import write

Output = TypeVar("Output")

_COMMAND = "quals serve"
_CLEAN_EVERY, _CLEAN_AGE = 300, 3600  # seconds: files are removed soon, but not before their turn may be over
_SESSIONS = 200  # pages whose state the server remembers
_COLUMN = 280  # pixels: on a phone the two columns stand one below the other
_WRONG = "Something went wrong on the server. The error was recorded; please try again, or with other texts."


class ScoringPage:
    """The functions behind the page's buttons.

    Args:
        metric: the name of a metric, "quals" or "qags".
        queue: makes the scores.
        limits: the limits on a request.
        folder: the folder for visitors' files.
    """

    def __init__(self, metric: str, queue: ScoringQueue, limits: Limits, folder: Path) -> None:
        self.metric, self.queue, self.limits, self._folder = metric, queue, limits, folder

    def score_texts(self, texts: Sequence[str], chosen: ChosenPresets, show_progress: ShowProgress) -> list[str]:
        """Score one or two summaries of a source.

        Args:
            texts: the source, the summary, and another summary or a blank text.
            chosen: the presets.
            show_progress: receives the share of the work that is done.

        Returns:
            The HTML of either summary's scores; "" for a blank second one.

        Raises:
            RefusedError: if a text is outside the limits, or as `ScoringQueue.score`.
        """
        source, *summaries = texts if texts[-1].strip() else texts[:-1]
        for summary in summaries:
            self.limits.check(summary, source)
        sources = [source] * len(summaries)
        result = self.queue.score(summaries, sources, chosen, self.limits.text_seconds, show_progress)
        labels = ["Summary"] if len(summaries) == 1 else ["Summary 1", "Summary 2"]
        shown = [
            result_html(label, summary, scored)
            for label, summary, scored in zip(labels, summaries, result.summaries, strict=True)
        ]
        return [*shown, ""][:2]

    def score_file(self, path: str | None, chosen: ChosenPresets, show_progress: ShowProgress) -> tuple[str, list[str]]:
        """Score a file.

        Args:
            path: the uploaded file; None: nothing was uploaded.
            chosen: the presets.
            show_progress: receives the share of the work that is done.

        Returns:
            The HTML of its scores, and the paths of the scored file and of its report.

        Raises:
            RefusedError: if there is no file or it is invalid, or as `ScoringQueue.score`.
        """
        if path is None:
            raise RefusedError("Please choose a file first.")
        rows = read_upload(Path(path), self.metric, self.limits)
        summaries, sources = [row.summary for row in rows], [row.source for row in rows]
        result: CorpusResult[Any] = self.queue.score(
            summaries, sources, chosen, self.limits.file_seconds, show_progress
        )
        scored = write_scores(self._folder, Path(path).suffix.lower(), rows, result)
        report = scored.with_name("report.html")
        write(result, report, summaries=summaries, sources=sources)
        return corpus_html(result), [str(scored), str(report)]


def build(metric: str = "quals", *, load: LoadScorer | None = None, limits: Limits | None = None) -> Page:
    """The page as Gradio's Blocks. `serve` adds the guard; launch the page without it only for people you trust.

    Args:
        metric: the name of a metric, "quals" or "qags".
        load: makes a scorer of the chosen presets; None: the metric's own scorer.
        limits: the limits on a request; None: the defaults.

    Raises:
        ImportError: if the extra `app`, or the extra that the metric needs, is not installed.
        ValueError: if there is no such metric.
    """
    gr = load_gradio(_COMMAND)
    limits, spec = limits or Limits(), metric_spec(metric)
    queue = ScoringQueue(metric, load or (lambda chosen: spec.load_scorer(**chosen)))
    page = ScoringPage(metric, queue, limits, _upload_folder())
    blocks: Page
    with gr.Blocks(title=spec.title, analytics_enabled=False, delete_cache=(_CLEAN_EVERY, _CLEAN_AGE)) as blocks:
        gr.Markdown(f"# {spec.title}\n\nIs a summary consistent with its source? {spec.meaning}")
        boxes = {option: _dropdown(gr, option, list(presets)) for option, presets in queue.presets.items()}
        with gr.Tab("Summaries"):
            _texts_tab(gr, page, boxes)
        with gr.Tab("A file"):
            _file_tab(gr, page, boxes)
        blocks.queue(max_size=limits.waiting, api_open=False, default_concurrency_limit=1)
    return blocks


def serve(
    metric: str = "quals",
    host: str = HOST,
    port: int = PORT,
    *,
    load: LoadScorer | None = None,
    limits: Limits | None = None,
) -> None:
    """Serve the page until interrupted.

    Args:
        metric: the name of a metric, "quals" or "qags".
        host: the address to listen at; 0.0.0.0 stands for all addresses of this machine.
        port: the port to listen at.
        load: as in `build`.
        limits: as in `build`.

    Raises:
        ImportError: if the extra `app`, or the extra that the metric needs, is not installed.
        ValueError: if there is no such metric.
        OSError: if the port is taken.
    """
    load_gradio(_COMMAND)
    limits = limits or Limits()
    serve_page(
        lambda: build(metric, load=load, limits=limits),
        host,
        port,
        body=limits.body,
        upload=limits.file,
        max_file_size=limits.file,
        state_session_capacity=_SESSIONS,
        css=CSS,
    )


def _texts_tab(gr: Any, page: ScoringPage, boxes: dict[str, Any]) -> None:
    """A source, two summaries, and their scores side by side."""
    source = gr.Textbox(label="Source", lines=4, max_lines=16, placeholder="The text that was summarized")
    with gr.Row():
        first = gr.Textbox(label="Summary", lines=3, max_lines=8, min_width=_COLUMN)
        second = gr.Textbox(label="Another summary (optional)", lines=3, max_lines=8, min_width=_COLUMN)
    button = gr.Button("Score", variant="primary")
    examples = gr.Examples(
        [[example.source, example.faithful, example.unfaithful] for example in EXAMPLES],
        [source, first, second],
        example_labels=[example.title for example in EXAMPLES],
        label="Examples: a faithful summary and an unfaithful one",
        cache_examples=False,
        api_visibility="private",
    )
    shown = []
    with gr.Row():
        for _ in range(2):
            with gr.Column(min_width=_COLUMN):
                shown.append(gr.HTML())

    def score(values: dict[Any, Any], progress: Any = gr.Progress()) -> list[str]:  # noqa: B008  (Gradio looks for it)
        texts = [_box_text(values[box]) for box in (source, first, second)]
        return _or_message(gr, partial(page.score_texts, texts, _chosen(values, boxes), progress))

    inputs = {source, first, second, *boxes.values()}
    for event in (button.click, examples.load_input_event.then):
        on_event(event, score, inputs, shown)


def _file_tab(gr: Any, page: ScoringPage, boxes: dict[str, Any]) -> None:
    """A file to upload, and its scores to download."""
    limits = page.limits
    gr.Markdown(
        f"Upload a CSV file with a header, or JSON lines, in UTF-8, with the columns `summary` and `source`. A file "
        f"may have {limits.rows:,} rows and {limits.file:,} bytes, a summary {limits.summary:,} characters, a source "
        f"{limits.source:,}. You get your columns back with the scores, and a report. Files are deleted after "
        f"{_CLEAN_AGE // 60} minutes."
    )
    upload = gr.File(label="Your file", file_types=list(ENDINGS), type="filepath")
    button = gr.Button("Score the file", variant="primary")
    about = gr.HTML()
    scored = gr.File(label="Scores and report", file_count="multiple", interactive=False)

    def score(values: dict[Any, Any], progress: Any = gr.Progress()) -> tuple[str, list[str]]:  # noqa: B008  (the same)
        return _or_message(gr, partial(page.score_file, values[upload], _chosen(values, boxes), progress))

    on_event(button.click, score, {upload, *boxes.values()}, [about, scored])


def _or_message(gr: Any, work: Callable[[], Output]) -> Output:
    """The result of `work`; an exception becomes a message without a traceback or a visitor's HTML."""
    try:
        return work()
    except RefusedError as error:
        raise gr.Error(html.escape(str(error)), title="Not scored", print_exception=False) from None
    except Exception:
        traceback.print_exc()  # for whoever runs the app
        raise gr.Error(_WRONG, title="Not scored", print_exception=False) from None


def _dropdown(gr: Any, option: str, presets: list[str]) -> Any:
    return gr.Dropdown(presets, value="embedded", label=f"The {option}", filterable=False, allow_custom_value=False)


def _chosen(values: dict[Any, Any], boxes: dict[str, Any]) -> dict[str, str]:
    """The chosen presets by option."""
    return {option: values[box] for option, box in boxes.items()}


def _box_text(value: object) -> str:
    """The text of a text box; "" for anything else, which a visitor's program may send."""
    return value if isinstance(value, str) else ""


def _upload_folder() -> Path:
    """The folder where Gradio keeps uploaded files, and from which it sends files."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")).resolve()
