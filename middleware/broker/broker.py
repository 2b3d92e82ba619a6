"""The broker: Dramatiq's public classes over the atomic scripts."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq import Message
from dramatiq.errors import QueueJoinTimeout
from dramatiq.middleware import MiddlewareError

from middleware.broker.admission import Intake
from middleware.broker.consumer import BridgeConsumer
from middleware.broker.group_commit import Commits
from middleware.broker.message import JobMessage
from middleware.broker.outage import Outage
from middleware.broker.scripts import Scripts
from middleware.broker.slots import Slots
from middleware.broker.timer import DueTimer
from middleware.broker.vitals import Vitals
from middleware.job.keys import Keys
from middleware.job.schema import make_job
from middleware.job.states import State
from ops.errors import StoreUnreachable

logger = logging.getLogger(__name__)


def new_worker_id() -> str:
    """Name this process: its host, its pid, and something that no later process of that pid will share."""
    host = "".join(letter for letter in socket.gethostname() if letter.isalnum() or letter in "-.")[:24]
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(2)}"


class BridgeBroker(dramatiq.Broker):
    """Carries jobs between the store and Dramatiq's worker threads.

    Args:
        scripts: The atomic scripts.
        intake: Validates and enqueues; the same that ``dispatch`` uses.
        lease_ms: How long the store waits for a sign of life of this worker.
        middleware: All middleware, outermost first; Dramatiq's default ones are not wanted here.

    Attributes:
        worker_id: Of this process.
        tally: How many attempts ended how, since this process started.
        stopping: Set as soon as the worker is to end: nothing more is fetched.
        vitals: What the host's warden reads; there while a worker runs in this process.
        left: This worker has given up its lease in good order.
    """

    def __init__(
        self,
        scripts: Scripts,
        intake: Intake,
        *,
        lease_ms: int,
        middleware: list[dramatiq.Middleware],
    ) -> None:
        self.scripts = scripts
        self.intake = intake
        self.lease_ms = lease_ms
        self.worker_id = new_worker_id()
        self.slots = Slots()
        self.outage = Outage()
        self.timer = DueTimer(scripts, self.outage)
        self.stopping = threading.Event()
        self.vitals: Vitals | None = None
        self.left = False
        self._keys = Keys(scripts.prefix)
        self.tally: Counter[str] = Counter()
        self.commits = Commits(self)
        self._count = 0
        self._pending: dict[str, str] = {}
        self._lock = threading.Lock()
        self._hooks_by_name: dict[str, tuple[int, list[tuple[Callable[..., None], dramatiq.Middleware]]]] = {}
        super().__init__(middleware=middleware)
        self.queues: dict[str, None] = {}

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the ``before_...`` hooks that do something, outermost first; see ``dramatiq.Broker``.

        Dramatiq calls the empty ones too: 40 calls for each job with ten middleware.
        """
        for hook, middleware in self._hooks("before_" + signal):
            try:
                hook(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                logger.critical("Unexpected failure in before_%s of %r.", signal, middleware, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the ``after_...`` hooks that do something, innermost first."""
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

    def bell(self, queue: str) -> str:
        """Give the key on which this queue's consumers block."""
        return self._keys.bell(queue)

    def store_answered(self) -> None:
        """Note that the store has answered."""
        self.outage.end()
        if self.vitals is not None:
            self.vitals.store_answered()

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue. There are no delay queues: delayed jobs wait in the store."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 1000) -> BridgeConsumer:
        """Make a consumer.

        Args:
            queue_name: Of which queue.
            prefetch: Ignored; see ``slots.py``.
            timeout: Bound on one wait, in ms.
        """
        del prefetch
        return BridgeConsumer(self, queue_name, timeout)

    def next_delivery(self, queue: str) -> str:
        """Give the delivery token of the next fetch: the last one again if its reply was lost."""
        with self._lock:
            if queue not in self._pending:
                self._count += 1
                self._pending[queue] = f"{self._count:x}"
            return self._pending[queue]

    def delivery_arrived(self, queue: str) -> None:
        """Note that the reply to the last fetch has come: its token is used up."""
        with self._lock:
            self._pending.pop(queue, None)

    def is_ours(self, message: JobMessage) -> bool:
        """Ask whether a delivery that did not start at once is still ours; yes if the store is away."""
        if (time.monotonic() - message.asked_s) * 1000 < self.lease_ms / 8:
            return True
        key = self._keys.processing(self.worker_id)
        try:
            held = self.scripts.store.call("HGET", key, message.job.job_id)
        except StoreUnreachable as error:
            self.outage.begin(error)
            return True
        return held is not None and held.decode() == message.delivery

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue what ``actor.send(payload)`` made: it becomes a job like any other.

        Args:
            message: Its only argument is the job type's payload; its options are fields of the job.
            delay: In ms.

        Raises:
            InvalidJob: It does not fit the schema.
            QueueFull: The queue is at its limit.
            StoreUnreachable: The store is away; nothing was enqueued, or the same message again does no harm.
        """
        payload = message.args[0] if message.args else message.kwargs
        job = make_job(message.actor_name, payload, **message.options)
        self.emit_before("enqueue", message, delay)
        self.intake.submit([job], delay_ms=0 if delay is None else delay)
        self.emit_after("enqueue", message, delay)
        return message.copy(message_id=job.job_id) if message.message_id != job.job_id else message

    def flush(self, queue_name: str) -> None:
        """Cancel every job that waits in this queue."""
        key = self._keys.state(State.QUEUED, queue_name)
        while ids := self.scripts.store.call("ZRANGE", key, 0, 99):
            for job_id in ids:
                outcome, _ = self.scripts.cancel(job_id.decode(), "the queue was flushed")
                if outcome == "unknown":  # its record was deleted by hand: it must not keep us here
                    self.scripts.store.call("ZREM", key, job_id)

    def flush_all(self) -> None:
        """Cancel every waiting job of every declared queue."""
        for queue in self.queues:
            self.flush(queue)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until no job of the queue waits or runs; for tests.

        Args:
            queue_name: Which queue.
            timeout: In ms; 60 s by default.

        Raises:
            QueueJoinTimeout: The time ran out.
        """
        deadline_s = time.monotonic() + (60.0 if timeout is None else timeout / 1000)
        states = (State.SCHEDULED, State.RETRYING, State.HELD, State.PROCESSING, State.QUEUED)
        counts = [("ZCARD", self._keys.state(state, queue_name)) for state in states]
        last = b"$"
        link = self.scripts.store.connect()
        try:
            while any(self.scripts.store.pipeline(counts)):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise QueueJoinTimeout(queue_name)  # type: ignore[no-untyped-call]
                link.send(
                    [("XREAD", "BLOCK", int(min(left_s, 1.0) * 1000) + 1, "STREAMS", self._keys.events, last)]
                )
                link.read(left_s + self.scripts.store.timeout_s)
        finally:
            link.close()

    def close(self) -> None:
        """Close all connections."""
        self.scripts.store.close()
