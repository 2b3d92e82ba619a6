"""Finds jobs for the routes, and waits for their end without holding a thread."""

from __future__ import annotations

import time

from litestar.concurrency import sync_to_thread

from ingress.core.http.app_state import AppState
from ingress.core.http.event_broadcast import BEHIND, END
from ingress.core.http.problems import RETRY_AFTER_S, ApiProblem
from ingress.core.lookup import lacking, one_job
from ingress.core.spooled_jobs import SPOOLED, find, in_spool
from middleware.job.records import JobRecord
from middleware.job.states import FINAL
from ops.errors import JobNotFound


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
    # The spool first: what has left it is in the store by then.
    spooled = in_spool(app_state.read_bridge, part)
    if spooled is not None and not spooled.is_final:
        raise ApiProblem(
            503,
            "spooled",
            f"the job {spooled.job_id} is not in the store yet: {spooled.reason}",
            remedy="Ask again in a moment.",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    reader = app_state.read_bridge.reader
    try:
        return reader.job(reader.resolve(part))
    except JobNotFound:
        if spooled is None:
            raise
        raise lacking(app_state.read_bridge, part) from None


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
    spooled = in_spool(app_state.read_bridge, part)
    return (find_job(app_state, part), False) if spooled is None else (spooled, True)


def is_waiting(app_state: AppState, job_id: str) -> bool:
    """Tell by the spool's folder alone whether a job is still to be handed over."""
    found = find(app_state.read_bridge, job_id)
    return found is not None and not found.is_aside


def find_any(app_state: AppState, part: str) -> JobRecord:
    """Give a job wherever it is: in store, history or spool; raises as ``one_job`` does."""
    return one_job(app_state.read_bridge, part)


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
