"""File locks that the kernel releases when their process ends; the holder may remove the file.

A holder removes the file before it closes the descriptor. A process that was waiting for the lock then finds
that the path refers to another file (or none), and locks that one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

_POLL_S = 0.02


def take_lock(path: Path, *, within_s: float) -> int:
    """Take a lock, waiting for its holder.

    Args:
        path: The lock file; created if it is missing.
        within_s: Timeout in seconds; the lock is polled every 20 ms, because flock has no timeout.

    Returns:
        The descriptor that holds the lock; close it to release the lock.

    Raises:
        TimeoutError: Another process held the lock for that long.
        OSError: The file cannot be opened or locked.
    """
    deadline_s = time.monotonic() + within_s
    while (fd := try_lock(path)) is None:
        if time.monotonic() > deadline_s:
            raise TimeoutError(errno.ETIMEDOUT, "another process holds the lock", str(path))
        time.sleep(_POLL_S)
    return fd


def await_lock(path: Path) -> int:
    """Take a lock, waiting until its holder releases it or ends; see ``take_lock``."""
    while True:
        fd = _locked(path, fcntl.LOCK_EX)
        if fd is not None:
            return fd


def try_lock(path: Path) -> int | None:
    """Take a lock if it is free; see ``take_lock``.

    Returns:
        The descriptor that holds it, or None if another process does.
    """
    while True:
        try:
            fd = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if fd is not None:
            return fd


def _locked(path: Path, operation: int) -> int | None:
    """Lock the file; returns None if the path refers to another file by then."""
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
