"""Deletes jobs that ended long ago, also when no new ones come."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Any

import dramatiq
from dramatiq.broker import Broker

from middleware.broker.broker import BridgeBroker
from middleware.job.keys import QUEUES, Keys
from middleware.job.states import FINAL, State
from ops.errors import BridgeError
from ops.threads import start_duty

#: How many jobs one call deletes: about a millisecond of the store's time.
_BATCH = 50
#: How many calls one round makes at most; the next round goes on.
_BATCHES_MAX = 200

logger = logging.getLogger(__name__)


class Retention(dramatiq.Middleware):
    """Keeps the age and the number of ended jobs bounded.

    Each job that ends removes some old ones too (``retire`` in ``prelude.lua``), which bounds their number;
    this is for a bridge that falls silent. Every worker does so; two at the same time do no harm.

    Args:
        retention_s: How long an ended job is kept.
        finished_max: How many of each kind are kept.
        interval_s: Between two rounds.
    """

    def __init__(self, *, retention_s: float, finished_max: int, interval_s: float = 300.0) -> None:
        self._retention_s = retention_s
        self._finished_max = finished_max
        self._interval_s = min(interval_s, retention_s)
        self._stopping = threading.Event()

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start the rounds."""
        start_duty("retention", self._run, broker, ended=self._stopping.is_set)

    def before_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """End the rounds."""
        self._stopping.set()

    def _run(self, broker: BridgeBroker) -> None:
        while not self._stopping.wait(self._interval_s * random.uniform(0.5, 1.0)):  # noqa: S311
            try:
                kinds = [(queue, state) for queue in QUEUES for state in FINAL]
                deleted = sum(self._delete_old(broker, *kind) for kind in kinds)
                deleted += sum(self._delete_excess(broker, *kind) for kind in kinds)
            except BridgeError as error:
                broker.outage.begin(error)
                continue
            if deleted:
                logger.info("jobs.expired", extra={"jobs": deleted})

    def _delete_old(self, broker: BridgeBroker, queue: str, state: State) -> int:
        now_ms = int(broker.scripts.store.call("TIME")[0]) * 1000
        until_ms = now_ms - int(self._retention_s * 1000)
        return self._delete(broker, queue, state, _BATCH * _BATCHES_MAX, until_ms)

    def _delete_excess(self, broker: BridgeBroker, queue: str, state: State) -> int:
        key = Keys(broker.scripts.prefix).state(state, queue)
        excess = int(broker.scripts.store.call("ZCARD", key)) - self._finished_max
        return self._delete(broker, queue, state, min(excess, _BATCH * _BATCHES_MAX), None)

    def _delete(
        self, broker: BridgeBroker, queue: str, state: State, at_most: int, until_ms: int | None
    ) -> int:
        deleted = 0
        while deleted < at_most and not self._stopping.is_set():
            wanted = min(_BATCH, at_most - deleted)
            batch = broker.scripts.purge(state, wanted, until_ms, queue=queue)
            deleted += batch
            if batch < wanted:
                break
            time.sleep(0.001)  # let others have the store in between
        return deleted
