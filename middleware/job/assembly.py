"""Build records and receipts from what the store has: a job's hash, its result and its receipt chain."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache

import msgspec
from msgspec import Struct

from middleware.job.base import Job, UnreadableJob
from middleware.job.keys import Keys
from middleware.job.receipt import make_receipt
from middleware.job.records import (
    Attempt,
    AttemptCount,
    JobError,
    JobRecord,
    Receipt,
    Transition,
    receipt_id_of,
    utc,
)
from middleware.job.schema import decode_job
from middleware.job.states import State
from ops.errors import InvalidJob, JobNotFound
from ops.store.client import Store

#: Fields of ``job:ID`` that a record is built from; ``spec`` first.
LIFE_FIELDS = (
    "spec",
    "status",
    "created",
    "queued",
    "started",
    "completed",
    "due",
    "attempt",
    "crashes",
    "worker",
    "progress",
    "message",
    "reason",
    "error",
    "base",
    "approval",
    "deliveries",
    "queue",
    "parked",
)
#: Reason of a queued job; ``Reader`` replaces it if no live worker carries the job's type.
WAITING = "waiting for a free worker"
_APPROVALS = {b"1": "waits"}


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(value)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="replace")


def make_record(
    job_id: str,
    life: list[bytes | None],
    *,
    result: bytes | None = None,
    chain: list[bytes] | None = None,
) -> JobRecord:
    """Return the record of a job.

    Args:
        job_id: Id of the job.
        life: Values of ``LIFE_FIELDS``, in that order.
        result: Content of ``result:ID``.
        chain: Content of ``receipts:ID``; without it the record has no list of attempts.
    """
    row = dict(zip(LIFE_FIELDS, life, strict=True))
    job = read_job(job_id, row["spec"])
    created = row["created"]
    return JobRecord(
        job_id=job_id,
        trace_id=job.trace,
        job_type=job.job_type,
        status=_text(row["status"]),
        source=job.source,
        actor=job.actor,
        trust=job.trust,
        on_dependency_failure=job.on_dependency_failure,
        project=job.project,
        session_id=job.session_id,
        priority=job.rank,
        progress=_progress(row),
        progress_message=_text(row["message"]),
        attempt=_number(row["attempt"]),
        crashes=_number(row["crashes"]),
        attempts_before=_number(row["base"]),
        parked=_number(row["parked"]),
        max_retries=job.max_retries,
        worker_id=None if row["worker"] is None else _text(row["worker"]),
        payload=msgspec.to_builtins(job.payload),
        result=None if result is None else msgspec.json.decode(result),
        error=None if row["error"] is None else msgspec.json.decode(row["error"], type=JobError),
        created_at=utc(created),
        queued_at=utc(created if row["queued"] is None else row["queued"]),
        started_at=utc(row["started"]),
        completed_at=utc(row["completed"]),
        due_at=utc(row["due"]),
        depends_on=list(job.depends_on),
        receipt_id=receipt_id_of(job_id),
        reason=_reason(row, job),
        attempts=[] if chain is None else read_attempts(chain),
        timeout_seconds=job.timeout_seconds,
        resources=dict(job.resources),
        metadata=dict(job.metadata),
        idempotency_key=job.idempotency_key,
        approval=_approval(row["approval"]),
        version=job.version,
    )


def read_job(job_id: str, spec: bytes | None) -> Job:
    """Return a job under its id in the store; an ``UnreadableJob`` if this version cannot read it."""
    data = b"{}" if spec is None else spec
    try:
        return msgspec.structs.replace(decode_job(data), job_id=job_id)
    except InvalidJob:
        return UnreadableJob.of(job_id, data)


def _approval(value: bytes | None) -> str:
    return "" if value is None else _APPROVALS.get(value, value.decode())


def _progress(row: dict[str, bytes | None]) -> float:
    if row["status"] == b"completed":
        return 100.0
    return 0.0 if row["progress"] is None else float(row["progress"])


def _reason(row: dict[str, bytes | None], job: Job) -> str:
    """Return why the job is in its state; most states need no stored reason."""
    reason = _text(row["reason"])
    if reason:
        return reason
    status = _text(row["status"])
    if status == State.QUEUED:
        return WAITING
    if status == State.SCHEDULED and row["due"] is not None:
        due = datetime.fromtimestamp(int(row["due"]) / 1000, tz=UTC)
        return f"scheduled for {due:%Y-%m-%d %H:%M:%S} UTC"
    if status == State.PROCESSING:
        return f"{_attempts(row, job).label} is running on {_text(row['worker'])}{_notes(row, job)}"
    if status == State.COMPLETED:
        return f"{_attempts(row, job).label} succeeded{_notes(row, job)}"
    return status


def _attempts(row: dict[str, bytes | None], job: Job) -> AttemptCount:
    return AttemptCount(
        attempt=_number(row["attempt"]),
        max_retries=job.max_retries,
        lost=_number(row["crashes"]),
        parked=_number(row["parked"]),
        before=_number(row["base"]),
    )


def _notes(row: dict[str, bytes | None], job: Job) -> str:
    notes = _attempts(row, job).notes
    return f"; {', '.join(notes)}" if notes else ""


class ChainLine(Struct, frozen=True, gc=False):
    """A line of a receipt chain as the store functions write it.

    Attributes:
        at: When, in milliseconds since 1970 by the store's clock.
        status: The state that the job came into.
        attempt: Number of the attempt, 0 before the first.
        worker: Id of the worker.
        reason: Why the job came into this state.
        input_sha256: Of the payload; in the first line only.
        result_sha256: Of the result; at the end of an attempt only.
    """

    at: int
    status: str
    attempt: int = 0
    worker: str | None = None
    reason: str = ""
    input_sha256: str = ""
    result_sha256: str | None = None


@cache
def _line_decoder() -> msgspec.json.Decoder[ChainLine]:
    return msgspec.json.Decoder(ChainLine)  # takes 0.1 ms


def decode_chain(chain: Sequence[bytes]) -> list[ChainLine]:
    """Return the lines of a receipt chain, oldest first."""
    decode = _line_decoder().decode
    return [decode(raw) for raw in chain]


def read_attempts(chain: list[bytes]) -> list[Attempt]:
    """Return the attempts that a receipt chain records."""
    attempts: list[Attempt] = []
    open_attempt = False
    for line in decode_chain(chain):
        at = str(utc(line.at))
        if line.status == State.PROCESSING:
            attempts.append(Attempt(line.attempt, line.worker, at))
            open_attempt = True
        elif open_attempt:
            attempts[-1] = msgspec.structs.replace(
                attempts[-1], ended_at=at, status=line.status, reason=line.reason
            )
            open_attempt = False
    return attempts


def read_receipt(job: Job, chain: list[bytes], *, duplicate: bool = False) -> Receipt:
    """Return the receipt of a job from its receipt chain.

    Args:
        job: What was submitted.
        chain: Its lines, the first one first.
        duplicate: Whether the caller's submission was answered with this earlier job.
    """
    lines = decode_chain(chain)
    ends = [line for line in lines if line.attempt and line.status not in {State.PROCESSING, State.QUEUED}]
    return make_receipt(
        job,
        [
            Transition(str(utc(line.at)), line.status, line.attempt, line.worker, line.reason)
            for line in lines
        ],
        input_sha256=lines[0].input_sha256,
        result_sha256=ends[-1].result_sha256 if ends else None,
        duplicate=duplicate,
    )


def stored_receipt(store: Store, keys: Keys, job_id: str, *, duplicate: bool = False) -> Receipt:
    """Return a job's receipt from the store.

    Args:
        store: The store.
        keys: Key names of the bridge.
        job_id: The job's whole id.
        duplicate: Whether the caller's submission was answered with this earlier job.

    Raises:
        JobNotFound: The store does not have the job.
        StoreUnreachable: The store is unavailable.
    """
    spec, chain = store.read(
        [("HGET", keys.job(job_id), "spec"), ("LRANGE", keys.receipts(job_id), 0, -1)],
    )
    if spec is None or not chain:
        raise job_not_found(job_id)
    return read_receipt(read_job(job_id, spec), chain, duplicate=duplicate)


def job_not_found(job_id: str) -> JobNotFound:
    """Return the error for a job that the store does not have."""
    return JobNotFound(f"Job {job_id!r} not found.", remedy="'3ox jobs --all' lists all jobs.")
