"""A lock that goes with the process that holds it, in a file that the last holder may remove.

Whoever removes the file does so before it closes the descriptor: whoever waits for the lock then finds that
its own is the lock of nothing, and takes the one of the new file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

_LOOK_S = 0.02


def take_lock(path: Path, *, within_s: float) -> int:
    """Take a lock; waits for its holder.

    Args:
        path: The lock's file; made if it is not there.
        within_s: How long; the kernel has no such wait, so that this one looks every 20 ms.

    Returns:
        The descriptor that holds it, to be closed.

    Raises:
        TimeoutError: Its holder has kept it for so long.
        OSError: The file cannot be opened or locked.
    """
    deadline_s = time.monotonic() + within_s
    while (fd := try_lock(path)) is None:
        if time.monotonic() > deadline_s:
            raise TimeoutError(errno.ETIMEDOUT, "another process holds its lock", str(path))
        time.sleep(_LOOK_S)
    return fd


def await_lock(path: Path) -> int:
    """Take a lock; waits for as long as its holder lives, as a stand-by does. See ``take_lock``."""
    while True:
        fd = _locked(path, fcntl.LOCK_EX)
        if fd is not None:
            return fd


def try_lock(path: Path) -> int | None:
    """Take a lock if nobody holds it; see ``take_lock``.

    Returns:
        The descriptor that holds it, or None if somebody else does.
    """
    while True:
        try:
            fd = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if fd is not None:
            return fd


def _locked(path: Path, operation: int) -> int | None:
    """Lock the file; None if it has lost its name to another one meanwhile."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, operation)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(fd)):
                return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
