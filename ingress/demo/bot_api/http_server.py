"""HTTP server of the local Bot API: parses requests as Telegram does, and cuts connections on demand."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

#: (token, method, parameters) -> status and body of the answer; None cuts the connection.
Answer = Callable[[str, str, dict[str, Any]], tuple[int, dict[str, Any]] | None]
#: (token, path) -> content of the file, or None.
FileContent = Callable[[str, str], bytes | None]
_BODY_MAX_BYTES = 1_048_576


class BotApiHttpServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1.

    Args:
        port: Port; 0 for a free one.
        answer: Called for methods.
        file_content: Called for downloads.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, answer: Answer, file_content: FileContent) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer = answer
        self.file_content = file_content
        self._links: set[socket.socket] = set()
        self._links_lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of closed connections."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def add_connection(self, link: socket.socket) -> None:
        """Record an open connection."""
        with self._links_lock:
            self._links.add(link)

    def remove_connection(self, link: socket.socket) -> None:
        """Forget a closed connection."""
        with self._links_lock:
            self._links.discard(link)

    def cut_all(self) -> None:
        """Cut all open connections, as an outage does."""
        with self._links_lock:
            links = list(self._links)
        for link in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: otherwise each answer waits 40 ms for the client's delayed ACK.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: BotApiHttpServer

    def setup(self) -> None:
        super().setup()
        self.server.add_connection(self.connection)

    def finish(self) -> None:
        self.server.remove_connection(self.connection)
        super().finish()

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        if place.path.startswith("/file/bot"):
            self._file(place.path.removeprefix("/file/bot"))
        else:
            self._method(place.path, dict(parse_qsl(place.query, keep_blank_values=True)))

    def do_POST(self) -> None:
        place = urlsplit(self.path)
        size_bytes = int(self.headers.get("Content-Length", "0"))
        if size_bytes > _BODY_MAX_BYTES:
            self._reply(413, {"ok": False, "error_code": 413, "description": "Request Entity Too Large"})
            self.close_connection = True
            return
        body = self.rfile.read(size_bytes)
        parameters: dict[str, Any] = dict(parse_qsl(place.query, keep_blank_values=True))
        if self.headers.get_content_type() == "application/json":
            parameters.update(json.loads(body))
        else:
            parameters.update(parse_qsl(body.decode(), keep_blank_values=True))
        self._method(place.path, parameters)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (name of the base class)
        """Log nothing: paths contain the token."""

    def _method(self, path: str, parameters: dict[str, Any]) -> None:
        token, _, method = path.removeprefix("/bot").partition("/")
        answered = self.server.answer(unquote(token), method, parameters)
        if answered is None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._reply(*answered)

    def _file(self, path: str) -> None:
        token, _, name = path.partition("/")
        data = self.server.file_content(unquote(token), unquote(name))
        if data is None:
            self._reply(404, {"ok": False, "error_code": 404, "description": "Not Found"})
            return
        self._send(200, "application/octet-stream", data)

    def _reply(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(document).encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
