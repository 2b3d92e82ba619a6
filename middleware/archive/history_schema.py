"""Versions of the history's tables, and the migrations between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops.errors import HistoryBroken

if TYPE_CHECKING:
    import sqlite3

#: One entry per version: the first creates the tables, each later one migrates from the version before.
#:
#: State, type and source of a job together are its facet, of which there are a few dozen. A list that is
#: filtered by any of them reads the index of each matching facet from the end and merges the results: so four
#: indexes serve every combination without reading jobs that do not match. ``words.tags`` has facet, day and
#: project as words, for the same purpose in searches.
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
    """Migrate a database to the newest version; each step is one transaction.

    Raises:
        HistoryBroken: Its version is newer than this program.
    """
    import sqlite3

    version = _version(db)
    if version > len(MIGRATIONS):
        raise HistoryBroken(
            f"The history has version {version}; this program supports {len(MIGRATIONS)}.",
            remedy="Upgrade, or move .3ox/history.db away.",
        )
    # Readers continue while one process writes; what a power failure loses is read from the store again.
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    while (version := _version(db)) < len(MIGRATIONS):
        try:
            db.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;"
            )
        except sqlite3.OperationalError:
            db.rollback()
            # Another scheduler of this host may have been first.
            if _version(db) == version:
                raise


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)
