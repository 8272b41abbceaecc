"""The human study as a web page: a source and two summaries, three questions, for several people at once.

Nobody is asked who they are beyond a name, so serve it where only those you asked can reach it: by default that is
this machine alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from quals_metric.app.server import HOST, PORT, Page, launch, library, upload_folder
from quals_metric.study.answers import QUESTIONS, AnswerFile, Desk, annotator_name
from quals_metric.study.pairs import StudyPair, read_study

_COMMAND = "quals study serve"
_LABELS = (("Left is better", "left"), ("Equal", "equal"), ("Right is better", "right"))
_OUTPUTS = 7 + len(QUESTIONS)
_LONGEST_ANSWER = 100_000  # bytes of a request; nothing is uploaded here
_DONE = "You have judged all pairs. Thank you!"
_RULES = (
    "# Which summary is better?\n\n"
    "Read the source and both summaries, then answer the three questions. Your answer is saved when you press "
    "*Save*; to go on another day, give the same name again."
)


class StudyPage:
    """What the page's buttons do; every function gives the new values of what it shows, in the order of `outputs`."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._gr = desk, library(_COMMAND)

    def start(self, name: str) -> list[Any]:
        """Show an annotator their first pair, or the one they had come to."""
        try:
            return self._show(annotator_name(name))
        except ValueError:
            return self._hidden("Please give your name, or a short one that you will remember.")

    def save(self, annotator: str, number: int | None, *choices: str | None) -> list[Any]:
        """Write an answer down, then show the next pair; if it cannot be written, everything stays."""
        if number is None or not annotator:
            return self._hidden("Please start with your name.")
        try:
            self._desk.take(annotator, number, dict(zip(QUESTIONS, choices, strict=True)))
        except ValueError:
            message = "**Not saved:** please answer all three questions."
        except OSError as error:
            message = f"**Not saved:** {error}. Please tell the people who asked you, and try again."
        else:
            return self._show(annotator)
        return [message, *(self._gr.skip() for _ in range(_OUTPUTS - 1))]

    def _show(self, annotator: str) -> list[Any]:
        pair = self._desk.next(annotator)
        done, total = self._desk.num_done(annotator), len(self._desk.study.pairs)
        message = f"{done} of {total} pairs judged. " + ("" if pair else _DONE)
        return [
            message,
            annotator,
            *self._texts(pair),
            self._gr.update(visible=pair is not None),
            *[None for _ in QUESTIONS],
        ]

    def _texts(self, pair: StudyPair | None) -> list[Any]:
        return [None, "", "", ""] if pair is None else [pair.number, pair.source, pair.left, pair.right]

    def _hidden(self, message: str) -> list[Any]:
        return [message, "", *self._texts(None), self._gr.update(visible=False), *[None for _ in QUESTIONS]]


def build(desk: Desk) -> Page:
    """The page.

    Raises:
        ImportError: if the extra `app` is not installed.
    """
    gr = library(_COMMAND)
    page = StudyPage(desk)
    blocks: Page
    with gr.Blocks(title="Which summary is better?", analytics_enabled=False) as blocks:
        gr.Markdown(_RULES)
        with gr.Row():
            name = gr.Textbox(label="Your name", max_length=40, scale=4)
            start = gr.Button("Start or go on", scale=1)
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
            event(page.start, name, outputs, api_visibility="private", concurrency_limit=1, concurrency_id="study")
        inputs = [annotator, number, *radios]
        save.click(page.save, inputs, outputs, api_visibility="private", concurrency_limit=1, concurrency_id="study")
    return blocks


def serve(
    pairs: str | os.PathLike[str], answers: str | os.PathLike[str], *, host: str = HOST, port: int = PORT
) -> None:
    """Serve the page until interrupted.

    Args:
        pairs: what `quals study prepare` wrote.
        answers: the file the answers are added to; made if it is not there.
        host: the address to listen at; 0.0.0.0: all of this machine's.
        port: and the port.

    Raises:
        ImportError: if the extra `app` is not installed.
        ValueError: if a file is not what it should be.
        OSError: if a file cannot be read or the port is taken.
    """
    library(_COMMAND)
    answers = Path(answers)
    if not answers.parent.is_dir():
        raise FileNotFoundError(f"{answers}: its folder must exist; {answers.parent} does not. Make it first")
    page = build(Desk(read_study(pairs), AnswerFile(answers)))
    with upload_folder("quals-study-") as folder:
        launch(page, folder, host, port, body=_LONGEST_ANSWER, upload=0)
