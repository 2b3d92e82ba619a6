"""The queue between a worker's consumers and its threads, at little cost per job.

Dramatiq uses a ``PriorityQueue``, written in Python: each item wakes the thread that has slept longest, so
that all threads take turns at a handful of jobs. This one uses the interpreter's ``SimpleQueue``: a thread
that has just finished a job takes the next one without going to sleep. Jobs arrive in the right order from
``fetch``; Dramatiq's priorities of actors, which we do not use, are ignored.
"""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

#: Not an item: wakes one thread.
_WAKE = object()
#: Pause of a thread that polls a closed queue; Dramatiq ends it within a moment.
_CLOSED_PAUSE_S = 0.005


class WorkQueue:
    """The part of ``queue.Queue`` that Dramatiq's worker uses.

    Attributes:
        unfinished_tasks: Number of items that were put in and not reported as done.
    """

    def __init__(self) -> None:
        self._items: SimpleQueue[Any] = SimpleQueue()
        self.unfinished_tasks = 0
        self._lock = threading.Lock()  # entered directly: entering the condition takes five times as long
        self._changed = threading.Condition(self._lock)
        self._closed = False

    def get(self, timeout: float) -> Any:
        """Remove and return the next item; wait for one.

        A wait may exceed its timeout: if all threads were stopped at its end (a job held the interpreter's
        lock), ``SimpleQueue`` of Python 3.11 continues to wait. The next ``put`` ends that, or ``close``.

        Args:
            timeout: In seconds.

        Raises:
            queue.Empty: The timeout elapsed, or the queue is closed.
        """
        if self._closed:
            time.sleep(_CLOSED_PAUSE_S)
            raise Empty
        item = self._items.get(timeout=timeout)
        if item is _WAKE:
            raise Empty
        return item

    def get_nowait(self) -> Any:
        """Remove and return the next item.

        Raises:
            queue.Empty: The queue has none.
        """
        while (item := self._items.get_nowait()) is _WAKE:
            pass
        return item

    def close(self, threads: int) -> None:
        """Wake all waiting threads; items stay available to ``get_nowait``.

        Args:
            threads: How many may be waiting.
        """
        self._closed = True
        for _ in range(threads):
            self._items.put(_WAKE)

    def put(self, item: Any) -> None:
        """Add an item, without blocking."""
        with self._lock:
            self.unfinished_tasks += 1
        self._items.put(item)

    def task_done(self) -> None:
        """Record that an item has been processed."""
        with self._lock:
            self.unfinished_tasks -= 1
            if self.unfinished_tasks == 0:
                self._changed.notify_all()

    def join(self) -> None:
        """Wait until all items have been processed, without a timeout; used by Dramatiq's tests."""
        with self._changed:
            self._changed.wait_for(lambda: self.unfinished_tasks == 0)
