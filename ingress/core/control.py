"""What can be done to a job that was submitted: cancel, retry, approve, deny."""

from __future__ import annotations

import contextlib

import msgspec

from ingress.core.bridge import Bridge
from ingress.core.lookup import not_in_store
from middleware.broker.approvals import ApprovalOutcome
from middleware.job.records import JobRecord, Receipt
from ops.errors import JobNotFound, WrongState


class CancelReply(msgspec.Struct, frozen=True):
    """What ``cancel`` did.

    Attributes:
        job_id: The job.
        outcome: ``cancelled`` (it never started), ``cancelling`` (its worker is stopping it) or ``finished``
            (it had completed, failed or been cancelled already).
        status: The job's state now.
        was: Its state before.
    """

    job_id: str
    outcome: str
    status: str
    was: str = ""


def cancel(bridge: Bridge, part: str, reason: str) -> CancelReply:
    """Cancel a job; see ``ingress.dispatch.cancel``."""
    job_id = _resolve(bridge, part)
    outcome, status = bridge.scripts.cancel(job_id, reason)
    if outcome == "unknown":
        raise not_in_store(bridge, job_id)
    return CancelReply(job_id, outcome, outcome if outcome == "cancelled" else status, was=status)


def retry(bridge: Bridge, part: str, reason: str) -> Receipt:
    """Queue a failed or cancelled job again; see ``ingress.dispatch.retry``."""
    job_id = _resolve(bridge, part)
    outcome, status = bridge.scripts.requeue(job_id, reason)
    if outcome == "refused":
        raise WrongState(
            f"{job_id} is {status}; only failed and cancelled jobs can be retried.",
            remedy="Cancel it first, or submit a new job.",
        )
    if outcome == "unknown":
        raise not_in_store(bridge, job_id)
    return bridge.reader.receipt(job_id)


def approve(bridge: Bridge, part: str, actor: str, reason: str = "") -> Receipt:
    """Approve a job that waits for approval; see ``ingress.dispatch.approve``."""
    job_id = _resolve(bridge, part)
    return _decided(bridge, job_id, "approved", bridge.approvals.approve(job_id, actor, reason))


def deny(bridge: Bridge, part: str, actor: str, reason: str = "") -> Receipt:
    """Deny a job that waits for approval; see ``ingress.dispatch.deny``."""
    job_id = _resolve(bridge, part)
    return _decided(bridge, job_id, "denied", bridge.approvals.deny(job_id, actor, reason))


def list_approvals(bridge: Bridge, limit: int = 50) -> list[JobRecord]:
    """Return the jobs that wait for approval, the oldest first; see ``ingress.dispatch.list_approvals``."""
    found = []
    for job_id in bridge.approvals.waiting(limit):
        with contextlib.suppress(JobNotFound):  # decided and deleted in between
            found.append(bridge.reader.job(job_id))
    return found


def _decided(bridge: Bridge, job_id: str, wanted: str, decision: ApprovalOutcome) -> Receipt:
    """Return the receipt of a job that was decided about.

    Raises:
        WrongState: The decision was refused.
    """
    if decision.outcome == "unknown":
        raise not_in_store(bridge, job_id)
    if decision.outcome == "expired":
        why = bridge.reader.job(job_id).reason
        raise WrongState(f"{job_id} can no longer be {wanted}: {why}.", remedy="Submit a new job.")
    if decision.outcome == "refused":
        before = f"; it was {decision.approval}" if decision.approval else ""
        raise WrongState(
            f"{job_id} is {decision.status} and does not wait for approval{before}.",
            remedy="'3ox jobs --status held' lists the jobs that wait, and for what.",
        )
    return bridge.reader.receipt(job_id)


def _resolve(bridge: Bridge, part: str) -> str:
    """Return the whole id of a job in the store; a whole id is returned without a look-up."""
    try:
        return bridge.reader.resolve(part)
    except JobNotFound as error:
        raise not_in_store(bridge, part) from error
