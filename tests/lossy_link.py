"""A socket between a client and the store that can swallow a reply and hang up, as a network does."""

from __future__ import annotations

import selectors
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class LossyLink:
    """Forwards a unix socket; the store has run a command whose reply was lost.

    Args:
        path: Where it listens.
        store_path: The store's own socket.

    Attributes:
        lost: How many replies have been swallowed.
    """

    def __init__(self, path: Path, store_path: str) -> None:
        self.url = f"unix://{path}"
        self.lost = 0
        self._store_path = store_path
        self._lose = 0
        self._lock = threading.Lock()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._closing, self._closed = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def lose_next_reply(self) -> None:
        """Let the next command reach the store, and its reply nobody."""
        with self._lock:
            self._lose += 1

    def __enter__(self) -> Self:
        """Start to forward."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        self._closing.close()
        self._thread.join(5.0)

    def _run(self) -> None:
        peers: dict[socket.socket, socket.socket] = {}
        replies: set[socket.socket] = set()
        with selectors.DefaultSelector() as selector:
            for listening in (self._server, self._closed):
                selector.register(listening, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    ready = key.fileobj
                    assert isinstance(ready, socket.socket)
                    if ready is self._closed:
                        for each in (*peers, self._server, self._closed):
                            each.close()
                        return
                    if ready is self._server:
                        client, _address = self._server.accept()
                        store = socket.socket(socket.AF_UNIX)
                        store.connect(self._store_path)
                        peers[client], peers[store] = store, client
                        replies.add(store)
                        for side in (client, store):
                            selector.register(side, selectors.EVENT_READ)
                    elif ready in peers and not self._forward(ready, peers[ready], ready in replies):
                        for side in (ready, peers[ready]):
                            selector.unregister(side)
                            side.close()
                            replies.discard(side)
                        del peers[peers.pop(ready)]

    def _forward(self, source: socket.socket, target: socket.socket, is_reply: bool) -> bool:
        """Pass on what there is; False if the connection is to end."""
        try:
            data = source.recv(65_536)
        except ConnectionResetError:
            return False
        if not data:
            return False
        with self._lock:
            if is_reply and self._lose:
                self._lose -= 1
                self.lost += 1
                return False
        target.sendall(data)
        return True
