"""Versions of the history's tables, and the way from each to the next."""

from __future__ import annotations

import sqlite3

from ops.errors import HistoryBroken

#: One entry a version: the first makes the tables, each later one changes what the one before has left.
MIGRATIONS = (
    """
    CREATE TABLE jobs (
        number   INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id   TEXT NOT NULL UNIQUE,
        tail     TEXT NOT NULL,
        status   TEXT NOT NULL,
        job_type TEXT NOT NULL,
        project  TEXT,
        source   TEXT NOT NULL,
        day      TEXT NOT NULL,
        ended_ms INTEGER NOT NULL,
        record   BLOB NOT NULL,
        receipt  BLOB NOT NULL,
        output   BLOB
    );
    CREATE INDEX jobs_tail ON jobs (tail);
    CREATE INDEX jobs_status ON jobs (status, job_id);
    CREATE INDEX jobs_type ON jobs (job_type, job_id);
    CREATE INDEX jobs_project ON jobs (project, job_id) WHERE project IS NOT NULL;
    CREATE INDEX jobs_source ON jobs (source, job_id);
    CREATE INDEX jobs_type_status ON jobs (job_type, status, job_id);
    CREATE INDEX jobs_project_status ON jobs (project, status, job_id) WHERE project IS NOT NULL;
    CREATE INDEX jobs_source_status ON jobs (source, status, job_id);
    CREATE INDEX jobs_day ON jobs (day, job_id);
    CREATE INDEX jobs_ended ON jobs (ended_ms);
    CREATE VIRTUAL TABLE words USING fts5 (text);
    CREATE TABLE places (state TEXT PRIMARY KEY, place TEXT NOT NULL);
    """,
)


def migrate(db: sqlite3.Connection) -> None:
    """Bring a database to the newest version; each step is one transaction.

    Raises:
        HistoryBroken: It is of a newer version than this program.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise HistoryBroken(
            f"the history is of version {version}, this program knows {len(MIGRATIONS)}.",
            remedy="Use the newer program, or move .3ox/history.db away.",
        )
    # Readers go on while one process writes; what a power cut takes is read from the store again.
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        db.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
