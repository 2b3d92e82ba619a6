"""The history: finished jobs in SQLite, kept for longer than the store keeps them.

Each row has the columns that lists filter by, and the job, its receipt and the end of its output as
documents: a job looks the same from here as from the store. One process writes (the leading scheduler), any
number read.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from middleware.archive.history_schema import migrate
from middleware.archive.search import JobFilter, check_day, day_of, searchable, tags, tags_query, text_query
from middleware.job.records import JobRecord, OutputChunk, Receipt
from ops.errors import HistoryBroken

__all__ = ["ArchivedJob", "History", "HistoryRow", "JobFilter", "check_day", "id_queries"]

#: SQLite waits this long for another process that writes.
_BUSY_S = 5.0
#: Ids in one query; SQLite allows 32,766.
_IDS_MAX = 500

_decoder = msgspec.json.Decoder(JobRecord)
_receipt_decoder = msgspec.json.Decoder(Receipt)
_output_decoder = msgspec.json.Decoder(list[OutputChunk])


class HistoryRow(Struct, frozen=True, kw_only=True):
    """A job to be written to the history."""

    record: JobRecord
    receipt: Receipt
    ended_ms: int
    output: list[OutputChunk] = []


class ArchivedJob(Struct, frozen=True):
    """A job of the history; numbers grow in the order in which jobs were first archived."""

    number: int
    ended_ms: int
    record: JobRecord


class History:
    """The history of one workspace; for use by the thread that opened it.

    Args:
        path: The database file.
        writable: Open for writing; creates the file and migrates it to this version.

    Raises:
        HistoryBroken: The file is not a database, or of a newer version.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        import sqlite3  # late: commands that find their job in the store do not need it

        self._path = path
        if not writable and not path.exists():
            self._db = sqlite3.connect(":memory:")
            migrate(self._db)
            return
        mode = "rwc" if writable else "ro"
        with self._as_history_broken():
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_BUSY_S)
            if writable:
                path.chmod(0o600)
                migrate(self._db)
            elif self._db.execute("PRAGMA user_version").fetchone() == (0,):
                # The scheduler is just creating it.
                self._db.close()
                self._db = sqlite3.connect(":memory:")
                migrate(self._db)

    @contextlib.contextmanager
    def _as_history_broken(self) -> Iterator[None]:
        import sqlite3

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

    def __enter__(self) -> Self:
        """Return the history; the end of the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    def put(self, rows: Sequence[HistoryRow], places: Mapping[str, int]) -> None:
        """Write jobs, and the positions up to which the store has been read, in one transaction.

        Args:
            rows: The jobs; known ones are replaced.
            places: Position per set of the store.
        """
        with self._as_history_broken(), self._db:
            for row in rows:
                self._put_one(row)
            self._db.executemany(
                "INSERT INTO places VALUES (?, ?) ON CONFLICT (state) DO UPDATE SET place = excluded.place",
                [(name, str(place)) for name, place in places.items()],
            )

    def _put_one(self, row: HistoryRow) -> None:
        record = row.record
        facet = self._facet(record)
        project, day = record.project or "", day_of(record)
        output = zlib.compress(msgspec.json.encode(row.output)) if row.output else None
        life = (facet, row.ended_ms, record.to_json(), msgspec.json.encode(row.receipt), output)
        # Not an INSERT with ON CONFLICT: that would use up a number for each job that is written again.
        known = self._db.execute(
            "UPDATE jobs SET facet = ?, ended_ms = ?, record = ?, receipt = ?, output = ? WHERE job_id = ?"
            " RETURNING number",
            (*life, record.job_id),
        ).fetchone()
        if known is not None:
            self._db.execute("DELETE FROM words WHERE rowid = ?", known)
        number = (
            self._db.execute(
                "INSERT INTO jobs (facet, ended_ms, record, receipt, output, job_id, tail, project, day)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*life, record.job_id, record.job_id[::-1], project, day),
            ).lastrowid
            if known is None
            else known[0]
        )
        self._db.execute(
            "INSERT INTO words (rowid, text, tags) VALUES (?, ?, ?)",
            (number, searchable(record), tags(facet, project, day)),
        )

    def _facet(self, record: JobRecord) -> int:
        facet = (record.status, record.job_type, record.source)
        known = self._db.execute(
            "SELECT facet FROM facets WHERE status = ? AND job_type = ? AND source = ?", facet
        ).fetchone()
        if known is not None:
            return int(known[0])
        made = self._db.execute("INSERT INTO facets (status, job_type, source) VALUES (?, ?, ?)", facet)
        return int(made.lastrowid or 0)

    def places(self) -> dict[str, int]:
        """Return the position up to which each set of the store has been read."""
        with self._as_history_broken():
            return {name: int(place) for name, place in self._db.execute("SELECT state, place FROM places")}

    def ended_ms(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return when these jobs finished, for those that the history has."""
        found: dict[str, int] = {}
        for some, marks in _portions(job_ids):
            with self._as_history_broken():
                found.update(
                    self._db.execute(f"SELECT job_id, ended_ms FROM jobs WHERE job_id IN ({marks})", some)  # noqa: S608
                )
        return found

    def page(self, filters: JobFilter, *, limit: int, below: str | None = None) -> list[ArchivedJob]:
        """Return jobs by id, latest first.

        Args:
            filters: Which jobs; ``text`` is ignored.
            limit: Maximum number of jobs.
            below: Only ids that sort before this one.
        """
        found: dict[str, ArchivedJob] = {}
        with self._as_history_broken():
            ids = self._ids(filters, limit, "~" if below is None else below)
            for some, marks in _portions(ids):
                query = f"SELECT number, ended_ms, record FROM jobs WHERE job_id IN ({marks})"  # noqa: S608
                for row in self._db.execute(query, some):
                    past = _archived_job(row)
                    found[past.record.job_id] = past
        return [found[job_id] for job_id in ids if job_id in found]

    def _ids(self, filters: JobFilter, limit: int, below: str) -> list[str]:
        queries = [
            (query, (*values, below, limit)) for query, values in id_queries(filters, self._facets(filters))
        ]
        found = [job_id for query, values in queries for (job_id,) in self._db.execute(query, values)]
        return sorted(found, reverse=True)[:limit]

    def _facets(self, filters: JobFilter) -> list[int]:
        wanted = {
            "status": filters.status,
            "job_type": filters.job_type,
            "source": filters.source,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        where = f" WHERE {' AND '.join(f'{name} = ?' for name in given)}" if given else ""
        query = f"SELECT facet FROM facets{where} ORDER BY facet"  # noqa: S608
        return [facet for (facet,) in self._db.execute(query, tuple(given.values()))]

    def has_type(self, job_type: str) -> bool:
        """Return whether there are jobs of a type."""
        with self._as_history_broken():
            query = "SELECT EXISTS (SELECT 1 FROM facets WHERE job_type = ?)"
            (found,) = self._db.execute(query, (job_type,)).fetchone()
        return bool(found)

    def last_number(self) -> int:
        """Return the highest number of a job; 0 if the history is empty."""
        with self._as_history_broken():
            (last,) = self._db.execute("SELECT coalesce(max(number), 0) FROM jobs").fetchone()
        return int(last)

    def search(self, filters: JobFilter, *, limit: int, below: int) -> list[ArchivedJob]:
        """Return jobs that contain all words of ``filters.text``, latest number first.

        Args:
            filters: Which jobs.
            limit: Maximum number of jobs.
            below: Only numbers below this one.

        Raises:
            InvalidJob: The text has no words.
        """
        by_facet = any(x is not None for x in (filters.status, filters.job_type, filters.source))
        words = text_query(filters.text or "")
        with self._as_history_broken():
            facets = self._facets(filters) if by_facet else None
            if facets == []:
                return []
            found = self._db.execute(
                "SELECT number, ended_ms, record FROM words CROSS JOIN jobs ON jobs.number = words.rowid"
                " WHERE words MATCH ? AND words.rowid < ? AND (? IS NULL OR project = ?)"
                " ORDER BY words.rowid DESC LIMIT ?",
                (words + tags_query(filters, facets), below, filters.project, filters.project, limit),
            ).fetchall()
        return [_archived_job(row) for row in found]

    def resolve(self, part: str) -> list[str]:
        """Return up to three ids that begin or end with ``part``."""
        tail = part[::-1]
        with self._as_history_broken():
            found = self._db.execute(
                "SELECT job_id FROM (SELECT job_id FROM jobs WHERE job_id >= ? AND job_id < ? LIMIT 3) UNION"
                " SELECT job_id FROM (SELECT job_id FROM jobs WHERE tail >= ? AND tail < ? LIMIT 3) LIMIT 3",
                (part, f"{part}~", tail, f"{tail}~"),
            ).fetchall()
        return [job_id for (job_id,) in found]

    def job(self, job_id: str) -> JobRecord | None:
        """Return a job by its whole id; None if the history does not have it."""
        row = self._one("record", job_id)
        return None if row is None or row[0] is None else _decoder.decode(row[0])

    def receipt(self, job_id: str) -> Receipt | None:
        """Return a job's receipt; None if the history does not have the job."""
        row = self._one("receipt", job_id)
        return None if row is None or row[0] is None else _receipt_decoder.decode(row[0])

    def output(self, job_id: str) -> list[OutputChunk] | None:
        """Return the end of a job's output; None if the history does not have the job."""
        row = self._one("output", job_id)
        if row is None:
            return None
        return [] if row[0] is None else _output_decoder.decode(zlib.decompress(row[0]))

    def _one(self, column: str, job_id: str) -> tuple[bytes | None] | None:
        query = f"SELECT {column} FROM jobs WHERE job_id = ?"  # noqa: S608 (not user input)
        with self._as_history_broken():
            row: tuple[bytes | None] | None = self._db.execute(query, (job_id,)).fetchone()
        return row

    def count(self) -> int:
        """Return the number of jobs; reads a whole index, so it is too slow for pages."""
        with self._as_history_broken():
            (found,) = self._db.execute("SELECT count(*) FROM jobs").fetchone()
        return int(found)

    def expire(self, *, until_ms: int, rows_max: int, limit: int = 1_000) -> int:
        """Remove jobs that are too old or too many, the first archived ones first.

        Args:
            until_ms: Jobs that finished before this are too old, in ms since 1970.
            rows_max: Maximum number of jobs that stay.
            limit: Maximum number of jobs to remove; writers wait meanwhile.

        Returns:
            How many were removed; fewer than ``limit`` means that none are left.
        """
        excess = max(0, self.count() - rows_max)
        with self._as_history_broken(), self._db:
            old = self._db.execute(
                "SELECT number FROM (SELECT number FROM jobs WHERE ended_ms < ? ORDER BY ended_ms LIMIT ?)"
                " UNION SELECT number FROM (SELECT number FROM jobs ORDER BY number LIMIT ?) LIMIT ?",
                (until_ms, limit, min(excess, limit), limit),
            ).fetchall()
            for table, key in (("words", "rowid"), ("jobs", "number")):
                self._db.executemany(f"DELETE FROM {table} WHERE {key} = ?", old)  # noqa: S608
        return len(old)


def id_queries(filters: JobFilter, facets: Sequence[int]) -> list[tuple[str, tuple[str | int, ...]]]:
    """Return the queries whose merged results are the ids of a page, each with its values but the last two.

    Args:
        filters: Which jobs.
        facets: The facets that match.
    """
    by = {"project": filters.project, "day": filters.day}
    given = {name: value for name, value in by.items() if value is not None}
    order = "job_id < ? ORDER BY job_id DESC LIMIT ?"
    if not given and all(x is None for x in (filters.status, filters.job_type, filters.source)):
        return [(f"SELECT job_id FROM jobs WHERE {order}", ())]  # noqa: S608
    index = "_".join(["jobs", *given]) if given else "jobs_facet"
    # With this condition SQLite may use the index over rows with a project.
    some = " AND project != ''" if filters.project is not None else ""
    where = " AND ".join([*(f"{name} = ?" for name in given), "facet = ?"]) + some
    query = f"SELECT job_id FROM jobs INDEXED BY {index} WHERE {where} AND {order}"  # noqa: S608
    return [(query, (*given.values(), facet)) for facet in facets]


def _archived_job(row: tuple[int, int, bytes]) -> ArchivedJob:
    return ArchivedJob(row[0], row[1], _decoder.decode(row[2]))


def _portions(ids: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """Yield the ids in portions, each with as many question marks."""
    for at in range(0, len(ids), _IDS_MAX):
        some = ids[at : at + _IDS_MAX]
        yield some, ",".join("?" * len(some))
