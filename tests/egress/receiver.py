"""A real HTTP server that takes what is posted to it, and answers as the test says."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import msgspec


class Taken(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body as JSON."""
        return msgspec.json.decode(self.body)


class Receiver:
    """Listens on a port of its own.

    Attributes:
        status: What it answers.
        headers: Which headers it adds.
        answer: The body of its answers.
        taken: What came, in order, whatever was answered.
        accepted: What was answered with 200.
        hang: Clear it, and requests get no answer until it is set.
    """

    HEADERS: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self.status = 200
        self.headers = dict(self.HEADERS)
        self.answer = b"{}"
        self.taken: list[Taken] = []
        self.accepted: list[Taken] = []
        self.hang = threading.Event()
        self.hang.set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                request = Taken(
                    self.path,
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(length),
                )
                owner.taken.append(request)
                owner.hang.wait(30.0)
                status = owner.status
                if status == 200:
                    owner.accepted.append(request)
                self.send_response(status)
                for name, value in owner.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(owner.answer)))
                self.end_headers()
                self.wfile.write(owner.answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.hang.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)
