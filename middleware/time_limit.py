"""Stop an attempt that reaches its time limit."""

from __future__ import annotations

import threading
import time
from typing import Any

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.current_job import CurrentJob
from middleware.interrupts import TimeLimitExceeded
from middleware.job.schema import JOB_TYPES, Job
from middleware.job_middleware import JobMiddleware
from ops.settings.load import Settings
from ops.threads import start_duty

#: The deadlines are checked at least this often.
_CHECK_EVERY_S = 5.0


def time_limit_s(job: Job, settings: Settings) -> float:
    """Return the time limit of one attempt of a job, in seconds.

    It is the job's own limit, which is filled in at submission; a delivery, which is not submitted, has the
    limit of its type.
    """
    own_s = job.timeout_seconds
    return JOB_TYPES.limits(job.job_type, settings).timeout_s if own_s is None else own_s


class TimeLimit(JobMiddleware):
    """Interrupts a job after its ``timeout_seconds``; the attempt counts as failed.

    Hazard: a C call that never returns is not interrupted, see ``CurrentJob``. Run such code as a child
        process (``shell.cmd``, ``task.custom``), which is killed.

    Args:
        current: Knows the running jobs.
        settings: Time limits by job type.
    """

    def __init__(self, current: CurrentJob, settings: Settings) -> None:
        self._current = current
        self._settings = settings
        self._lock = threading.Lock()  # entered directly, for each job
        self._changed = threading.Condition(self._lock)
        self._deadlines: dict[tuple[str, str], float] = {}
        self._next_check_s = float("inf")
        self._running = False

    @property
    def actor_options(self) -> set[str]:
        """``time_limit``: Dramatiq's, in ms; it becomes the job's ``timeout_seconds``."""
        return {"time_limit"}

    def worker_started(self, broker: BridgeBroker, worker: Any) -> None:
        """Start the thread that checks the deadlines."""
        self._running = True
        start_duty("time-limit", self._watch, ended=lambda: not self._running)

    def worker_stopped(self, broker: BridgeBroker, worker: Any) -> None:
        """Stop the thread."""
        with self._changed:
            self._running = False
            self._changed.notify()

    def job_starting(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Note the deadline."""
        deadline_s = time.monotonic() + time_limit_s(message.job, self._settings)
        with self._lock:
            self._deadlines[message.key] = deadline_s
            if deadline_s < self._next_check_s:
                self._changed.notify()

    def job_ended(self, broker: BridgeBroker, message: JobMessage, exception: BaseException | None) -> None:
        """Forget the deadline."""
        with self._lock:
            self._deadlines.pop(message.key, None)

    def job_skipped(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Forget the deadline."""
        self.job_ended(broker, message, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                if not self._running:
                    return
                now_s = time.monotonic()
                late = [key for key, deadline_s in self._deadlines.items() if deadline_s <= now_s]
                for key in late:
                    del self._deadlines[key]
                if not late:
                    # There are at most as many deadlines as threads. Since the next check comes soon anyway,
                    # a job with a longer limit need not wake this thread when it starts.
                    latest_s = now_s + _CHECK_EVERY_S
                    self._next_check_s = min(latest_s, min(self._deadlines.values(), default=latest_s))
                    self._changed.wait(self._next_check_s - now_s)
            for key in late:
                self._current.interrupt(key, TimeLimitExceeded)
