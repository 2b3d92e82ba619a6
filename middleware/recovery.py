"""Takes back the jobs of workers that have died."""

from __future__ import annotations

import logging
import random
import threading
from typing import Any

import dramatiq
from dramatiq.broker import Broker

from middleware.broker.broker import BridgeBroker
from middleware.job.records import utc_now
from ops.errors import BridgeError
from ops.threads import start_duty

logger = logging.getLogger(__name__)


class Recovery(dramatiq.Middleware):
    """Runs ``recover`` for every worker whose lease has ended.

    Every worker does so, on no schedule but its own: whoever is left recovers the others. Two at the same
    time do no harm, since the script is one step.

    Args:
        interval_s: Between two looks; a third of the lease, see ``recover.lua``.
    """

    def __init__(self, *, interval_s: float) -> None:
        self._interval_s = interval_s
        self._stopping = threading.Event()

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start to look."""
        start_duty("recovery", self._run, broker, ended=self._stopping.is_set)

    def before_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Stop to look."""
        self._stopping.set()

    def _run(self, broker: BridgeBroker) -> None:
        while not self._stopping.wait(self._interval_s * random.uniform(0.5, 1.0)):  # noqa: S311
            try:
                recovered = broker.scripts.recover(
                    how=f"its lease ended, seen at {utc_now()}", lease_ms=broker.lease_ms
                )
            except BridgeError as error:
                broker.outage.begin(error)
                continue
            for worker_id, job_id, status in recovered:
                logger.warning(
                    "job.recovered",
                    extra={"job_id": job_id, "from_worker": worker_id, "status": status},
                )
