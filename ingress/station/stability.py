"""Tells when a file is whole: nobody writes to it, and it has stood still for a while.

A file system tells of changes, not of their end. So a file is taken when size, time and inode are the same
in two looks that lie far enough apart, and, where the kernel can say so, nobody has it open for writing: a
slow copy may pause for longer than any wait that people would put up with.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable

from ingress.station.inbox import Found


class Stability:
    """Remembers when each file was seen to change last.

    Args:
        settle_s: For how long a file has to stand still, in seconds.
        note_wait_s: For how long a note without its file does.
        clock: Monotonic seconds.
    """

    def __init__(
        self, *, settle_s: float, note_wait_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settle_s = settle_s
        self._note_wait_s = note_wait_s
        self._clock = clock
        self._since_s: dict[str, tuple[tuple[int, ...], float]] = {}

    def settled(self, files: Iterable[Found]) -> tuple[list[Found], float | None]:
        """Give the files that have stood still for long enough; forget those that are not there any more.

        Args:
            files: All that a look has found.

        Returns:
            Those files, and after how many seconds the next one may be ready; None if there is none.
        """
        now_s = self._clock()
        before, self._since_s = self._since_s, {}
        ready: list[Found] = []
        next_s: float | None = None
        for item in files:
            signature, path = item.signature, item.path
            known = before.get(path)
            since_s = known[1] if known is not None and known[0] == signature else now_s
            self._since_s[path] = (signature, since_s)
            wait_s = max(self._settle_s, self._note_wait_s) if item.lonely else self._settle_s
            left_s = since_s + wait_s - now_s
            if left_s <= 0:
                ready.append(item)
            else:
                next_s = left_s if next_s is None else min(next_s, left_s)
        return ready, next_s


def is_being_written(path: str) -> bool:
    """Tell whether somebody has a file open for writing, as far as the kernel says.

    A read lease (Linux, ``fcntl(2)``) is granted only while nobody has. It is given back at once; a writer
    who comes in between waits for it that long.

    Args:
        path: A regular file.

    Raises:
        OSError: It cannot be opened.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # Others say that there are no leases here, or not for files of somebody else: that decides nothing.
        return error.errno in (errno.EAGAIN, errno.EBUSY)
    finally:
        os.close(fd)
    return False


def ignore_lease_breaks() -> None:
    """Have a writer who meets one of our leases not end this process, as the kernel's sign would."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGIO, signal.SIG_IGN)
