"""Moves delayed jobs to the ready queue when they are due, to the millisecond.

The server ends a blocking pop up to 100 ms late (its timers run ten times a second), so a consumer cannot
sleep on the bell until a job is due. This thread can: it learns from every fetch when the next job is
due, by the store's clock, and rings the bell at that moment by running ``promote``.
"""

from __future__ import annotations

import threading
import time

from middleware.broker.outage import Outage
from middleware.broker.scripts import Scripts
from ops.backoff import Backoff
from ops.errors import BridgeError
from ops.threads import start_duty

#: Longer waits are cut: the next fetch, at most seconds away, says anew when a job is due.
_LONGEST_WAIT_S = 60.0


class DueTimer:
    """Runs ``promote`` when the next job is due.

    Args:
        scripts: To run it with.
        outage: Where to note that the store is away.
    """

    def __init__(self, scripts: Scripts, outage: Outage) -> None:
        self._scripts = scripts
        self._outage = outage
        self._changed = threading.Condition()
        self._due_s: float | None = None
        self._running = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._running = True
        self._thread = start_duty("due-timer", self._run, ended=lambda: not self._running)

    def stop(self) -> None:
        """Stop the thread; waits for it, bounded."""
        with self._changed:
            self._running = False
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def note(self, next_due_ms: int) -> None:
        """Learn when the next job is due: in ``next_due_ms`` from now, -1 for never."""
        if next_due_ms < 0:
            return
        due_s = time.monotonic() + min(next_due_ms / 1000, _LONGEST_WAIT_S)
        with self._changed:
            if self._due_s is None or due_s < self._due_s:
                self._due_s = due_s
                self._changed.notify()

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            with self._changed:
                while self._running and (self._due_s is None or self._due_s > time.monotonic()):
                    wait_s = None if self._due_s is None else self._due_s - time.monotonic()
                    self._changed.wait(wait_s)
                if not self._running:
                    return
                self._due_s = None
            try:
                next_due_ms = self._scripts.promote()
            except BridgeError as error:
                self._outage.begin(error)
                self.note(int(backoff.next_s() * 1000))
            else:
                backoff.reset()
                self.note(next_due_ms)
