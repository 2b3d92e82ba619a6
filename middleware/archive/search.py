"""Filters of lists of jobs, and the full-text search."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from middleware.job.records import JobRecord
from middleware.job.texts import is_answer, request_texts, result_text
from ops.errors import InvalidJob

#: A search covers this much of a job's text: prompt, task, reason, error and result.
TEXT_MAX_CHARS = 4_000


class JobFilter(Struct, frozen=True, kw_only=True):
    """Which jobs a list shows; None does not filter.

    Attributes:
        status: State of the job.
        job_type: Name of its type.
        project: Name of its project.
        source: The interface that it was submitted through.
        day: Day of its creation, YYYY-MM-DD, UTC.
        text: Words that it contains, all of them.
    """

    status: str | None = None
    job_type: str | None = None
    project: str | None = None
    source: str | None = None
    day: str | None = None
    text: str | None = None

    def matches(self, record: JobRecord) -> bool:
        """Return whether a job matches everything but ``text``."""
        pairs = (
            (self.status, record.status),
            (self.job_type, record.job_type),
            (self.project, record.project),
            (self.source, record.source),
            (self.day, day_of(record)),
        )
        return all(wanted is None or wanted == found for wanted, found in pairs)


def day_of(record: JobRecord) -> str:
    """Return the day, UTC, on which a job was created; empty if unknown."""
    return "" if record.created_at is None else record.created_at[:10]


def searchable(record: JobRecord) -> str:
    """Return the text of a job that a search covers."""
    parts: list[str] = [record.job_id, record.project or "", record.reason, *request_texts(record)]
    if record.error is not None:
        parts.append(record.error.message)
    if not isinstance(record.result, dict) or is_answer(record) or "text" in record.result:
        parts.append(result_text(record))
    return "\n".join(part for part in parts if part)[:TEXT_MAX_CHARS]


def check_day(day: str) -> str:
    """Return the day if it is valid.

    Raises:
        InvalidJob: It is not a day, or not written YYYY-MM-DD.
    """
    try:
        found = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError:
        found = ""
    if found != day:
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
        raise InvalidJob(f"{day!r} is not a valid day.", remedy=f"Write it as {yesterday}.", field="day")
    return day


def text_query(text: str) -> str:
    """Return the FTS5 query for text that contains all these words, without any query syntax.

    Raises:
        InvalidJob: The text has no words.
    """
    words = [word for word in text.replace("\0", " ").split() if any(letter.isalnum() for letter in word)]
    if not words:
        raise InvalidJob(
            f"The search {text!r} has no words.", remedy="Use a word with letters or digits.", field="search"
        )
    quoted = " AND ".join('"' + word.replace('"', '""') + '"' for word in words)
    return f"text : ({quoted})"


def tags(facet: int, project: str, day: str) -> str:
    """Return the columns that a search filters by, as words."""
    return f"{_facet_tag(facet)} {_project_tag(project)} {_day_tag(day)}"


def tags_query(filters: JobFilter, facets: Iterable[int] | None) -> str:
    """Return the filters as a query over ``tags``; of a project only a hash, so compare it again.

    Args:
        filters: Which jobs.
        facets: The facets that match; None if all do.
    """
    parts = []
    if facets is not None:
        parts.append(f"tags : ({' OR '.join(map(_facet_tag, facets))})")
    if filters.project is not None:
        parts.append(f"tags : {_project_tag(filters.project)}")
    if filters.day is not None:
        parts.append(f"tags : {_day_tag(filters.day)}")
    return "".join(f" AND {part}" for part in parts)


def _facet_tag(facet: int) -> str:
    return f"f{facet}"


def _project_tag(project: str) -> str:
    return f"p{zlib.crc32(project.encode()):08x}"


def _day_tag(day: str) -> str:
    return f"d{day.replace('-', '')}"


def having_words(records: Sequence[JobRecord], text: str) -> list[JobRecord]:
    """Return the jobs that contain all these words.

    Raises:
        InvalidJob: The text has no words.
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
