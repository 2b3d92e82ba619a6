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
from ops.environment import export, for_child, variable
from ops.processes import process_start_time
from ops.settings.load import Settings
from ops.threads import start_duty

#: Failed connections after which a watchdog is started again.
_START_EVERY = 20

logger = logging.getLogger(__name__)


class WatchdogClient(JobMiddleware):
    """Writes the worker's vitals and keeps a connection to the watchdog; starts one if none runs.

    The watchdog (``middleware/broker/watchdog.py``) renews the lease when a job keeps this process from doing
    so, and detects the death of the process at once. Under ``3ox up`` the supervisor runs the watchdog;
    otherwise the first worker starts it, and it exits when no worker is left.

    Args:
        paths: Paths of the watchdog's files.
        settings: Time limits by job type.
    """

    def __init__(self, paths: WatchdogPaths, settings: Settings) -> None:
        self._paths = paths
        self._settings = settings
        self._stopping = threading.Event()

    def worker_starting(self, broker: BridgeBroker, worker: Any) -> None:
        """Create the vitals file, before the first job can be fetched.

        Raises:
            MiddlewareError: It cannot be written. This ends the process: its jobs would not be watched.
        """
        # What a job starts by itself, without a mark of its own, is ended with this process.
        export({"BRIDGE_WORKER_ID": broker.worker_id})
        started = process_start_time(os.getpid())
        path = self._paths.vitals_dir / broker.worker_id
        try:
            broker.vitals = Vitals(
                path,
                rows=2 * worker.worker_threads,  # running jobs, and as many that wait for their commit
                start_time=0 if started is None else started,
            )
        except OSError as error:
            raise MiddlewareError(
                f"The worker cannot write its vitals to {path}: {error.strerror}."
            ) from error
        start_duty("watchdog-client", self._stay_connected, broker, ended=self._stopping.is_set)

    def job_starting(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Record that a job starts."""
        if broker.vitals is None:
            return
        limit_s = time_limit_s(message.job, self._settings)
        broker.vitals.started(message.job.job_id, message.delivery, limit_s)
        if not broker.is_ours(message):
            # This process was stalled between fetch and start, and the job was recovered meanwhile.
            message.settle(Settlement(outcome="queued", reason="the worker no longer held the job"))
            raise SkipMessage

    def job_ended(self, broker: BridgeBroker, message: JobMessage, exception: BaseException | None) -> None:
        """Record that a job has ended, so that it is not overdue while its commit waits for the store."""
        if broker.vitals is not None:
            broker.vitals.ended(message.job.job_id, message.delivery)

    def worker_stopping(self, broker: BridgeBroker, worker: Any) -> None:
        """Record that a stop was requested."""
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
                if backoff.failures % _START_EVERY == 0 and not variable("BRIDGE_SUPERVISED"):
                    self._start_watchdog()
                backoff.wait(self._stopping)
            else:
                self._stopping.wait(FIRST_S)

    def _start_watchdog(self) -> None:
        """Start a watchdog; it exits at once if another one runs."""
        environ = for_child(without=["BRIDGE_WORKER_ID"])
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
