"""What the page of one job shows, and the proof of its receipt."""

from __future__ import annotations

from typing import Any

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
from ops.errors import JobNotFound, StoreUnreachable

#: Of a long output the page shows the last pieces; each is at most 8 kB.
OUTPUT_PIECES_MAX = 400
_START = "0-0"
_RETRIED = frozenset({State.FAILED, State.CANCELLED})


class OutputPiece(Struct, frozen=True):
    """A piece of output, harmless."""

    stream: str
    text: str


class JobOutput(Struct, frozen=True, kw_only=True):
    """What a job has written.

    Attributes:
        pieces: The end of it.
        last: Id of the last piece; the page goes on from there.
        cut: There is more before.
    """

    pieces: list[OutputPiece]
    last: str = _START
    cut: bool = False


class TimelineStep(Struct, frozen=True, kw_only=True):
    """One transition, with the time since the one before."""

    at: str
    status: str
    attempt: int
    worker_id: str | None
    reason: str
    after_ms: float | None


class JobDependency(Struct, frozen=True):
    """A job that this one waited for.

    Attributes:
        record: None if nobody knows it any more, or nobody can say.
        is_away: Nobody can say: it is not in the spool, and the store is away.
    """

    job_id: str
    record: JobRecord | None
    is_away: bool = False


class JobView(Struct, frozen=True, kw_only=True):
    """The page of one job.

    Attributes:
        acts: What can be done to it now: ``cancel``, ``retry``, ``approve``, ``deny``.
        text: The result, if it is a text for people.
        is_on_disk: The store does not have it: it lies in the spool, or was set aside from there.
    """

    record: JobRecord
    receipt: Receipt
    steps: list[TimelineStep]
    needs: list[JobDependency]
    acts: list[str]
    text: str | None
    is_on_disk: bool


def resolve(dashboard: DashboardState, part: str) -> str:
    """Complete a shortened job id; blocks on the store.

    Raises:
        JobNotFound: Neither store nor history nor spool has it.
    """
    return find(dashboard.bridge, part).job_id


def read_job(dashboard: DashboardState, part: str) -> JobView:
    """Read a job; blocks on the store.

    Args:
        dashboard: Where.
        part: Its id, or a unique part of it.

    Raises:
        JobNotFound: Neither store nor history nor spool has it.
        StoreUnreachable: The store is away, and the spool has none.
    """
    job = find(dashboard.bridge, part)
    record, receipt = job.record(), job.receipt()
    on_disk = job.source is Source.SPOOL
    return JobView(
        record=record,
        receipt=receipt,
        steps=_steps(receipt),
        needs=[_relative(dashboard, job_id) for job_id in record.depends_on],
        # What is on disk only nothing can be done to: the store has to take it first.
        acts=[] if on_disk else acts_of(record),
        text=_text(record.result),
        is_on_disk=on_disk,
    )


def acts_of(record: JobRecord) -> list[str]:
    """Give what can be done to a job now."""
    if record.approval == "waits" and record.status == State.HELD:
        return ["approve", "deny"]
    if record.status in _RETRIED:
        return ["retry"]
    return [] if record.is_final else ["cancel"]


def read_output(dashboard: DashboardState, view: JobView) -> JobOutput:
    """Read the end of a job's output; blocks on the store."""
    if view.is_on_disk:
        return JobOutput(pieces=[])
    job_id = view.record.job_id
    key = dashboard.bridge.reader.keys.output(job_id)
    rows = dashboard.bridge.store.call("XREVRANGE", key, "+", "-", "COUNT", OUTPUT_PIECES_MAX + 1)
    if not rows and dashboard.bridge.reader.status_of(job_id) is None:
        archived = JobHandle(dashboard.bridge, job_id, source=Source.HISTORY).output()
        return JobOutput(pieces=[OutputPiece(chunk.stream, output_text(chunk.text)) for chunk in archived])
    kept = rows[:OUTPUT_PIECES_MAX][::-1]
    pieces = [
        OutputPiece(row[1][1].decode(), output_text(row[1][3].decode(errors="replace"))) for row in kept
    ]
    last = rows[0][0].decode() if rows else _START
    return JobOutput(pieces=pieces, last=last, cut=len(rows) > OUTPUT_PIECES_MAX)


def read_proof(dashboard: DashboardState, job_id: str) -> Proof | None:
    """Prove a job's receipt; waits a moment for what is to be sealed yet.

    Args:
        dashboard: Where.
        job_id: The whole id.

    Returns:
        The proof; None if neither store nor history has the job, so that there is nothing to compare.
    """
    try:
        return verify_receipt(dashboard.bridge, job_id)
    except JobNotFound:
        return None


def is_on_disk(dashboard: DashboardState, job_id: str) -> bool:
    """Tell whether the store does not have a job, but the spool does; blocks on the store, briefly."""
    return spooled_record(dashboard.bridge, job_id) is not None


def _steps(receipt: Receipt) -> list[TimelineStep]:
    steps: list[TimelineStep] = []
    before: str | None = None
    for line in receipt.transitions:
        seconds = None if before is None else seconds_between(before, line.at)
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
        before = line.at
    return steps


def _relative(dashboard: DashboardState, job_id: str) -> JobDependency:
    try:
        return JobDependency(job_id, find(dashboard.bridge, job_id).record())
    except JobNotFound:
        return JobDependency(job_id, None)
    except StoreUnreachable:
        return JobDependency(job_id, None, is_away=True)


def _text(result: Any) -> str | None:
    text = result.get("text") if isinstance(result, dict) else None
    return output_text(text) if isinstance(text, str) and text else None
