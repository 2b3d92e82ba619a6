"""The Dramatiq broker over the store functions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq import Message
from dramatiq.errors import QueueJoinTimeout
from dramatiq.middleware import MiddlewareError

from middleware.broker.admission import Admission
from middleware.broker.consumer import BridgeConsumer
from middleware.broker.group_commit import GroupCommit
from middleware.broker.message import JobMessage
from middleware.broker.scripts import Scripts
from middleware.broker.worker_state import WorkerState
from middleware.job.schema import make_job
from middleware.job.states import State
from ops.errors import StoreUnreachable

logger = logging.getLogger(__name__)


class BridgeBroker(WorkerState, dramatiq.Broker):
    """Carries jobs between the store and Dramatiq's worker threads.

    Args:
        scripts: The store functions.
        admission: Validates and enqueues; the same object that ``dispatch`` uses.
        lease_ms: How long the worker's lease lasts after each renewal.
        middleware: All middleware, outermost first; Dramatiq's defaults are not added.

    Attributes:
        group_commit: Commits how attempts ended.
    """

    def __init__(
        self,
        scripts: Scripts,
        admission: Admission,
        *,
        lease_ms: int,
        middleware: list[dramatiq.Middleware],
    ) -> None:
        WorkerState.__init__(self, scripts, lease_ms=lease_ms)
        self.admission = admission
        self.group_commit = GroupCommit(self)
        self._hooks_by_name: dict[str, tuple[int, list[tuple[Callable[..., None], dramatiq.Middleware]]]] = {}
        dramatiq.Broker.__init__(self, middleware=middleware)
        self.queues: dict[str, None] = {}

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the ``before_...`` hooks that are overridden, outermost first; see ``dramatiq.Broker``.

        Dramatiq also calls the empty ones: 40 calls for each job with ten middleware.
        """
        for hook, middleware in self._hooks("before_" + signal):
            try:
                hook(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                logger.critical("Unexpected failure in before_%s of %r.", signal, middleware, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the ``after_...`` hooks that are overridden, innermost first."""
        for hook, middleware in self._hooks("after_" + signal):
            try:
                hook(self, *args, **kwargs)
            except Exception:
                logger.critical("Unexpected failure in after_%s of %r.", signal, middleware, exc_info=True)

    def _hooks(self, name: str) -> list[tuple[Callable[..., None], dramatiq.Middleware]]:
        known = self._hooks_by_name.get(name)
        if known is None or known[0] != len(self.middleware):
            empty = getattr(dramatiq.Middleware, name)
            hooks = [
                (getattr(item, name), item)
                for item in self.middleware
                if getattr(type(item), name) is not empty
            ]
            if name.startswith("after_"):
                hooks.reverse()
            known = self._hooks_by_name[name] = (len(self.middleware), hooks)
        return known[1]

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue. There are no delay queues: delayed jobs wait in the store."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 1000) -> BridgeConsumer:
        """Return a new consumer of a queue.

        Args:
            queue_name: Name of the queue.
            prefetch: Ignored; see ``slots.py``.
            timeout: Upper bound of one wait, in ms.
        """
        del prefetch
        return BridgeConsumer(self, self.group_commit, queue_name, timeout)

    def is_ours(self, message: JobMessage) -> bool:
        """Return whether this worker still holds a delivery that did not start at once.

        True while the store is unavailable: ``settle`` decides in the end.
        """
        if (time.monotonic() - message.asked_s) * 1000 < self.lease_ms / 8:
            return True
        key = self.keys.processing(self.worker_id)
        try:
            held = self.scripts.store.call("HGET", key, message.job.job_id)
        except StoreUnreachable as error:
            self.outage.begin(error)
            return True
        return held is not None and held.decode() == message.delivery

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue what ``actor.send(payload)`` built: it becomes a job like any other.

        Args:
            message: Its only argument is the job type's payload; its options are fields of the job.
            delay: Time until it may start, in ms.

        Raises:
            InvalidJob: It does not fit the schema.
            QueueFull: The queue is at its limit.
            StoreUnreachable: Nothing was enqueued, or enqueueing the same message again has no effect.
        """
        payload = message.args[0] if message.args else message.kwargs
        job = make_job(message.actor_name, payload, **message.options)
        self.emit_before("enqueue", message, delay)
        self.admission.submit([job], delay_ms=0 if delay is None else delay)
        self.emit_after("enqueue", message, delay)
        return message.copy(message_id=job.job_id) if message.message_id != job.job_id else message

    def flush(self, queue_name: str) -> None:
        """Cancel every queued job of this queue."""
        key = self.keys.state(State.QUEUED, queue_name)
        while ids := self.scripts.store.call("ZRANGE", key, 0, 99):
            for job_id in ids:
                outcome, _ = self.scripts.cancel(job_id.decode(), "the queue was flushed")
                if (
                    outcome == "unknown"
                ):  # its record was deleted by hand; left in place it would loop forever
                    self.scripts.store.call("ZREM", key, job_id)

    def flush_all(self) -> None:
        """Cancel every queued job of every declared queue."""
        for queue in self.queues:
            self.flush(queue)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until no job of the queue waits or runs; for tests.

        Args:
            queue_name: Name of the queue.
            timeout: In ms; 60 s by default.

        Raises:
            QueueJoinTimeout: The timeout elapsed.
        """
        deadline_s = time.monotonic() + (60.0 if timeout is None else timeout / 1000)
        states = (State.SCHEDULED, State.RETRYING, State.HELD, State.PROCESSING, State.QUEUED)
        counts = [("ZCARD", self.keys.state(state, queue_name)) for state in states]
        last = b"$"
        link = self.scripts.store.connect()
        try:
            while any(self.scripts.store.pipeline(counts)):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise QueueJoinTimeout(queue_name)  # type: ignore[no-untyped-call]
                link.send(
                    [("XREAD", "BLOCK", int(min(left_s, 1.0) * 1000) + 1, "STREAMS", self.keys.events, last)]
                )
                link.read(left_s + self.scripts.store.timeout_s)
        finally:
            link.close()

    def close(self) -> None:
        """Close all connections."""
        self.scripts.store.close()
