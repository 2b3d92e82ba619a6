"""Runs one job in this process, when there is no store: the same actor, the same receipt."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from actors.context import set_settings
from actors.registry import ACTORS
from middleware.broker.intake import payload_sha256
from middleware.context import JobContext, StreamName, set_current_job
from middleware.interrupts import JobCancelled, JobInterrupted, TimeLimitExceeded
from middleware.job.records import Attempt, JobError, JobRecord, Receipt, Transition, receipt_id_of, utc
from middleware.job.schema import Job
from middleware.job.states import State
from ops.errors import BridgeError
from ops.settings import LoadedSettings

WORKER_ID = "in-process"


class TerminalSink:
    """Hands a job's output straight to our own standard output and error."""

    def progress(self, percent: float, message: str) -> None:
        """Show progress on standard error, if somebody looks."""
        if sys.stderr.isatty():
            sys.stderr.write(f"[{percent:3.0f}%] {message}\n")

    def output(self, text: str, stream: StreamName) -> None:
        """Write at once."""
        target = sys.stdout if stream == "out" else sys.stderr
        target.write(text)
        target.flush()

    def flush(self) -> None:
        """Nothing is held back."""


class SilentSink(TerminalSink):
    """Drops output, for ``--json``: one document on standard output and nothing else."""

    def output(self, text: str, stream: StreamName) -> None:
        """Drop it; its end stands in the result."""


def run_local(job: Job, loaded: LoadedSettings, *, quiet: bool = False) -> tuple[JobRecord, Receipt]:
    """Carry out a job here and now, once: without a store there is nobody who could retry it.

    Args:
        job: What to do.
        loaded: The settings.
        quiet: Show none of its output.

    Returns:
        The job as it ended, and its receipt, of the same form as from a worker.
    """
    set_settings(loaded)
    context = JobContext(job, SilentSink() if quiet else TerminalSink(), worker_id=WORKER_ID)
    asked_s = job.timeout_seconds
    limit_s = loaded.settings.type_settings(job.job_type).timeout_s if asked_s is None else asked_s
    begun_ms = _now_ms()
    result, error, status, reason = _attempt(context, ACTORS[job.job_type], limit_s)
    ended_ms = _now_ms()
    data = b"" if result is None else msgspec.json.encode(result)
    record = JobRecord(
        job_id=job.job_id,
        trace_id=job.trace,
        job_type=job.job_type,
        status=status,
        source=job.source,
        actor=job.actor,
        project=job.project,
        session_id=job.session_id,
        priority=job.priority,
        progress=100.0 if status == State.COMPLETED else 0.0,
        attempt=1,
        max_retries=0,
        worker_id=WORKER_ID,
        payload=msgspec.to_builtins(job.payload),
        result=msgspec.json.decode(data) if data else None,
        error=error,
        created_at=utc(begun_ms),
        queued_at=utc(begun_ms),
        started_at=utc(begun_ms),
        completed_at=utc(ended_ms),
        receipt_id=receipt_id_of(job.job_id),
        reason=reason,
        attempts=[Attempt(1, WORKER_ID, str(utc(begun_ms)), utc(ended_ms), status, reason)],
        timeout_seconds=limit_s,
        metadata=dict(job.metadata),
    )
    return record, _receipt(job, record, data, begun_ms, ended_ms)


def _attempt(
    context: JobContext, actor: Callable[[Any], Any], limit_s: float
) -> tuple[Any, JobError | None, str, str]:
    """Run the actor; gives its result, its error, the final status and the reason."""
    clock = threading.Timer(limit_s, context.interrupt, args=(TimeLimitExceeded,))
    clock.daemon = True
    clock.start()
    # Ctrl-C is a cancellation: the actor then stops what it has started before it ends.
    before = signal.signal(signal.SIGINT, lambda *_: context.interrupt(JobCancelled))
    set_current_job(context)
    try:
        result = actor(context.job.payload)
    except JobCancelled:
        return None, None, State.CANCELLED, "cancelled at the keyboard"
    except TimeLimitExceeded:
        error = JobError("JobFailed", f"the attempt took longer than its limit of {limit_s:g} s.")
        return None, error, State.FAILED, error.message
    except JobInterrupted as interrupt:
        return None, None, State.CANCELLED, type(interrupt).__name__
    except BridgeError as failure:
        error = JobError(type(failure).__name__, failure.message, failure.remedy)
        return getattr(failure, "result", None), error, State.FAILED, f"failed in its only attempt: {failure}"
    else:
        return result, None, State.COMPLETED, "attempt 1 succeeded in-process"
    finally:
        set_current_job(None)
        signal.signal(signal.SIGINT, before)
        clock.cancel()


def _receipt(job: Job, record: JobRecord, data: bytes, begun_ms: int, ended_ms: int) -> Receipt:
    import hashlib

    began, ended = str(utc(begun_ms)), str(utc(ended_ms))
    return Receipt(
        receipt_id=record.receipt_id,
        job_id=job.job_id,
        trace_id=job.trace,
        job_type=job.job_type,
        source=job.source,
        actor=job.actor,
        project=job.project,
        status=record.status,
        attempt=1,
        worker_id=WORKER_ID,
        input_sha256=payload_sha256(job)[0],
        result_sha256=hashlib.sha256(data).hexdigest() if data else None,
        created_at=began,
        updated_at=ended,
        transitions=[
            Transition(began, State.QUEUED),
            Transition(began, State.PROCESSING, 1, WORKER_ID),
            Transition(ended, record.status, 1, WORKER_ID, record.reason),
        ],
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
