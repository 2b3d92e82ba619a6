"""Content of the page of one job, and the proof of its receipt."""

from __future__ import annotations

from msgspec import Struct

from ingress.core.ledger_proofs import verify_receipt
from ingress.core.lookup import JobHandle, Source, find
from ingress.core.spooled_jobs import spooled_record
from ingress.core.text import seconds_between
from ingress.dashboard.labels import output_text
from ingress.dashboard.state import DashboardState
from middleware.archive.proof import Proof
from middleware.job.records import JobRecord, Receipt
from middleware.job.states import State
from middleware.job.texts import is_answer, result_text
from middleware.job.types import JOB_TYPES
from ops.errors import JobNotFound, StoreUnreachable

#: Chunks of output that the page shows: the last ones, at most 8 kB each.
OUTPUT_CHUNKS_MAX = 400
_START = "0-0"
_CAN_BE_RETRIED = frozenset({State.FAILED, State.CANCELLED})


class SafeChunk(Struct, frozen=True):
    """A chunk of output without control sequences."""

    stream: str
    text: str


class JobOutput(Struct, frozen=True, kw_only=True):
    """The output of a job.

    Attributes:
        chunks: The last chunks.
        last: Id of the last chunk; the page resumes after it.
        is_cut: Earlier output is omitted.
    """

    chunks: list[SafeChunk]
    last: str = _START
    is_cut: bool = False


class TimelineStep(Struct, frozen=True, kw_only=True):
    """A state change, with the time since the previous one."""

    at: str
    status: str
    attempt: int
    worker_id: str | None
    reason: str
    after_ms: float | None


class JobDependency(Struct, frozen=True):
    """A dependency of a job.

    Attributes:
        record: None if the job no longer exists, or cannot be read now.
        is_unreadable: It cannot be read: it is not in the spool, and the store is unavailable.
    """

    job_id: str
    record: JobRecord | None
    is_unreadable: bool = False


class JobView(Struct, frozen=True, kw_only=True):
    """The page of one job.

    Attributes:
        actions: Actions possible now: ``cancel``, ``retry``, ``approve``, ``deny``.
        text: The result, if it is plain text.
        is_on_disk: The job is in the spool, pending or quarantined, and not in the store.
        summary: What jobs of its type do; empty if the type is unknown.
    """

    record: JobRecord
    receipt: Receipt
    steps: list[TimelineStep]
    dependencies: list[JobDependency]
    actions: list[str]
    text: str | None
    is_on_disk: bool
    summary: str


def resolve(dashboard: DashboardState, part: str) -> str:
    """Return the full id of a job; blocks on the store.

    Raises:
        JobNotFound: Neither store nor history nor spool has the job.
    """
    return find(dashboard.bridge, part).job_id


def read_job(dashboard: DashboardState, part: str) -> JobView:
    """Read a job; blocks on the store.

    Args:
        dashboard: State of the dashboard.
        part: The job's id, or a unique part of it.

    Raises:
        JobNotFound: Neither store nor history nor spool has the job.
        StoreUnreachable: The store is unavailable, and the spool does not have the job.
    """
    job = find(dashboard.bridge, part)
    record, receipt = job.record(), job.receipt()
    on_disk = job.source is Source.SPOOL
    return JobView(
        record=record,
        receipt=receipt,
        steps=_steps(receipt),
        dependencies=[_dependency(dashboard, job_id) for job_id in record.depends_on],
        # No action is possible before the store has accepted the job.
        actions=[] if on_disk else actions_on(record),
        text=_text(record),
        is_on_disk=on_disk,
        summary=_summary(dashboard, record.job_type),
    )


def actions_on(record: JobRecord) -> list[str]:
    """Return the actions that are possible on a job now."""
    if record.approval == "waits" and record.status == State.HELD:
        return ["approve", "deny"]
    if record.status in _CAN_BE_RETRIED:
        return ["retry"]
    return [] if record.is_final else ["cancel"]


def read_output(dashboard: DashboardState, view: JobView) -> JobOutput:
    """Read the end of a job's output; blocks on the store."""
    if view.is_on_disk:
        return JobOutput(chunks=[])
    job_id = view.record.job_id
    key = dashboard.bridge.reader.keys.output(job_id)
    rows = dashboard.bridge.store.call("XREVRANGE", key, "+", "-", "COUNT", OUTPUT_CHUNKS_MAX + 1)
    if not rows and dashboard.bridge.reader.status_of(job_id) is None:
        archived = JobHandle(dashboard.bridge, job_id, source=Source.HISTORY).output()
        return JobOutput(chunks=[SafeChunk(chunk.stream, output_text(chunk.text)) for chunk in archived])
    kept = rows[:OUTPUT_CHUNKS_MAX][::-1]
    chunks = [SafeChunk(row[1][1].decode(), output_text(row[1][3].decode(errors="replace"))) for row in kept]
    last = rows[0][0].decode() if rows else _START
    return JobOutput(chunks=chunks, last=last, is_cut=len(rows) > OUTPUT_CHUNKS_MAX)


def read_proof(dashboard: DashboardState, job_id: str) -> Proof | None:
    """Verify a job's receipt against the ledger; waits briefly for state changes that are not sealed yet.

    Args:
        dashboard: State of the dashboard.
        job_id: The full id.

    Returns:
        The proof; None if neither store nor history has the job.
    """
    try:
        return verify_receipt(dashboard.bridge, job_id)
    except JobNotFound:
        return None


def is_on_disk(dashboard: DashboardState, job_id: str) -> bool:
    """Return whether a job is in the spool and not in the store; blocks on the store, briefly."""
    return spooled_record(dashboard.bridge, job_id) is not None


def _steps(receipt: Receipt) -> list[TimelineStep]:
    steps: list[TimelineStep] = []
    previous_at: str | None = None
    for line in receipt.transitions:
        seconds = None if previous_at is None else seconds_between(previous_at, line.at)
        steps.append(
            TimelineStep(
                at=line.at,
                status=line.status,
                attempt=line.attempt,
                worker_id=line.worker_id,
                reason=line.reason,
                after_ms=None if seconds is None else seconds * 1000,
            )
        )
        previous_at = line.at
    return steps


def _summary(dashboard: DashboardState, job_type: str) -> str:
    try:
        found = dashboard.bridge.admission.types.find(job_type)
    except StoreUnreachable:
        return ""  # the job itself is in the spool or the history
    return "" if found is None else found.summary


def _dependency(dashboard: DashboardState, job_id: str) -> JobDependency:
    try:
        return JobDependency(job_id, find(dashboard.bridge, job_id).record())
    except JobNotFound:
        return JobDependency(job_id, None)
    except StoreUnreachable:
        return JobDependency(job_id, None, is_unreadable=True)


def _text(record: JobRecord) -> str | None:
    """Return the answer in a job's result; None if there is none, as where the output has all of it."""
    text = result_text(record) if is_answer(record) or record.job_type not in JOB_TYPES else ""
    return output_text(text) if text else None
