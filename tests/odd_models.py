"""A server whose model names select what real OpenAI-compatible servers do against the protocol.

    with OddModels() as server:
        ...  # point OPENAI_BASE_URL at server.base_url, ask with --model cut

``COMPLETED``, ``FAILED`` and ``REFUSED`` say for each model what the right result is.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.fake_openai import FakeOpenAI, Handler

_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chunk(content: object = None, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a chunk; ``delta`` among the fields adds to the message."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": {**delta, **fields.pop("delta", {})}, "finish_reason": finish_reason}
    return {"id": "x", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **fields}


_ANSWER = [chunk("Hello"), chunk(" world"), chunk(None, "stop")]
_WHOLE = {
    "model": "m",
    "choices": [{"message": {"content": "Hello world"}, "finish_reason": "stop"}],
    "usage": _USAGE,
}
_THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}]


@dataclass(frozen=True, kw_only=True)
class Odd:
    """What the server sends for a model.

    Attributes:
        events: The events of a stream; a text is sent as it is.
        body: The body of an answer that is no stream.
        kind: Content type.
        end: What follows the last event.
        field: Begin of each event's line.
        gap: End of each event.
        zipped: Whether the body is compressed.
    """

    events: Sequence[object] = ()
    body: bytes = b""
    kind: str = "text/event-stream"
    end: str = "data: [DONE]\n\n"
    field: str = "data: "
    gap: str = "\n\n"
    zipped: bool = False

    def data(self) -> bytes:
        """Return the bytes of the body."""
        lines = [
            self.field + (event if isinstance(event, str) else json.dumps(event)) for event in self.events
        ]
        text = "".join(line + self.gap for line in lines) + self.end
        data = self.body if self.body else text.encode()
        return gzip.compress(data) if self.zipped else data


def _whole(document: object, kind: str = "application/json") -> Odd:
    return Odd(body=document if isinstance(document, bytes) else json.dumps(document).encode(), kind=kind)


MODELS: dict[str, Odd] = {
    "ok": Odd(events=[*_ANSWER, {"choices": [], "usage": _USAGE}]),
    "choices_null": Odd(events=[*_ANSWER, {"id": "x", "model": "m", "choices": None, "usage": _USAGE}]),
    "data_null": Odd(events=["null", *_ANSWER, "null"]),
    "mistral": Odd(events=[chunk(""), chunk(_THOUGHT), chunk("Hello"), chunk(None, "stop", usage=_USAGE)]),
    "sse_json": Odd(events=_ANSWER, kind="application/json"),
    "json_text": _whole(_WHOLE, "text/plain; charset=utf-8"),
    "gzip": Odd(events=_ANSWER, zipped=True),
    "nospace": Odd(events=_ANSWER, field="data:"),
    "crlf": Odd(events=_ANSWER, gap="\r\n\r\n"),
    "comments": Odd(events=_ANSWER, gap="\n\n: still processing\n\n"),
    "usage_str": Odd(
        events=[*_ANSWER, {"choices": [], "usage": {"prompt_tokens": "3", "completion_tokens": "2"}}]
    ),
    "model_int": Odd(events=[{**chunk("Hello"), "model": 7}, chunk(None, "stop")]),
    "err_empty": Odd(events=[{**item, "error": ""} for item in _ANSWER]),
    "done_noend": Odd(events=[chunk("Hello")], end="data: [DONE]"),
    "no_done": Odd(events=_ANSWER, end=""),
    "fin_unknown": Odd(events=[chunk("Hello"), chunk(" world"), chunk(None, "eos")]),
    "html": _whole(b"<!doctype html><html><title>Open WebUI</title></html>", "text/html"),
    "html_json": _whole(b"\n <html></html>"),
    "lmstudio": _whole({"error": "Unexpected endpoint or method. (POST /chat/completions)"}),
    "other_api": _whole({"status": "ok"}),
    "plain_text": _whole(b"Ollama is running", "text/plain"),
    "fin_empty_cut": Odd(events=[chunk("Half of the ans", ""), chunk("wer is", "")], end=""),
    "cut": Odd(events=[chunk("Half")], end=""),
    "cut_event": Odd(events=_ANSWER[:1], end='data: {"id": "x", "cho'),
    "cut_empty": Odd(end=""),
    "fin_error": Odd(events=[chunk("Half"), chunk(None, "error")]),
    "err_stream": Odd(
        events=[{"error": {"message": "Rate limit exceeded: free-models-per-day", "code": 429}}]
    ),
    "err_json": _whole({"error": {"message": "Insufficient credits", "code": 402}}),
    "empty": Odd(events=[chunk(""), chunk("", "stop")]),
    "blank": Odd(events=[chunk(" \n"), chunk("", "stop")]),
    "no_choices": _whole({"choices": [], "usage": _USAGE}),
    "reason_only": Odd(
        events=[chunk(delta={"reasoning_content": "thinking..."}), chunk(None, "length", usage=_USAGE)]
    ),
    "filter": Odd(events=[chunk(""), chunk(None, "content_filter")]),
    "refusal": Odd(events=[chunk(delta={"refusal": "I will not."}), chunk(None, "stop")]),
    "refusal_json": _whole({"choices": [{"message": {"refusal": "I will not."}, "finish_reason": "stop"}]}),
}

HELLO, HELLO_WORLD = "Hello", "Hello world"
#: Model -> the text of its answer, and its input tokens (None if it reports none, or none that can be read).
COMPLETED: dict[str, tuple[str, int | None]] = {
    "ok": (HELLO_WORLD, 3),
    "choices_null": (HELLO_WORLD, 3),
    "data_null": (HELLO_WORLD, None),
    "mistral": (HELLO, 3),
    "sse_json": (HELLO_WORLD, None),
    "json_text": (HELLO_WORLD, 3),
    "gzip": (HELLO_WORLD, None),
    "nospace": (HELLO_WORLD, None),
    "crlf": (HELLO_WORLD, None),
    "comments": (HELLO_WORLD, None),
    "usage_str": (HELLO_WORLD, None),
    "model_int": (HELLO, None),
    "err_empty": (HELLO_WORLD, None),
    "done_noend": (HELLO, None),
    "no_done": (HELLO_WORLD, None),
    "fin_unknown": (HELLO_WORLD, None),
    "stream_options": (HELLO_WORLD, None),
    "nostream": (HELLO, None),
    "max_tokens": (HELLO_WORLD, None),
}
#: Model -> part of the reason of a failure after which another attempt or provider may answer.
FAILED: dict[str, str] = {
    "fin_empty_cut": "ended its answer in the middle",
    "cut": "ended its answer in the middle",
    "cut_event": "ended its answer in the middle",
    "cut_empty": "ended its answer in the middle",
    "fin_error": "failed in the middle of its answer",
    "err_stream": "Rate limit exceeded: free-models-per-day",
    "err_json": "Insufficient credits",
    "empty": "gave an empty answer",
    "blank": "gave an empty answer",
    "no_choices": "gave an empty answer",
    "reason_only": "only its reasoning",
    "filter": "content filter",
    "refusal": "refused to answer: I will not.",
    "refusal_json": "refused to answer: I will not.",
}
#: Model -> part of the reason of a failure that is final.
REFUSED: dict[str, str] = {
    "html": "is not an API",
    "html_json": "is not an API",
    "lmstudio": "is not an API",
    "other_api": "is not an API",
    "plain_text": "is not an API",
    "unknown": "does not exist",
}
#: Models that are asked again without what the server refuses: the number of requests.
REQUESTS = {"stream_options": 2, "nostream": 2, "max_tokens": 2}


class OddModels(FakeOpenAI):
    """The server; a context manager."""

    @staticmethod
    def handler() -> type[Handler]:
        """Return the class that answers requests."""
        return _OddHandler


class _OddHandler(Handler):
    def answer(self, body: dict[str, Any]) -> None:
        """Answer as the model does."""
        name = body["model"]
        refusal = _refusal(name, body)
        if refusal is not None:
            status, error = refusal
            self._document(status, "application/json", json.dumps(error).encode(), {})
        elif name == "nostream":
            answer = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
            self._document(200, "application/json", json.dumps(answer).encode(), {})
        elif name in {"stream_options", "max_tokens"}:
            self._odd(Odd(events=_ANSWER))
        elif name in MODELS:
            self._odd(MODELS[name])
        else:
            error = {"error": {"message": f"The model `{name}` does not exist"}}
            self._document(404, "application/json", json.dumps(error).encode(), {})

    def _odd(self, odd: Odd) -> None:
        self.send_response(200)
        self.send_header("Content-Type", odd.kind)
        if odd.zipped:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(odd.data())


def _refusal(name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
    if name == "stream_options" and "stream_options" in body:
        detail = {
            "type": "extra_forbidden",
            "loc": ["body", "stream_options"],
            "msg": "Extra inputs are not permitted",
        }
        return 422, {"object": "error", "message": {"detail": [detail]}, "type": "invalid_request_error"}
    if name == "nostream" and body.get("stream"):
        message = (
            "Unsupported value: 'stream' does not support true with this model. Only the default (false)."
        )
        return 400, {"error": {"message": message, "code": "unsupported_value"}}
    if name == "max_tokens" and "max_tokens" in body:
        message = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        return 400, {"error": {"message": message, "code": "unsupported_parameter"}}
    return None
