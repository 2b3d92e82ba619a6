"""Start and stop of a worker process."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from dramatiq.broker import Broker

from middleware.broker.broker import BridgeBroker
from middleware.broker.work_queue import WorkQueue
from middleware.current_job import CurrentJob
from middleware.interrupts import WorkerStopping
from middleware.job_middleware import JobMiddleware
from ops.processes import set_parent_death_signal

#: Time between the last hook of a worker's boot and its report to Dramatiq's master that it is up.
_BOOT_REPORT_S = 0.05

logger = logging.getLogger(__name__)


class Lifecycle(JobMiddleware):
    """Opens the worker's slots at boot; on a stop hands back the jobs that run too long.

    Args:
        current: Knows the running jobs.
        shutdown_timeout_s: Grace period for running jobs after a stop was requested.
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
        """Set up the process; it stops when Dramatiq's master dies, which no other process would notice."""
        signal.signal(signal.SIGUSR2, self._on_master_death)
        set_parent_death_signal(signal.SIGUSR2)
        self._on_boot()

    def _on_master_death(self, *_: object) -> None:
        # The kernel may signal once for each thread of the master; a second SIGTERM would make Dramatiq
        # exit at once, with jobs unfinished.
        if not self._is_orphan:
            self._is_orphan = True
            os.kill(os.getpid(), signal.SIGTERM)

    def worker_starting(self, broker: BridgeBroker, worker: Any) -> None:
        """Replace the worker's queue by a faster one, before any of its threads has seen the original."""
        worker.work_queue = WorkQueue()

    def worker_started(self, broker: BridgeBroker, worker: Any) -> None:
        """Open as many slots as there are threads, 50 ms later.

        Not before the worker is up: if its first job kills it earlier, Dramatiq's master waits for the boot
        report, 30 s unless ``--worker-fork-timeout`` is shorter; and for ever if the worker is killed while
        it reports, since the two share a lock for it.
        """
        # Loaded modules stay: the garbage collector need not traverse them for every job.
        gc.collect()
        gc.freeze()
        opening = threading.Timer(_BOOT_REPORT_S, broker.slots.open, (worker.worker_threads,))
        opening.name, opening.daemon = "opening", True
        opening.start()
        broker.timer.start()
        if worker.consumer_whitelist:
            _name_unused_queues(set(worker.consumer_whitelist), broker.get_declared_queues())

    def worker_stopping(self, broker: BridgeBroker, worker: Any) -> None:
        """Fetch no more jobs and start the grace period of the running ones."""
        broker.stopping.set()
        broker.slots.wake()
        broker.timer.stop()
        worker.work_queue.close(worker.worker_threads)
        threading.Thread(target=self._hand_back, name="shutdown", daemon=True).start()

    def worker_stopped(self, broker: BridgeBroker, worker: Any) -> None:
        """End the grace period: every job has ended."""
        self._stopped.set()

    def _hand_back(self) -> None:
        if self._stopped.wait(self._shutdown_timeout_s):
            return
        for message in self._current.running():
            logger.warning("job.handed_back", extra={"job_id": message.job.job_id})
            self._current.interrupt(message.key, WorkerStopping)


def _name_unused_queues(chosen: set[str], declared: set[str]) -> None:
    """Say which of the queues of ``--queues`` no actor of this pool uses, in the log and on the terminal."""
    unused = sorted(chosen - declared)
    if not unused:
        return
    text = (
        f"No actor of this pool uses the queue {', '.join(map(repr, unused))} of --queues; "
        f"its queues are: {', '.join(sorted(declared))}."
    )
    if not chosen & declared:
        text += " This worker fetches no jobs."
    logger.warning("worker.unused_queues: %s", text)
    sys.stderr.write(f"3ox: {text}\n")
