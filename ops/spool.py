"""A durable queue of files: what was accepted while the store was away.

An entry is written, forced to disk and renamed into place before ``add`` returns, so that a power cut
leaves it whole or not there. Entries are taken in the order in which they were added, by one process at a
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
#: Room of the entries that can never be handed over, and how many of them are kept.
_ASIDE = "refused"
ASIDE_MAX = 1000
#: A draft is written in a moment; one that is older belongs to nobody.
_DRAFT_S = 600.0


class Spool:
    """A directory of entries.

    Args:
        folder: Where they are; made with the first entry.
        max_bytes: All entries together; more are refused.

    Attributes:
        folder: Where they are.
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
            name: Safe in a file name.
            data: What to keep.

        Raises:
            SpoolFull: It would exceed the limit, or the disk is full; nothing is kept.
        """
        self._make_room(len(data))
        # Nanoseconds and a counter: entries of one process sort in the order in which they were added, also
        # when its clock is set back meanwhile, and those of several by their clock.
        self._count += 1
        self._last_ns = max(self._last_ns, time.time_ns())
        entry = self.folder / f"{self._last_ns:020d}-{self._count:08d}-{name}{_SUFFIX}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(entry, data)
        except OSError as error:
            # Whoever is told that it was refused hands it in again.
            entry.unlink(missing_ok=True)
            raise SpoolFull(
                f"the spool {self.folder} takes nothing: {error.strerror}.",
                remedy="Free disk space, or correct the folder's mode.",
            ) from error
        return entry

    def _make_room(self, wanted_bytes: int) -> None:
        """Account for an entry; looks through the folder only at the beginning and when it seems full."""
        for known_bytes in (self._known_bytes, None):
            held_bytes = self.size_bytes() if known_bytes is None else known_bytes
            if held_bytes + wanted_bytes <= self._max_bytes:
                self._known_bytes = held_bytes + wanted_bytes
                return
        raise SpoolFull(
            f"the spool {self.folder} is full ({self._max_bytes} bytes).",
            remedy="Bring the store back, or raise spool_max_bytes.",
        )

    def entries(self) -> list[Path]:
        """Give all entries, oldest first."""
        return sorted(self._found())

    def count(self) -> int:
        """Count the entries."""
        return sum(1 for _ in self._found())

    def is_empty(self) -> bool:
        """Tell whether there is no entry."""
        return next(self._found(), None) is None

    def _found(self, suffix: str = _SUFFIX, *, folder: Path | None = None) -> Iterator[Path]:
        place = self.folder if folder is None else folder
        with contextlib.suppress(FileNotFoundError), os.scandir(place) as listing:
            for entry in listing:
                # A pipe that somebody has left there would be read for ever.
                if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)

    def sweep_drafts(self) -> None:
        """Remove what a crash left half written; only for the one process that takes entries."""
        now_s = time.time()
        for draft in self._found(".tmp"):
            with contextlib.suppress(FileNotFoundError):
                if now_s - draft.stat().st_mtime > _DRAFT_S:
                    draft.unlink()

    def size_bytes(self) -> int:
        """Add up the sizes of all entries."""
        total = 0
        for path in self._found(""):
            # Another process may take it at this moment.
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    @contextlib.contextmanager
    def taking(self) -> Iterator[bool]:
        """Be the one process that takes entries.

        Yields:
            Whether we are; if not, another process is at it.
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

    def set_aside(self, entry: Path, why: bytes = b"") -> Path:
        """Move an entry that can never be handed over out of the way; it is kept for a person to look at.

        Args:
            entry: Which; of those set aside, the last ``ASIDE_MAX`` are kept.
            why: Kept beside it, see ``why_file``.

        Raises:
            StartFailed: It cannot be moved.
        """
        aside = self.folder / _ASIDE
        target = aside / entry.name
        try:
            aside.mkdir(mode=0o700, exist_ok=True)
            self.why_file(target).write_bytes(why)
            entry.rename(target)
            for old in self.aside()[:-ASIDE_MAX]:
                old.unlink(missing_ok=True)
                self.why_file(old).unlink(missing_ok=True)
        except OSError as error:
            raise StartFailed(
                f"{entry} cannot be moved: {error.strerror}.", remedy="Move it by hand."
            ) from error
        return target

    def aside(self) -> list[Path]:
        """Give the entries that were set aside, oldest first."""
        return sorted(self._found(folder=self.folder / _ASIDE))

    @staticmethod
    def why_file(entry: Path) -> Path:
        """Give the file that says why an entry was set aside."""
        return entry.with_suffix(".why")
