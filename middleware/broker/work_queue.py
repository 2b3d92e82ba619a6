"""The queue between a worker's consumers and its threads, with nothing in it that a short job would notice.

Dramatiq's is a ``PriorityQueue``, written in Python: each job that is put in wakes another thread, the one
that has slept longest, and all threads take turns at a handful of jobs. This one is the interpreter's own
``SimpleQueue``: a thread that has just finished a job takes the next one without being put to sleep first.
Jobs of one worker are in the right order already (``fetch`` gives them so); Dramatiq's priorities of actors,
which we do not use, are not looked at.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any


class WorkQueue:
    """As much of ``queue.Queue`` as Dramatiq's worker uses.

    Attributes:
        get: Takes the next item, waiting for one; see ``queue.Queue``.
        get_nowait: Takes the next item, or raises ``queue.Empty``.
        unfinished_tasks: How many items have been put in and not been reported as done.
    """

    def __init__(self) -> None:
        items: SimpleQueue[Any] = SimpleQueue()
        self.get = items.get
        self.get_nowait = items.get_nowait
        self._put = items.put
        self.unfinished_tasks = 0
        self._changed = threading.Condition(threading.Lock())

    def put(self, item: Any) -> None:
        """Add an item; never blocks."""
        with self._changed:
            self.unfinished_tasks += 1
        self._put(item)

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
