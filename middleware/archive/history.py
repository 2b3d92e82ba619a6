"""Ended jobs, kept in SQLite beside the workspace for longer than the store keeps them.

Each row has what a list is narrowed by, and the job, its receipt and the end of its output as documents: a
job looks the same from here as it did from the store. One process writes (the clock that leads), any read.
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
from middleware.archive.search import Narrowing, check_day, day_of, searchable, tags, tags_query, text_query
from middleware.job.records import JobRecord, OutputChunk, Receipt
from ops.errors import HistoryBroken

__all__ = ["History", "Narrowing", "Past", "Row", "check_day", "id_queries"]

#: Another process writes for a moment; longer than this it does not take.
_BUSY_S = 5.0
#: Ids in one question; SQLite takes 32,766.
_IDS_MAX = 500

_decoder = msgspec.json.Decoder(JobRecord)
_receipt_decoder = msgspec.json.Decoder(Receipt)
_output_decoder = msgspec.json.Decoder(list[OutputChunk])


class Row(Struct, frozen=True, kw_only=True):
    """A job on its way into the history."""

    record: JobRecord
    receipt: Receipt
    ended_ms: int
    output: list[OutputChunk] = []


class Past(Struct, frozen=True):
    """A job of the history; the later it was archived first, the higher its number."""

    number: int
    ended_ms: int
    record: JobRecord


class History:
    """The history of one workspace; a connection belongs to the thread that made it.

    Args:
        path: Of the database.
        writable: Make it if it is not there, and bring it up to this version.

    Raises:
        HistoryBroken: The file is no database, or of a newer version.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        import sqlite3  # only when a history is opened: commands that find their job in the store do without

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
            elif self._db.execute("PRAGMA user_version").fetchone() == (0,):
                # The clock is just making it.
                self._db.close()
                self._db = sqlite3.connect(":memory:")
                migrate(self._db)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
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
        """Give the history; it is closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def put(self, rows: Sequence[Row], places: Mapping[str, int]) -> None:
        """Write jobs, known ones anew, and how far the store has been read, in one transaction.

        Args:
            rows: The jobs.
            places: Per set of the store, where to go on.
        """
        with self._explained(), self._db:
            for row in rows:
                self._put_one(row)
            self._db.executemany(
                "INSERT INTO places VALUES (?, ?) ON CONFLICT (state) DO UPDATE SET place = excluded.place",
                [(name, str(place)) for name, place in places.items()],
            )

    def _put_one(self, row: Row) -> None:
        record = row.record
        facet = self._facet(record)
        project, day = record.project or "", day_of(record)
        output = zlib.compress(msgspec.json.encode(row.output)) if row.output else None
        life = (facet, row.ended_ms, record.to_json(), msgspec.json.encode(row.receipt), output)
        # Not one INSERT with ON CONFLICT: that would use up a number for each job that is written anew.
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
        """Give how far the store has been read, per set."""
        with self._explained():
            return {name: int(place) for name, place in self._db.execute("SELECT state, place FROM places")}

    def ended_ms(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Give when these jobs ended, as far as they are here."""
        found: dict[str, int] = {}
        for some, marks in _portions(job_ids):
            with self._explained():
                found.update(
                    self._db.execute(f"SELECT job_id, ended_ms FROM jobs WHERE job_id IN ({marks})", some)  # noqa: S608
                )
        return found

    def page(self, narrowing: Narrowing, *, limit: int, below: str | None = None) -> list[Past]:
        """Give jobs by their id, latest first.

        Args:
            narrowing: Which; words are not looked at.
            limit: How many.
            below: Only ids that sort before this one.
        """
        found: dict[str, Past] = {}
        with self._explained():
            ids = self._ids(narrowing, limit, "~" if below is None else below)
            for some, marks in _portions(ids):
                query = f"SELECT number, ended_ms, record FROM jobs WHERE job_id IN ({marks})"  # noqa: S608
                for row in self._db.execute(query, some):
                    past = _past(row)
                    found[past.record.job_id] = past
        return [found[job_id] for job_id in ids if job_id in found]

    def _ids(self, narrowing: Narrowing, limit: int, below: str) -> list[str]:
        queries = [
            (query, (*values, below, limit))
            for query, values in id_queries(narrowing, self._facets(narrowing))
        ]
        found = [job_id for query, values in queries for (job_id,) in self._db.execute(query, values)]
        return sorted(found, reverse=True)[:limit]

    def _facets(self, narrowing: Narrowing) -> list[int]:
        wanted = {
            "status": narrowing.status,
            "job_type": narrowing.job_type,
            "source": narrowing.source,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        where = f" WHERE {' AND '.join(f'{name} = ?' for name in given)}" if given else ""
        query = f"SELECT facet FROM facets{where} ORDER BY facet"  # noqa: S608
        return [facet for (facet,) in self._db.execute(query, tuple(given.values()))]

    def last_number(self) -> int:
        """Give the number of the job that was archived last, 0 if there is none."""
        with self._explained():
            (last,) = self._db.execute("SELECT coalesce(max(number), 0) FROM jobs").fetchone()
        return int(last)

    def search(self, narrowing: Narrowing, *, limit: int, below: int) -> list[Past]:
        """Give jobs in which all words of ``narrowing.text`` stand, the one archived last first.

        Args:
            narrowing: Which.
            limit: How many.
            below: Only numbers below this one.

        Raises:
            InvalidJob: There is no word to search for.
        """
        by_facet = any(x is not None for x in (narrowing.status, narrowing.job_type, narrowing.source))
        words = text_query(narrowing.text or "")
        with self._explained():
            facets = self._facets(narrowing) if by_facet else None
            if facets == []:
                return []
            found = self._db.execute(
                "SELECT number, ended_ms, record FROM words CROSS JOIN jobs ON jobs.number = words.rowid"
                " WHERE words MATCH ? AND words.rowid < ? AND (? IS NULL OR project = ?)"
                " ORDER BY words.rowid DESC LIMIT ?",
                (words + tags_query(narrowing, facets), below, narrowing.project, narrowing.project, limit),
            ).fetchall()
        return [_past(row) for row in found]

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
        row = self._one("record", job_id)
        return None if row is None or row[0] is None else _decoder.decode(row[0])

    def receipt(self, job_id: str) -> Receipt | None:
        """Give a job's receipt."""
        row = self._one("receipt", job_id)
        return None if row is None or row[0] is None else _receipt_decoder.decode(row[0])

    def output(self, job_id: str) -> list[OutputChunk] | None:
        """Give the end of a job's output; None if the job is not here."""
        row = self._one("output", job_id)
        if row is None:
            return None
        return [] if row[0] is None else _output_decoder.decode(zlib.decompress(row[0]))

    def _one(self, column: str, job_id: str) -> tuple[bytes | None] | None:
        query = f"SELECT {column} FROM jobs WHERE job_id = ?"  # noqa: S608 (a name of ours)
        with self._explained():
            row: tuple[bytes | None] | None = self._db.execute(query, (job_id,)).fetchone()
        return row

    def count(self) -> int:
        """Count the jobs; reads an index whole, so not for a page."""
        with self._explained():
            (found,) = self._db.execute("SELECT count(*) FROM jobs").fetchone()
        return int(found)

    def expire(self, *, until_ms: int, rows_max: int, limit: int = 1_000) -> int:
        """Delete jobs that ended long ago, and those archived first of too many.

        Args:
            until_ms: Those that ended before this, in ms since 1970.
            rows_max: How many are kept.
            limit: How many at most; the writer waits meanwhile. Fewer deleted means that no more are to go.

        Returns:
            How many were deleted.
        """
        excess = max(0, self.count() - rows_max)
        with self._explained(), self._db:
            old = self._db.execute(
                "SELECT number FROM (SELECT number FROM jobs WHERE ended_ms < ? ORDER BY ended_ms LIMIT ?)"
                " UNION SELECT number FROM (SELECT number FROM jobs ORDER BY number LIMIT ?) LIMIT ?",
                (until_ms, limit, min(excess, limit), limit),
            ).fetchall()
            for table, key in (("words", "rowid"), ("jobs", "number")):
                self._db.executemany(f"DELETE FROM {table} WHERE {key} = ?", old)  # noqa: S608
        return len(old)


def id_queries(narrowing: Narrowing, facets: Sequence[int]) -> list[tuple[str, tuple[str | int, ...]]]:
    """Give the queries, with their values but for the last two, of which the ids of a page are merged.

    Args:
        narrowing: Which jobs.
        facets: Those that fit it.
    """
    by = {"project": narrowing.project, "day": narrowing.day}
    given = {name: value for name, value in by.items() if value is not None}
    order = "job_id < ? ORDER BY job_id DESC LIMIT ?"
    if not given and all(x is None for x in (narrowing.status, narrowing.job_type, narrowing.source)):
        return [(f"SELECT job_id FROM jobs WHERE {order}", ())]  # noqa: S608
    index = "_".join(["jobs", *given]) if given else "jobs_facet"
    # Says to SQLite that the index over rows with a project has them all.
    some = " AND project != ''" if narrowing.project is not None else ""
    where = " AND ".join([*(f"{name} = ?" for name in given), "facet = ?"]) + some
    query = f"SELECT job_id FROM jobs INDEXED BY {index} WHERE {where} AND {order}"  # noqa: S608
    return [(query, (*given.values(), facet)) for facet in facets]


def _past(row: tuple[int, int, bytes]) -> Past:
    return Past(row[0], row[1], _decoder.decode(row[2]))


def _portions(ids: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """Yield some ids at a time, and as many question marks."""
    for at in range(0, len(ids), _IDS_MAX):
        some = ids[at : at + _IDS_MAX]
        yield some, ",".join("?" * len(some))
