"""Versions of the history's tables, and the way from each to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops.errors import HistoryBroken

if TYPE_CHECKING:
    import sqlite3

#: One entry a version: the first makes the tables, each later one changes what the one before has left.
#:
#: State, type and door of a job together are its facet, of which there are a few dozen. A list that is
#: narrowed by any of them reads the index of each facet that fits, from the end, and merges them: so four
#: indexes serve every combination, and none of them walks over jobs that do not fit. ``words.tags`` has
#: facet, day and project as words, which does the same for a search.
MIGRATIONS = (
    """
    CREATE TABLE facets (
        facet    INTEGER PRIMARY KEY,
        status   TEXT NOT NULL,
        job_type TEXT NOT NULL,
        source   TEXT NOT NULL,
        UNIQUE (status, job_type, source)
    );
    CREATE TABLE jobs (
        number   INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id   TEXT NOT NULL UNIQUE,
        tail     TEXT NOT NULL,
        facet    INTEGER NOT NULL,
        project  TEXT NOT NULL,
        day      TEXT NOT NULL,
        ended_ms INTEGER NOT NULL,
        record   BLOB NOT NULL,
        receipt  BLOB NOT NULL,
        output   BLOB
    );
    CREATE INDEX jobs_tail ON jobs (tail);
    CREATE INDEX jobs_ended ON jobs (ended_ms);
    CREATE INDEX jobs_facet ON jobs (facet, job_id);
    CREATE INDEX jobs_day ON jobs (day, facet, job_id);
    CREATE INDEX jobs_project ON jobs (project, facet, job_id) WHERE project != '';
    CREATE INDEX jobs_project_day ON jobs (project, day, facet, job_id) WHERE project != '';
    CREATE VIRTUAL TABLE words USING fts5 (text, tags);
    CREATE TABLE places (state TEXT PRIMARY KEY, place TEXT NOT NULL);
    """,
)


def migrate(db: sqlite3.Connection) -> None:
    """Bring a database to the newest version; each step is one transaction.

    Raises:
        HistoryBroken: It is of a newer version than this program.
    """
    import sqlite3

    version = _version(db)
    if version > len(MIGRATIONS):
        raise HistoryBroken(
            f"the history is of version {version}, this program knows {len(MIGRATIONS)}.",
            remedy="Use the newer program, or move .3ox/history.db away.",
        )
    # Readers go on while one process writes; what a power cut takes is read from the store again.
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    while (version := _version(db)) < len(MIGRATIONS):
        try:
            db.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;"
            )
        except sqlite3.OperationalError:
            db.rollback()
            # Another clock of this host may have come first.
            if _version(db) == version:
                raise


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)
