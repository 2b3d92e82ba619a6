"""Undelivered results: list, count and redeliver them."""

from __future__ import annotations

import contextlib

from ingress.core.bridge import current_bridge
from ingress.core.lookup import find
from middleware.job.deliveries import count_undelivered as counted
from middleware.job.deliveries import undelivered_jobs
from middleware.job.records import JobRecord
from middleware.job.states import State
from ops.errors import JobNotFound, WrongState


def list_undelivered(limit: int = 50) -> list[JobRecord]:
    """Return jobs whose results were not delivered everywhere, with their ``deliveries``.

    Jobs that the store no longer has come from the history.

    Args:
        limit: Maximum number of jobs.
    """
    reader = current_bridge().reader
    found = reader.undelivered(limit)
    known = {record.job_id for record in found}
    for job_id in undelivered_jobs(reader.read, reader.keys, limit):
        if job_id not in known:
            with contextlib.suppress(JobNotFound):
                found.append(find(current_bridge(), job_id).record())
    return found


def count_undelivered() -> dict[str, int]:
    """Count the undelivered results: ``waiting`` (pending) and ``failed``."""
    reader = current_bridge().reader
    return counted(reader.read, reader.keys)


def redeliver(part: str, *, reason: str = "asked for by a program") -> list[str]:
    """Retry the failed deliveries of a job, and return their destinations.

    Args:
        part: The job's id, or a unique part of it.
        reason: Who asks; kept with the delivery.

    Raises:
        WrongState: The job has no failed delivery, or is no longer in the store.
        JobNotFound: No job fits.
    """
    bridge = current_bridge()
    record = find(bridge, part).record()
    if bridge.reader.status_of(record.job_id) is None:
        raise WrongState(
            f"{record.job_id} is no longer in the store, so its result cannot be delivered.",
            remedy=f"'3ox jobs {record.job_id} --json' shows the result in the history.",
        )
    failed = [item for item in record.deliveries if item.status == State.FAILED]
    queued = [item for item in failed if bridge.scripts.requeue(item.delivery_id, reason)[0] == "queued"]
    if not queued:
        raise WrongState(
            f"{record.job_id} has no failed delivery.",
            remedy=f"'3ox jobs {record.job_id} --json' lists its deliveries.",
        )
    return [item.sink for item in queued]
