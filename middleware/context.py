"""What a running job can say and hear: its context.

The context of the job that the current thread runs is set by the ``CurrentJob`` middleware in a worker and
by the in-process fallback when there is no store. Where its reports go is the business of the sink.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

from dramatiq.middleware import Interrupt

from middleware.job.schema import Job
from middleware.job.trust import set_running_trust

StreamName = Literal["out", "err"]

#: Worker id of a job that runs in the submitting process because there is no store.
IN_PROCESS = "in-process"


class Sink(Protocol):
    """Takes what a running job reports."""

    def progress(self, percent: float, message: str) -> None:
        """Take a progress report."""

    def output(self, text: str, stream: StreamName) -> None:
        """Take a piece of output."""

    def flush(self) -> None:
        """Hand on what is buffered; called when the attempt ends."""


class JobContext:
    """The job that the current thread runs.

    Attributes:
        job: What was dispatched.
        attempt: 1 for the first attempt.
        worker_id: Which worker runs it.
        result: What the actor returned.
        stopped: How what the job had started was ended, when it was stopped: a few words, or empty.
    """

    def __init__(self, job: Job, sink: Sink, *, attempt: int = 1, worker_id: str = "") -> None:
        self.job = job
        self.attempt = attempt
        self.worker_id = worker_id
        self.result: Any = None
        self.stopped = ""
        self._sink = sink
        # Re-entrant: without a store, Ctrl-C interrupts from a signal handler in the job's own thread.
        self._lock = threading.RLock()
        self._interrupt: type[JobInterrupted] | None = None
        self._listeners: list[Callable[[type[JobInterrupted]], None]] = []

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.job.job_id

    def progress(self, percent: float, message: str = "") -> None:
        """Report progress.

        Args:
            percent: 0 to 100; values outside are clamped.
            message: What is being done, one short line.

        Raises:
            JobInterrupted: The job has been cancelled or has run out of time.
        """
        self.check_cancelled()
        self._sink.progress(min(100.0, max(0.0, float(percent))), message)

    def log(self, line: str, *, stream: StreamName = "out") -> None:
        """Add a line to the job's output."""
        self._sink.output(line if line.endswith("\n") else line + "\n", stream)

    def write(self, text: str, *, stream: StreamName = "out") -> None:
        """Add a piece of text, with no line end of its own, to the job's output."""
        self._sink.output(text, stream)

    def check_cancelled(self) -> None:
        """Stop here if the job has been cancelled or has run out of time.

        Raises:
            JobInterrupted: ``JobCancelled`` or ``TimeLimitExceeded``.
        """
        if self._interrupt is not None:
            raise self._interrupt

    @property
    def interrupt_requested(self) -> type[JobInterrupted] | None:
        """The interrupt that has been asked for, if any."""
        return self._interrupt

    def interrupt(self, kind: type[JobInterrupted]) -> bool:
        """Ask the job to stop; called from another thread, the first call wins.

        Returns:
            Whether somebody listened (an actor that supervises a child does); if nobody did, the
            caller raises the interrupt in the job's thread.
        """
        with self._lock:
            if self._interrupt is not None:
                return True
            self._interrupt = kind
            listeners = list(self._listeners)
        for listener in listeners:
            listener(kind)
        return bool(listeners)

    @contextlib.contextmanager
    def on_interrupt(self, listener: Callable[[type[JobInterrupted]], None]) -> Iterator[None]:
        """Within this block, call ``listener`` (from another thread) instead of breaking into the actor.

        The listener must return at once, for instance set an event or write to a pipe; the actor then
        cleans up and calls ``check_cancelled``.
        """
        with self._lock:
            self._listeners.append(listener)
            already = self._interrupt
        if already is not None:
            listener(already)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self._sink.flush()


_current = threading.local()


def current_job() -> JobContext:
    """Give the context of the job that this thread runs.

    Raises:
        LookupError: This thread runs no job.
    """
    context: JobContext | None = getattr(_current, "context", None)
    if context is None:
        raise LookupError("this thread runs no job; current_job() works inside an actor only")
    return context


def set_current_job(context: JobContext | None) -> None:
    """Set or clear the context of the current thread, and with it the trust that its child jobs may have."""
    _current.context = context
    set_running_trust(None if context is None else context.job.trust)


class JobInterrupted(Interrupt):
    """Base: somebody or something asked the running job to stop."""


class JobCancelled(JobInterrupted):
    """Somebody cancelled the job."""


class WorkerStopping(JobInterrupted):
    """The worker is being stopped and its running jobs have had their time: the job is handed back."""


class TimeLimitExceeded(JobInterrupted):
    """The attempt has run for longer than the job allows."""
