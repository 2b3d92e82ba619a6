"""A durable queue of files: jobs accepted while the store is unavailable.

An entry is written, synced to disk and renamed into place before ``add`` returns, so that after a power cut
it is complete or absent. Entries are consumed in the order in which they were added, by one process at a
time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ops.errors import SpoolFull, StartFailed
from ops.files import write_durably

_SUFFIX = ".job"
#: Folder of the quarantined entries, and how many of them are kept.
_QUARANTINE = "refused"
QUARANTINE_MAX = 1000
#: Age above which an unfinished draft was left by a crash; writing one takes milliseconds.
_DRAFT_S = 600.0


class Spool:
    """A directory of entries.

    Args:
        folder: The directory; created with the first entry.
        max_bytes: Maximum size of all entries together.

    Attributes:
        folder: The directory.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._count = 0
        self._last_ns = 0
        self._known_bytes: int | None = None

    def add(self, name: str, data: bytes) -> Path:
        """Add an entry; it is on disk when this returns.

        Args:
            name: Part of the file name; must be safe in one.
            data: Content.

        Raises:
            SpoolFull: The entry would exceed the limit, or cannot be written; nothing is stored.
        """
        self._make_room(len(data))
        # Nanoseconds and a counter: entries of one process sort in the order in which they were added, even
        # if its clock is set back; those of several processes sort by their clocks.
        self._count += 1
        self._last_ns = max(self._last_ns, time.time_ns())
        entry = self.folder / f"{self._last_ns:020d}-{self._count:08d}-{name}{_SUFFIX}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(entry, data)
        except OSError as error:
            # The caller reports a refusal, so the sender will submit the job again.
            entry.unlink(missing_ok=True)
            raise SpoolFull(
                f"The spool {self.folder} cannot be written: {error.strerror}.",
                remedy="Free disk space, or check the folder's permissions.",
            ) from error
        return entry

    def _make_room(self, wanted_bytes: int) -> None:
        """Account for an entry; the folder is read only at first and when it seems full."""
        for known_bytes in (self._known_bytes, None):
            held_bytes = self.size_bytes() if known_bytes is None else known_bytes
            if held_bytes + wanted_bytes <= self._max_bytes:
                self._known_bytes = held_bytes + wanted_bytes
                return
        raise SpoolFull(
            f"The spool {self.folder} is full ({self._max_bytes} bytes).",
            remedy="Start the store, or raise spool_max_bytes.",
        )

    def entries(self) -> list[Path]:
        """Return all entries, oldest first."""
        return sorted(self._found())

    def count(self) -> int:
        """Return the number of entries."""
        return sum(1 for _ in self._found())

    def is_empty(self) -> bool:
        """Return whether the spool is empty."""
        return next(self._found(), None) is None

    def _found(self, suffix: str = _SUFFIX, *, folder: Path | None = None) -> Iterator[Path]:
        directory = self.folder if folder is None else folder
        with contextlib.suppress(FileNotFoundError), os.scandir(directory) as listing:
            for entry in listing:
                # Regular files only: reading a pipe would block for ever.
                if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)

    def remove_drafts(self) -> None:
        """Remove drafts left by crashes; call it within ``exclusive`` only."""
        now_s = time.time()
        for draft in self._found(".tmp"):
            with contextlib.suppress(FileNotFoundError):
                if now_s - draft.stat().st_mtime > _DRAFT_S:
                    draft.unlink()

    def size_bytes(self) -> int:
        """Return the size of all entries together, in bytes."""
        total = 0
        for path in self._found(""):
            # Another process may consume it at this moment.
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Hold the lock of the process that consumes entries.

        Yields:
            True with the lock; False if another process holds it.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(fd)

    def quarantine(self, entry: Path, reason: bytes = b"") -> Path:
        """Quarantine an entry that can never be submitted; it is kept for inspection.

        Args:
            entry: The entry; the latest ``QUARANTINE_MAX`` quarantined ones are kept.
            reason: Content of its ``reason_file``.

        Raises:
            StartFailed: It cannot be moved.
        """
        folder = self.folder / _QUARANTINE
        target = folder / entry.name
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self.reason_file(target).write_bytes(reason)
            entry.rename(target)
            for old in self.quarantined()[:-QUARANTINE_MAX]:
                old.unlink(missing_ok=True)
                self.reason_file(old).unlink(missing_ok=True)
        except OSError as error:
            raise StartFailed(
                f"{entry} cannot be moved: {error.strerror}.", remedy="Move it by hand."
            ) from error
        return target

    def quarantined(self) -> list[Path]:
        """Return the quarantined entries, oldest first."""
        return sorted(self._found(folder=self.folder / _QUARANTINE))

    @staticmethod
    def reason_file(entry: Path) -> Path:
        """Return the file that holds the reason why an entry was quarantined."""
        return entry.with_suffix(".why")
