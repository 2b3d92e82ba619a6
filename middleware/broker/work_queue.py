"""The queue between a worker's consumers and its threads, with nothing in it that a short job would notice.

Dramatiq's is a ``PriorityQueue``, written in Python: each job that is put in wakes another thread, the one
that has slept longest, and all threads take turns at a handful of jobs. This one is the interpreter's own
``SimpleQueue``: a thread that has just finished a job takes the next one without being put to sleep first.
Jobs of one worker are in the right order already (``fetch`` gives them so); Dramatiq's priorities of actors,
which we do not use, are not looked at.
"""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

#: Stands for no item; one for each thread that is to be woken.
_WAKE = object()
#: A thread that asks a closed queue is told to end within a moment.
_CLOSED_PAUSE_S = 0.005


class WorkQueue:
    """As much of ``queue.Queue`` as Dramatiq's worker uses.

    Attributes:
        unfinished_tasks: How many items have been put in and not been reported as done.
    """

    def __init__(self) -> None:
        self._items: SimpleQueue[Any] = SimpleQueue()
        self.unfinished_tasks = 0
        self._changed = threading.Condition(threading.Lock())
        self._closed = False

    def get(self, timeout: float) -> Any:
        """Take the next item, waiting for one.

        A wait may last longer than it should: where all threads stood still past its end (a job held the
        interpreter's lock), ``SimpleQueue`` of Python 3.11 waits on without a bound. The next ``put`` ends
        that, or ``close``.

        Args:
            timeout: In seconds.

        Raises:
            queue.Empty: There was none in time, or the queue is closed.
        """
        if self._closed:
            time.sleep(_CLOSED_PAUSE_S)
            raise Empty
        item = self._items.get(timeout=timeout)
        if item is _WAKE:
            raise Empty
        return item

    def get_nowait(self) -> Any:
        """Take the next item.

        Raises:
            queue.Empty: There is none.
        """
        while (item := self._items.get_nowait()) is _WAKE:
            pass
        return item

    def close(self, threads: int) -> None:
        """Wake all threads that wait, however long they would have; what lies here stays for ``get_nowait``.

        Args:
            threads: How many may be waiting.
        """
        self._closed = True
        for _ in range(threads):
            self._items.put(_WAKE)

    def put(self, item: Any) -> None:
        """Add an item; never blocks."""
        with self._changed:
            self.unfinished_tasks += 1
        self._items.put(item)

    def task_done(self) -> None:
        """Report that an item has been worked off."""
        with self._changed:
            self.unfinished_tasks -= 1
            if self.unfinished_tasks == 0:
                self._changed.notify_all()

    def join(self) -> None:
        """Wait until all items have been worked off, as long as it takes; Dramatiq's tests do."""
        with self._changed:
            self._changed.wait_for(lambda: self.unfinished_tasks == 0)
