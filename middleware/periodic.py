"""Base of the middleware that repeat something in a thread of the worker process."""

from __future__ import annotations

import random
import threading
from abc import abstractmethod
from typing import Any

from middleware.broker.broker import BridgeBroker
from middleware.job_middleware import JobMiddleware
from ops.errors import BridgeError
from ops.threads import start_duty


class PeriodicMiddleware(JobMiddleware):
    """Calls ``run_once`` every ``interval_s`` seconds from the start of the worker to its stop.

    A call that fails because the store is unavailable is noted and repeated at the next interval.

    Args:
        interval_s: Interval between two calls, in seconds; the first call comes after one interval.
        jitter: Part of each interval that is random, 0 to 1; it spreads the calls of many workers.

    Attributes:
        stopping: Set when the worker stops; a long ``run_once`` checks it.
    """

    def __init__(self, *, interval_s: float, jitter: float = 0.5) -> None:
        self._interval_s = interval_s
        self._jitter = jitter
        self.stopping = threading.Event()

    @abstractmethod
    def run_once(self, broker: BridgeBroker) -> None:
        """Do what is to be repeated.

        Raises:
            BridgeError: It is repeated at the next interval.
        """

    def worker_started(self, broker: BridgeBroker, worker: Any) -> None:
        """Start the thread."""
        start_duty(type(self).__name__.lower(), self._run, broker, ended=self.stopping.is_set)

    def worker_stopping(self, broker: BridgeBroker, worker: Any) -> None:
        """Stop the thread; it ends when the current call returns."""
        self.stopping.set()

    def _run(self, broker: BridgeBroker) -> None:
        while not self.stopping.wait(self._interval_s * (1.0 - self._jitter * random.random())):  # noqa: S311
            try:
                self.run_once(broker)
            except BridgeError as error:
                broker.outage.begin(error)
