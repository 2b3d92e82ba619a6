"""Ended jobs, kept in SQLite beside the workspace for longer than the store keeps them.

Each row has what a list is narrowed by, and the job, its receipt and the end of its output as documents: a
job looks the same from here as it did from the store. One process writes (the clock that leads), any read.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from middleware.archive.history_schema import migrate
from middleware.job.records import JobRecord, Receipt
from ops.errors import HistoryBroken, InvalidJob

#: Another process writes for a moment; longer than this it does not take.
_BUSY_S = 5.0
#: Of prompt, task, reason, error and result this much can be searched.
TEXT_MAX_CHARS = 4_000

_decoder = msgspec.json.Decoder(JobRecord)
_receipt_decoder = msgspec.json.Decoder(Receipt)


class Narrowing(Struct, frozen=True, kw_only=True):
    """What a list of jobs is narrowed to; None: not by this.

    Attributes:
        status: A final state.
        job_type: Of the job.
        project: Of the job.
        source: The door it came through.
        day: YYYY-MM-DD, UTC, on which it was created.
        text: Words that stand in it.
    """

    status: str | None = None
    job_type: str | None = None
    project: str | None = None
    source: str | None = None
    day: str | None = None
    text: str | None = None

    def fits(self, record: JobRecord) -> bool:
        """Tell whether a job, wherever it comes from, is in the list."""
        pairs = (
            (self.status, record.status),
            (self.job_type, record.job_type),
            (self.project, record.project),
            (self.source, record.source),
            (self.day, (record.created_at or "")[:10]),
        )
        if any(wanted is not None and wanted != found for wanted, found in pairs):
            return False
        if self.text is None:
            return True
        words = searchable(record).lower()
        return all(word in words for word in self.text.lower().split())


class Row(Struct, frozen=True, kw_only=True):
    """A job on its way into the history."""

    record: JobRecord
    receipt: Receipt
    ended_ms: int
    output: str = ""


def searchable(record: JobRecord) -> str:
    """Give the text of a job that a search looks through."""
    payload = record.payload if isinstance(record.payload, dict) else {}
    parts: list[str] = [record.job_id, record.project or "", record.reason]
    parts += [
        str(payload[name]) for name in ("prompt", "task", "text", "name", "endpoint") if name in payload
    ]
    parts += [" ".join(map(str, payload.get("argv", ())))]
    if record.error is not None:
        parts.append(record.error.message)
    if isinstance(record.result, dict) and isinstance(record.result.get("text"), str):
        parts.append(record.result["text"])
    return "\n".join(part for part in parts if part)[:TEXT_MAX_CHARS]


class History:
    """The history of one workspace; a connection belongs to the thread that made it.

    Args:
        path: Of the database.
        writable: Make it if it is not there, and bring it up to this version.

    Raises:
        HistoryBroken: The file is no database, or of a newer version.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self._path = path
        if not writable and not path.exists():
            self._db = sqlite3.connect(":memory:")
            migrate(self._db)
            return
        mode = "rwc" if writable else "ro"
        with self._explained():
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_BUSY_S)
            if writable:
                path.chmod(0o600)
                migrate(self._db)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise HistoryBroken(
                f"the history {self._path} cannot be used: {error}.",
                remedy="If the disk is full, free some space; if the file is damaged, move it away.",
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def put(self, rows: Sequence[Row], places: Mapping[str, str]) -> None:
        """Write jobs, known ones anew, and how far the store has been read, in one transaction.

        Args:
            rows: The jobs.
            places: Per state, where to go on.
        """
        with self._explained(), self._db:
            for row in rows:
                self._put_one(row)
            self._db.executemany(
                "INSERT INTO places VALUES (?, ?) ON CONFLICT (state) DO UPDATE SET place = excluded.place",
                list(places.items()),
            )

    def _put_one(self, row: Row) -> None:
        record = row.record
        (number,) = self._db.execute(
            "INSERT INTO jobs (job_id, tail, status, job_type, project, source, day, ended_ms, record,"
            " receipt, output) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job_id) DO UPDATE SET"
            " status = excluded.status, ended_ms = excluded.ended_ms, record = excluded.record,"
            " receipt = excluded.receipt, output = excluded.output RETURNING number",
            (
                record.job_id,
                record.job_id[::-1],
                record.status,
                record.job_type,
                record.project,
                record.source,
                (record.created_at or "")[:10],
                row.ended_ms,
                record.to_json(),
                msgspec.json.encode(row.receipt),
                zlib.compress(row.output.encode(errors="replace")) if row.output else None,
            ),
        ).fetchone()
        self._db.execute("DELETE FROM words WHERE rowid = ?", (number,))
        self._db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, searchable(record)))

    def places(self) -> dict[str, str]:
        """Give how far the store has been read, per state."""
        with self._explained():
            return dict(self._db.execute("SELECT state, place FROM places"))

    def ended_ms(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Give when these jobs ended, as far as they are here."""
        marks = ",".join("?" * len(job_ids))
        with self._explained():
            return dict(
                self._db.execute(f"SELECT job_id, ended_ms FROM jobs WHERE job_id IN ({marks})", job_ids)  # noqa: S608
            )

    def page(self, narrowing: Narrowing, *, limit: int, below: str | None = None) -> list[JobRecord]:
        """Give jobs by their id, latest first.

        Args:
            narrowing: Which.
            limit: How many.
            below: Only ids that sort before this one.
        """
        where, values = _conditions(narrowing)
        if below is not None:
            where.append("job_id < ?")
            values.append(below)
        clause = f"WHERE {' AND '.join(where)}" if where else ""
        query = f"SELECT record FROM jobs {clause} ORDER BY job_id DESC LIMIT ?"  # noqa: S608
        with self._explained():
            return [_decoder.decode(document) for (document,) in self._db.execute(query, (*values, limit))]

    def search(
        self, narrowing: Narrowing, *, limit: int, below: int | None = None
    ) -> list[tuple[int, JobRecord]]:
        """Give jobs in which all words of ``narrowing.text`` stand, last ended first, with their numbers.

        Args:
            narrowing: Which.
            limit: How many.
            below: Only numbers below this one.
        """
        where, values = _conditions(narrowing)
        where.append("words MATCH ?")
        values.append(_match(narrowing.text or ""))
        if below is not None:
            where.append("words.rowid < ?")
            values.append(below)
        query = (
            "SELECT number, record FROM words CROSS JOIN jobs ON jobs.number = words.rowid"  # noqa: S608
            f" WHERE {' AND '.join(where)} ORDER BY words.rowid DESC LIMIT ?"
        )
        with self._explained():
            found = self._db.execute(query, (*values, limit)).fetchall()
        return [(number, _decoder.decode(document)) for number, document in found]

    def resolve(self, part: str) -> list[str]:
        """Give up to three ids that begin or end with this."""
        tail = part[::-1]
        with self._explained():
            found = self._db.execute(
                "SELECT job_id FROM (SELECT job_id FROM jobs WHERE job_id >= ? AND job_id < ? LIMIT 3) UNION"
                " SELECT job_id FROM (SELECT job_id FROM jobs WHERE tail >= ? AND tail < ? LIMIT 3) LIMIT 3",
                (part, f"{part}~", tail, f"{tail}~"),
            ).fetchall()
        return [job_id for (job_id,) in found]

    def job(self, job_id: str) -> JobRecord | None:
        """Give a job, by its whole id."""
        document = self._one("record", job_id)
        return None if document is None else _decoder.decode(document)

    def receipt(self, job_id: str) -> Receipt | None:
        """Give a job's receipt."""
        document = self._one("receipt", job_id)
        return None if document is None else _receipt_decoder.decode(document)

    def output(self, job_id: str) -> str | None:
        """Give the end of a job's output; None if the job is not here."""
        if self._one("job_id", job_id) is None:
            return None
        packed = self._one("output", job_id)
        return "" if packed is None else zlib.decompress(packed).decode()

    def _one(self, column: str, job_id: str) -> bytes | None:
        with self._explained():
            row = self._db.execute(f"SELECT {column} FROM jobs WHERE job_id = ?", (job_id,)).fetchone()  # noqa: S608
        return None if row is None else row[0]

    def count(self) -> int:
        """Count the jobs; reads an index whole, so not for a page."""
        with self._explained():
            (found,) = self._db.execute("SELECT count(*) FROM jobs").fetchone()
        return int(found)

    def expire(self, *, until_ms: int, rows_max: int, limit: int = 1_000) -> int:
        """Delete jobs that ended long ago, and the oldest of too many.

        Args:
            until_ms: Those that ended before this, in ms since 1970.
            rows_max: How many are kept.
            limit: How many at most; readers and the writer wait meanwhile.

        Returns:
            How many were deleted.
        """
        with self._explained(), self._db:
            (last,) = self._db.execute("SELECT coalesce(max(number), 0) FROM jobs").fetchone()
            old = self._db.execute(
                "SELECT number FROM (SELECT number FROM jobs WHERE ended_ms < ? ORDER BY ended_ms LIMIT ?)"
                " UNION"
                " SELECT number FROM (SELECT number FROM jobs WHERE number <= ? ORDER BY number LIMIT ?)"
                " LIMIT ?",
                (until_ms, limit, last - rows_max, limit, limit),
            ).fetchall()
            for table, key in (("words", "rowid"), ("jobs", "number")):
                self._db.executemany(f"DELETE FROM {table} WHERE {key} = ?", old)  # noqa: S608
        return len(old)


def _conditions(narrowing: Narrowing) -> tuple[list[str], list[str | int]]:
    wanted = {
        "status": narrowing.status,
        "job_type": narrowing.job_type,
        "project": narrowing.project,
        "source": narrowing.source,
        "day": narrowing.day,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    return [f"{name} = ?" for name in given], list(given.values())


def _match(text: str) -> str:
    """Write words as a query of which each is taken as it stands, not as an operator."""
    return " ".join('"' + word.replace('"', '""') + '"' for word in text.split())


def check_day(day: str) -> str:
    """Give a day back if it is one.

    Raises:
        InvalidJob: It is not written YYYY-MM-DD.
    """
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError as error:
        today = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
        raise InvalidJob(f"{day!r} is no day.", remedy=f"Write it as {today}.", field="day") from error
