"""How many jobs a worker process may hold: as many as it has threads.

Dramatiq would prefetch twice as many. A job that waits in the memory of one worker while another one is idle
starts late, and a more urgent one cannot overtake it. So only jobs that start at once are fetched.
"""

from __future__ import annotations

import threading
import time

#: Longest time to collect slots under full load, see ``Slots.reserve``; an idle worker does not wait for
#: more.
_LINGER_S = 0.001


class Slots:
    """Counts the free worker threads of a process; shared by its consumers."""

    def __init__(self) -> None:
        self._free = 0
        self._count = 0
        self._wanted = 1
        self._lock = threading.Lock()  # entered directly, for each job
        self._changed = threading.Condition(self._lock)

    def open(self, count: int) -> None:
        """Add slots; called when the number of worker threads is known."""
        self._count += count
        self.give(count)

    def reserve(self, timeout_s: float, *, backlog: bool = False) -> int:
        """Take all free slots; wait for the first one.

        Args:
            timeout_s: How long to wait.
            backlog: More jobs are waiting than the last fetch had slots for. Then wait a moment for half of
                the slots, so that one fetch serves several short jobs.

        Returns:
            Number of slots taken; 0 if none became free in time.
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
        """Return slots."""
        if count:
            with self._lock:
                self._free += count
                if self._free >= self._wanted:
                    self._changed.notify()

    def wake(self) -> None:
        """Wake the threads that wait for a slot, so that they notice that the worker stops."""
        with self._changed:
            self._changed.notify_all()

    @property
    def count(self) -> int:
        """Number of slots, free or not."""
        return self._count


class SlotShare:
    """The part of the slots that one consumer may hold.

    Args:
        slots: Of the process.
        part: Largest part that it may hold, 0 to 1, but at least one slot; None for all.
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
        """Return slots."""
        if self._part is not None and count:
            with self._changed:
                self._held -= count
                self._changed.notify()
        self._slots.give(count)
