"""The metrics as a web page: a visitor enters a source and summaries and sees scores, questions and figures.

It is fit to stand in public: `Limits` bounds the content and time of a request, one scoring runs at a time, the queue
is short, messages hold no traceback, and `Guard` opens no address or path that a visitor sends.
"""

from __future__ import annotations

import html
import os
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qa_inference.metric_base.results import CorpusResult
from quals_metric.app.limits import Limits, RefusedError, ShowProgress
from quals_metric.app.scoring_queue import ChosenModels, LoadScorer, ScoringQueue
from quals_metric.app.server import CLEAN_AGE, CLEAN_EVERY, HOST, PORT, Page, load_gradio, on_event, serve_page
from quals_metric.app.uploads import ENDINGS, read_upload, write_scores
from quals_metric.app.views import CSS, corpus_html, help_html, result_html
from quals_metric.metrics import metric_spec
from quals_metric.report.examples import EXAMPLES
from quals_metric.report.writing import write

_COMMAND = "quals serve"
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

    def score_texts(self, texts: Sequence[str], chosen: ChosenModels, show_progress: ShowProgress) -> list[str]:
        """Score one or two summaries of a source.

        Args:
            texts: the source, the summary, and another summary or a blank text.
            chosen: the names of the models.
            show_progress: receives the share of the work that is done.

        Returns:
            The HTML of either summary's scores; "" for a blank second one.

        Raises:
            RefusedError: if a text is outside the limits, or as `ScoringQueue.score`.
        """
        source, *summaries = texts if texts[-1].strip() else texts[:-1]
        for field, summary in zip(("summary", "other summary"), summaries, strict=False):
            self.limits.check(summary, source, field=field)
        sources = [source] * len(summaries)
        result = self.queue.score(summaries, sources, chosen, self.limits.text_seconds, show_progress)
        labels = ["Summary"] if len(summaries) == 1 else ["Summary 1", "Summary 2"]
        shown = [
            result_html(label, summary, scored, source)
            for label, summary, scored in zip(labels, summaries, result.summaries, strict=True)
        ]
        return [*shown, ""][:2]

    def score_file(self, path: str | None, chosen: ChosenModels, show_progress: ShowProgress) -> tuple[str, list[str]]:
        """Score a file.

        Args:
            path: the uploaded file; None: nothing was uploaded.
            chosen: the names of the models.
            show_progress: receives the share of the work that is done.

        Returns:
            The HTML of its scores, and the paths of the scored file and of its report.

        Raises:
            RefusedError: if there is no file or it is invalid, or as `ScoringQueue.score`.
        """
        if path is None:
            raise RefusedError("Please choose a file first.", "file")
        try:
            rows = read_upload(Path(path), self.metric, self.limits)
        except RefusedError as error:
            raise RefusedError(str(error), "file") from error
        summaries, sources = [row.summary for row in rows], [row.source_text for row in rows]
        result: CorpusResult[Any] = self.queue.score(
            summaries, sources, chosen, self.limits.file_seconds, show_progress
        )
        scored = write_scores(self._folder, Path(path).suffix.lower(), rows, result)
        report = scored.with_name("report.html")
        write(result, report, summaries=summaries, sources=sources)
        return corpus_html(result), [str(scored), str(report)]


def build(
    metric: str = "quals", *, load: LoadScorer | None = None, limits: Limits | None = None, model: str | None = None
) -> Page:
    """The page as Gradio's Blocks. `serve` adds the guard; launch the page without it only for people you trust.

    Args:
        metric: the name of a metric, "quals" or "qags".
        load: makes a scorer of the chosen models; None: the metric's own scorer.
        limits: the limits on a request; None: the defaults.
        model: a question-generation model to offer first: a preset, Hub name or folder; None: the embedded one.

    Raises:
        ImportError: if the extra `app`, or the extra that the metric needs, is not installed.
        ValueError: if there is no such metric or model.
    """
    gr = load_gradio(_COMMAND)
    limits, spec = limits or Limits(), metric_spec(metric)
    blocks: Page
    load = load or (lambda models: spec.load_scorer(**models))
    queue = ScoringQueue(metric, load, model, is_ended=lambda: not blocks.is_running)
    page = ScoringPage(metric, queue, limits, _upload_folder())
    with gr.Blocks(title=spec.title, analytics_enabled=False, delete_cache=(CLEAN_EVERY, CLEAN_AGE)) as blocks:
        gr.Markdown(f"# {spec.title}\n\nIs a summary consistent with its source? {spec.meaning}")
        boxes = {
            option: gr.Dropdown(
                list(models), value=queue.default[option], label=f"The {option}", filterable=False,
                allow_custom_value=False,
            )
            for option, models in queue.models.items()
        }  # fmt: skip
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
    model: str | None = None,
    auth: str | None = None,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Serve the page until interrupted.

    Args:
        metric: the name of a metric, "quals" or "qags".
        host: the address to listen at; 0.0.0.0 stands for all addresses of this machine.
        port: the port to listen at.
        load: as in `build`.
        limits: as in `build`.
        model: as in `build`.
        auth: "USER:PASSWORD" that visitors must enter; None: nothing is asked.
        allowed_hosts: further host names that requests may be for, such as that of a proxy before the server.

    Raises:
        ImportError: if the extra `app`, or the extra that the metric needs, is not installed.
        ValueError: if there is no such metric or model, or `auth` has another form.
        OSError: if the port is taken.
    """
    load_gradio(_COMMAND)
    limits = limits or Limits()
    serve_page(
        lambda: build(metric, load=load, limits=limits, model=model),
        host,
        port,
        body=limits.body,
        upload=limits.file,
        auth=auth,
        allowed_hosts=allowed_hosts,
        max_file_size=limits.file,
        state_session_capacity=_SESSIONS,
        css=CSS,
    )


def _texts_tab(gr: Any, page: ScoringPage, boxes: dict[str, Any]) -> None:
    """A source, two summaries, and their scores side by side."""
    fields, messages = {}, {}
    fields["source"] = gr.Textbox(label="Source", lines=4, max_lines=16, placeholder="The text that was summarized")
    messages["source"] = gr.HTML(elem_classes="q-slot")
    with gr.Row():
        for name, label in (("summary", "Summary"), ("other summary", "Another summary (optional)")):
            with gr.Column(min_width=_COLUMN):
                fields[name] = gr.Textbox(label=label, lines=3, max_lines=8)
                messages[name] = gr.HTML(elem_classes="q-slot")
    button = gr.Button("Score", variant="primary")
    messages[""] = gr.HTML(elem_classes="q-status", elem_id="status-of-texts")
    examples = gr.Examples(
        [[example.source, example.faithful, example.unfaithful] for example in EXAMPLES],
        list(fields.values()),
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
    gr.HTML(help_html(page.metric))

    def score(values: dict[Any, Any], progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008  (Gradio looks for it)
        texts = [_box_text(values[field]) for field in fields.values()]
        return _outputs(partial(page.score_texts, texts, _chosen_models(values, boxes), progress), len(shown), messages)

    _wire((button.click, examples.load_input_event.then), score, fields, boxes, shown, messages)


def _file_tab(gr: Any, page: ScoringPage, boxes: dict[str, Any]) -> None:
    """A file to upload, and its scores to download."""
    limits = page.limits
    gr.Markdown(
        f"Upload a CSV file with a header, or JSON lines, in UTF-8, with the columns `summary` and `source`. A file "
        f"may have {limits.rows:,} rows and {limits.file:,} bytes, a summary {limits.summary:,} characters, a source "
        f"{limits.source:,}. You get your columns back with the scores, and a report. Files are deleted after "
        f"{CLEAN_AGE // 60} minutes."
    )
    fields = {"file": gr.File(label="Your file", file_types=list(ENDINGS), type="filepath")}
    messages = {"file": gr.HTML(elem_classes="q-slot")}
    button = gr.Button("Score the file", variant="primary")
    messages[""] = gr.HTML(elem_classes="q-status", elem_id="status-of-file")
    shown = [gr.HTML(), gr.File(label="Scores and report", file_count="multiple", interactive=False)]

    def score(values: dict[Any, Any], progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008  (the same)
        work = partial(page.score_file, values[fields["file"]], _chosen_models(values, boxes), progress)
        return _outputs(work, len(shown), messages)

    _wire((button.click,), score, fields, boxes, shown, messages)


def _wire(
    events: Sequence[Callable[..., Any]],
    score: Callable[..., list[Any]],
    fields: dict[str, Any],
    boxes: dict[str, Any],
    shown: list[Any],
    messages: dict[str, Any],
) -> None:
    """Score on the events, with the progress beside the button; a message goes when its field changes."""
    status = messages[""]
    seen = f"() => document.getElementById('{status.elem_id}').scrollIntoView({{block: 'nearest'}})"
    for event in events:
        event(None, None, None, api_visibility="private", js=seen)  # in the browser; at the edge of a small window
        on_event(
            event, score, {*fields.values(), *boxes.values()}, [*shown, *messages.values()], show_progress_on=[status]
        )
    for name, field in {**fields, **boxes}.items():
        outdated = [messages[name], status] if name in messages else [status]
        emptied = repr("" if len(outdated) == 1 else [""] * len(outdated))
        field.change(None, None, outdated, api_visibility="private", js=f"() => {emptied}")  # in the browser


def _outputs(work: Callable[[], Sequence[Any]], num_shown: int, fields: Iterable[str]) -> list[Any]:
    """The results of `work`, then the message beside every field; a message holds no traceback or visitor's HTML.

    Args:
        work: computes what is shown.
        num_shown: the number of its results.
        fields: the names of the fields, "" for the button.
    """
    messages = dict.fromkeys(fields, "")
    shown: Sequence[Any] = [None] * num_shown
    try:
        shown = work()
    except RefusedError as error:
        messages[error.field if error.field in messages else ""] = _message_html(str(error))
    except Exception:
        traceback.print_exc()  # for whoever runs the app
        messages[""] = _message_html(_WRONG)
    return [*shown, *messages.values()]


def _message_html(message: str) -> str:
    return f'<p class="q-message" role="alert">Not scored. {html.escape(message)}</p>'


def _chosen_models(values: dict[Any, Any], boxes: dict[str, Any]) -> dict[str, str]:
    """The names of the chosen models by option."""
    return {option: values[box] for option, box in boxes.items()}


def _box_text(value: object) -> str:
    """The text of a text box; "" for anything else, which a visitor's program may send."""
    return value if isinstance(value, str) else ""


def _upload_folder() -> Path:
    """The folder where Gradio keeps uploaded files, and from which it sends files."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")).resolve()
