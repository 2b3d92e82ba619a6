"""Text for people: without control characters, short, with units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from middleware.job.records import JobEvent, JobRecord
from middleware.job.states import State
from middleware.job.texts import request_text

#: Lists show this many of an id's last characters, which are random.
SHORT_ID_LENGTH = 8
#: Headings of ``job_rows``.
JOB_COLUMNS = ("ID", "JOB", "STATE", "DONE", "AGE", "WHAT", "REASON")

_WHAT_MAX_CHARS = 40
_SPACING = {"\n", "\t"}
#: Characters that change the direction of the text after them and can make a line read as another.
_DIRECTIONAL = {
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
    "\u200e",
    "\u200f",
    "\u061c",
}


def safe(text: str) -> str:
    """Return a job's text with control characters escaped, so that a terminal does not obey them.

    Line ends and tabs stay; a carriage return, which could overwrite a line, becomes a line end.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in _SPACING else _escaped(letter)
        for letter in text.replace("\r\n", "\n").replace("\r", "\n")
    )


def _escaped(letter: str) -> str:
    code = ord(letter)
    # Python calls spaces of other scripts and joiners of emoji "not printable"; they are harmless.
    if code >= 0xA0 and letter not in _DIRECTIONAL and not 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004 (Unicode)
        return letter
    return letter.encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """Return a job's text as one line without control characters."""
    return " ".join(safe(text).split())


def count_of(number: int, name: str) -> str:
    """Return a number with its noun, in the plural unless it is one: ``1 job``, ``2 jobs``."""
    return f"{number} {name}{'' if number == 1 else 's'}"


def short_id(job_id: str) -> str:
    """Return the part of a job id that lists show."""
    return job_id[-SHORT_ID_LENGTH:]


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: ``8ms``, ``0.4s``, ``12s``, ``3m05s``, ``2h10m``."""
    if 0 < seconds < 0.1:  # noqa: PLR2004 (0.0s would say that it took no time)
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:  # noqa: PLR2004 (below ten seconds a tenth is worth reading)
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole}s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes}m{rest_s:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:  # noqa: PLR2004
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h"


def seconds_between(start: str | None, end: str | None = None) -> float | None:
    """Return the seconds between two RFC 3339 times, None without a start.

    Args:
        start: Earlier time.
        end: Later time; now when None.
    """
    if start is None:
        return None
    from datetime import UTC, datetime

    later = datetime.now(UTC) if end is None else datetime.fromisoformat(end)
    return (later - datetime.fromisoformat(start)).total_seconds()


def since(start: str | None, end: str | None = None) -> str:
    """Return the time between two RFC 3339 times as text, ``-`` without a start."""
    seconds = seconds_between(start, end)
    return "-" if seconds is None else duration(seconds)


def kind(record: JobRecord) -> str:
    """Return the job's type, with its project if it has one."""
    return record.job_type if record.project is None else f"{record.job_type}/{record.project}"


def what(record: JobRecord, *, max_chars: int = _WHAT_MAX_CHARS) -> str:
    """Return the beginning of what a job is about: its task, prompt, command, file name or arguments."""
    text = one_line(request_text(record))
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def percent(record: JobRecord | JobEvent) -> int:
    """Return how much of a job is done, as people are shown it: 100 of a completed job, at most 99 of others.

    A job that has failed or was cancelled keeps its last percentage.
    """
    if record.status == State.COMPLETED:
        return 100
    return 0 if record.progress is None else max(0, min(99, int(record.progress)))


def why(record: JobRecord) -> str:
    """Return what a running job reports, and of any other job the reason for its state."""
    busy = record.status == "processing" and bool(record.progress_message)
    return one_line(record.progress_message if busy else record.reason)


def summary_line(summary: Mapping[str, int]) -> str:
    """Return the counts by state; the less common states only when they are not 0."""
    names = (
        ("Processing", "processing", True),
        ("Queued", "queued", True),
        ("Scheduled", "scheduled", False),
        ("Held", "held", False),
        ("Retrying", "retrying", False),
        ("Completed", "completed", True),
        ("Failed", "failed", True),
        ("Cancelled", "cancelled", False),
    )
    return "  ".join(
        f"{label}: {summary.get(state, 0)}"
        for label, state, always in names
        if always or summary.get(state, 0)
    )


def uncounted(**filters: str | None) -> str:
    """Return the filters of a list that its counts by state cannot follow, as text; empty if there are none.

    Args:
        **filters: Filters by name, None if not set. The store counts by state, type and project.
    """
    names = [name for name, value in filters.items() if value is not None]
    return f"filtered by {' and '.join(names)}" if names else ""


def job_rows(records: Sequence[JobRecord]) -> list[tuple[str, ...]]:
    """Return the cells of a list of jobs, see ``JOB_COLUMNS``."""
    return [
        (
            short_id(record.job_id),
            kind(record),
            str(record.status),
            f"{percent(record)}%",
            since(record.created_at),
            what(record),
            why(record),
        )
        for record in records
    ]
