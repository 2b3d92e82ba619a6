"""One log file for many processes: lines are never torn, and the size is limited.

A line is written with one ``write`` to a descriptor in append mode, which the kernel does not split (six
processes, 24,000 lines: none torn). Rotation renames ``3ox.log`` to ``3ox.log.1`` and so on, under a lock on
the file itself; the other processes detect that the path refers to another file and reopen it. A line written
during a rotation ends up complete in ``3ox.log.1``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

from ops.errors import SettingsError

#: Longer lines are shortened: they contain data that does not belong in a log.
LINE_MAX_BYTES = 65_536
#: Interval between the checks (two system calls) whether the file was rotated or is too large. Lines written
#: in between go to the file that was just rotated.
CHECK_EVERY_S = 0.05
#: A check is also due after each 1/16 of the maximum size.
_CHECK_EVERY_PART = 16
#: Timeout for the rotation by another process, which takes a few milliseconds.
_ROTATION_WITHIN_S = 0.5
_POLL_S = 0.005


class LogFile:
    """An append-only file of lines that rotates.

    Args:
        path: The file; its directory must exist.
        max_bytes: Size above which it is rotated.
        keep: Number of rotated files kept.
        check_every_s: Interval between checks whether another process has rotated it.

    Raises:
        SettingsError: The file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        keep: int,
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        self._path = path
        self._check_every_s = check_every_s
        self._max_bytes = max_bytes
        self._keep = keep
        self._fd = self._open()
        self._id = self._identity(self._fd)
        self._checked_s = 0.0
        self._unchecked_bytes = 0

    def write(self, lines: bytes) -> None:
        """Append a line, or several; the last newline is added.

        Raises:
            OSError: They cannot be written (disk full, for example); no part of them remains in the file.
        """
        now_s = time.monotonic()
        self._unchecked_bytes += len(lines)
        due = now_s - self._checked_s >= self._check_every_s
        if due or self._unchecked_bytes * _CHECK_EVERY_PART > self._max_bytes:
            self._checked_s, self._unchecked_bytes = now_s, 0
            # If no new file can be created, lines go on into the rotated one.
            with contextlib.suppress(SettingsError):
                self._follow()
                if os.fstat(self._fd).st_size > self._max_bytes:
                    self._rotate()
                    self._follow()
        data = lines + b"\n"
        written = os.write(self._fd, data)
        if written < len(data):
            self._remove_partial(data[:written])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _remove_partial(self, piece: bytes) -> None:
        """Remove what was partly written, so that the next line does not continue it."""
        size_bytes = os.fstat(self._fd).st_size - len(piece)
        if os.pread(self._fd, len(piece), size_bytes) == piece:
            os.ftruncate(self._fd, size_bytes)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(
                f"The log {self._path} cannot be written: {error.strerror}.",
                remedy="Check its owner and permissions.",
            ) from error

    @staticmethod
    def _identity(target: int | Path) -> tuple[int, int] | None:
        try:
            found = os.stat(target)  # noqa: PTH116 (takes a descriptor too)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _follow(self) -> None:
        if self._identity(self._path) == self._id:
            return
        # dup2 keeps the descriptor's number: a concurrent write goes to the old file or to the new one.
        fresh = self._open()
        os.dup2(fresh, self._fd, inheritable=False)
        os.close(fresh)
        self._id = self._identity(self._fd)

    def _rotate(self) -> None:
        import fcntl

        # A separate descriptor: after a fork, parent and child share the other one and thus its lock.
        lock_fd = self._open()
        try:
            # The holder is rotating and finishes soon; if it is stopped, the others continue to log.
            deadline_s = time.monotonic() + _ROTATION_WITHIN_S
            while time.monotonic() < deadline_s:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if self._identity(lock_fd) == self._identity(self._path):
                        self._shift()
                    return
                time.sleep(_POLL_S)
        finally:
            os.close(lock_fd)

    def _shift(self) -> None:
        if os.stat(self._path).st_size <= self._max_bytes:  # noqa: PTH116
            return
        if self._keep == 0:
            self._path.unlink()
            return
        for number in range(self._keep - 1, 0, -1):
            older = self._rotated(number)
            if older.exists():
                older.replace(self._rotated(number + 1))
        self._path.replace(self._rotated(1))

    def _rotated(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
