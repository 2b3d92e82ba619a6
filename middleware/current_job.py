"""Set the context of the running job, and let other threads stop it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from dramatiq.middleware import raise_thread_exception

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.context import JobContext, JobInterrupted, Reporter, set_current_job
from middleware.job_middleware import JobMiddleware
from middleware.streams.attached import Attach

logger = logging.getLogger(__name__)


class CurrentJob(JobMiddleware):
    """Sets ``current_job()`` during an attempt and knows which thread runs which job.

    An actor that supervises something (a child process, a network stream) is notified through
    ``on_interrupt`` and stops by itself; in any other actor the interrupt is raised and takes effect at its
    next line of Python.
    Hazard: code inside a C call that never returns cannot be stopped this way.

    Args:
        reporter: Makes the object that takes a job's progress and output.
        worker_id: Returns the id of this process's worker.
        attach: Returns what connects the command of a delivery to its caller, if it has one.
    """

    def __init__(
        self,
        reporter: Callable[[JobMessage], Reporter],
        worker_id: Callable[[], str],
        attach: Callable[[JobMessage], Attach | None] = lambda _: None,
    ) -> None:
        self._attach = attach
        self._reporter = reporter
        self._worker_id = worker_id
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], tuple[JobMessage, int]] = {}

    def job_starting(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Set the context."""
        context = JobContext(
            message.job,
            self._reporter(message),
            attempt=message.attempt,
            worker_id=self._worker_id(),
            attach=self._attach(message),
        )
        message.context = context
        set_current_job(context)
        with self._lock:
            self._running[message.key] = (message, threading.get_ident())

    def job_ended(self, broker: BridgeBroker, message: JobMessage, exception: BaseException | None) -> None:
        """Clear the context; from here on no other thread can interrupt this one."""
        with self._lock:
            self._running.pop(message.key, None)
        # An interrupt raised just before takes effect within the next few instructions: here, and not
        # in the middle of the commit. Dramatiq then runs the hooks again with the interrupt.
        for _ in range(4):
            pass
        set_current_job(None)

    def job_skipped(self, broker: BridgeBroker, message: JobMessage) -> None:
        """Clear the context."""
        self.job_ended(broker, message, None)

    def running(self) -> list[JobMessage]:
        """Return the jobs that run in this process now."""
        with self._lock:
            return [message for message, _ in self._running.values()]

    def interrupt(self, key: tuple[str, str], kind: type[JobInterrupted]) -> bool:
        """Stop a running job; return whether it was running here.

        Args:
            key: Job id and delivery token.
            kind: The reason.
        """
        with self._lock:
            message, thread = self._running.get(key, (None, 0))
            if message is None:
                return False
            context = message.context
            if context is not None and not context.interrupt(kind):
                raise_thread_exception(thread, kind)  # type: ignore[no-untyped-call]
            return True
