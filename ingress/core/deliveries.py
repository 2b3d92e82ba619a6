"""Where results have not arrived: lists them, counts them, tries them again."""

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
    """Give jobs whose results have not arrived everywhere, with their ``deliveries``.

    Those that the store has let go of meanwhile come from the history, if it has them.

    Args:
        limit: How many at most.
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
    """Count deliveries that have not arrived: ``waiting`` (on the way) and ``failed`` (given up)."""
    reader = current_bridge().reader
    return counted(reader.read, reader.keys)


def redeliver(part: str, *, reason: str = "asked for by a program") -> list[str]:
    """Try the deliveries of a job again that were given up.

    Args:
        part: The job's id, or a unique part of it.
        reason: Who asks; kept with the delivery.

    Returns:
        Which sinks.

    Raises:
        WrongState: None was given up.
        JobNotFound: No job fits.
    """
    bridge = current_bridge()
    record = find(bridge, part).record()
    if bridge.reader.status_of(record.job_id) is None:
        raise WrongState(
            f"the store has let go of {record.job_id}: there is nothing to deliver any more.",
            remedy=f"'3ox jobs {record.job_id} --json' has what the history keeps.",
        )
    again = [item for item in record.deliveries if item.status == State.FAILED]
    again = [item for item in again if bridge.scripts.requeue(item.delivery_id, reason)[0] == "queued"]
    if not again:
        raise WrongState(
            f"no delivery of {record.job_id} was given up.",
            remedy=f"'3ox jobs {record.job_id} --json' shows where its result went.",
        )
    return [item.sink for item in again]
