"""A server that speaks OpenAI's streaming chat completions protocol, and fails on request in every usual way.

    with FakeOpenAI() as server:
        server.plan(refuses(429, retry_after_s=7), answers("Hel", "lo"))
        ...  # point OPENAI_BASE_URL at server.base_url

Each request takes the next planned reply; without one, the prompt is sent back word by word.
"""

from __future__ import annotations

import json
import select
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

#: Nothing here waits longer than this, whatever a test forgets.
_BOUND_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the server does with one request.

    Attributes:
        status: HTTP status; 200 streams, everything else sends an error document.
        pieces: The answer, one chunk each.
        then: ``done`` ends as OpenAI does; ``hang`` says nothing more; ``drop`` cuts the connection;
            ``error`` sends an error event in the middle of the stream.
        message: The error's text.
        headers: Sent in addition.
        whole: Send one JSON document instead of a stream, as a server does that knows no streaming.
        raw: Send these bytes as the body of a 200.
        usage: Whether the last chunk tells the tokens.
        finish_reason: Why the answer ends.
        delay_s: Think for so long before anything is said.
    """

    status: int = 200
    pieces: tuple[str, ...] = ()
    then: Literal["done", "hang", "drop", "error"] = "done"
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    whole: bool = False
    raw: bytes = b""
    usage: bool = True
    finish_reason: str = "stop"
    delay_s: float = 0.0


def answers(*pieces: str, usage: bool = True, finish_reason: str = "stop") -> Reply:
    """Answer with these chunks, in order."""
    return Reply(pieces=pieces, usage=usage, finish_reason=finish_reason)


def refuses(
    status: int,
    message: str = "no",
    *,
    retry_after_s: int | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """Answer with an error status."""
    after = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Reply(status=status, message=message, headers={**after, **({} if headers is None else headers)})


def hangs(*pieces: str) -> Reply:
    """Say nothing more after these chunks, or nothing at all, not even a status."""
    return Reply(pieces=pieces, then="hang")


def drops(*pieces: str) -> Reply:
    """Cut the connection after these chunks, or before the status."""
    return Reply(pieces=pieces, then="drop")


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fake: FakeOpenAI

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that have gone: that is what some tests are about."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class FakeOpenAI:
    """The server; a context manager.

    Attributes:
        requests: What came in so far.
        hanging: Set while a reply hangs.
        hung_up: Set when a client has closed the connection of a hanging reply.
    """

    def __init__(self) -> None:
        self._replies: deque[Reply] = deque()
        self._server = _Server(("127.0.0.1", 0), self.handler())
        self._server.fake = self
        # The default interval of half a second would be most of a test's time.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.requests: list[Received] = []
        self.hanging = threading.Event()
        self.hung_up = threading.Event()
        self.closing = threading.Event()

    @staticmethod
    def handler() -> type[Handler]:
        """Return the class that answers requests."""
        return Handler

    @property
    def origin(self) -> str:
        """Where the server is, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def base_url(self) -> str:
        """What goes into OPENAI_BASE_URL."""
        return f"{self.origin}/v1"

    def stop_listening(self) -> None:
        """Refuse every connection; for a server that was never started."""
        self._server.server_close()

    def plan(self, *replies: Reply) -> None:
        """Set the replies to the next requests."""
        self._replies.extend(replies)

    def next_reply(self, prompt: str) -> Reply:
        """Take the next planned reply, or an echo of the prompt."""
        if self._replies:
            return self._replies.popleft()
        first, *others = prompt.split(" ")
        return answers(first, *(f" {word}" for word in others))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_BOUND_S)


class Handler(BaseHTTPRequestHandler):
    """Speaks the protocol."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Answer as planned."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.fake.requests.append(Received(path=self.path, headers=headers, body=body))
        self.close_connection = True
        self.answer(body)

    def answer(self, body: dict[str, Any]) -> None:
        """Send the next reply."""
        reply = self.server.fake.next_reply(_text_of(body["messages"][-1]["content"]))
        if reply.delay_s:
            self.server.fake.closing.wait(reply.delay_s)
        if reply.status != 200:
            self._error(reply)
        elif reply.raw:
            self._document(200, "text/event-stream", reply.raw, reply.headers)
        elif reply.whole:
            self._document(200, "application/json", json.dumps(self._completion(reply, body)).encode(), {})
        elif reply.pieces or reply.then in {"done", "error"}:
            self._stream(reply, body)
        elif reply.then == "hang":
            self._hang()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""

    def _error(self, reply: Reply) -> None:
        error = {"message": reply.message, "type": "error", "param": None, "code": None}
        self._document(reply.status, "application/json", json.dumps({"error": error}).encode(), reply.headers)

    def _document(self, status: int, kind: str, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, reply: Reply, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._event(self._chunk(body, {"role": "assistant", "content": ""}))
        for piece in reply.pieces:
            self._event(self._chunk(body, {"content": piece}))
        if reply.then == "hang":
            self._hang()
        elif reply.then == "error":
            self._event({"error": {"message": reply.message, "type": "server_error"}})
        elif reply.then == "done":
            self._event(self._chunk(body, {}, reply.finish_reason))
            if reply.usage and body.get("stream_options", {}).get("include_usage"):
                self._event({**self._chunk(body, {}), "choices": [], "usage": _usage(reply)})
            self._write(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

    def _event(self, document: dict[str, Any]) -> None:
        self._write(b"data: " + json.dumps(document).encode() + b"\n\n")

    def _write(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _hang(self) -> None:
        fake = self.server.fake
        fake.hanging.set()
        deadline_s = time.monotonic() + _BOUND_S
        while not fake.closing.is_set() and time.monotonic() < deadline_s:
            if select.select([self.connection], [], [], 0.05)[0]:
                # Nothing is left to be sent by the client: what can be read is its end.
                fake.hung_up.set()
                return

    @staticmethod
    def _chunk(
        body: dict[str, Any], delta: dict[str, str], finish_reason: str | None = None
    ) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": body["model"],
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
        }

    @staticmethod
    def _completion(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(reply.pieces)}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
            "usage": _usage(reply),
        }


def _text_of(content: str | list[dict[str, Any]]) -> str:
    """Return the text of a message, which may be in parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _usage(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": 5,
        "completion_tokens": len(reply.pieces),
        "total_tokens": 5 + len(reply.pieces),
    }
