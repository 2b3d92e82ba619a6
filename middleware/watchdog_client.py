"""Connect a worker process to its host's watchdog."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from dramatiq.middleware import MiddlewareError, SkipMessage

from cmd_bridge import own_argv
from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.transitions import Settlement
from middleware.broker.vitals import Vitals, WatchdogPaths
from middleware.job_middleware import JobMiddleware
from middleware.time_limit import time_limit_s
from ops.backoff import FIRST_S, Backoff
from ops.processes import process_start_time
from ops.settings.load import Settings
from ops.threads import start_duty

#: Failed connections after which a watchdog is started again.
_START_EVERY = 20

logger = logging.getLogger(__name__)


class WatchdogClient(JobMiddleware):
    """Writes the worker's vitals and keeps a connection to the watchdog; starts one if none runs.

    The watchdog (``middleware/broker/watchdog.py``) renews the lease when job code starves this process, and
    notices at once when it dies. Under ``3ox up`` the supervisor runs the watchdog; otherwise the first
    worker starts it, and it exits when no worker is left.

    Args:
        paths: Where the watchdog's files are.
        settings: Time limits by job type.
    """

    def __init__(self, paths: WatchdogPaths, settings: Settings) -> None:
        self._paths = paths
        self._settings = settings
        self._stopping = threading.Event()

    def worker_starting(self, broker: BridgeBroker, worker: Any) -> None:
        """Create the vitals, before the first job can be fetched.

        Raises:
            MiddlewareError: They cannot be written. It ends the process, whose jobs would not be watched.
        """
        started = process_start_time(os.getpid())
        path = self._paths.vitals_dir / broker.worker_id
        try:
            broker.vitals = Vitals(
                path,
                rows=2 * worker.worker_threads,  # as many run, and as many wait for their commit
                start_time=0 if started is None else started,
            )
        except OSError as error:
            raise MiddlewareError(f"a worker needs the file {path}: {error.strerror}.") from error
        start_duty("watchdog-client", self._stay_connected, broker, ended=self._stopping.is_set)

    def job_starting(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Note that a job starts."""
        if broker.vitals is None:
            return
        limit_s = time_limit_s(message.job, self._settings)
        broker.vitals.started(message.job.job_id, message.delivery, limit_s)
        if not broker.is_ours(message):
            # This process was starved between fetch and start, and the job has been handed back meanwhile.
            message.settle(Settlement(outcome="queued", reason="it was no longer this worker's"))
            raise SkipMessage

    def job_ended(self, broker: BridgeBroker, message: JobMessage, exception: BaseException | None) -> None:
        """Note that a job has ended: it is not overdue while its commit waits for the store."""
        if broker.vitals is not None:
            broker.vitals.ended(message.job.job_id, message.delivery)

    def worker_stopping(self, broker: BridgeBroker, worker: Any) -> None:
        """Note that a stop was requested."""
        if broker.vitals is not None:
            broker.vitals.stopping()

    def worker_stopped(self, broker: BridgeBroker, worker: Any) -> None:
        """Disconnect; remove the vitals unless jobs are unfinished, which the watchdog then recovers."""
        self._stopping.set()
        if broker.vitals is not None and broker.left:
            broker.vitals.remove()

    def _stay_connected(self, broker: BridgeBroker) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                with socket.socket(socket.AF_UNIX) as link:
                    link.settimeout(2.0)
                    link.connect(str(self._paths.socket))
                    link.sendall(f"{broker.worker_id}\n".encode())
                    link.settimeout(None)
                    backoff.reset()
                    link.recv(1)  # the watchdog sends nothing; this returns when it is gone
            except OSError:
                if backoff.failures % _START_EVERY == 0 and "BRIDGE_SUPERVISED" not in os.environ:
                    self._start_watchdog()
                backoff.wait(self._stopping)
            else:
                self._stopping.wait(FIRST_S)

    def _start_watchdog(self) -> None:
        """Start a watchdog; where one runs already, it exits at once."""
        environ = {name: value for name, value in os.environ.items() if name != "BRIDGE_WORKER_ID"}
        try:
            subprocess.Popen(
                own_argv("-m", "middleware.broker.watchdog"),
                cwd=Path(__file__).resolve().parents[1],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            logger.exception("watchdog.not_started")
