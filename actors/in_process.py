"""Runs one job in the submitting process, without a store: the same actor, the same receipt."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from actors.context import set_settings
from middleware.context import IN_PROCESS, JobContext, JobInterrupted, Reporter, set_current_job
from middleware.interrupts import JobCancelled, TimeLimitExceeded
from middleware.job.receipt import make_receipt, payload_sha256
from middleware.job.records import Attempt, JobError, JobRecord, Receipt, Transition, utc
from middleware.job.schema import JOB_TYPES, Job
from middleware.job.states import State
from middleware.receipts import result_of_failure
from middleware.streams.attached import Attach
from middleware.time_limit import time_limit_s
from ops.errors import BridgeError, JobFailed
from ops.settings.load import LoadedSettings


def run_in_process(
    job: Job, loaded: LoadedSettings, reporter: Reporter, attach: Attach | None = None
) -> tuple[JobRecord, Receipt]:
    """Run a job in this process, with one attempt only: without a store it cannot be retried.

    Args:
        job: The job.
        loaded: Settings.
        reporter: Receives its progress and output.
        attach: Connects its command to the standard streams; None: it has none.

    Returns:
        The finished job and its receipt, in the same form as from a worker.
    """
    set_settings(loaded)
    context = JobContext(job, reporter, worker_id=IN_PROCESS, attach=attach)
    limit_s = time_limit_s(job, loaded.settings)
    begun_ms = _now_ms()
    data, error, status, reason = _attempt(context, _function_of(job), limit_s)
    ended_ms = _now_ms()
    attempt = Attempt(1, IN_PROCESS, str(utc(begun_ms)), utc(ended_ms), status, reason)
    receipt = _receipt(job, attempt, data)
    record = JobRecord(
        job_id=job.job_id,
        trace_id=job.trace,
        job_type=job.job_type,
        status=status,
        source=job.source,
        actor=job.actor,
        trust=job.trust,
        project=job.project,
        session_id=job.session_id,
        priority=job.rank,
        progress=100.0 if status == State.COMPLETED else 0.0,
        attempt=1,
        max_retries=0,
        worker_id=IN_PROCESS,
        payload=msgspec.to_builtins(job.payload),
        result=msgspec.json.decode(data) if data else None,
        error=error,
        created_at=utc(begun_ms),
        queued_at=utc(begun_ms),
        started_at=utc(begun_ms),
        completed_at=utc(ended_ms),
        receipt_id=receipt.receipt_id,
        reason=reason,
        attempts=[attempt],
        timeout_seconds=limit_s,
        metadata=dict(job.metadata),
    )
    return record, receipt


def _attempt(
    context: JobContext, actor: Callable[[Any], Any], limit_s: float
) -> tuple[bytes, JobError | None, str, str]:
    """Run the actor; returns its result as JSON, its error, the final status and the reason."""
    timer = threading.Timer(limit_s, context.interrupt, args=(TimeLimitExceeded,))
    timer.daemon = True
    timer.start()
    # Ctrl-C cancels the job, so that the actor stops its child processes before it returns.
    before = signal.signal(signal.SIGINT, lambda *_: context.interrupt(JobCancelled))
    set_current_job(context)
    try:
        result = actor(context.job.payload)
        data = b"" if result is None else msgspec.json.encode(result)
    except JobCancelled:
        return b"", None, State.CANCELLED, "cancelled with Ctrl-C"
    except TimeLimitExceeded:
        error = JobError.of(JobFailed(f"The attempt took longer than its limit of {limit_s:g} s."))
        return b"", error, State.FAILED, error.message
    except JobInterrupted as interrupt:
        return b"", None, State.CANCELLED, type(interrupt).__name__
    except BridgeError as failure:
        error = JobError.of(failure)
        return result_of_failure(failure), error, State.FAILED, f"failed: {failure}"
    except Exception as failure:  # noqa: BLE001 (as in a worker: any exception of an actor fails its job only)
        error = JobError.of(failure, traceback="".join(traceback.format_exception(failure)))
        return b"", error, State.FAILED, f"failed: {error.type}: {error.message}"
    else:
        return data, None, State.COMPLETED, "succeeded in-process"
    finally:
        set_current_job(None)
        signal.signal(signal.SIGINT, before)
        timer.cancel()


def _function_of(job: Job) -> Callable[[Any], Any]:
    declared = JOB_TYPES.get(job.job_type)
    if declared is None:
        raise LookupError(f"{job.job_type!r} is a user's actor, which runs in a worker of its own")
    return declared.function()


def _receipt(job: Job, attempt: Attempt, result: bytes) -> Receipt:
    import hashlib

    began, ended = attempt.started_at, str(attempt.ended_at)
    return make_receipt(
        job,
        [
            Transition(began, State.QUEUED),
            Transition(began, State.PROCESSING, 1, IN_PROCESS),
            Transition(ended, attempt.status, 1, IN_PROCESS, attempt.reason),
        ],
        input_sha256=payload_sha256(job),
        result_sha256=hashlib.sha256(result).hexdigest() if result else None,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
