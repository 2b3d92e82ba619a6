"""What a list of jobs is narrowed to, and which words of a job a search looks at."""

from __future__ import annotations

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
        text: Words that stand in it, all of them; see ``middleware.archive.words``.
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
