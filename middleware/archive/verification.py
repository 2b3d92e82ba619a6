"""Verify the ledger: order, hashes, signatures, each transition once, nothing missing compared to the store.

The files are read line by line; of each job only the number of its lines is kept in memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from middleware.archive.ledger import LINE_MAX_BYTES, Head, day_files, file_backwards, lines_backwards
from middleware.archive.ledger_line import LedgerLine, canonical, line_hash, read_line, signed_part
from middleware.broker.ledger_progress import LedgerProgress
from middleware.job.reader import Reader
from ops.errors import LedgerBroken
from ops.signing import KeyRing

#: Jobs of the store that are compared in one round trip.
_PAGE = 500
#: Maximum number of jobs with an apparent gap that are checked again.
_SUSPECTS_MAX = 1_000


class Fault(Struct, frozen=True, kw_only=True):
    """The first fault that was found.

    Attributes:
        file: Name of the file; empty if the fault is about the store.
        line: Number of the line in the file, from 1; 0 if the fault is not about one line.
        message: What is wrong.
    """

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file} line {self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.message}"


class Verdict(Struct, frozen=True, kw_only=True):
    """Result of a verification.

    Attributes:
        ok: Whether no fault was found.
        days: The days that were read.
        lines: Number of valid lines.
        head: The last line that was read.
        jobs: Number of jobs of the store that were compared.
        fault: The first fault, if any.
        notes: Further remarks.
    """

    ok: bool
    days: list[str]
    lines: int
    head: Head
    jobs: int = 0
    fault: Fault | None = None
    notes: list[str] = []


class _FaultFound(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class Verification:
    """One verification of a ledger.

    Args:
        folder: Folder of its files.
        keys: The keys whose signatures are valid.
    """

    def __init__(self, folder: Path, keys: KeyRing) -> None:
        self._folder = folder
        self._keys = keys
        self._head = Head()
        self._name = ""
        self._lines = 0
        self._days: list[str] = []
        self._counts: dict[str, int] = {}
        #: Jobs some of whose transitions another host's scheduler has sealed, in its own ledger.
        self._holes: set[str] = set()
        #: File, bytes and lines up to which the ledger has been read.
        self._place: tuple[str, int, int] = ("", 0, 0)
        self._notes: list[str] = []

    def run(
        self, *, day: str | None = None, sealing: LedgerProgress | None = None, reader: Reader | None = None
    ) -> Verdict:
        """Verify all days, or one.

        Args:
            day: Only this day, ``YYYY-MM-DD``, and that it joins the days before and after.
            sealing: With ``reader`` and without ``day``: also compare with the store.
            reader: See ``sealing``.

        Raises:
            LedgerBroken: The ledger does not have this day.
        """
        jobs = 0
        try:
            if day is not None:
                self._read_day(day)
            else:
                # Read before the files, which may grow meanwhile: the store must not seem to know of more
                # lines.
                known = None if sealing is None else self._known_head(sealing)
                self._read_all()
                if sealing is not None and reader is not None and known is not None:
                    self._compare_head(known)
                    jobs = self._compare_jobs(reader)
                    lost = sealing.lost()
                    if lost:
                        self._notes.append(
                            f"{lost} job{' was' if lost == 1 else 's were'} removed before being sealed:"
                            " no scheduler ran for too long."
                        )
        except _FaultFound as found:
            return self._verdict(jobs, found.fault)
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
                f"The ledger has no file of {day}.",
                remedy=f"Days: {', '.join(names[-5:])}."
                if names
                else "No scheduler has sealed anything yet.",
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
                raise _FaultFound(
                    Fault(
                        file=files[at].name,
                        line=self._place[2],
                        message=f"the day ends with line {self._head.seq}, but the next day begins with"
                        f" {line.seq} and refers to a different previous line.",
                    )
                )

    def _read_all(self) -> None:
        """Read what has not been read yet."""
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
                raise _FaultFound(Fault(file=file.name, line=number, message="it has no line end."))
            self._check(raw[:-1], file.name, number, counting=not joined)
            start_bytes += len(raw)
            self._place = (file.name, start_bytes, number)
        self._place = (file.name, start_bytes, number)

    def _decode(self, raw: bytes, file: str, number: int) -> LedgerLine:
        try:
            return read_line(raw)
        except msgspec.MsgspecError as error:
            raise _FaultFound(
                Fault(file=file, line=number, message=f"it is not a line of a ledger: {error}.")
            ) from error

    def _check(self, raw: bytes, file: str, number: int, *, counting: bool) -> None:
        line = self._decode(raw, file, number)
        complaint = self._complaint(raw, line, counting=counting)
        if complaint is not None:
            raise _FaultFound(Fault(file=file, line=number, message=complaint))
        self._head, self._name = Head(line.seq, line_hash(raw)), line.ledger
        self._lines += 1
        self._counts[line.job_id] = line.index + 1

    def _complaint(self, raw: bytes, line: LedgerLine, *, counting: bool) -> str | None:
        """Return what is wrong with the line after ``self._head``; None if nothing is."""
        if line.seq != self._head.seq + 1:
            return f"it has number {line.seq} after {self._head.seq}: lines are missing, added or moved."
        if line.prev != self._head.digest:
            return f"number {line.seq} does not match the line before it: one of the two was changed."
        if canonical(line) != raw or (self._name and line.ledger != self._name):
            return f"number {line.seq} is not written as it was signed."
        if not self._keys.verify(line.key, line.sig, signed_part(line)):
            reason = "wrong signature" if self._keys.knows(line.key) else f"unknown key {line.key}"
            return f"number {line.seq} is not signed with a key of this ledger: {reason}."
        expected = self._counts.get(line.job_id, 0 if counting else line.index)
        if line.index < expected and not line.after_loss:
            return f"number {line.seq} repeats transition {line.index} of job {line.job_id}."
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
            # Reading the files below reports it.
            return None
        return Head(*sealing.head(name))

    def _require_never_sealed(self, sealing: LedgerProgress) -> None:
        """Raise if an empty ledger has had lines; the ledger of another workspace does not matter."""
        files = day_files(self._folder)
        if sealing.has_ledgers() and (files or self._keys.public_keys(time.time())):
            message = "it is empty, but lines were sealed: the ledger was emptied or removed."
            raise _FaultFound(Fault(file=files[-1].name if files else "", line=0, message=message))

    def _compare_head(self, known: Head) -> None:
        if known.seq > self._head.seq:
            raise _FaultFound(
                Fault(
                    file=self._place[0],
                    line=self._place[2],
                    message=f"the ledger ends with line {self._head.seq}, but {known.seq} were sealed:"
                    " its end was cut off.",
                )
            )

    def _compare_jobs(self, reader: Reader) -> int:
        """Compare with every job in the store; return how many there are."""
        cursor, compared = "+", 0
        suspects: list[str] = []
        while cursor is not None:
            ids = [
                item.decode()
                for item in reader.store.call(
                    *("ZREVRANGEBYLEX", reader.keys.index_all, cursor, "-", "LIMIT", 0, _PAGE)
                )
            ]
            suspects += [job_id for job_id, fault in self._gaps(reader, ids) if fault]
            compared += len(ids)
            if len(suspects) > _SUSPECTS_MAX or len(ids) < _PAGE:
                break
            cursor = f"({ids[-1]}"
        if suspects:
            # They may have been sealed while the files were read: read the new lines and compare again.
            self._read_all()
            for job_id, fault in self._gaps(reader, suspects[:_SUSPECTS_MAX]):
                if fault:
                    raise _FaultFound(Fault(file="", line=0, message=f"job {job_id}: {fault}."))
        return compared

    def _gaps(self, reader: Reader, ids: list[str]) -> Iterator[tuple[str, str]]:
        """Yield each job with what the ledger lacks of it; an empty text if it lacks nothing."""
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
            # Another host's scheduler has sealed some of it: that ledger has the rest.
            ours = names is None or names.decode() == self._name
            here = self._counts.get(job_id, 0)
            if ours and job_id in self._holes:
                yield job_id, "some of its transitions are not in the ledger"
            elif ours and here < sealed:
                yield job_id, f"{sealed} of its transitions were sealed, {here} are in the ledger"
            elif length > sealed and not waits:
                yield job_id, f"{length - sealed} of its {length} transitions were never sealed"
            else:
                yield job_id, ""


def _lines(file: Path, start_bytes: int = 0) -> Iterator[bytes]:
    """Yield lines with their line ends; one that is too long is cut and has none."""
    with file.open("rb") as source:
        source.seek(start_bytes)
        while line := source.readline(LINE_MAX_BYTES):
            yield line


def _last_line(file: Path) -> bytes | None:
    return next(file_backwards(file), None)
