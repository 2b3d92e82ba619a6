"""Gives the running job its context, and lets other threads stop it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import raise_thread_exception

from middleware.broker.message import JobMessage
from middleware.context import JobContext, JobInterrupted, Sink, set_current_job

logger = logging.getLogger(__name__)


class CurrentJob(dramatiq.Middleware):
    """Sets ``current_job()`` for the time of an attempt and knows which thread runs which job.

    An actor that supervises something of its own (a child process, a network stream) listens through
    ``on_interrupt`` and stops by itself; into any other the interrupt is raised, which takes effect at its
    next line of Python. Code that stays inside one C call for ever cannot be stopped this way.

    Args:
        sink: Makes the sink that takes a job's progress and output.
        worker_id: Of this process.
    """

    def __init__(self, sink: Callable[[JobMessage], Sink], worker_id: Callable[[], str]) -> None:
        self._sink = sink
        self._worker_id = worker_id
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], tuple[JobMessage, int]] = {}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Set the context."""
        if not isinstance(message, JobMessage):
            return
        context = JobContext(
            message.job, self._sink(message), attempt=message.attempt, worker_id=self._worker_id()
        )
        message.context = context
        set_current_job(context)
        with self._lock:
            self._running[message.key] = (message, threading.get_ident())

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Clear the context; from here on nobody can interrupt this thread any more."""
        if not isinstance(message, JobMessage):
            return
        with self._lock:
            self._running.pop(message.key, None)
        # An interrupt raised just before takes effect within the next few instructions: here, and not
        # in the middle of the commit. Dramatiq then runs the hooks again with the interrupt.
        for _ in range(4):
            pass
        set_current_job(None)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Clear the context."""
        self.after_process_message(broker, message)

    def running(self) -> list[JobMessage]:
        """Give the jobs that run in this process now."""
        with self._lock:
            return [message for message, _ in self._running.values()]

    def interrupt(self, key: tuple[str, str], kind: type[JobInterrupted]) -> bool:
        """Stop a running job.

        Args:
            key: Its id, and which delivery of it.
            kind: Why.

        Returns:
            Whether it was running here.
        """
        with self._lock:
            message, thread = self._running.get(key, (None, 0))
            if message is None:
                return False
            context = message.context
            if context is not None and not context.interrupt(kind):
                raise_thread_exception(thread, kind)  # type: ignore[no-untyped-call]
            return True
