"""Renew the worker's lease and publish what the worker is doing."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from middleware.broker.broker import BridgeBroker
from middleware.job_middleware import JobMiddleware
from ops.environment import variable
from ops.errors import BridgeError
from ops.store.resp import Argument
from ops.threads import start_duty

#: Interval between two tries while the store is unavailable.
_RETRY_S = 0.5


class Heartbeat(JobMiddleware):
    """Renews the worker's lease every ``interval_s`` seconds and gives it up on a clean stop.

    Each ``fetch`` renews the lease too; the heartbeat is for a worker whose threads are all busy. It is not a
    ``PeriodicMiddleware``: it starts at once, retries sooner and goes on until the last job has ended.

    Args:
        interval_s: Interval between two heartbeats; a third of the lease or less, so that two may be lost.
    """

    def __init__(self, *, interval_s: float) -> None:
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._threads = 0
        self._worker: Any = None
        self._since_ms = time.time_ns() // 1_000_000

    def worker_started(self, broker: BridgeBroker, worker: Any) -> None:
        """Start the thread."""
        self._threads, self._worker = worker.worker_threads, worker
        self._thread = start_duty("heartbeat", self._run, broker, ended=self._stopping.is_set)

    def worker_stopped(self, broker: BridgeBroker, worker: Any) -> None:
        """Give up the lease, unless jobs are unfinished: then it expires and they are recovered."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=self._interval_s + 1)
        try:
            broker.left = broker.scripts.leave(broker.worker_id) == 0
        except BridgeError as error:
            broker.outage.begin(error)

    def _fields(self, broker: BridgeBroker) -> dict[str, Argument]:
        tally = broker.tally
        queues = sorted(self._worker.consumers)
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "threads": self._threads,
            "unit": variable("BRIDGE_UNIT"),
            "types": " ".join(broker.carried(queues)),
            "queues": " ".join(queues),
            "since": self._since_ms,
            "completed": tally["completed"],
            "failed": tally["failed"],
        }

    def _run(self, broker: BridgeBroker) -> None:
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            if broker.vitals is not None:
                broker.vitals.beat()
            try:
                broker.scripts.beat(broker.worker_id, broker.lease_ms, self._fields(broker))
            except BridgeError as error:
                broker.outage.begin(error)
                wait_s = min(self._interval_s, _RETRY_S)
            else:
                broker.store_answered()
                wait_s = self._interval_s
