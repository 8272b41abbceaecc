"""What a visitor's program can do without a browser: Gradio's own requests, by hand."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from typing import Any

from tests import PATIENCE


class Client:
    """Sends events to a running app."""

    def __init__(self, url: str) -> None:
        self.url = url
        with urllib.request.urlopen(f"{url}/config", timeout=PATIENCE) as answer:
            config = json.load(answer)
        self.labels = {part["id"]: part["props"].get("label") for part in config["components"]}
        self.events = config["dependencies"]

    def post(self, path: str, value: Any, **headers: str) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        names = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        request = urllib.request.Request(f"{self.url}/gradio_api/{path}", data, names)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def event(self, label: str, values: dict[str, Any]) -> dict[str, Any]:
        """The request of the first event that has an input of that label; the others' values by label."""
        for event in self.events:
            labels = [self.labels[part] for part in event["inputs"]]
            if label in labels:
                data = [values.get(name) for name in labels]
                return {"data": data, "fn_index": event["id"], "session_hash": uuid.uuid4().hex}
        raise AssertionError(f"no event has the input {label!r}")

    def texts(self, source: object, first: object, second: object = "", model: object = "embedded") -> dict[str, Any]:
        """The request that scores texts."""
        names = ("Source", "Summary", "Another summary (optional)", "The model", "The reader")
        return self.event("Source", dict(zip(names, (source, first, second, model, "embedded"), strict=True)))

    def result(self, event: dict[str, Any]) -> dict[str, Any]:
        """What an event that was let into the queue came to: Gradio's last message about it."""
        address = f"{self.url}/gradio_api/queue/data?session_hash={event['session_hash']}"
        with urllib.request.urlopen(address, timeout=PATIENCE) as lines:
            for line in lines:
                if line.startswith(b"data:"):
                    message: dict[str, Any] = json.loads(line[5:])
                    if message["msg"] in ("process_completed", "unexpected_error", "close_stream"):
                        return message
        raise AssertionError("the stream ended without an answer")
