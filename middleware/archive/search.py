"""What a list of jobs is narrowed to, and which words of a job a search looks at."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from middleware.job.records import JobRecord
from ops.errors import InvalidJob

#: Of prompt, task, reason, error and result this much can be searched.
TEXT_MAX_CHARS = 4_000
_SPEAKING = ("prompt", "task", "text", "name", "note", "endpoint")


class Narrowing(Struct, frozen=True, kw_only=True):
    """What a list of jobs is narrowed to; None: not by this.

    Attributes:
        status: The state it is in.
        job_type: Of the job.
        project: Of the job.
        source: The door it came through.
        day: YYYY-MM-DD, UTC, on which it was created.
        text: Words that stand in it, all of them; see ``middleware.archive.search``.
    """

    status: str | None = None
    job_type: str | None = None
    project: str | None = None
    source: str | None = None
    day: str | None = None
    text: str | None = None

    def fits(self, record: JobRecord) -> bool:
        """Tell whether a job, wherever it comes from, is in the list, but for its words."""
        pairs = (
            (self.status, record.status),
            (self.job_type, record.job_type),
            (self.project, record.project),
            (self.source, record.source),
            (self.day, day_of(record)),
        )
        return all(wanted is None or wanted == found for wanted, found in pairs)


def day_of(record: JobRecord) -> str:
    """Give the day, UTC, on which a job was created; empty if nobody knows."""
    return "" if record.created_at is None else record.created_at[:10]


def searchable(record: JobRecord) -> str:
    """Give the text of a job that a search looks through."""
    payload = record.payload if isinstance(record.payload, dict) else {}
    parts: list[str] = [record.job_id, record.project or "", record.reason]
    parts += [str(payload[name]) for name in _SPEAKING if payload.get(name) is not None]
    argv = payload.get("argv")
    if isinstance(argv, list):
        parts.append(" ".join(map(str, argv)))
    if record.error is not None:
        parts.append(record.error.message)
    if isinstance(record.result, dict) and isinstance(record.result.get("text"), str):
        parts.append(record.result["text"])
    return "\n".join(part for part in parts if part)[:TEXT_MAX_CHARS]


def check_day(day: str) -> str:
    """Give a day back if it is one.

    Raises:
        InvalidJob: It is not written YYYY-MM-DD.
    """
    try:
        found = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError:
        found = ""
    if found != day:
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
        raise InvalidJob(f"{day!r} is no day.", remedy=f"Write it as {yesterday}.", field="day")
    return day


def text_query(text: str) -> str:
    """Write words as a query of which each is taken as it stands.

    Raises:
        InvalidJob: There is no word in it.
    """
    words = [word for word in text.replace("\0", " ").split() if any(letter.isalnum() for letter in word)]
    if not words:
        raise InvalidJob(
            f"there is no word in {text!r} to search for.", remedy="Name one with letters.", field="search"
        )
    quoted = " AND ".join('"' + word.replace('"', '""') + '"' for word in words)
    return f"text : ({quoted})"


def tags(facet: int, project: str, day: str) -> str:
    """Give what a search is narrowed by, as words."""
    return f"{_facet_tag(facet)} {_project_tag(project)} {_day_tag(day)}"


def tags_query(narrowing: Narrowing, facets: Iterable[int] | None) -> str:
    """Write the narrowing as a query over ``tags``; a project is only about right.

    Args:
        narrowing: To what.
        facets: Those that fit; None if all do.
    """
    parts = []
    if facets is not None:
        parts.append(f"tags : ({' OR '.join(map(_facet_tag, facets))})")
    if narrowing.project is not None:
        parts.append(f"tags : {_project_tag(narrowing.project)}")
    if narrowing.day is not None:
        parts.append(f"tags : {_day_tag(narrowing.day)}")
    return "".join(f" AND {part}" for part in parts)


def _facet_tag(facet: int) -> str:
    return f"f{facet}"


def _project_tag(project: str) -> str:
    return f"p{zlib.crc32(project.encode()):08x}"


def _day_tag(day: str) -> str:
    return f"d{day.replace('-', '')}"


def having_words(records: Sequence[JobRecord], text: str) -> list[JobRecord]:
    """Give those of the jobs in which all these words stand.

    Raises:
        InvalidJob: There is no word in the text.
    """
    import sqlite3

    query = text_query(text)
    db = sqlite3.connect(":memory:")
    try:
        db.execute("CREATE VIRTUAL TABLE words USING fts5 (text)")
        db.executemany(
            "INSERT INTO words (rowid, text) VALUES (?, ?)",
            ((at, searchable(record)) for at, record in enumerate(records)),
        )
        found = db.execute("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid", (query,))
        return [records[at] for (at,) in found]
    finally:
        db.close()
