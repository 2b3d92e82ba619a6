"""Build the receipts of jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from middleware.job.base import POLICY_MARK, Job
from middleware.job.records import JobRecord, Receipt, Transition, receipt_id_of, utc

_canonical = msgspec.json.Encoder(order="sorted")


def canonical_payload(job: Job) -> bytes:
    """Return a job's payload as canonical JSON: sorted keys, no spaces."""
    return _canonical.encode(job.payload)


def payload_sha256(job: Job) -> str:
    """Return the SHA-256 of a job's payload as canonical JSON, in hex."""
    return hashlib.sha256(canonical_payload(job)).hexdigest()


def make_receipt(
    job: Job | JobRecord,
    transitions: Sequence[Transition],
    *,
    input_sha256: str,
    result_sha256: str | None = None,
    duplicate: bool = False,
) -> Receipt:
    """Build the receipt of a job.

    Args:
        job: The job, or its record.
        transitions: Its transitions so far, oldest first; at least one.
        input_sha256: ``payload_sha256`` of the job.
        result_sha256: SHA-256 of its result as stored, in hex.
        duplicate: Whether the submission was a duplicate of this earlier job.
    """
    attempt, worker_id = 0, None
    for transition in transitions:
        attempt = transition.attempt if transition.attempt else attempt
        worker_id = transition.worker_id if transition.worker_id else worker_id
    return msgspec.structs.replace(
        _not_started(job, list(transitions), input_sha256),
        attempt=attempt,
        worker_id=worker_id,
        result_sha256=result_sha256,
        duplicate=duplicate,
    )


def first_receipt(job: Job, *, status: str, at_ms: int, input_sha256: str) -> Receipt:
    """Build the receipt of a job that has just been accepted.

    Args:
        job: The job.
        status: Its first state.
        at_ms: Time of acceptance, in ms since 1970.
        input_sha256: ``payload_sha256`` of the job.
    """
    return _not_started(job, [Transition(str(utc(at_ms)), status)], input_sha256)


def _not_started(job: Job | JobRecord, transitions: list[Transition], input_sha256: str) -> Receipt:
    last = transitions[-1]
    # 14 keywords: CPython passes more than 15 in a dictionary, which takes 0.7 us instead of 0.2 us.
    return Receipt(
        receipt_id=receipt_id_of(job.job_id),
        job_id=job.job_id,
        trace_id=job.job_id if job.trace_id is None else job.trace_id,
        job_type=job.job_type,
        source=job.source,
        actor=job.actor,
        project=job.project,
        status=last.status,
        trust=job.trust,
        input_sha256=input_sha256,
        created_at=transitions[0].at,
        updated_at=last.at,
        transitions=transitions,
        policy=job.metadata.get(POLICY_MARK, ""),
    )
