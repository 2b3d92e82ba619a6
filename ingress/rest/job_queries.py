"""Finds jobs for the routes, and waits for their end without holding a thread."""

from __future__ import annotations

import time

from litestar.concurrency import sync_to_thread

from ingress.core.http.app_state import AppState
from ingress.core.http.event_broadcast import BEHIND, END
from ingress.core.http.problems import RETRY_AFTER_S, ApiProblem
from ingress.core.lookup import Source, elsewhere, find
from ingress.core.spooled_jobs import SPOOLED, find_entry
from middleware.job.records import JobRecord
from middleware.job.states import FINAL


def find_job(app_state: AppState, part: str) -> JobRecord:
    """Give a job that something can be done to, or that can be followed; blocks on the store.

    Args:
        app_state: Where.
        part: Its id, or a unique part of it.

    Raises:
        JobNotFound: There is none.
        AmbiguousJobId: More than one fits.
        WrongState: It was refused when it was to be handed over from the spool.
        ApiProblem: It is still in the spool.
    """
    job = find(app_state.read_bridge, part)
    record = job.record()
    if job.source is Source.SPOOL and not record.is_final:
        raise ApiProblem(
            503,
            "spooled",
            f"The job {record.job_id} is not in the store yet: {record.reason}",
            remedy="Try again in a moment.",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    if job.source is not Source.STORE:
        raise elsewhere(job.source, record)
    return record


def find_followed(app_state: AppState, part: str) -> tuple[JobRecord, bool]:
    """Give a job whose changes can be told, and whether it is on disk only; blocks on the store.

    Args:
        app_state: Where.
        part: Its id, or a unique part of it.

    Raises:
        JobNotFound: There is none.
        AmbiguousJobId: More than one fits.
        StoreUnreachable: The store is away, and the spool has none.
    """
    job = find(app_state.read_bridge, part)
    record = job.record()
    if job.source is Source.HISTORY:
        raise elsewhere(job.source, record)
    return record, job.source is Source.SPOOL


def is_waiting(app_state: AppState, job_id: str) -> bool:
    """Tell by the spool's folder alone whether a job is still to be handed over."""
    entry = find_entry(app_state.read_bridge, job_id)
    return entry is not None and not entry.is_quarantined


def find_any(app_state: AppState, part: str) -> JobRecord:
    """Give a job wherever it is: in store, spool or history; raises as ``find`` does."""
    return find(app_state.read_bridge, part).record()


def find_id(app_state: AppState, part: str) -> str:
    """Give a job's whole id; raises as ``find_job`` does."""
    return find_job(app_state, part).job_id


async def wait_for_end(app_state: AppState, part: str, wait_s: float) -> JobRecord:
    """Give a job when it has ended, or as it is when the time is up.

    Args:
        app_state: Where.
        part: Its id, or a unique part of it.
        wait_s: For how long at most.

    Raises:
        JobNotFound: There is none.
        ApiProblem: Too many wait already.
    """
    record = await sync_to_thread(find_any, app_state, part)
    if record.is_final or wait_s <= 0:
        return record
    deadline_s = time.monotonic() + min(wait_s, app_state.rest.wait_max_s)
    slot = app_state.streams.take()
    try:
        with app_state.events.subscribe(record.job_id) as heard:
            # What happened before we listened.
            record = await sync_to_thread(_again, app_state, record)
            while not record.is_final:
                item = await heard.next(deadline_s - time.monotonic())
                if item is None or item is END:
                    break
                if isinstance(item, list) and item[-1].status not in FINAL and record.status != SPOOLED:
                    continue
                record = await sync_to_thread(_again, app_state, record)
                if item is BEHIND:
                    break
            return record
    finally:
        slot.close()


def _again(app_state: AppState, record: JobRecord) -> JobRecord:
    if record.status == SPOOLED:
        return find_any(app_state, record.job_id)
    return app_state.read_bridge.reader.job(record.job_id)
