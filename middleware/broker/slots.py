"""How many more jobs this worker process may hold: exactly as many as it has threads.

Dramatiq would prefetch twice as many. A job that waits in one worker's memory while another worker idles
is late, and a more urgent one cannot overtake it; so nothing is fetched that does not start at once.
"""

from __future__ import annotations

import threading
import time

#: Costs a job under full load this much at most; an idle worker never lingers.
_LINGER_S = 0.001


class Slots:
    """Counts free worker threads; shared by all consumers of the process."""

    def __init__(self) -> None:
        self._free = 0
        self._count = 0
        self._wanted = 1
        self._changed = threading.Condition()

    def open(self, count: int) -> None:
        """Add slots; called once the number of worker threads is known."""
        self._count += count
        self.give(count)

    def reserve(self, timeout_s: float, *, backlog: bool = False) -> int:
        """Take all free slots, waiting for the first one.

        Args:
            timeout_s: How long to wait.
            backlog: More jobs are known to wait than there were slots for: linger for a moment until half
                of the slots are free, so that one fetch serves several short jobs.

        Returns:
            How many were taken; 0 when none became free in time.
        """
        with self._changed:
            if backlog:
                self._wait_for(max(1, self._count // 2), _LINGER_S)
            self._wait_for(1, timeout_s)
            taken, self._free = self._free, 0
            return taken

    def _wait_for(self, wanted: int, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        self._wanted = wanted
        while self._free < wanted:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not self._changed.wait(left_s):
                return

    def give(self, count: int) -> None:
        """Give slots back."""
        if count:
            with self._changed:
                self._free += count
                if self._free >= self._wanted:
                    self._changed.notify()

    def wake(self) -> None:
        """Wake whoever waits, so that it can see that the worker stops."""
        with self._changed:
            self._changed.notify_all()

    @property
    def count(self) -> int:
        """How many there are, free or not."""
        return self._count


class Share:
    """What one consumer may have of the slots.

    Args:
        slots: Of the process.
        part: 0 to 1: how many of them it holds at most, one at least; None for all.
    """

    def __init__(self, slots: Slots, part: float | None) -> None:
        self._slots = slots
        self._part = part
        self._held = 0
        self._changed = threading.Condition()

    def reserve(self, timeout_s: float, *, backlog: bool) -> int:
        """Take free slots; see ``Slots.reserve``."""
        if self._part is None:
            return self._slots.reserve(timeout_s, backlog=backlog)
        most = max(1, int(self._slots.count * self._part))
        with self._changed:
            if not self._changed.wait_for(lambda: self._held < most, timeout_s):
                return 0
        free = self._slots.reserve(timeout_s)
        with self._changed:
            taken = min(free, most - self._held)
            self._held += taken
        self._slots.give(free - taken)
        return taken

    def give(self, count: int) -> None:
        """Give slots back."""
        if self._part is not None and count:
            with self._changed:
                self._held -= count
                self._changed.notify()
        self._slots.give(count)
