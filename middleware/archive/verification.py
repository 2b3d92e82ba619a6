"""Proves the ledger: order, hashes, signatures, each transition once, no gap against the store.

The files are read as a stream, a line at a time; of each job only the number of its lines is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from middleware.archive.ledger import LINE_MAX_BYTES, Head, day_files, lines_backwards
from middleware.archive.ledger_line import LedgerLine, canonical, line_hash, read_line, signed_part
from ops.errors import LedgerBroken
from ops.signing import KeyRing

if TYPE_CHECKING:
    from middleware.broker.ledger_progress import LedgerProgress
    from middleware.job.reader import Reader

#: How many jobs of the store are compared in one round trip.
_PAGE = 500
#: How many jobs that seem to lack something are looked at again.
_DOUBTS_MAX = 1_000


class Fault(Struct, frozen=True, kw_only=True):
    """The first thing that is wrong.

    Attributes:
        file: Name of the file; empty if it is about the store.
        line: Number of the line in it, from 1; 0 if it is about no line.
        message: What is wrong.
    """

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file} line {self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.message}"


class Verdict(Struct, frozen=True, kw_only=True):
    """What ``verify`` found.

    Attributes:
        ok: Whether all holds.
        days: The files that were read.
        lines: How many lines hold.
        head: The last line that was read.
        jobs: How many jobs of the store were compared.
        fault: What is wrong first, if something is.
        notes: What else the reader should know.
    """

    ok: bool
    days: list[str]
    lines: int
    head: Head
    jobs: int = 0
    fault: Fault | None = None
    notes: list[str] = []


class _Wrong(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class Verification:
    """One proof of a ledger.

    Args:
        folder: Of its files.
        keys: Whose signatures count.
    """

    def __init__(self, folder: Path, keys: KeyRing) -> None:
        self._folder = folder
        self._keys = keys
        self._head = Head()
        self._name = ""
        self._lines = 0
        self._days: list[str] = []
        self._counts: dict[str, int] = {}
        #: Jobs of which the clock of another host has sealed some transitions, into its own ledger.
        self._holes: set[str] = set()
        #: File, bytes and lines up to which has been read.
        self._place: tuple[str, int, int] = ("", 0, 0)
        self._notes: list[str] = []

    def run(
        self, *, day: str | None = None, sealing: LedgerProgress | None = None, reader: Reader | None = None
    ) -> Verdict:
        """Prove all days, or one.

        Args:
            day: Only this one, ``YYYY-MM-DD``; that it joins the days before and after is proven too.
            sealing: With it and ``reader``, and no day, that the store knows of no more than the ledger has.
            reader: See ``sealing``.

        Raises:
            LedgerBroken: There is no such day.
        """
        jobs = 0
        try:
            if day is not None:
                self._read_day(day)
            else:
                # Asked first: lines come in while we read, and the store must not seem to know of more.
                known = None if sealing is None else self._known_head(sealing)
                self._read_all()
                if sealing is not None and reader is not None and known is not None:
                    self._compare_head(known)
                    jobs = self._compare_jobs(reader)
                    lost = sealing.lost()
                    if lost:
                        self._notes.append(
                            f"{lost} job{' was' if lost == 1 else 's were'} deleted before being sealed:"
                            " no clock ran for too long."
                        )
        except _Wrong as wrong:
            return self._verdict(jobs, wrong.fault)
        return self._verdict(jobs, None)

    def _verdict(self, jobs: int, fault: Fault | None) -> Verdict:
        return Verdict(
            ok=fault is None,
            days=self._days,
            lines=self._lines,
            head=self._head,
            jobs=jobs,
            fault=fault,
            notes=self._notes,
        )

    def _read_day(self, day: str) -> None:
        files = day_files(self._folder)
        names = [file.stem for file in files]
        if day not in names:
            raise LedgerBroken(
                f"there is no ledger of {day}.",
                remedy=f"Days: {', '.join(names[-5:])}." if names else "No clock has sealed anything yet.",
            )
        at = names.index(day)
        if at > 0:
            last = _last_line(files[at - 1])
            if last is not None:
                line = self._decode(last, files[at - 1].name, 0)
                self._head, self._name = Head(line.seq, line_hash(last)), line.ledger
        self._read_file(files[at], joined=at > 0)
        if at + 1 < len(files):
            following = next(_lines(files[at + 1]), b"")
            line = self._decode(following.rstrip(b"\n"), files[at + 1].name, 1)
            if (line.seq, line.prev) != (self._head.seq + 1, self._head.digest):
                raise _Wrong(
                    Fault(
                        file=files[at].name,
                        line=self._place[2],
                        message=f"the day ends with number {self._head.seq}, but the next one goes on with"
                        f" {line.seq} and another line before it.",
                    )
                )

    def _read_all(self) -> None:
        """Read all that has not been read yet."""
        for file in day_files(self._folder):
            if file.name >= self._place[0]:
                self._read_file(file, joined=False)

    def _read_file(self, file: Path, *, joined: bool) -> None:
        begun = file.name == self._place[0]
        if not begun:
            self._days.append(file.stem)
        start_bytes, number = self._place[1:] if begun else (0, 0)
        for raw in _lines(file, start_bytes):
            number += 1
            if not raw.endswith(b"\n"):
                if len(raw) < LINE_MAX_BYTES and file == day_files(self._folder)[-1]:
                    self._notes.append(
                        f"{file.name} line {number} is half written; it is cut off when the next is sealed."
                    )
                    return
                raise _Wrong(Fault(file=file.name, line=number, message="it has no end."))
            self._check(raw[:-1], file.name, number, counting=not joined)
            start_bytes += len(raw)
            self._place = (file.name, start_bytes, number)
        self._place = (file.name, start_bytes, number)

    def _decode(self, raw: bytes, file: str, number: int) -> LedgerLine:
        try:
            return read_line(raw)
        except msgspec.MsgspecError as error:
            raise _Wrong(
                Fault(file=file, line=number, message=f"it is no line of a ledger: {error}.")
            ) from error

    def _check(self, raw: bytes, file: str, number: int, *, counting: bool) -> None:
        line = self._decode(raw, file, number)
        complaint = self._complaint(raw, line, counting=counting)
        if complaint is not None:
            raise _Wrong(Fault(file=file, line=number, message=complaint))
        self._head, self._name = Head(line.seq, line_hash(raw)), line.ledger
        self._lines += 1
        self._counts[line.job_id] = line.index + 1

    def _complaint(self, raw: bytes, line: LedgerLine, *, counting: bool) -> str | None:
        """Tell what is wrong with a line, which stands behind ``self._head``; None if nothing is."""
        if line.seq != self._head.seq + 1:
            return f"it has number {line.seq} after {self._head.seq}: lines are missing, added or moved."
        if line.prev != self._head.digest:
            return f"number {line.seq} does not follow the line before it: one of both was changed."
        if canonical(line) != raw or (self._name and line.ledger != self._name):
            return f"number {line.seq} is not written as it was signed."
        if not self._keys.verify(line.key, line.sig, signed_part(line)):
            known = "its signature is wrong" if self._keys.knows(line.key) else f"there is no key {line.key}"
            return f"number {line.seq} is not signed by us: {known}."
        expected = self._counts.get(line.job_id, 0 if counting else line.index)
        if line.index < expected and not line.after_loss:
            return f"number {line.seq} is transition {line.index} of job {line.job_id} once more."
        if line.index > expected:
            self._holes.add(line.job_id)
        return None

    def _known_head(self, sealing: LedgerProgress) -> Head | None:
        last = next(lines_backwards(self._folder), None)
        if last is None:
            self._require_never_sealed(sealing)
            return None
        try:
            name = read_line(last).ledger
        except msgspec.MsgspecError:
            # The reading below says what is wrong with it.
            return None
        return Head(*sealing.head(name))

    def _require_never_sealed(self, sealing: LedgerProgress) -> None:
        """See to it that a ledger without a line never had one; another workspace's is none of ours."""
        files = day_files(self._folder)
        if sealing.has_ledgers() and (files or self._keys.public_keys(time.time())):
            message = "no line is left, but some were sealed: the ledger was emptied or removed."
            raise _Wrong(Fault(file=files[-1].name if files else "", line=0, message=message))

    def _compare_head(self, known: Head) -> None:
        if known.seq > self._head.seq:
            raise _Wrong(
                Fault(
                    file=self._place[0],
                    line=self._place[2],
                    message=f"the ledger ends with number {self._head.seq}, but {known.seq} were sealed:"
                    " its end was cut off.",
                )
            )

    def _compare_jobs(self, reader: Reader) -> int:
        """Compare with every job that the store has."""
        cursor, compared = "+", 0
        doubts: list[str] = []
        while cursor is not None:
            ids = [
                item.decode()
                for item in reader.store.call(
                    *("ZREVRANGEBYLEX", reader.keys.index_all, cursor, "-", "LIMIT", 0, _PAGE)
                )
            ]
            doubts += [job_id for job_id, fault in self._gaps(reader, ids) if fault]
            compared += len(ids)
            if len(doubts) > _DOUBTS_MAX or len(ids) < _PAGE:
                break
            cursor = f"({ids[-1]}"
        if doubts:
            # Sealed while we were reading: what has come in since settles that.
            self._read_all()
            for job_id, fault in self._gaps(reader, doubts[:_DOUBTS_MAX]):
                if fault:
                    raise _Wrong(Fault(file="", line=0, message=f"job {job_id}: {fault}."))
        return compared

    def _gaps(self, reader: Reader, ids: list[str]) -> Iterator[tuple[str, str]]:
        """Give what the ledger lacks of each of these jobs; nothing if it lacks nothing."""
        commands: list[tuple[str | int, ...]] = []
        for job_id in ids:
            commands += [
                ("HMGET", reader.keys.job(job_id), "sealed", "ledger"),
                ("LLEN", reader.keys.receipts(job_id)),
                ("SISMEMBER", reader.keys.unsealed, job_id),
            ]
        replies: list[Any] = reader.read(commands) if commands else []
        for at, job_id in enumerate(ids):
            (noted, names), length, waits = replies[3 * at : 3 * at + 3]
            sealed = 0 if noted is None else int(noted)
            # Sealed by the clock of another host, some of it: its ledger has the rest.
            ours = names is None or names.decode() == self._name
            here = self._counts.get(job_id, 0)
            if ours and job_id in self._holes:
                yield job_id, "some of its transitions are not in the ledger"
            elif ours and here < sealed:
                yield job_id, f"{sealed} of its transitions were sealed, {here} are in the ledger"
            elif length > sealed and not waits:
                yield job_id, f"{length - sealed} of its {length} transitions were never given to the ledger"
            else:
                yield job_id, ""


def _lines(file: Path, start_bytes: int = 0) -> Iterator[bytes]:
    """Yield lines with their ends; one that is too long is cut, and has none."""
    with file.open("rb") as source:
        source.seek(start_bytes)
        while line := source.readline(LINE_MAX_BYTES):
            yield line


def _last_line(file: Path) -> bytes | None:
    from middleware.archive.ledger import file_backwards

    return next(file_backwards(file), None)
