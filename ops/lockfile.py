"""A lock that goes with the process that holds it, in a file that the last holder removes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def claim_lock(path: Path, *, wait: bool) -> int | None:
    """Take a lock; the holder removes the file before it closes the descriptor.

    Args:
        path: The lock's file; made if it is not there.
        wait: Wait for its holder to end.

    Returns:
        The descriptor that holds it, or None if somebody else does and we are not to wait.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        # The one before us removes the file when it ends: then ours is the lock of nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(fd).st_ino:  # noqa: PTH116 (the same call for path and descriptor)
                return fd
        os.close(fd)
