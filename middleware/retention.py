"""Remove final jobs that are too old or too many, also while no new ones come."""

from __future__ import annotations

from middleware.broker.broker import BridgeBroker
from middleware.broker.maintenance import remove_old_jobs
from middleware.periodic import PeriodicMiddleware


class Retention(PeriodicMiddleware):
    """Bounds the age and the number of final jobs in the store; the history keeps them longer.

    Args:
        retention_s: How long a final job is kept.
        finished_max: How many final jobs are kept, per queue and state.
        interval_s: Interval between two rounds; at most ``retention_s``.
    """

    def __init__(self, *, retention_s: float, finished_max: int, interval_s: float = 300.0) -> None:
        super().__init__(interval_s=min(interval_s, retention_s))
        self._retention_s = retention_s
        self._finished_max = finished_max

    def run_once(self, broker: BridgeBroker) -> None:
        """Remove jobs."""
        remove_old_jobs(
            broker.scripts,
            retention_s=self._retention_s,
            finished_max=self._finished_max,
            stopping=self.stopping,
        )
