"""Cancels jobs that nobody has approved in time."""

from __future__ import annotations

import logging
import random
import threading
from typing import Any

import dramatiq
from dramatiq.broker import Broker

from middleware.broker.approvals import Approvals
from middleware.broker.broker import BridgeBroker
from ops.errors import BridgeError
from ops.threads import start_duty

logger = logging.getLogger(__name__)


class ApprovalExpiry(dramatiq.Middleware):
    """Looks every so often for jobs that have waited for approval too long; ``approve.lua`` ends them.

    Every worker does so; two at the same time do no harm. Where none runs, a late approval is refused all the
    same, since the script looks at the time itself.

    Args:
        approvals: Where they wait.
        ttl_s: How long they may, in seconds.
        interval_s: Between two looks at most, in seconds.
    """

    def __init__(self, approvals: Approvals, *, ttl_s: float, interval_s: float = 60.0) -> None:
        self._approvals = approvals
        self._interval_s = min(interval_s, ttl_s / 2)
        self._stopping = threading.Event()

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start to look."""
        start_duty("approvals", self._run, broker, ended=self._stopping.is_set)

    def before_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Stop to look."""
        self._stopping.set()

    def _run(self, broker: BridgeBroker) -> None:
        while not self._stopping.wait(self._interval_s * random.uniform(0.5, 1.0)):  # noqa: S311
            try:
                # A batch keeps the store busy for a moment only; whoever else looks takes the next one.
                while not self._stopping.is_set() and (expired := self._approvals.expire()):
                    for job_id in expired:
                        logger.info("job.expired", extra={"job_id": job_id})
            except BridgeError as error:
                broker.outage.begin(error)
