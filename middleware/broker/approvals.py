"""Jobs that wait for approval: the decision, its expiry, and the list of them."""

from __future__ import annotations

from msgspec import Struct

from middleware.broker.scripts import Scripts
from middleware.job.keys import Keys
from ops.store.resp import well_formed

APPROVED = "approved"
#: Jobs that one call expires, in about a millisecond.
_BATCH = 50
#: Length of a reason.
_REASON_MAX_CHARS = 500


class ApprovalOutcome(Struct, frozen=True, gc=False):
    """The outcome of a decision on a job, see ``approve.lua``.

    Attributes:
        outcome: ``approved``, ``denied``, ``expired``, ``already``, ``refused`` or ``unknown``.
        status: Status of the job afterwards.
        approval: For ``refused``: the earlier decision; empty if there was nothing to decide.
    """

    outcome: str
    status: str
    approval: str = ""


def span(seconds: float) -> str:
    """Return a duration as text, in the unit that fits: ``7 days``, ``90 min``."""
    for size_s, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:g} {unit}"
    return f"{seconds:g} s"


class Approvals:
    """Decides on jobs that are held for approval.

    Args:
        scripts: The store functions.
        ttl_s: How long a job waits before it is cancelled.
    """

    def __init__(self, scripts: Scripts, *, ttl_s: float) -> None:
        self._scripts = scripts
        self._keys = Keys(scripts.prefix)
        self._ttl_ms = round(ttl_s * 1000)
        self._too_late = f"expired: not approved within {span(ttl_s)}"

    def approve(self, job_id: str, actor: str, reason: str = "") -> ApprovalOutcome:
        """Approve a job; repeating the decision has no effect."""
        return self._decide("approve", job_id, _reason("approved", actor, reason))

    def deny(self, job_id: str, actor: str, reason: str = "") -> ApprovalOutcome:
        """Deny a job, which cancels it; repeating the decision has no effect."""
        return self._decide("deny", job_id, _reason("denied", actor, reason))

    def _decide(self, decision: str, job_id: str, reason: str) -> ApprovalOutcome:
        reply = self._scripts.run("approve", decision, job_id, reason, self._ttl_ms, self._too_late)
        return ApprovalOutcome(*[word.decode() for word in reply])

    def expire(self) -> list[str]:
        """Cancel up to ``_BATCH`` of the jobs that have waited too long.

        Returns:
            Their ids; empty if there are no more.
        """
        reply = self._scripts.run("approve", "expire", "", "", self._ttl_ms, self._too_late, _BATCH)
        return [word.decode() for word in reply]

    def waiting(self, limit: int) -> list[str]:
        """Return the ids of jobs that wait for approval, the oldest first.

        Args:
            limit: Number of ids at most.
        """
        rows = self._scripts.store.call("ZRANGE", self._keys.approvals, 0, limit - 1)
        return [row.decode() for row in rows]

    def is_approved(self, job_id: str) -> bool:
        """Return whether this job was approved."""
        value = self._scripts.store.call("HGET", self._keys.job(job_id), "approval")
        return bool(value == APPROVED.encode())


def _reason(what: str, actor: str, reason: str) -> str:
    who = f"{what} by {actor}" if actor else what
    return well_formed(f"{who}: {reason}" if reason else who)[:_REASON_MAX_CHARS]
