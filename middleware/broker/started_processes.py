"""The processes that the jobs of a worker have started."""

from __future__ import annotations

import time

from ops.processes import find_forked, find_marked

#: Limit of the wait for processes that are about to run another program: microseconds, unless the host is
#: out of memory or of processors.
_STARTING_S = 0.5
_LOOK_AGAIN_S = 0.001


def started_by(worker_id: str, command: bytes) -> list[int]:
    """Return what the jobs of a dead worker have started.

    A program has the mark of the worker in its environment. A process that was forked when the worker was
    killed, and does not run its program yet, has no mark: it is found by the vitals of the worker, which it
    has mapped as the worker had. In between it has neither, for which this waits.

    Args:
        worker_id: Its id, which is also the name of its vitals.
        command: Its command line; empty if it is not known.
    """
    deadline_s = time.monotonic() + _STARTING_S
    while True:
        # In this order: what is not found as forked is starting, or has its mark.
        forked, starting = find_forked(worker_id, command)
        found = [*forked, *find_marked("BRIDGE_WORKER_ID", worker_id)]
        if found or not starting or time.monotonic() > deadline_s:
            return found
        time.sleep(_LOOK_AGAIN_S)
