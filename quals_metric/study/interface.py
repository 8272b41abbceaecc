"""The human study as a web page: a source, two summaries and three questions, for several annotators at once.

The page asks for a name; `auth` adds a password. By default only this machine can reach it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quals_metric.app.server import HOST, PORT, Page, load_gradio, on_event, serve_page
from quals_metric.study.judgments import (
    MAX_NAME_LENGTH,
    QUESTIONS,
    AnnotationSession,
    JudgmentFile,
    annotator_name,
)
from quals_metric.study.summary_pairs import SummaryPair, read_study

_COMMAND = "quals study serve"
_TITLE = "Which summary is better?"
_LABELS = (("Left is better", "left"), ("Equal", "equal"), ("Right is better", "right"))
_NUM_OUTPUTS = 7 + len(QUESTIONS)
_MAX_REQUEST = 100_000  # bytes; nothing is uploaded here
_WAITING = 100  # requests in the queue; further ones are refused
_DONE = "You have judged all pairs. Thank you!"
_RULES = (
    f"# {_TITLE}\n\n"
    "Read the source and both summaries, then answer the three questions. Press *Save* to save your answer. You can "
    "stop at any time: enter the same name to continue on another day."
)


class AnnotationPage:
    """The functions behind the page's buttons. Each returns the new values of all outputs, in their order.

    Args:
        session: hands out pairs and records answers.
    """

    def __init__(self, session: AnnotationSession) -> None:
        self._session, self._gr = session, load_gradio(_COMMAND)

    def start(self, name: str) -> list[Any]:
        """Show an annotator the next pair."""
        try:
            return self._show(annotator_name(name))
        except ValueError:
            return self._hidden(f"Please enter a name of at most {MAX_NAME_LENGTH} characters that you will remember.")

    def save(self, annotator: str, number: int | None, *choices: str | None) -> list[Any]:
        """Write an answer, then show the next pair. If the answer cannot be written, the page stays as it is."""
        if number is None or not annotator:
            return self._hidden("Please start with your name.")
        try:
            self._session.record(annotator, number, dict(zip(QUESTIONS, choices, strict=True)))
        except ValueError:
            message = "**Not saved:** please answer all three questions."
        except OSError as error:
            message = f"**Not saved:** {error}. Please tell the organizers of the study, and try again."
        else:
            return self._show(annotator)
        return [message, *(self._gr.skip() for _ in range(_NUM_OUTPUTS - 1))]

    def _show(self, annotator: str) -> list[Any]:
        pair = self._session.next_pair(annotator)
        num_judged, total = self._session.num_judged(annotator), len(self._session.study.pairs)
        message = f"{num_judged} of {total} pairs judged. " + ("" if pair else _DONE)
        return [
            message,
            annotator,
            *self._texts(pair),
            self._gr.update(visible=pair is not None),
            *[None for _ in QUESTIONS],
        ]

    def _texts(self, pair: SummaryPair | None) -> list[Any]:
        return [None, "", "", ""] if pair is None else [pair.number, pair.source, pair.left, pair.right]

    def _hidden(self, message: str) -> list[Any]:
        return [message, "", *self._texts(None), self._gr.update(visible=False), *[None for _ in QUESTIONS]]


def build(session: AnnotationSession) -> Page:
    """The page as Gradio's Blocks.

    Args:
        session: hands out pairs and records answers.

    Raises:
        ImportError: if the extra `app` is not installed.
    """
    gr = load_gradio(_COMMAND)
    page = AnnotationPage(session)
    blocks: Page
    with gr.Blocks(title=_TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(_RULES)
        with gr.Row():
            name = gr.Textbox(label="Your name", max_length=MAX_NAME_LENGTH, scale=4)
            start = gr.Button("Start or continue", scale=1)
        message = gr.Markdown()
        annotator, number = gr.State(""), gr.State(None)
        with gr.Column(visible=False) as form:
            source = gr.Textbox(label="Source", interactive=False, lines=8, max_lines=24)
            with gr.Row():
                left = gr.Textbox(label="Left summary", interactive=False, lines=4, max_lines=16)
                right = gr.Textbox(label="Right summary", interactive=False, lines=4, max_lines=16)
            radios = [gr.Radio(list(_LABELS), label=question) for question in QUESTIONS.values()]
            save = gr.Button("Save", variant="primary")
        outputs = [message, annotator, number, source, left, right, form, *radios]
        for event in (start.click, name.submit):
            on_event(event, page.start, name, outputs)
        on_event(save.click, page.save, [annotator, number, *radios], outputs)
        blocks.queue(max_size=_WAITING, api_open=False, default_concurrency_limit=1)
    return blocks


def serve(
    pairs: str | os.PathLike[str],
    answers: str | os.PathLike[str],
    *,
    host: str = HOST,
    port: int = PORT,
    auth: str | None = None,
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Serve the page until interrupted.

    Args:
        pairs: the file that `quals study prepare` wrote.
        answers: the file to which answers are added; it is created if it does not exist.
        host: the address to listen at; 0.0.0.0 stands for all addresses of this machine.
        port: the port to listen at.
        auth: "USER:PASSWORD" that annotators must enter; None: nothing is asked.
        allowed_hosts: further host names that requests may be for, such as that of a proxy before the server.

    Raises:
        ImportError: if the extra `app` is not installed.
        ValueError: if a file is invalid, or `auth` has another form.
        OSError: if a file cannot be read or the port is taken.
    """
    load_gradio(_COMMAND)
    answers = Path(answers)
    if not answers.parent.is_dir():
        raise FileNotFoundError(f"{answers}: its folder must exist; {answers.parent} does not. Make it first")
    session = AnnotationSession(read_study(pairs), JudgmentFile(answers))
    serve_page(lambda: build(session), host, port, body=_MAX_REQUEST, auth=auth, allowed_hosts=allowed_hosts)
