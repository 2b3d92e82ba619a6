"""How many more jobs this worker process may hold: exactly as many as it has threads.

Dramatiq would prefetch twice as many. A job that waits in one worker's memory while another worker idles
is late, and a more urgent one cannot overtake it; so nothing is fetched that does not start at once.
"""

from __future__ import annotations

import threading
import time


class Slots:
    """Counts free worker threads; shared by all consumers of the process."""

    def __init__(self) -> None:
        self._free = 0
        self._changed = threading.Condition()

    def open(self, count: int) -> None:
        """Add slots; called once the number of worker threads is known."""
        self.give(count)

    def reserve(self, timeout_s: float) -> int:
        """Take all free slots, waiting for the first one.

        Args:
            timeout_s: How long to wait.

        Returns:
            How many were taken; 0 when none became free in time.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while self._free == 0:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    return 0
            taken, self._free = self._free, 0
            return taken

    def give(self, count: int) -> None:
        """Give slots back."""
        if count:
            with self._changed:
                self._free += count
                self._changed.notify()

    def wake(self) -> None:
        """Wake whoever waits, so that it can see that the worker stops."""
        with self._changed:
            self._changed.notify_all()
