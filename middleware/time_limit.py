"""Stops an attempt that runs for longer than its job allows."""

from __future__ import annotations

import threading
import time
from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy

from middleware.broker.message import JobMessage
from middleware.context import TimeLimitExceeded
from middleware.current_job import CurrentJob
from middleware.job.schema import Job
from ops.settings.load import Settings
from ops.threads import start_duty

_LOOK_EVERY_S = 5.0


def time_limit_s(job: Job, settings: Settings) -> float:
    """Return how long one attempt of a job may run, in seconds.

    The job's own limit, which admission fills in; that of its type for a delivery, which passes no admission.
    """
    asked_s = job.timeout_seconds
    return settings.type_settings(job.job_type).timeout_s if asked_s is None else asked_s


class TimeLimit(dramatiq.Middleware):
    """Interrupts a job when its ``timeout_seconds`` have passed; the attempt counts as failed.

    Hazard: a call into C that never returns is not interrupted, see ``CurrentJob``; run such things as a
    child process (``shell.cmd``, ``task.custom``), which is killed.

    Args:
        current: Knows the running jobs.
        settings: Limits by job type.
    """

    def __init__(self, current: CurrentJob, settings: Settings) -> None:
        self._current = current
        self._settings = settings
        self._changed = threading.Condition()
        self._deadlines: dict[tuple[str, str], float] = {}
        self._wakes_s = float("inf")
        self._running = False

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Start the thread that watches the deadlines."""
        self._running = True
        start_duty("time-limit", self._watch, ended=lambda: not self._running)

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """End the thread."""
        with self._changed:
            self._running = False
            self._changed.notify()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Note the deadline."""
        if not isinstance(message, JobMessage):
            return
        deadline_s = time.monotonic() + time_limit_s(message.job, self._settings)
        with self._changed:
            self._deadlines[message.key] = deadline_s
            if deadline_s < self._wakes_s:
                self._changed.notify()

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Forget the deadline."""
        if isinstance(message, JobMessage):
            with self._changed:
                self._deadlines.pop(message.key, None)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Forget the deadline."""
        self.after_process_message(broker, message)

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
                    # One pass over at most as many deadlines as there are threads. Since it looks again soon
                    # anyhow, a job with a longer limit need not wake this thread just when it starts itself.
                    soon_s = now_s + _LOOK_EVERY_S
                    self._wakes_s = min(self._deadlines.values(), default=soon_s)
                    self._wakes_s = min(self._wakes_s, soon_s)
                    self._changed.wait(self._wakes_s - now_s)
            for key in late:
                self._current.interrupt(key, TimeLimitExceeded)
