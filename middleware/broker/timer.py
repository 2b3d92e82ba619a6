"""Moves delayed jobs to the ready queue when they are due, to the millisecond.

The server ends a blocking pop up to 100 ms late, since its timers run ten times a second. So a consumer
cannot use the timeout of its wait for the bell to be on time for a due job. Each fetch returns when the next
job is due, by the store's clock; at that moment this thread runs ``promote``, which rings the bell.
"""

from __future__ import annotations

import threading
import time

from middleware.broker.outage import Outage
from middleware.broker.scripts import Scripts
from ops.backoff import Backoff
from ops.errors import BridgeError
from ops.threads import start_duty

#: Longest wait; the next fetch, at most seconds away, returns again when a job is due.
_LONGEST_WAIT_S = 60.0


class DueTimer:
    """Runs ``promote`` when the next job is due.

    Args:
        scripts: The store functions.
        outage: Records that the store is unavailable.
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
        """Stop the thread and wait for it, for up to 2 s."""
        with self._changed:
            self._running = False
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def note(self, next_due_ms: int) -> None:
        """Set the timer if the next job is due earlier than known.

        Args:
            next_due_ms: Time from now until the next job is due; -1 if there is none.
        """
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
