"""Cancel jobs whose approval is overdue."""

from __future__ import annotations

from middleware.broker.approvals import Approvals
from middleware.broker.broker import BridgeBroker
from middleware.broker.maintenance import expire_approvals
from middleware.periodic import PeriodicMiddleware


class ApprovalExpiry(PeriodicMiddleware):
    """Cancels jobs that were not approved in time, see ``approve.lua``.

    Where no worker runs, a late approval is refused all the same: the store function checks the time itself.

    Args:
        approvals: The jobs that wait for approval.
        ttl_s: How long a job may wait for approval.
        interval_s: Interval between two checks; at most half of ``ttl_s``.
    """

    def __init__(self, approvals: Approvals, *, ttl_s: float, interval_s: float = 60.0) -> None:
        super().__init__(interval_s=min(interval_s, ttl_s / 2))
        self._approvals = approvals

    def run_once(self, broker: BridgeBroker) -> None:
        """Cancel what is overdue."""
        expire_approvals(self._approvals, stopping=self.stopping)
