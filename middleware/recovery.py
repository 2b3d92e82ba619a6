"""Recover the jobs of workers that died."""

from __future__ import annotations

from middleware.broker.broker import BridgeBroker
from middleware.broker.maintenance import recover_jobs
from middleware.periodic import PeriodicMiddleware


class Recovery(PeriodicMiddleware):
    """Takes back the jobs of every worker whose lease has ended.

    Every worker does so, and the leading scheduler: whichever process is left recovers the jobs of the
    others.

    Args:
        interval_s: Interval between two checks; a third of the lease, see ``recover.lua``.
    """

    def __init__(self, *, interval_s: float) -> None:
        super().__init__(interval_s=interval_s)

    def run_once(self, broker: BridgeBroker) -> None:
        """Recover jobs."""
        recover_jobs(broker.scripts, lease_ms=broker.lease_ms)
