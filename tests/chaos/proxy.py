"""A TCP proxy before the store that loses connections as networks do, also in the middle of a message."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time

from middleware.broker.functions import library

_READ_BYTES = 65_536
#: A client that reads nothing for this long is cut off, so that one stopped process cannot stop them all.
_SEND_TIMEOUT_S = 2.0
_RESET = struct.pack("ii", 1, 0)


class _Pair:
    """A client's connection and ours to the store."""

    def __init__(self, client: socket.socket, store: socket.socket) -> None:
        self.client = client
        self.store = store
        self.tear_reply: float | None = None

    def other(self, side: socket.socket) -> socket.socket:
        return self.store if side is self.client else self.client


class Proxy:
    """Forwards connections to the store until told otherwise.

    Args:
        store_port: The store's own port on 127.0.0.1.

    Attributes:
        port: Where it listens.
        cuts: How many connections it has cut, torn ones included.
        torn: How many messages it has torn, by kind: reply, settle (the reply to one), request (to settle).
    """

    def __init__(self, store_port: int) -> None:
        self._store_port = store_port
        self._settle = library().functions["settle"].encode()
        self._lock = threading.Lock()
        self._armed: dict[str, list[float]] = {"reply": [], "settle": [], "request": []}
        self._cut = False
        self._dark_until_s = 0.0
        self._pairs: dict[socket.socket, _Pair] = {}
        self._selector = selectors.DefaultSelector()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._server.getsockname()[1]
        self._ours, self._wake = socket.socketpair()
        self._stopping = False
        self.cuts = 0
        self.torn = dict.fromkeys(self._armed, 0)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def start(self) -> None:
        """Begin to forward."""
        for sock in (self._server, self._ours):
            self._selector.register(sock, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """Close every connection."""
        self._stopping = True
        self._wake.send(b".")
        self._thread.join(5.0)

    def cut(self) -> None:
        """Cut all connections that there are."""
        self._cut = True
        self._wake.send(b".")

    def blackout(self, seconds: float) -> None:
        """Cut all connections, and each new one at once, for this time."""
        self._dark_until_s = time.monotonic() + seconds
        self.cut()

    def tear(self, what: str, part: float) -> None:
        """Tear a message: let only a part of it through, then cut its connection.

        Args:
            what: ``reply``: the store's next; ``settle``: its next to a settle, which it has carried out;
                ``request``: the next settle, which it never sees whole.
            part: How much of it gets through, from 0 to 1.
        """
        with self._lock:
            self._armed[what].append(part)

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready is self._ours:
                    ready.recv(64)
                elif ready is self._server:
                    self._welcome()
                elif ready in self._pairs:
                    self._forward(ready, self._pairs[ready])
            if self._cut:
                self._cut = False
                self._drop_all()
        self._drop_all()
        for sock in (self._server, self._ours, self._wake):
            sock.close()

    def _welcome(self) -> None:
        client, _ = self._server.accept()
        if time.monotonic() < self._dark_until_s:
            client.close()
            return
        try:
            store = socket.create_connection(("127.0.0.1", self._store_port), 1.0)
        except OSError:
            client.close()
            return
        pair = _Pair(client, store)
        for side in (client, store):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            side.settimeout(_SEND_TIMEOUT_S)
            self._pairs[side] = pair
            self._selector.register(side, selectors.EVENT_READ)

    def _forward(self, source: socket.socket, pair: _Pair) -> None:
        try:
            data = source.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._drop(pair)
            return
        part = self._part(data, pair, is_reply=source is pair.store)
        try:
            pair.other(source).sendall(data if part is None else data[: int(len(data) * part)])
        except OSError:
            self._drop(pair)
            return
        if part is not None:
            self.cuts += 1
            self._drop(pair, reset=part < 0.5)

    def _part(self, data: bytes, pair: _Pair, *, is_reply: bool) -> float | None:
        """How much of this goes through; None: all."""
        with self._lock:
            if is_reply:
                if pair.tear_reply is not None:
                    self.torn["settle"] += 1
                    return pair.tear_reply
                return self._take("reply")
            if self._settle in data:
                part = self._take("request")
                if part is not None:
                    return part
                if self._armed["settle"]:
                    pair.tear_reply = self._armed["settle"].pop()
        return None

    def _take(self, what: str) -> float | None:
        if not self._armed[what]:
            return None
        self.torn[what] += 1
        return self._armed[what].pop()

    def _drop_all(self) -> None:
        for pair in set(self._pairs.values()):
            self.cuts += 1
            self._drop(pair, reset=True)

    def _drop(self, pair: _Pair, *, reset: bool = False) -> None:
        for side in (pair.client, pair.store):
            with contextlib.suppress(OSError):
                if reset:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._selector.unregister(side)
            self._pairs.pop(side, None)
            side.close()
