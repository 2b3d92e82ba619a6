"""Set the context of the running job, and let other threads stop it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from dramatiq.middleware import raise_thread_exception

from middleware.broker.broker import BridgeBroker
from middleware.broker.message import JobMessage
from middleware.context import JobContext, JobInterrupted, Reporter, set_current_job
from middleware.job_middleware import JobMiddleware
from middleware.streams.attached import Attach
from ops.processes import children_of_thread, descendants, pid_alive, process_start_time, stop_processes

logger = logging.getLogger(__name__)


class CurrentJob(JobMiddleware):
    """Sets ``current_job()`` during an attempt and knows which thread runs which job.

    An actor that supervises something (a child process, a network stream) is notified through
    ``on_interrupt`` and stops by itself; in any other actor the interrupt is raised and takes effect at its
    next line of Python, and the processes that its thread has started during the job are ended: it may be
    waiting for one of them.
    Hazard: code inside a C call that never returns cannot be stopped this way.

    Args:
        reporter: Makes the object that takes a job's progress and output.
        worker_id: Returns the id of this process's worker.
        attach: Returns what connects the command of a delivery to its caller, if it has one.
        kill_grace_s: Time between SIGTERM and SIGKILL for those processes, in seconds.
    """

    def __init__(
        self,
        reporter: Callable[[JobMessage], Reporter],
        worker_id: Callable[[], str],
        attach: Callable[[JobMessage], Attach | None] = lambda _: None,
        *,
        kill_grace_s: float = 5.0,
    ) -> None:
        self._attach = attach
        self._reporter = reporter
        self._kill_grace_s = kill_grace_s
        self._worker_id = worker_id
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], tuple[JobMessage, threading.Thread, float]] = {}

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
            self._running[message.key] = (message, threading.current_thread(), time.monotonic())

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
            return [message for message, _, _ in self._running.values()]

    def interrupt(self, key: tuple[str, str], kind: type[JobInterrupted]) -> bool:
        """Stop a running job; return whether it was running here.

        Args:
            key: Job id and delivery token.
            kind: The reason.
        """
        with self._lock:
            running = self._running.get(key)
            if running is None:
                return False
            message, thread, started_s = running
            if message.context is None or message.context.interrupt(kind):
                return True
            raise_thread_exception(thread.ident, kind)  # type: ignore[no-untyped-call]
            pids = (
                children_of_thread(thread.native_id, since_s=time.monotonic() - started_s)
                if thread.native_id is not None
                else []
            )
        if pids:
            name = f"end-children-of-{message.job.job_id}"
            threading.Thread(target=_end, args=(pids, self._kill_grace_s), name=name, daemon=True).start()
        return True


def _end(pids: list[int], grace_s: float) -> None:
    """End processes and what they have started."""
    known = {pid: process_start_time(pid) for pid in pids}

    def left() -> list[int]:
        for pid in [below for root in known for below in descendants(root)]:
            known.setdefault(pid, process_start_time(pid))
        return [pid for pid, start_time in known.items() if pid_alive(pid, start_time)]

    stop_processes(left, grace_s=grace_s)
