"""The ledger's files: one per day, append-only, each line chained to the line before, also across days.

One process writes at a time, under a file lock that ends with the process. A line that a crash left half
written is cut off before the next one is written: no process has reported it as sealed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from middleware.archive.ledger_line import (
    NO_LINE,
    VERSION,
    JobFacts,
    LedgerLine,
    line_hash,
    read_line,
    sign_line,
)
from middleware.job.records import utc
from ops.errors import LedgerBroken
from ops.signing import KeyRing

#: Lines have a few hundred bytes, and all their fields are bounded; anything longer is not a line of a
#: ledger.
LINE_MAX_BYTES = 1_048_576
#: Interval between two tries to get the lock.
_LOCK_WAIT_S = 0.05
_CHUNK_BYTES = 65_536


class Head(Struct, frozen=True):
    """The end of the chain.

    Attributes:
        seq: Number of the last line; 0 if the ledger is empty.
        digest: Its SHA-256.
    """

    seq: int = 0
    digest: str = NO_LINE


class UnsealedTransition(Struct, frozen=True, kw_only=True):
    """A transition to be sealed; see ``LedgerLine`` for its fields."""

    job_id: str
    index: int
    entry: dict[str, Any]
    job: JobFacts | None = None
    after_loss: bool = False


def day_files(folder: Path) -> list[Path]:
    """Return the files of all days, oldest first."""
    return sorted(folder.glob("????-??-??.jsonl"))


def lines_backwards(folder: Path) -> Iterator[bytes]:
    """Yield the whole lines of all days, last one first, without line ends; reads only as far as needed."""
    for file in reversed(day_files(folder)):
        yield from file_backwards(file)


def file_backwards(file: Path) -> Iterator[bytes]:
    """Yield the whole lines of a file, last one first, without line ends."""
    with file.open("rb") as source:
        place = source.seek(0, os.SEEK_END)
        rest = b""
        whole = False
        while place > 0:
            step = min(_CHUNK_BYTES, place)
            place -= step
            source.seek(place)
            parts = (source.read(step) + rest).split(b"\n")
            rest = parts[0]
            for part in reversed(parts[1:]):
                # After the last line end is a line half written, or nothing.
                if whole:
                    yield part
                whole = True
        if whole and rest:
            yield rest


class Ledger:
    """The ledger of a workspace.

    Args:
        folder: The folder of its files.
        keys: The signing keys.

    Attributes:
        name: Unique among the workspaces of a store; empty before the first line.
    """

    def __init__(self, folder: Path, keys: KeyRing) -> None:
        self.folder = folder
        self.name = ""
        self.head = Head()
        self._keys = keys
        self._file: Path | None = None
        self._stamp: tuple[str, int] | None = None

    @contextlib.contextmanager
    def writing(self, *, timeout_s: float) -> Iterator[None]:
        """Lock the ledger for writing within the block, and find its end.

        Raises:
            LedgerBroken: Another process has the lock for too long, or the last line cannot be read.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._lock(fd, timeout_s)
            try:
                self._catch_up()
                yield
            except OSError as error:
                self._stamp = None
                raise self._unwritable(error) from error
        finally:
            os.close(fd)

    def _unwritable(self, error: OSError) -> LedgerBroken:
        return LedgerBroken(
            f"The ledger {self.folder} cannot be written: {error.strerror}.",
            remedy="Free disk space, or correct the folder's mode.",
        )

    def _lock(self, fd: int, timeout_s: float) -> None:
        ends_s = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > ends_s:
                    raise LedgerBroken(
                        f"Another process has locked the ledger {self.folder} for more than {timeout_s:g} s.",
                        remedy="Look for a scheduler (3ox clock) that is stopped or hangs.",
                    ) from error
                time.sleep(_LOCK_WAIT_S)
            else:
                return

    def _catch_up(self) -> None:
        """Find the end of the chain if another process has written; cut off a line half written."""
        files = day_files(self.folder)
        self._file = files[-1] if files else None
        if self._file is not None:
            size_bytes = self._file.stat().st_size
            if self._stamp == (self._file.name, size_bytes):
                return
            _cut_half_line(self._file, size_bytes)
        last = next(lines_backwards(self.folder), None)
        if last is None:
            self.head = Head()
            self.name = self.name if self.name else secrets.token_hex(6)
            return
        try:
            line = read_line(last)
        except msgspec.MsgspecError as error:
            raise LedgerBroken(
                f"The last line of {self._file} cannot be read: {error}.",
                remedy="'3ox verify' names the first bad line; restore the file from a backup.",
            ) from error
        self.head, self.name = Head(line.seq, line_hash(last)), line.ledger

    def continue_after(self, head: Head) -> bool:
        """Leave a gap in the numbers if lines that the store knows of are missing; return whether it did.

        Args:
            head: The last line that the store knows of.
        """
        if head.seq <= self.head.seq:
            return False
        self.head = head
        return True

    def since(self, seq: int, limit: int) -> list[LedgerLine]:
        """Return up to ``limit`` lines after the number ``seq``, the last one first."""
        found: list[LedgerLine] = []
        for raw in lines_backwards(self.folder):
            line = read_line(raw)
            if line.seq <= seq or len(found) >= limit:
                break
            found.append(line)
        return found

    def append(self, transitions: Sequence[UnsealedTransition], *, now_s: float) -> Head:
        """Write transitions; they are on disk when this returns. Call it within ``writing`` only.

        Args:
            transitions: The transitions, in order.
            now_s: The time, in seconds since 1970.

        Returns:
            The new end of the chain.

        Raises:
            SettingsError: The ledger has no signing key.
            OSError: Nothing was written.
        """
        signer = self._keys.signer(now_s)
        sealed_at = str(utc(round(now_s * 1000)))
        lines = []
        head = self.head
        for item in transitions:
            line = LedgerLine(
                v=VERSION,
                ledger=self.name,
                seq=head.seq + 1,
                prev=head.digest,
                key=signer.kid,
                sealed_at=sealed_at,
                job_id=item.job_id,
                index=item.index,
                entry=item.entry,
                job=item.job,
                after_loss=item.after_loss,
            )
            raw = sign_line(line, signer)
            lines.append(raw)
            head = Head(line.seq, line_hash(raw))
        self._write(b"".join(raw + b"\n" for raw in lines), now_s)
        self.head = head
        return head

    def _write(self, data: bytes, now_s: float) -> None:
        today = f"{datetime.fromtimestamp(now_s, UTC):%Y-%m-%d}.jsonl"
        # After the clock was set back, lines still go to the latest day.
        name = today if self._file is None or self._file.name < today else self._file.name
        file = self.folder / name
        fresh = not file.exists()
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before_bytes = os.fstat(fd).st_size
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, before_bytes)
                raise
        finally:
            os.close(fd)
        if fresh:
            folder = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self._file = file
        self._stamp = (name, before_bytes + len(data))


def _cut_half_line(file: Path, size_bytes: int) -> None:
    """Cut off what follows the last line end."""
    with file.open("r+b") as target:
        keep_bytes = size_bytes
        while keep_bytes > 0:
            step = min(_CHUNK_BYTES, keep_bytes)
            target.seek(keep_bytes - step)
            end = target.read(step).rfind(b"\n")
            if end >= 0:
                keep_bytes += end + 1 - step
                break
            keep_bytes -= step
        if keep_bytes < size_bytes:
            target.truncate(keep_bytes)
            os.fsync(target.fileno())
