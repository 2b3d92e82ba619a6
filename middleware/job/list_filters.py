"""Cursors and filters of the lists of jobs."""

from __future__ import annotations

import math

from middleware.job.ids import ID_LENGTH, is_id_part
from middleware.job.records import JobRecord
from ops.errors import InvalidJob


def require_cursor(cursor: str | None, status: str | None) -> None:
    """Raise unless the cursor can be the ``next`` of a page: an id, or ``SCORE:ID`` for one state."""
    if cursor is None:
        return
    score, colon, job_id = ("", "", cursor) if status is None else cursor.partition(":")
    try:
        valid = is_id_part(job_id) and len(job_id) == ID_LENGTH
        valid = valid and (status is None or (colon == ":" and math.isfinite(float(score))))
    except ValueError:
        valid = False
    if not valid:
        raise InvalidJob(
            f"Cursor {cursor!r} is not valid for this list.",
            remedy="Use 'next' of the previous page with the same filters; omit it for the first page.",
            field="cursor",
        )


def matches(
    record: JobRecord, status: str | None, job_type: str | None, project: str | None, source: str | None
) -> bool:
    """Return whether a job has these values; None fits any value."""
    return (
        (status is None or record.status == status)
        and (job_type is None or record.job_type == job_type)
        and (project is None or record.project == project)
        and (source is None or record.source == source)
    )
