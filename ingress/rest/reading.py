"""Finds jobs for the routes, and waits for their end without holding a thread."""

from __future__ import annotations

import time

from litestar.concurrency import sync_to_thread

from ingress.past import or_past
from ingress.rest.door import Door
from ingress.rest.fanout import BEHIND, END
from ingress.rest.problems import RETRY_AFTER_S, ApiProblem
from middleware.job.records import JobRecord
from middleware.job.states import FINAL
from ops.errors import JobNotFound


def find_job(door: Door, part: str) -> JobRecord:
    """Give a job; blocks on the store.

    Args:
        door: Where.
        part: Its id, or a unique part of it.

    Raises:
        JobNotFound: There is none.
        AmbiguousJobId: More than one fits.
        ApiProblem: It is still in the spool.
    """
    reader = door.bridge.reader
    try:
        return reader.job(reader.resolve(part))
    except JobNotFound:
        if door.acceptance.spool.is_empty():
            raise
    if any(part in entry.name for entry in door.acceptance.spool.entries()):
        raise ApiProblem(
            503,
            "spooled",
            f"the job {part!r} is in the spool: the store was away when it was taken.",
            remedy="Ask again in a moment.",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    # Handed over between the two looks, if it was there.
    return reader.job(reader.resolve(part))


def find_any(door: Door, part: str) -> JobRecord:
    """Give a job, from the history if the store no longer has it; else as ``find_job``."""
    return or_past(door.bridge, lambda: find_job(door, part), lambda past: past.job(part))


def find_id(door: Door, part: str) -> str:
    """Give a job's whole id; raises as ``find_job`` does."""
    return find_job(door, part).job_id


async def wait_for_end(door: Door, part: str, wait_s: float) -> JobRecord:
    """Give a job when it has ended, or as it is when the time is up.

    Args:
        door: Where.
        part: Its id, or a unique part of it.
        wait_s: For how long at most.

    Raises:
        JobNotFound: There is none.
        ApiProblem: Too many wait already.
    """
    record = await sync_to_thread(find_any, door, part)
    if record.is_final or wait_s <= 0:
        return record
    deadline_s = time.monotonic() + min(wait_s, door.rest.wait_max_s)
    slot = door.streams.take()
    try:
        with door.fanout.subscribe(record.job_id) as heard:
            # What happened before we listened.
            record = await sync_to_thread(door.bridge.reader.job, record.job_id)
            while not record.is_final:
                item = await heard.next(deadline_s - time.monotonic())
                if item is None or item is END:
                    break
                if isinstance(item, list) and item[-1].status not in FINAL:
                    continue
                record = await sync_to_thread(door.bridge.reader.job, record.job_id)
                if item is BEHIND:
                    break
            return record
    finally:
        slot.close()
