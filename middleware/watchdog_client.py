"""Puts a worker process under the care of its host's warden."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import MiddlewareError, SkipMessage

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.broker.scripts import Settlement
from middleware.broker.vitals import Vitals, WardPlace
from middleware.time_limit import time_limit_s
from ops.backoff import FIRST_S, Backoff
from ops.processes import process_start_time
from ops.settings.load import Settings
from ops.threads import start_duty

#: Failed connections after which a watchdog is started again.
_START_EVERY = 20

logger = logging.getLogger(__name__)


class Wardship(dramatiq.Middleware):
    """Writes the worker's vitals and keeps a connection to the warden, starting one if none is there.

    The warden (``middleware/broker/watchdog.py``) renews the lease when job code starves this process, and
    notices its death at once. Under ``3ox up`` the supervisor runs the warden; otherwise the first worker
    starts it, and it ends by itself when no worker is left.

    Args:
        place: Where the warden is.
        settings: Limits by job type.
    """

    def __init__(self, place: WardPlace, settings: Settings) -> None:
        self._place = place
        self._settings = settings
        self._stopping = threading.Event()
        self._link: socket.socket | None = None

    def before_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Make the vitals, before the first job can be fetched.

        Raises:
            MiddlewareError: They cannot be written. It ends the process: nobody would answer for its jobs.
        """
        if not isinstance(broker, BridgeBroker):
            return
        started = process_start_time(os.getpid())
        path = self._place.vitals_dir / broker.worker_id
        try:
            broker.vitals = Vitals(
                path,
                rows=2 * worker.worker_threads,  # as many run, and as many wait for their commit
                start_time=0 if started is None else started,
            )
        except OSError as error:
            raise MiddlewareError(f"a worker needs the file {path}: {error.strerror}.") from error
        start_duty("wardship", self._stay_linked, broker, ended=self._stopping.is_set)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Note that a job starts."""
        if isinstance(broker, BridgeBroker) and isinstance(message, JobMessage) and broker.vitals is not None:
            allowed_s = time_limit_s(message.job, self._settings)
            broker.vitals.started(message.job.job_id, message.delivery, allowed_s)
            if not broker.is_ours(message):
                # We were starved between fetch and start, and the job has been handed back meanwhile.
                message.settlement = Settlement(outcome="queued", reason="it was no longer this worker's")
                raise SkipMessage

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Note that a job has ended: it is not overdue while its commit waits for the store."""
        if isinstance(broker, BridgeBroker) and isinstance(message, JobMessage) and broker.vitals is not None:
            broker.vitals.ended(message.job.job_id, message.delivery)

    def before_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Note that a stop was asked for."""
        if isinstance(broker, BridgeBroker) and broker.vitals is not None:
            broker.vitals.stopping()

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Take leave of the warden if nothing is in hand; else it sees to what is left when we are gone."""
        self._stopping.set()
        if isinstance(broker, BridgeBroker) and broker.vitals is not None and broker.left:
            broker.vitals.remove()

    def _stay_linked(self, broker: BridgeBroker) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                with socket.socket(socket.AF_UNIX) as link:
                    link.settimeout(2.0)
                    link.connect(str(self._place.socket))
                    link.sendall(f"{broker.worker_id}\n".encode())
                    link.settimeout(None)
                    backoff.reset()
                    link.recv(1)  # says nothing; returns when the warden is gone
            except OSError:
                if backoff.failures % _START_EVERY == 0 and "BRIDGE_SUPERVISED" not in os.environ:
                    self._start_warden()
                backoff.wait(self._stopping)
            else:
                self._stopping.wait(FIRST_S)

    def _start_warden(self) -> None:
        """Start a warden; where one runs already, it ends at once by itself."""
        environ = {name: value for name, value in os.environ.items() if name != "BRIDGE_WORKER_ID"}
        try:
            subprocess.Popen(
                [sys.executable, "-m", "middleware.broker.watchdog"],
                cwd=Path(__file__).resolve().parents[1],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            logger.exception("warden.not_started")
