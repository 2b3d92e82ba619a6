"""The process that follows a process: takes its job in, carries it out, commits its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from actors.context import set_settings
from actors.process.track import ProcessEnded, Tracked, follow_process
from ingress.dispatch import connect
from middleware.broker.admission import payload_sha256
from middleware.broker.scripts import EnqueueRequest, Settlement
from middleware.broker.single_job_worker import SoloWorker
from middleware.destinations import Sinks
from middleware.interrupts import JobCancelled
from middleware.job.records import JobError
from middleware.job.schema import encode_job
from ops.logs import configure_logging, get_logger

if TYPE_CHECKING:
    from middleware.job.schema import Job
    from ops.settings.load import LoadedSettings, Settings

#: As long as a job may take at all.
TIMEOUT_S = 30 * 86_400.0
UNIT = "track"

log = get_logger(__name__)


def follow_as_job(
    loaded: LoadedSettings, job: Job, process: Tracked, ready: Callable[[], None] = lambda: None
) -> int:
    """Follow a process as a job to its end.

    Args:
        loaded: Settings of the bridge.
        job: A ``task.custom`` whose metadata names the process.
        process: What it names.
        ready: Called when the job runs.

    Returns:
        0.

    Raises:
        StoreUnreachable: The job could not be taken in.
    """
    configure_logging(loaded, process=UNIT)
    set_settings(loaded)
    bridge = connect(loaded)
    values = loaded.settings
    worker = SoloWorker(bridge.scripts, lease_s=values.lease_s, heartbeat_s=values.heartbeat_s, unit=UNIT)
    worker.take(job, _request(job, values))
    with worker.at_work():
        ready()
        log.info("track.began", job_id=job.job_id, tracked=process.pid)
        settlement = _follow(process)
    outcome = worker.settle(settlement)
    log.info("track.ended", job_id=job.job_id, tracked=process.pid, status=settlement.outcome, commit=outcome)
    return 0


def _request(job: Job, settings: Settings) -> EnqueueRequest:
    """Make the request by hand: a process that runs already takes no slot of its project's concurrency."""
    return EnqueueRequest(
        job_id=job.job_id,
        priority=job.rank,
        spec=encode_job(job),
        job_type=job.job_type,
        input_sha256=payload_sha256(job),
        project="" if job.project is None else job.project,
        sinks=Sinks(settings).of(job),
    )


def _follow(process: Tracked) -> Settlement:
    try:
        result = follow_process(process)
    except JobCancelled:
        return Settlement(outcome="cancelled", reason=f"process {process.pid} goes on, and is not followed")
    except Exception as error:
        # Nobody runs it again: whoever looks at the job has to learn of it.
        log.exception("track.failed", tracked=process.pid)
        return Settlement(
            outcome="failed",
            error=msgspec.json.encode(JobError(type=type(error).__name__, message=str(error))),
            reason=f"failed in its only attempt: {error}",
        )
    return Settlement(outcome="completed", result=msgspec.json.encode(result), reason=_reason(result))


def _reason(result: ProcessEnded) -> str:
    return f"process {result.pid} has ended; its exit status is known to its parent only"
