"""The beginning and the end of a worker process."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.broker import Broker

from middleware.broker.broker import BridgeBroker
from middleware.broker.work_queue import WorkQueue
from middleware.context import WorkerStopping
from middleware.current_job import CurrentJob
from ops.processes import set_parent_death_signal

#: After the last hook of its boot a worker process has still to tell Dramatiq's master that it is up.
_TOLD_WITHIN_S = 0.05

logger = logging.getLogger(__name__)


class Lifecycle(dramatiq.Middleware):
    """Opens the worker's slots at boot; on a stop fetches nothing more and hands back what runs too long.

    Args:
        current: Knows the running jobs.
        shutdown_timeout_s: How long running jobs may go on after a stop was asked for.
        on_boot: Called once in each worker process before anything else, to set up its logging.
    """

    def __init__(
        self,
        current: CurrentJob,
        *,
        shutdown_timeout_s: float,
        on_boot: Callable[[], None],
    ) -> None:
        self._current = current
        self._shutdown_timeout_s = shutdown_timeout_s
        self._on_boot = on_boot
        self._stopped = threading.Event()
        self._is_orphan = False

    def after_process_boot(self, broker: Broker) -> None:
        """Set up the process; it must not outlive Dramatiq's master, whose death nobody else would see."""
        signal.signal(signal.SIGUSR2, self._hear_orphaned)
        set_parent_death_signal(signal.SIGUSR2)
        self._on_boot()

    def _hear_orphaned(self, *_: object) -> None:
        # The kernel may tell of it once for each thread of the master; a second SIGTERM would make Dramatiq
        # leave at once, with jobs in hand.
        if not self._is_orphan:
            self._is_orphan = True
            os.kill(os.getpid(), signal.SIGTERM)

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Give the worker a quicker queue, before any of its threads has seen the other."""
        if isinstance(broker, BridgeBroker):
            worker.work_queue = WorkQueue()

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Make room for as many jobs as there are threads, a moment later.

        Not before the worker is up: if a first job kills it earlier, Dramatiq's master waits for its sign of
        having booted, 30 s unless ``--worker-fork-timeout`` says less; and for ever if it is killed while it
        gives that sign, since the two share a lock for it.
        """
        if isinstance(broker, BridgeBroker):
            # What has been loaded stays: the collector need not look through it again for every job.
            gc.collect()
            gc.freeze()
            opening = threading.Timer(_TOLD_WITHIN_S, broker.slots.open, (worker.worker_threads,))
            opening.name, opening.daemon = "opening", True
            opening.start()
            broker.timer.start()

    def before_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Stop to fetch; running jobs have their time from now on."""
        if isinstance(broker, BridgeBroker):
            broker.stopping.set()
            broker.slots.wake()
            broker.timer.stop()
            worker.work_queue.close(worker.worker_threads)
        threading.Thread(target=self._hand_back, name="shutdown", daemon=True).start()

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Everything has ended in time."""
        self._stopped.set()

    def _hand_back(self) -> None:
        if self._stopped.wait(self._shutdown_timeout_s):
            return
        for message in self._current.running():
            logger.warning("job.handed_back", extra={"job_id": message.job.job_id})
            self._current.interrupt(message.key, WorkerStopping)
