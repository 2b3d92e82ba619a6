"""A real proxy on a port of its own: HTTP, HTTPS by CONNECT, and SOCKS 5."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from types import TracebackType
from typing import NamedTuple, Self


class Proxied(NamedTuple):
    """One connection through the proxy.

    Attributes:
        kind: ``http``, ``connect`` or ``socks``.
        target: Host and port that were asked for.
        login: User and password of SOCKS, or the header Proxy-Authorization.
    """

    kind: str
    target: str
    login: str


class Proxy:
    """Connects every target, whatever its name, to one local port: names ending in .test need no DNS.

    Args:
        port: The local port that every connection is made to; that of the target when 0.

    Attributes:
        taken: What came, in order.
        refuse: Set it, and HTTP requests are answered with 407.
    """

    def __init__(self, port: int = 0) -> None:
        self.taken: list[Proxied] = []
        self.refuse = False
        owner = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    owner._handle(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._forward_port = port
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.place = f"127.0.0.1:{self.port}"
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
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

    def _handle(self, client: socket.socket) -> None:
        first = client.recv(1, socket.MSG_PEEK)
        if first == b"\x05":
            self._socks(client)
        elif first:
            self._http(client)

    def _http(self, client: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(65_536)
            if not piece:
                return
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split()
        login = next((f.partition(":")[2].strip() for f in fields if f.lower().startswith("proxy-auth")), "")
        connect = method == "CONNECT"
        place = target if connect else target.split("/")[2]
        self.taken.append(Proxied("connect" if connect else "http", place, login))
        if self.refuse:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        with self._open(place, 443 if connect else 80) as server:
            if connect:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = "/" + target.split("/", 3)[3] if target.count("/") > 2 else "/"
                server.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode() + rest)
            _join(client, server)

    def _socks(self, client: socket.socket) -> None:
        methods = client.recv(2)[1]
        offered = client.recv(methods)
        login = ""
        if b"\x02" in offered:
            client.sendall(b"\x05\x02")
            user = client.recv(client.recv(2)[1])
            password = client.recv(client.recv(1)[0])
            login = f"{user.decode()}:{password.decode()}"
            client.sendall(b"\x01\x00")
        else:
            client.sendall(b"\x05\x00")
        kind = client.recv(4)[3]
        host = {
            1: lambda: socket.inet_ntop(socket.AF_INET, client.recv(4)),
            3: lambda: client.recv(client.recv(1)[0]).decode(),
            4: lambda: f"[{socket.inet_ntop(socket.AF_INET6, client.recv(16))}]",
        }[kind]()
        place = f"{host}:{int.from_bytes(client.recv(2), 'big')}"
        self.taken.append(Proxied("socks", place, login))
        with self._open(place, 80) as server:
            client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
            _join(client, server)

    def _open(self, place: str, default_port: int) -> socket.socket:
        _, colon, port = place.rpartition(":")
        number = int(port) if colon and port.isdecimal() else default_port
        return socket.create_connection(("127.0.0.1", self._forward_port or number), timeout=10.0)


def _join(client: socket.socket, server: socket.socket) -> None:
    """Pass bytes on in both directions until both sides have ended."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    other = threading.Thread(target=pump, args=(client, server), daemon=True)
    other.start()
    pump(server, client)
    other.join(10.0)
