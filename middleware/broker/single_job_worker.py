"""A worker for a single job, in a process that is not a worker pool: without Dramatiq.

Such a process enqueues one job that only it may start, runs it and exits. It sends heartbeats, handles
cancellation and commits the outcome like any worker. If it dies, its lease ends and the job goes to the
ordinary queue.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from middleware.broker.admission import queue_full
from middleware.broker.outage import Outage
from middleware.broker.scripts import Scripts
from middleware.broker.transitions import EnqueueRequest, Settlement
from middleware.broker.worker_state import new_worker_id
from middleware.context import JobContext, set_current_job
from middleware.interrupts import JobCancelled
from middleware.job.keys import Keys
from middleware.job.records import StreamName
from middleware.job.schema import Job
from ops.backoff import Backoff
from ops.errors import BridgeError, StoreUnreachable, WrongState
from ops.store.channels import ChannelListener
from ops.store.resp import well_formed
from ops.threads import start_duty


class SingleJobWorker:
    """A worker for one job.

    Args:
        scripts: The store functions.
        lease_s: How long its lease lasts after each heartbeat.
        heartbeat_s: Heartbeat interval.
        unit: Name of its kind, for ``3ox status``.

    Attributes:
        worker_id: Id of this process.
    """

    def __init__(self, scripts: Scripts, *, lease_s: float, heartbeat_s: float, unit: str) -> None:
        self._scripts = scripts
        self._keys = Keys(scripts.prefix)
        self._lease_ms = int(lease_s * 1000)
        self._heartbeat_s = min(heartbeat_s, lease_s / 3)
        self._unit = unit
        self.worker_id = new_worker_id()
        self._delivery = secrets.token_hex(8)
        self._outage = Outage()
        self._ended = threading.Event()
        self._context: JobContext | None = None
        self._control = ChannelListener(
            scripts.store,
            on_message=lambda *_: self._check_cancelled(),
            on_subscribed=lambda _: self._check_cancelled(),
            on_silence=self._check_cancelled,
            on_outage=self._outage.begin,
        )

    def take(self, job: Job, request: EnqueueRequest) -> JobContext:
        """Enqueue a job that only this worker can start.

        Args:
            job: The job.
            request: Its request, of the ordinary queue.

        Raises:
            WrongState: The job was enqueued before.
            QueueFull: The queue is at its limit.
            StoreUnreachable: It was not enqueued, or it is recovered when this worker's lease has ended.
        """
        reply = adopt(
            self._scripts,
            request,
            worker_id=self.worker_id,
            delivery=self._delivery,
            lease_ms=self._lease_ms,
        )
        if reply.outcome == "full":
            raise queue_full(reply.waiting)
        if not reply.is_ours:
            raise WrongState(f"The job was enqueued before; it is {reply.status}.", remedy="Try again.")
        reporter = _UnbufferedReporter(self._scripts, self.worker_id, job.job_id, self._delivery)
        self._context = JobContext(job, reporter, attempt=1, worker_id=self.worker_id)
        return self._context

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Run the job in this block: the worker sends heartbeats and listens for its cancellation."""
        heartbeat = start_duty("heartbeat", self._beat, ended=self._ended.is_set)
        # Its thread ends with the process, or within 5 s.
        self._control.subscribe(self._keys.control_channel(self.worker_id))
        self._control.start("control")
        set_current_job(self._context)
        try:
            yield
        finally:
            set_current_job(None)
            self._ended.set()
            self._control.stop()
            # A heartbeat after the lease was given up would restore it.
            heartbeat.join(timeout=2 * self._scripts.store.timeout_s)

    def settle(self, settlement: Settlement) -> str:
        """Commit the outcome, waiting for the store; return ``settled``, ``already`` or ``superseded``."""
        if self._context is None:
            raise LookupError("take() has not been called")
        backoff = Backoff()
        while True:
            try:
                outcome, _ = self._scripts.settle(
                    self.worker_id, self._context.job_id, self._delivery, settlement
                )
                self._scripts.leave(self.worker_id)
            except StoreUnreachable as error:
                self._outage.begin(error)
                # No timeout: only this process knows how the job ended.
                backoff.sleep()
            else:
                return outcome

    def _beat(self) -> None:
        facts: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "threads": 1,
            "unit": self._unit,
            "types": "",
            "queues": "",
            "completed": 0,
            "failed": 0,
        }
        while not self._ended.is_set():
            try:
                self._scripts.beat(self.worker_id, self._lease_ms, facts)
                self._outage.end()
                pause_s = self._heartbeat_s
            except BridgeError as error:
                self._outage.begin(error)
                pause_s = min(self._heartbeat_s, 0.5)
            self._ended.wait(pause_s)

    def _check_cancelled(self) -> None:
        context = self._context
        if context is not None and self._scripts.store.call("HGET", self._keys.job(context.job_id), "cancel"):
            context.interrupt(JobCancelled)


class _UnbufferedReporter:
    """Sends each report at once; one that the store does not take is dropped, since the next is newer."""

    def __init__(self, scripts: Scripts, worker_id: str, job_id: str, delivery: str) -> None:
        self._scripts = scripts
        self._of = (worker_id, job_id, delivery)
        self._bundle = 0

    def progress(self, percent: float, message: str) -> None:
        """Send a progress report."""
        self._report(f"{percent:g}", well_formed(message[:500]), [])

    def output(self, text: str, stream: StreamName) -> None:
        """Send a piece of output."""
        self._report("", "", [(stream, well_formed(text))])

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def _report(self, percent: str, message: str, output: list[tuple[str, str]]) -> None:
        self._bundle += 1
        command = self._scripts.report_command(
            *self._of, percent=percent, message=message, output=output, bundle=self._bundle
        )
        # The heartbeat records the outage.
        with contextlib.suppress(StoreUnreachable):
            self._scripts.run_many([command])


class Adopted(Struct, frozen=True):
    """Reply of ``adopt``.

    Attributes:
        outcome: ``new`` or ``already`` (the job is this worker's), ``duplicate`` or ``full`` (nothing done).
        status: Status of the job.
        waiting: For ``full``: number of jobs that wait.
    """

    outcome: str
    status: str = ""
    waiting: int = 0

    @property
    def is_ours(self) -> bool:
        """Whether this worker has the job."""
        return self.outcome in {"new", "already"}


def adopt(
    scripts: Scripts, request: EnqueueRequest, *, worker_id: str, delivery: str, lease_ms: int
) -> Adopted:
    """Enqueue a new job and give it to a worker, atomically; see ``adopt.lua``.

    Args:
        scripts: The store functions.
        request: The job, of the ordinary queue, without delay, dependencies, limits, key and approval.
        worker_id: Worker whose processing set it goes to.
        delivery: A token that this worker uses for this job only; the same one again if the reply was lost.
        lease_ms: Duration of the worker's lease from now.

    Raises:
        StoreUnreachable: Calling again is safe.
    """
    reply = scripts.run(
        "adopt",
        worker_id,
        delivery,
        lease_ms,
        scripts.bounds.queue_max,
        request.job_id,
        request.priority,
        request.spec,
        request.job_type,
        request.project,
        request.input_sha256,
        request.sinks,
    )
    outcome = reply[0].decode()
    if outcome == "full":
        return Adopted(outcome, waiting=reply[1])
    return Adopted(outcome, reply[1].decode())
