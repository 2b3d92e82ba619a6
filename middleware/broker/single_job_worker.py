"""One job in the hands of a process that is no worker pool: the same scripts, the same fence, no Dramatiq.

Such a process takes in one job that only it may begin, carries it out and ends. It beats like a worker, hears
cancellations and commits the end; if it is lost, its lease ends and the job goes to the ordinary queue.
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

from middleware.broker.outage import Outage
from middleware.broker.scripts import EnqueueRequest, Scripts, Settlement
from middleware.broker.worker_state import new_worker_id
from middleware.context import JobCancelled, JobContext, set_current_job
from middleware.job.keys import Keys
from middleware.job.records import StreamName
from middleware.job.schema import Job
from ops.backoff import Backoff
from ops.errors import BridgeError, QueueFull, StoreUnreachable, WrongState
from ops.store.channels import ChannelListener
from ops.store.resp import well_formed
from ops.threads import start_duty


class SoloWorker:
    """A worker for one job.

    Args:
        scripts: The atomic scripts.
        lease_s: How long the store waits for a sign of life.
        heartbeat_s: Between two of them.
        unit: What it is, for ``3ox status``.

    Attributes:
        worker_id: Of this process.
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
            on_message=lambda *_: self._look(),
            on_subscribed=lambda _: self._look(),
            on_silence=self._look,
            on_outage=self._outage.begin,
        )

    def take(self, job: Job, request: EnqueueRequest) -> JobContext:
        """Take a job in, straight into our hands: nobody else can begin it.

        Args:
            job: What to do.
            request: Its own, of the ordinary queue.

        Raises:
            WrongState: It had been taken in before.
            QueueFull: The queue is at its limit.
            StoreUnreachable: Nothing was taken, or the job is recovered when our lease has ended.
        """
        reply = adopt(
            self._scripts,
            request,
            worker_id=self.worker_id,
            delivery=self._delivery,
            lease_ms=self._lease_ms,
        )
        if reply.outcome == "full":
            raise QueueFull(
                f"the queue is full: {reply.waiting} jobs wait.",
                remedy="Try again later, start more workers, or raise queue_max.",
            )
        if not reply.is_ours:
            raise WrongState(f"the job has been taken in before; it is {reply.status}.", remedy="Try again.")
        reporter = _UnbufferedReporter(self._scripts, self.worker_id, job.job_id, self._delivery)
        self._context = JobContext(job, reporter, attempt=1, worker_id=self.worker_id)
        return self._context

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Within this block the worker beats and listens, and this thread runs the job."""
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
            # A beat after the lease was given up would bring it back.
            heartbeat.join(timeout=2 * self._scripts.store.timeout_s)

    def settle(self, settlement: Settlement) -> str:
        """Commit the end, when the store is there; gives ``settled``, ``already`` or ``superseded``."""
        if self._context is None:
            raise LookupError("no job has been taken")
        backoff = Backoff()
        while True:
            try:
                outcome, _ = self._scripts.settle(
                    self.worker_id, self._context.job_id, self._delivery, settlement
                )
                self._scripts.leave(self.worker_id)
            except StoreUnreachable as error:
                self._outage.begin(error)
                # Not bounded: the end of the job is known here and nowhere else.
                backoff.sleep()
            else:
                return outcome

    def _beat(self) -> None:
        facts: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "threads": 1,
            "unit": self._unit,
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

    def _look(self) -> None:
        context = self._context
        if context is not None and self._scripts.store.call("HGET", self._keys.job(context.job_id), "cancel"):
            context.interrupt(JobCancelled)


class _UnbufferedReporter:
    """Takes what the job reports; what the store does not take now is old by the time it does."""

    def __init__(self, scripts: Scripts, worker_id: str, job_id: str, delivery: str) -> None:
        self._scripts = scripts
        self._of = (worker_id, job_id, delivery)
        self._bundle = 0

    def progress(self, percent: float, message: str) -> None:
        """Hand on a progress report."""
        self._report(f"{percent:g}", well_formed(message[:500]), [])

    def output(self, text: str, stream: StreamName) -> None:
        """Hand on a piece of output."""
        self._report("", "", [(stream, well_formed(text))])

    def flush(self) -> None:
        """Nothing is held back."""

    def _report(self, percent: str, message: str, output: list[tuple[str, str]]) -> None:
        self._bundle += 1
        command = self._scripts.report_command(
            *self._of, percent=percent, message=message, output=output, bundle=self._bundle
        )
        # The heartbeat notes the outage; here the next report is the next try.
        with contextlib.suppress(StoreUnreachable):
            self._scripts.run_many([command])


class Adopted(Struct, frozen=True):
    """Reply of ``adopt``.

    Attributes:
        outcome: ``new`` or ``already`` (the job is this worker's), ``duplicate`` or ``full`` (nothing done).
        status: Of the job.
        waiting: How many jobs wait, if there are too many.
    """

    outcome: str
    status: str = ""
    waiting: int = 0

    @property
    def is_ours(self) -> bool:
        """Tell whether the worker has the job."""
        return self.outcome in {"new", "already"}


def adopt(
    scripts: Scripts, request: EnqueueRequest, *, worker_id: str, delivery: str, lease_ms: int
) -> Adopted:
    """Take a new job in and give it to a worker, in one step.

    Args:
        scripts: Where.
        request: The job; of the ordinary queue, without delay, dependencies, limits, key and approval.
        worker_id: Whose processing set it goes to.
        delivery: A token that this worker uses for this job only, and again if the reply was lost.
        lease_ms: Of the worker, from now.

    Raises:
        StoreUnreachable: No answer; the same again is safe.
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
