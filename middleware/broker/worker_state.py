"""State of a worker process that its consumers, its commits and its middleware share."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections import Counter

from middleware.broker.outage import Outage
from middleware.broker.scripts import Scripts
from middleware.broker.slots import Slots
from middleware.broker.timer import DueTimer
from middleware.broker.vitals import Vitals
from middleware.job.keys import Keys


def new_worker_id() -> str:
    """Return an id for this process: host, pid, and a random part, since pids are reused."""
    host = "".join(letter for letter in socket.gethostname() if letter.isalnum() or letter in "-.")[:24]
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(2)}"


class WorkerState:
    """One worker process, as the parts of its broker see it.

    Args:
        scripts: The store functions.
        lease_ms: How long the worker's lease lasts after each renewal.

    Attributes:
        scripts: The store functions.
        lease_ms: How long the worker's lease lasts after each renewal.
        worker_id: Id of this process.
        slots: Free worker threads.
        outage: Whether the store is unavailable, and since when.
        timer: Moves due jobs to their ready queues.
        stopping: Set as soon as the worker is to end: nothing more is fetched.
        vitals: What the host's watchdog reads; None unless a worker runs in this process.
        left: Whether this worker has given up its lease in an orderly shutdown.
        tally: Number of attempts since the process started, by how they ended.
        keys: Names of the store's keys.
    """

    def __init__(self, scripts: Scripts, *, lease_ms: int) -> None:
        self.scripts = scripts
        self.lease_ms = lease_ms
        self.worker_id = new_worker_id()
        self.slots = Slots()
        self.outage = Outage()
        self.timer = DueTimer(scripts, self.outage)
        self.stopping = threading.Event()
        self.vitals: Vitals | None = None
        self.left = False
        self.tally: Counter[str] = Counter()
        self.keys = Keys(scripts.prefix)
        self._fetches = 0
        self._deliveries: dict[str, str] = {}
        self._lock = threading.Lock()

    def bell(self, queue: str) -> str:
        """Return the key on which this queue's consumers block."""
        return self.keys.bell(queue)

    def store_answered(self) -> None:
        """Record that the store has answered."""
        self.outage.end()
        if self.vitals is not None:
            self.vitals.store_answered()

    def next_delivery(self, queue: str) -> str:
        """Return the delivery token of the next fetch: the previous one again if its reply was lost."""
        with self._lock:
            if queue not in self._deliveries:
                self._fetches += 1
                self._deliveries[queue] = f"{self._fetches:x}"
            return self._deliveries[queue]

    def delivery_arrived(self, queue: str) -> None:
        """Record that the reply to the last fetch has arrived: its token is not used again."""
        with self._lock:
            self._deliveries.pop(queue, None)
