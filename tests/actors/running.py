"""Run one job as a worker does: a real context, a reporter that records, interrupts from another thread."""

from __future__ import annotations

import threading
from typing import Any

from actors.context import JobContext
from middleware.context import JobInterrupted, set_current_job
from middleware.job.records import StreamName
from middleware.job.schema import JOB_TYPES, make_job
from ops.processes import find_marked


class RecordingReporter:
    """A reporter that keeps all reports.

    Attributes:
        pieces: Output, in order.
        reports: Progress, in order.
    """

    def __init__(self) -> None:
        self.pieces: list[tuple[StreamName, str]] = []
        self.reports: list[tuple[float, str]] = []

    def progress(self, percent: float, message: str) -> None:
        """Take a progress report."""
        self.reports.append((percent, message))

    def output(self, text: str, stream: StreamName) -> None:
        """Take a piece of output."""
        self.pieces.append((stream, text))

    def flush(self) -> None:
        """Nothing is buffered."""

    def text(self, stream: StreamName) -> str:
        """Return all output of one stream."""
        return "".join(text for name, text in self.pieces if name == stream)


class JobRun:
    """One run of one job.

    Parameters:
        job_type: Which actor.
        payload: Its payload.
        **fields: Other fields of the job.
    """

    def __init__(self, job_type: str, payload: dict[str, Any], **fields: Any) -> None:
        self.reporter = RecordingReporter()
        self.job = make_job(job_type, payload, **fields)
        self.context = JobContext(self.job, self.reporter, worker_id="test-worker-1")
        self._thread: threading.Thread | None = None
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> Any:
        """Run it in this thread and return its result."""
        set_current_job(self.context)
        try:
            declared = JOB_TYPES.get(self.job.job_type)
            assert declared is not None
            return declared.function()(self.job.payload)
        finally:
            set_current_job(None)

    def start(self) -> JobRun:
        """Run it in a thread of its own."""
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def _keep(self) -> None:
        try:
            self._result = self.run()
        except BaseException as error:  # noqa: BLE001 (handed on by finish)
            self._error = error

    def finish(self, timeout_s: float = 15.0) -> Any:
        """Wait for the end of the thread and return the result, or raise the actor's exception."""
        assert self._thread is not None
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the actor does not end"
        if self._error is not None:
            raise self._error
        return self._result

    def interrupt(self, kind: type[JobInterrupted]) -> None:
        """Interrupt it from this thread, as a worker does; the actor must have registered a listener."""
        assert self.context.interrupt(kind), "no listener is registered"

    def processes(self) -> list[int]:
        """Return the living processes with the job's mark."""
        return find_marked("BRIDGE_JOB_ID", self.job.job_id)
