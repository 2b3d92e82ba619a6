"""Decide when a dropped file is complete: it has not changed for a while, and no process writes to it.

A file system reports changes, but not the end of a series of changes. So a file counts as complete when
size, time and inode are the same in two scans that are far enough apart and, where the kernel can answer
that, no process has it open for writing: a slow copy can pause for longer than users would wait.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable

from ingress.station.scanner import DroppedFile


class StabilityTracker:
    """Remembers when each file was last seen to change.

    Args:
        settle_s: How long a file must be unchanged, in seconds.
        note_wait_s: The same for a note whose file is missing.
        clock: Monotonic seconds.
    """

    def __init__(
        self, *, settle_s: float, note_wait_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settle_s = settle_s
        self._note_wait_s = note_wait_s
        self._clock = clock
        self._since_s: dict[str, tuple[tuple[int, ...], float]] = {}

    def settled(self, files: Iterable[DroppedFile]) -> tuple[list[DroppedFile], float | None]:
        """Return the files that have been unchanged for long enough; forget files that are gone.

        Args:
            files: All files of a scan.

        Returns:
            Those files, and the seconds until the next one may be ready; None if no file is left.
        """
        now_s = self._clock()
        before, self._since_s = self._since_s, {}
        ready: list[DroppedFile] = []
        next_s: float | None = None
        for item in files:
            signature, path = item.signature, item.path
            known = before.get(path)
            since_s = known[1] if known is not None and known[0] == signature else now_s
            self._since_s[path] = (signature, since_s)
            wait_s = max(self._settle_s, self._note_wait_s) if item.is_orphan_note else self._settle_s
            left_s = since_s + wait_s - now_s
            if left_s <= 0:
                ready.append(item)
            else:
                next_s = left_s if next_s is None else min(next_s, left_s)
        return ready, next_s


def is_being_written(path: str) -> bool:
    """Return whether a process has a file open for writing, as far as the kernel can tell.

    The kernel (Linux, ``fcntl(2)``) grants a read lease only while no process writes. The lease is returned
    at once; a process that opens the file in between waits for that.

    Args:
        path: A regular file.

    Raises:
        OSError: The file cannot be opened.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # Other errors mean that leases are not supported here, or not for files of another user.
        return error.errno in (errno.EAGAIN, errno.EBUSY)
    finally:
        os.close(fd)
    return False


def ignore_lease_breaks() -> None:
    """Ignore SIGIO, which would end this process when a writer meets one of our leases."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGIO, signal.SIG_IGN)
