"""The Dramatiq broker over the store functions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from typing import Any

import dramatiq
import msgspec
from dramatiq import Message
from dramatiq.errors import QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import GroupCallbacks, MiddlewareError

from middleware.broker.actor_messages import delay_ms_of, job_of_message
from middleware.broker.actor_types import job_type_of
from middleware.broker.admission import Admission
from middleware.broker.consumer import BridgeConsumer
from middleware.broker.group_commit import GroupCommit
from middleware.broker.hooks import HookLists
from middleware.broker.message import JobMessage
from middleware.broker.scripts import Scripts
from middleware.broker.transitions import EnqueueRequest, Settlement
from middleware.broker.worker_state import WorkerState
from middleware.job.base import Job
from middleware.job.carriers import carried_types
from middleware.job.keys import DELIVER_QUEUE, QUEUE
from middleware.job.states import State
from middleware.job.trust import capped
from middleware.job.types import JOB_TYPES
from ops.backoff import Backoff
from ops.errors import BridgeError, StoreUnreachable

#: Signals after which an attempt is settled.
_ATTEMPT_ENDED = frozenset({"process_message", "skip_message"})

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
        types: The job types that this process knows.
        carries_built_in: Whether this pool consumes the queues of built-in types too if it has actors of a
            user.
        plugin_actors: Names of the actors of plug-ins; they are consumed where the built-in ones are.
        left_queues: Queues that this pool leaves to another unit of the same bridge.
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
        self.types = admission.types
        self.carries_built_in = False
        self.plugin_actors: set[str] = set()
        self.left_queues: frozenset[str] = frozenset()
        self._settling = threading.local()
        self._hooks = HookLists(self)
        dramatiq.Broker.__init__(self, middleware=middleware)
        self.queues: dict[str, None] = {}

    def add_middleware(
        self,
        middleware: dramatiq.Middleware,
        *,
        before: type[dramatiq.Middleware] | None = None,
        after: type[dramatiq.Middleware] | None = None,
    ) -> None:
        """Add a middleware; see ``dramatiq.Broker``.

        ``before`` and ``after`` also take the class of Dramatiq for which the bridge has one of its own with
        the same name, such as ``Retries``.

        Dramatiq's own ``GroupCallbacks`` is not added beside ours: for a group whose members it has not
        counted it calls back with each of them. Its ``barrier_ttl`` is used.
        """
        if type(middleware) is GroupCallbacks:
            for ours in self.middleware:
                if isinstance(ours, GroupCallbacks):
                    ours.barrier_ttl = middleware.barrier_ttl
                    return
        super().add_middleware(middleware, before=self._place(before), after=self._place(after))

    def _place(self, wanted: type[dramatiq.Middleware] | None) -> type[dramatiq.Middleware] | None:
        """Return the class of ours that replaces one of Dramatiq's: it has the same name."""
        if wanted is None or wanted.__module__.partition(".")[0] != "dramatiq":
            return wanted
        if any(isinstance(item, wanted) for item in self.middleware):
            return wanted
        same_name = (type(item) for item in self.middleware if type(item).__name__ == wanted.__name__)
        return next(same_name, wanted)

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the ``before_...`` hooks that have an effect, outermost first; see ``dramatiq.Broker``."""
        for hook, middleware in self._hooks.of("before_" + signal, args[0] if args else None):
            try:
                hook(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                logger.critical("Unexpected failure in before_%s of %r.", signal, middleware, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the ``after_...`` hooks that have an effect, innermost first.

        What they enqueue after an attempt (a pipeline's next message, a callback, the same message again) is
        committed with the end of the attempt, in one step.
        """
        if signal in _ATTEMPT_ENDED and isinstance(args[0], JobMessage):
            self._emit_attempt_ended(signal, args[0], **kwargs)
        else:
            self._emit_after(signal, *args, **kwargs)

    def _emit_attempt_ended(self, signal: str, message: JobMessage, **kwargs: Any) -> None:
        """Call the hooks that settle an attempt; what they enqueue follows it.

        Dramatiq calls them again, with the exception, if one is raised in this thread meanwhile: that must
        not change an outcome that has been decided, nor what follows it.
        """
        if message.settlement is None:
            message.ended = kwargs
        elif message.hooks_called:
            return
        message.result = message.ended.get("result")
        message.restart_follow_ups()
        self._settling.message = message
        try:
            self._emit_after(signal, message, **message.ended)
            message.hooks_called = message.settlement is not None
        finally:
            self._settling.message = None

    def _emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        for hook, middleware in self._hooks.of("after_" + signal, args[0] if args else None):
            try:
                hook(self, *args, **kwargs)
            except Exception:
                logger.critical("Unexpected failure in after_%s of %r.", signal, middleware, exc_info=True)

    def declare_actor(self, actor: dramatiq.Actor[Any, Any]) -> None:
        """Declare an actor; one that is not built in becomes a job type.

        Raises:
            ValueError: It has the queue of deliveries.
        """
        if JOB_TYPES.get(actor.actor_name) is None:
            if actor.queue_name == DELIVER_QUEUE:
                raise ValueError(f"the queue {DELIVER_QUEUE!r} is for deliveries of results; use another one")
            self.types.declare(job_type_of(actor))
        super().declare_actor(actor)

    def undeclare_actor(self, name: str) -> None:
        """Remove an actor and its job type."""
        del self.actors[name]
        self.types.forget(name)

    def get_declared_queues(self) -> set[str]:
        """Return the queues that a worker of this process consumes: those of the actors that it declares.

        A module of a user's actors imports the bridge's broker, and with it the built-in actors: those can
        be sent, and are not consumed unless ``carries_built_in``.
        """
        own = {
            actor.queue_name
            for name, actor in self.actors.items()
            if JOB_TYPES.get(name) is None and name not in self.plugin_actors
        }
        return (set(self.queues) if self.carries_built_in or not own else own) - self.left_queues

    def carried(self, queues: Collection[str]) -> list[str]:
        """Return the job types that this process runs, in order: those whose queues it consumes.

        Args:
            queues: The queues that its worker consumes.
        """
        declared = {name: actor.queue_name for name, actor in self.actors.items()}
        return carried_types(declared, queues, runs_built_in=self.carries_built_in)

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

        Raises:
            QueueNotFound: The queue is not declared.
        """
        del prefetch
        self._require_queue(queue_name)
        return BridgeConsumer(
            self, self.group_commit, queue_name, timeout, types=self.types, carried=self.actors
        )

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

    def _require_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)  # type: ignore[no-untyped-call]

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue a message: it becomes a job like any other.

        Args:
            message: Of an actor of this process or of a published type. Of a built-in type its only argument
                is the payload, and its options are fields of the job.
            delay: Time until it may start, in ms; by default its option ``eta`` counts.

        Raises:
            InvalidJob: It does not fit the schema.
            QueueFull: The queue is at its limit.
            QueueNotFound: Its queue is neither declared here nor that of a published type.
            StoreUnreachable: Nothing was enqueued, or enqueueing the same message again has no effect.
        """
        settling: JobMessage | None = getattr(self._settling, "message", None)
        delay_ms = delay_ms_of(message, delay)
        if settling is not None:
            self._follow_up(settling, message, delay_ms)
            return message
        self._require_carried_queue(message)
        job = job_of_message(message, self.types)
        self.emit_before("enqueue", message, delay)
        self.admission.submit([job], delay_ms=delay_ms)
        self.emit_after("enqueue", message, delay)
        if JOB_TYPES.get(message.actor_name) is not None and message.message_id != job.job_id:
            return message.copy(message_id=job.job_id)
        return message

    def _require_carried_queue(self, message: Message[Any]) -> None:
        """Return if a worker may consume the queue of a message: nothing would say that it waits for ever."""
        queue = message.queue_name
        if queue in self.queues or any(known.queue == queue for known in self.types.all()):
            return
        known = self.types.find(message.actor_name)  # published a moment ago
        if known is None or known.queue != queue:
            raise QueueNotFound(queue)  # type: ignore[no-untyped-call]

    def _follow_up(self, ended: JobMessage, message: Message[Any], delay_ms: int) -> None:
        """Have a message committed with the end of the attempt whose hooks enqueue it."""
        if message.message_id == ended.message_id and ended.settlement is None:
            ended.settle(
                Settlement(outcome="retrying", delay_ms=delay_ms, reason="enqueued again by a middleware")
            )
            return
        try:
            request = self.follower(ended.job, message, delay_ms=delay_ms)
        except BridgeError as error:
            ended.refuse_follow_up(error)
        else:
            ended.follow_up(request)

    def follower(self, parent: Job, message: Message[Any], *, delay_ms: int = 0) -> EnqueueRequest:
        """Return the request that enqueues what follows a job: with its trace, its source and its trust.

        Waits while the store is unavailable, if the type is that of another pool and not known yet.

        Args:
            parent: The job that it follows.
            message: What is to be enqueued.
            delay_ms: Time until it may start.

        Raises:
            BridgeError: It does not fit the schema, or the policy denies it.
        """
        backoff = Backoff()
        while True:
            try:
                return self._follower(parent, message, delay_ms)
            except StoreUnreachable as error:
                # The types of other pools are in the store; the commit of this attempt needs it as well.
                self.outage.begin(error)
                backoff.sleep()

    def _follower(self, parent: Job, message: Message[Any], delay_ms: int) -> EnqueueRequest:
        job = job_of_message(message, self.types)
        inherited = {
            "trace_id": parent.trace,
            "source": parent.source,
            "actor": parent.actor,
            "trust": capped(job.trust, parent.trust),
        }
        prepared = self.admission.prepare(msgspec.structs.replace(job, **inherited))
        return self.admission.request(prepared, delay_ms=delay_ms)

    def flush(self, queue_name: str) -> None:
        """Cancel every queued job of this queue.

        Raises:
            QueueNotFound: The queue is not declared.
        """
        self._require_queue(queue_name)
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
            QueueNotFound: The queue is not declared.
        """
        self._require_queue(queue_name)
        deadline_s = time.monotonic() + (60.0 if timeout is None else timeout / 1000)
        last = b"$"
        link = self.scripts.store.connect()
        try:
            while self._is_busy(queue_name):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise QueueJoinTimeout(queue_name)  # type: ignore[no-untyped-call]
                link.send(
                    [("XREAD", "BLOCK", int(min(left_s, 1.0) * 1000) + 1, "STREAMS", self.keys.events, last)]
                )
                link.read(left_s + self.scripts.store.timeout_s)
        finally:
            link.close()

    def _is_busy(self, queue_name: str) -> bool:
        """Return whether a job of a queue has not ended; looks at the first 1,000 of each state."""
        store, keys = self.scripts.store, self.keys
        states = (State.SCHEDULED, State.RETRYING, State.HELD, State.PROCESSING)
        commands: list[tuple[str | int, ...]] = [("ZCARD", keys.state(State.QUEUED, queue_name))]
        commands += [("ZRANGE", keys.state(state, queue_name), 0, 999) for state in states]
        # In one transaction: a job that changes its state meanwhile would be missed.
        queued, *found = store.pipeline([("MULTI",), *commands, ("EXEC",)])[-1]
        ids = [job_id.decode() for page in found for job_id in page]
        queues = store.pipeline([("HGET", keys.job(job_id), "queue") for job_id in ids]) if ids else []
        return queued > 0 or any((QUEUE if name is None else name.decode()) == queue_name for name in queues)

    def close(self) -> None:
        """Close all connections."""
        self.scripts.store.close()
