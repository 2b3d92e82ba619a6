"""The background process of ``3ox track``: follows another process as a job, and commits its end."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.context import set_settings
from actors.process.results import TrackResult
from actors.process.track import TrackedProcess, follow_process
from ingress.core.bridge import connect
from middleware.broker.single_job_worker import SingleJobWorker
from middleware.broker.transitions import EnqueueRequest, Settlement
from middleware.destinations import Destinations
from middleware.interrupts import JobCancelled
from middleware.job.receipt import payload_sha256
from middleware.job.records import JobError
from middleware.job.schema import Job, encode_job
from ops.logs import configure_logging, get_logger
from ops.settings.load import LoadedSettings, Settings

UNIT = "track"

log = get_logger(__name__)


def follow_as_job(
    loaded: LoadedSettings, job: Job, process: TrackedProcess, ready: Callable[[], None] = lambda: None
) -> int:
    """Follow a process as a job until it ends, and return 0.

    Args:
        loaded: Settings of the bridge.
        job: A ``task.custom`` whose metadata names the process.
        process: The process.
        ready: Called when the job is processing.

    Raises:
        StoreUnreachable: The job could not be submitted.
    """
    configure_logging(loaded, process=UNIT)
    set_settings(loaded)
    bridge = connect(loaded)
    values = loaded.settings
    worker = SingleJobWorker(
        bridge.scripts, lease_s=values.lease_s, heartbeat_s=values.heartbeat_s, unit=UNIT
    )
    worker.take(job, _request(job, values))
    with worker.at_work():
        ready()
        log.info("track.began", job_id=job.job_id, tracked=process.pid)
        settlement = _follow(process)
    outcome = worker.settle(settlement)
    log.info("track.ended", job_id=job.job_id, tracked=process.pid, status=settlement.outcome, commit=outcome)
    return 0


def _request(job: Job, settings: Settings) -> EnqueueRequest:
    """Return the request, without limits: a running process takes no slot of its project's concurrency."""
    return EnqueueRequest(
        job_id=job.job_id,
        priority=job.rank,
        spec=encode_job(job),
        job_type=job.job_type,
        input_sha256=payload_sha256(job),
        project="" if job.project is None else job.project,
        sinks=Destinations(settings).of(job),
    )


def _follow(process: TrackedProcess) -> Settlement:
    try:
        result = follow_process(process)
    except JobCancelled:
        return Settlement(
            outcome="cancelled", reason=f"process {process.pid} keeps running and is no longer followed"
        )
    except Exception as error:
        # The job is not retried, so its record must have the reason.
        log.exception("track.failed", tracked=process.pid)
        return Settlement(
            outcome="failed",
            error=msgspec.json.encode(JobError(type=type(error).__name__, message=str(error))),
            reason=f"failed: {error}",
        )
    return Settlement(outcome="completed", result=msgspec.json.encode(result), reason=_reason(result))


def _reason(result: TrackResult) -> str:
    return f"process {result.pid} has ended; only its parent knows its exit status"
