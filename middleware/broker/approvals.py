"""Jobs that wait until somebody approves them: the decision, its end by time, and the list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from middleware.job.keys import Keys
from ops.store.resp import well_formed

if TYPE_CHECKING:
    from middleware.broker.scripts import Scripts

APPROVED = "approved"
#: How many jobs one call lets expire: about a millisecond of the store's time.
_BATCH = 50
#: Of a reason that somebody gives.
_REASON_MAX = 500


class Decision(Struct, frozen=True, gc=False):
    """What became of a decision; ``outcome`` is one of the words of ``approve.lua``.

    Attributes:
        outcome: ``approved``, ``denied``, ``expired``, ``already``, ``refused`` or ``unknown``.
        status: Of the job, afterwards.
        approval: For ``refused``: how it had been decided before, empty if there was nothing to decide.
    """

    outcome: str
    status: str
    approval: str = ""


def span(seconds: float) -> str:
    """Write a time as people say it: ``7 days``, ``90 min``."""
    for size_s, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:g} {unit}"
    return f"{seconds:g} s"


class Approvals:
    """Decides on jobs that are held for approval.

    Args:
        scripts: Where they are.
        ttl_s: For how long a job waits before it is cancelled, in seconds.
    """

    def __init__(self, scripts: Scripts, *, ttl_s: float) -> None:
        self._scripts = scripts
        self._keys = Keys(scripts.prefix)
        self._ttl_ms = round(ttl_s * 1000)
        self._too_late = f"expired: not approved within {span(ttl_s)}"

    def approve(self, job_id: str, actor: str, reason: str = "") -> Decision:
        """Let a job go on; the same decision again does no harm."""
        return self._decide("approve", job_id, _said("approved", actor, reason))

    def deny(self, job_id: str, actor: str, reason: str = "") -> Decision:
        """Cancel a job that waits; the same decision again does no harm."""
        return self._decide("deny", job_id, _said("denied", actor, reason))

    def _decide(self, decision: str, job_id: str, reason: str) -> Decision:
        reply = self._scripts.run("approve", decision, job_id, reason, self._ttl_ms, self._too_late)
        return Decision(*[word.decode() for word in reply])

    def expire(self) -> list[str]:
        """Cancel those that waited too long, some at a time.

        Returns:
            Their ids; none when that was all.
        """
        reply = self._scripts.run("approve", "expire", "", "", self._ttl_ms, self._too_late, _BATCH)
        return [word.decode() for word in reply]

    def waiting(self, limit: int) -> list[str]:
        """Give the ids of jobs that wait for approval, the oldest first.

        Args:
            limit: How many at most.
        """
        rows = self._scripts.store.call("ZRANGE", self._keys.approvals, 0, limit - 1)
        return [row.decode() for row in rows]

    def is_approved(self, job_id: str) -> bool:
        """Tell whether somebody has approved this job."""
        said = self._scripts.store.call("HGET", self._keys.job(job_id), "approval")
        return bool(said == APPROVED.encode())


def _said(what: str, actor: str, reason: str) -> str:
    who = f"{what} by {actor}" if actor else what
    return well_formed(f"{who}: {reason}" if reason else who)[:_REASON_MAX]
