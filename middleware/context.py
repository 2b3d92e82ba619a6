"""The context of a running job: what it may report, and how it is asked to stop.

The context of the job that the current thread runs is set by the ``CurrentJob`` middleware in a worker, and
by the in-process fallback where no store is available.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from middleware.job.records import StreamName
from middleware.job.schema import Job
from middleware.job.trust import set_running_trust
from middleware.streams.attached import Attach, Attached

#: Worker id of a job that runs in the submitting process because no store is available.
IN_PROCESS = "in-process"


class JobInterrupted(BaseException):
    """Base of the reasons for which a running job is asked to stop; see ``middleware.interrupts``."""


class Reporter(Protocol):
    """Takes what a running job reports."""

    def progress(self, percent: float, message: str) -> None:
        """Take a progress report."""

    def output(self, text: str, stream: StreamName) -> None:
        """Take a piece of output."""

    def flush(self) -> None:
        """Send what is buffered; called when the attempt ends."""


class JobContext:
    """The job that the current thread runs.

    Args:
        job: The job as it was submitted.
        reporter: Takes its progress and output.
        attempt: 1 for the first attempt.
        worker_id: Id of the worker that runs it.
        attach: Connects its command to the caller that waits for it; None without one.

    Attributes:
        stopped: How a stopped job's child processes ended, in a few words; empty if there is nothing to say.
    """

    def __init__(
        self,
        job: Job,
        reporter: Reporter,
        *,
        attempt: int = 1,
        worker_id: str = "",
        attach: Attach | None = None,
    ) -> None:
        self.job = job
        self._attach = attach
        self.attempt = attempt
        self.worker_id = worker_id
        self.stopped = ""
        self._reporter = reporter
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
            JobInterrupted: The job was cancelled or has reached its time limit.
        """
        self.check_cancelled()
        self._reporter.progress(min(100.0, max(0.0, float(percent))), message)

    def log(self, line: str, *, stream: StreamName = "out") -> None:
        """Add a line to the job's output."""
        self._reporter.output(line if line.endswith("\n") else line + "\n", stream)

    def write(self, text: str, *, stream: StreamName = "out") -> None:
        """Add text to the job's output as it is, without a line end."""
        self._reporter.output(text, stream)

    def check_cancelled(self) -> None:
        """Raise if the job was asked to stop.

        Raises:
            JobInterrupted: ``JobCancelled``, ``TimeLimitExceeded`` or ``WorkerStopping``.
        """
        if self._interrupt is not None:
            raise self._interrupt

    @property
    def interrupt_requested(self) -> type[JobInterrupted] | None:
        """The interrupt that was requested, if any."""
        return self._interrupt

    def interrupt(self, kind: type[JobInterrupted]) -> bool:
        """Ask the job to stop; called from another thread, the first call wins.

        Returns:
            Whether the job handles it: an actor that supervises a child process does. If not, the caller
            raises the interrupt in the job's thread.
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
        """Within this block, call ``listener`` from another thread instead of raising the interrupt.

        The listener must return at once, for instance after setting an event or writing to a pipe; the actor
        then cleans up and calls ``check_cancelled``.
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

    @contextlib.contextmanager
    def attached(self) -> Iterator[Attached | None]:
        """Connect the job's command to its caller for the time of a block; None if no caller is attached.

        Raises:
            JobRefused: The command must not run a second time.
            JobInterrupted: The job was interrupted.
        """
        if self._attach is None:
            yield None
            return
        # With a listener, an interrupt is not raised in this thread but ends the waits below.
        with (
            self.on_interrupt(lambda _: None),
            self._attach(self.job, lambda: self._interrupt is not None) as streams,
            self.on_interrupt(lambda _: streams.wake()),
        ):
            self.check_cancelled()
            yield streams

    def flush(self) -> None:
        """Send what the reporter has buffered."""
        self._reporter.flush()


_current = threading.local()


def current_job() -> JobContext:
    """Return the context of the job that this thread runs.

    Raises:
        LookupError: This thread does not run a job.
    """
    context: JobContext | None = getattr(_current, "context", None)
    if context is None:
        raise LookupError("this thread does not run a job; current_job() works inside an actor only")
    return context


def set_current_job(context: JobContext | None) -> None:
    """Set or clear the context of the current thread, and with it the trust that its child jobs may have."""
    _current.context = context
    set_running_trust(None if context is None else context.job.trust)
