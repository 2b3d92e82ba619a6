"""Maintenance of the store: recovery of lost jobs, retention, expiry of approvals.

Every worker and the leading scheduler run all of it, so that a bridge without one of them is maintained too.
Each step is one store function, so two processes can run the same step at the same time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from middleware.broker.approvals import Approvals
from middleware.broker.scripts import Scripts
from middleware.job.keys import QUEUES, Keys
from middleware.job.records import utc_now
from middleware.job.states import FINAL

#: Jobs that one call removes; it occupies the store for about a millisecond.
_BATCH = 50
#: Jobs that one round removes per queue and state; the next round continues.
_ROUND_MAX = 10_000
_PAUSE_S = 0.001

logger = logging.getLogger(__name__)


def recover_jobs(scripts: Scripts, *, lease_ms: int) -> int:
    """Take back the jobs of every worker whose lease has ended; return how many.

    Call it at least every half a lease, see ``recover.lua``.

    Args:
        scripts: The store functions.
        lease_ms: How long the lease of a worker lasts after each renewal.

    Raises:
        StoreUnreachable: The store is unavailable; the next call recovers what this one has not.
    """
    recovered = scripts.recover(how=f"its lease ended, seen at {utc_now()}", lease_ms=lease_ms)
    for worker_id, job_id, status in recovered:
        logger.warning(
            "job.recovered", extra={"job_id": job_id, "from_worker": worker_id, "status": str(status)}
        )
    return len(recovered)


def remove_old_jobs(
    scripts: Scripts, *, retention_s: float, finished_max: int, stopping: threading.Event
) -> int:
    """Remove final jobs, deliveries included, that are too old or too many; return how many were removed.

    Each job that becomes final removes some old ones too (``retire`` in ``prelude.lua``), which bounds their
    number while jobs come; this is for a bridge that has none to run.

    Args:
        scripts: The store functions.
        retention_s: How long a final job is kept.
        finished_max: How many final jobs are kept, per queue and state.
        stopping: Ends the round early.

    Raises:
        StoreUnreachable: The store is unavailable; the next round continues.
    """
    keys = Keys(scripts.prefix)
    seconds, micros = scripts.store.call("TIME")
    until_ms = int(seconds) * 1000 + int(micros) // 1000 - int(retention_s * 1000)
    removed = 0
    for queue in QUEUES:
        for state in FINAL:
            purge = partial(scripts.purge, state, queue=queue)
            removed += _remove(partial(purge, until_ms=until_ms), _ROUND_MAX, stopping)
            excess = int(scripts.store.call("ZCARD", keys.state(state, queue))) - finished_max
            removed += _remove(purge, min(excess, _ROUND_MAX), stopping)
    if removed:
        logger.info("jobs.expired", extra={"jobs": removed})
    return removed


def _remove(purge: Callable[[int], int], count: int, stopping: threading.Event) -> int:
    """Call ``purge`` with batch sizes until it has removed ``count`` jobs or finds no more."""
    removed = 0
    while removed < count and not stopping.is_set():
        wanted = min(_BATCH, count - removed)
        batch = purge(wanted)
        removed += batch
        if batch < wanted:
            break
        stopping.wait(_PAUSE_S)  # other clients have the store in between
    return removed


def expire_approvals(approvals: Approvals, *, stopping: threading.Event) -> int:
    """Cancel the jobs whose approval is overdue; return how many.

    Args:
        approvals: The jobs that wait for approval.
        stopping: Ends the round early.

    Raises:
        StoreUnreachable: The store is unavailable; a late approval is refused all the same.
    """
    count = 0
    while not stopping.is_set() and (expired := approvals.expire()):
        for job_id in expired:
            logger.info("job.expired", extra={"job_id": job_id})
        count += len(expired)
    return count
