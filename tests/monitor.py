"""Counts what clients ask of the store, as the store itself sees it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from ops.store.client import Store


class Commands:
    """What clients have sent since the block began; commands inside scripts are not counted.

    Attributes:
        lines: One for each command, as ``MONITOR`` prints it.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []


@contextlib.contextmanager
def watched_commands(url: str, prefix: str) -> Iterator[Commands]:
    """Note every command of a client that names a key or channel of this prefix.

    Args:
        url: Of the store.
        prefix: Of one bridge; other tests use the same store.
    """
    commands = Commands()
    store = Store(url)
    link = store.connect()
    link.send([("MONITOR",)])
    assert link.read(5.0) == b"OK"
    stopping = threading.Event()

    def listen() -> None:
        while not stopping.is_set():
            try:
                line = link.read(0.1)
            except TimeoutError:
                continue
            text = line.decode(errors="replace") if isinstance(line, bytes) else str(line)
            if prefix in text and " lua]" not in text:
                commands.lines.append(text)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield commands
    finally:
        stopping.set()
        thread.join(5.0)
        link.close()
        store.close()


def quiet_for(seconds: float) -> None:
    """Let an observation window pass; for counting what happens when nothing happens."""
    time.sleep(seconds)  # the window itself: there is nothing to wait for
