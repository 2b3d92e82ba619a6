"""Says that this worker lives, and what it is doing, as long as it does."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import dramatiq
from dramatiq.broker import Broker

from middleware.broker.broker import BridgeBroker
from ops.errors import BridgeError
from ops.store.resp import Argument
from ops.threads import start_duty


class Heartbeat(dramatiq.Middleware):
    """Renews the worker's lease every ``interval_s`` seconds and gives it up on a clean stop.

    Each ``fetch`` renews the lease too; the beat is for a worker whose threads are all busy.

    Args:
        interval_s: Between two beats; a third of the lease or less, so that two may be lost.
    """

    def __init__(self, *, interval_s: float) -> None:
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._threads = 0
        self._since_ms = time.time_ns() // 1_000_000

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start to beat."""
        self._threads = worker.worker_threads
        self._thread = start_duty("heartbeat", self._run, broker, ended=self._stopping.is_set)

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Give up the lease, unless jobs are still in hand: then it runs out and they are recovered."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=self._interval_s + 1)
        if isinstance(broker, BridgeBroker):
            try:
                broker.left = broker.scripts.leave(broker.worker_id) == 0
            except BridgeError as error:
                broker.outage.begin(error)

    def _fields(self, broker: BridgeBroker) -> dict[str, Argument]:
        tally = broker.tally
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "threads": self._threads,
            "unit": os.environ.get("BRIDGE_UNIT", ""),
            "since": self._since_ms,
            "completed": tally["completed"],
            "failed": tally["failed"],
        }

    def _run(self, broker: BridgeBroker) -> None:
        while True:
            if broker.vitals is not None:
                broker.vitals.beat()
            try:
                broker.scripts.beat(broker.worker_id, broker.lease_ms, self._fields(broker))
                broker.store_answered()
            except BridgeError as error:
                broker.outage.begin(error)
                if self._stopping.wait(min(self._interval_s, 0.5)):
                    return
                continue
            if self._stopping.wait(self._interval_s):
                return
