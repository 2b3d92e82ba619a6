"""One log file for many processes: whole lines, whatever happens, and a bound on its size.

Each line is one ``write`` to a descriptor in append mode, which the kernel does not tear apart (six
processes, 24,000 lines: none torn). Rotation renames ``3ox.log`` to ``3ox.log.1`` and so on under a lock on
the file itself; everybody else notices before the next line that the name leads elsewhere, and follows. A
line that was under way at that moment ends up in ``3ox.log.1``, whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

from ops.errors import SettingsError

#: A line that is longer has been fed something that does not belong into a log.
LINE_MAX_BYTES = 65_536
#: Two system calls tell whether the file has moved or grown too large; once in so long is enough, or once for
#: such a part of its size. Lines written in between go, whole, to the file that was just rotated.
CHECK_EVERY_S = 0.05
#: A rotation takes a few milliseconds.
_ROTATION_WITHIN_S = 0.5
_LOOK_S = 0.005
_CHECK_EVERY_PART = 16


class LogFile:
    """An append-only file of lines that rotates.

    Args:
        path: The file; its directory has to exist.
        max_bytes: It is rotated when it has become longer than this.
        keep: How many rotated files stay beside it.
        check_every_s: How long it may take us to notice that somebody else has rotated it.

    Raises:
        SettingsError: It cannot be written.
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

    def write_line(self, line: bytes) -> None:
        """Append a line; its end is added.

        Raises:
            OSError: The disk is full, for instance; nothing of the line is there then.
        """
        now_s = time.monotonic()
        self._unchecked_bytes += len(line)
        due = now_s - self._checked_s >= self._check_every_s
        if due or self._unchecked_bytes * _CHECK_EVERY_PART > self._max_bytes:
            self._checked_s, self._unchecked_bytes = now_s, 0
            # Where no new file can be made, the lines go on into the one that was moved away.
            with contextlib.suppress(SettingsError):
                self._follow()
                if os.fstat(self._fd).st_size > self._max_bytes:
                    self._rotate()
                    self._follow()
        data = line + b"\n"
        written = os.write(self._fd, data)
        if written < len(data):
            self._take_back(data[:written])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _take_back(self, piece: bytes) -> None:
        """Remove what a full disk took of a line, so that the next one does not become part of it."""
        size_bytes = os.fstat(self._fd).st_size - len(piece)
        if os.pread(self._fd, len(piece), size_bytes) == piece:
            os.ftruncate(self._fd, size_bytes)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(
                f"the log {self._path} cannot be written: {error.strerror}.",
                remedy="Correct its owner or mode.",
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
        # The descriptor keeps its number: threads that write at this moment hit the old file or the new one.
        fresh = self._open()
        os.dup2(fresh, self._fd, inheritable=False)
        os.close(fresh)
        self._id = self._identity(self._fd)

    def _rotate(self) -> None:
        import fcntl

        # A descriptor of its own: after a fork, parent and child share the other one, and with it a lock.
        lock_fd = self._open()
        try:
            # Whoever holds it is at it already, and soon ready; if that one stands still, the others log on.
            deadline_s = time.monotonic() + _ROTATION_WITHIN_S
            while time.monotonic() < deadline_s:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if self._identity(lock_fd) == self._identity(self._path):
                        self._shift()
                    return
                time.sleep(_LOOK_S)
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
