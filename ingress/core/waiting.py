"""Follows a job wherever it is: out of the spool, through the store to its end, or in the history already."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ingress.core.bridge import Bridge
from ingress.core.lookup import or_past, past_pieces, whole_id
from ingress.core.spooled_jobs import until_handed_over
from middleware.job.records import JobRecord, OutputChunk
from ops.errors import JobNotFound


def follow_job(bridge: Bridge, part: str, *, timeout_s: float | None = None) -> Iterator[JobRecord]:
    """Yield a job at once and after every change, up to its end.

    Args:
        bridge: Whose.
        part: The job's id, or a unique part of it.
        timeout_s: For how long at most; None: as long as it takes.

    Raises:
        WaitTimeout: The time ran out.
        JobNotFound: Neither store nor spool has such a job.
        StoreUnreachable: The store was away for longer than 30 s, and the job not in the spool.
    """
    ends_at_s = None if timeout_s is None else time.monotonic() + timeout_s
    for record in until_handed_over(bridge, part, timeout_s=timeout_s):
        yield record
        if record.is_final:
            return
        part = record.job_id
    left_s = None if ends_at_s is None else max(0.0, ends_at_s - time.monotonic())
    yield from bridge.follower.follow(bridge.reader.resolve(part), timeout_s=left_s)


def wait_for_job(bridge: Bridge, part: str, *, timeout_s: float | None = None) -> JobRecord:
    """Give a job when it has ended, also one that only the history has; see ``follow_job``."""

    def to_end() -> JobRecord:
        for record in follow_job(bridge, part, timeout_s=timeout_s):
            if record.is_final:
                return record
        raise JobNotFound(f"there is no job {part!r} any more.", remedy="'3ox jobs' lists all jobs.")

    return or_past(bridge, to_end, lambda past: past.job(part))


def output_of(bridge: Bridge, part: str, *, follow: bool, after: str = "-") -> Iterator[OutputChunk]:
    """Yield a job's output; one that lies in the spool has none yet.

    Args:
        bridge: Whose.
        part: The job's id, or a unique part of it.
        follow: Go on as it is written, until the job has ended.
        after: ``entry_id`` of the last piece seen, ``-`` for the beginning.

    Raises:
        JobNotFound: Neither store nor history nor spool has such a job.
        StoreUnreachable: The store is away, and the job not in the spool.
    """
    job_id, seen = whole_id(bridge, part), after
    for record in until_handed_over(bridge, job_id):
        if record.is_final or not follow:
            return
    try:
        for piece in bridge.follower.output(job_id, follow=follow, after=after):
            seen = piece.entry_id
            yield piece
    except JobNotFound as error:
        yield from past_pieces(bridge, job_id, seen, error)
