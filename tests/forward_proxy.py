"""A forward proxy: requests with absolute URLs, and tunnels (CONNECT); it knows all names in ``.localhost``.

with ForwardProxy() as proxy:
    ...  # point HTTP_PROXY and HTTPS_PROXY at proxy.url
assert proxy.targets == ["127.0.0.1:8080"]
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

_BOUND_S = 20.0
_PIECE_BYTES = 65_536


class ForwardProxy:
    """The proxy; a context manager.

    Attributes:
        targets: ``HOST:PORT`` of each request and tunnel, in order.
        logins: Values of ``Proxy-Authorization``, in the same order.
    """

    def __init__(self) -> None:
        self.targets: list[str] = []
        self.logins: list[str | None] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """What goes into HTTP_PROXY."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_BOUND_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: ForwardProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that have gone."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""

    def do_CONNECT(self) -> None:
        """Open a tunnel."""
        upstream = self._dial(self.path)
        if upstream is not None:
            self.send_response(200)
            self.end_headers()
            self._copy(upstream)

    def do_POST(self) -> None:
        """Pass a request on, and its answer back as it comes."""
        parts = urlsplit(self.path)
        upstream = self._dial(parts.netloc if parts.port else f"{parts.netloc}:80")
        if upstream is None:
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        dropped = ("proxy-authorization", "proxy-connection", "connection")
        lines = [f"{name}: {value}" for name, value in self.headers.items() if name.lower() not in dropped]
        path = f"{parts.path}{'?' if parts.query else ''}{parts.query}"
        head = "\r\n".join([f"{self.command} {path} HTTP/1.1", *lines, "Connection: close", "", ""])
        upstream.sendall(head.encode("latin-1") + body)
        self._copy(upstream)

    def _dial(self, target: str) -> socket.socket | None:
        self.close_connection = True
        self.server.proxy.targets.append(target)
        self.server.proxy.logins.append(self.headers.get("Proxy-Authorization"))
        host, _, port = target.rpartition(":")
        # The client need not be able to resolve a name that it reaches through a proxy.
        host = "127.0.0.1" if host.endswith(".localhost") else host.strip("[]")
        try:
            return socket.create_connection((host, int(port)), _BOUND_S)
        except OSError:
            self.send_error(502)
            return None

    def _copy(self, upstream: socket.socket) -> None:
        """Copy in both directions until one side closes."""
        self.wfile.flush()
        ends = {self.connection: upstream, upstream: self.connection}
        with upstream, contextlib.suppress(OSError):
            while ready := select.select(list(ends), [], [], _BOUND_S)[0]:
                for end in ready:
                    data = end.recv(_PIECE_BYTES)
                    if data == b"":
                        return
                    ends[end].sendall(data)
