"""Fetches jobs from the store for the worker's threads.

An idle consumer blocks on the queue's bell. While the store is unavailable it retries with a backoff and logs
the outage once; what is to be committed is kept until the store is back (``group_commit.py``).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Container, Iterable

import hiredis
from dramatiq import Consumer
from dramatiq.broker import MessageProxy

from middleware.broker.actor_messages import message_of_job
from middleware.broker.group_commit import GroupCommit
from middleware.broker.message import JobMessage
from middleware.broker.slots import SlotShare
from middleware.broker.transitions import Delivered, Settlement
from middleware.broker.type_directory import TypeDirectory
from middleware.broker.worker_state import WorkerState
from middleware.job.keys import DELIVER_QUEUE, QUEUE
from middleware.job.records import JobError
from middleware.job.schema import decode_job
from ops.backoff import Backoff
from ops.errors import InvalidJob, StoreError, StoreUnreachable
from ops.store.resp import Connection, as_error

#: Longest time between two fetches of an idle consumer: a worker may have died between a ring and its fetch,
#: which leaves a job without a ring. Deliveries can wait longer for that rare case than commands.
_FETCH_INTERVAL_S = {QUEUE: 8.0, DELIVER_QUEUE: 30.0}
#: Longest wait of one command for the bell. Dramatiq's thread checks for a stop every second: a command for
#: each check would be half of what an idle worker sends.
_BELL_S = 3.0
#: Largest part of the threads that deliveries may occupy: they may wait long for a destination that is down.
_DELIVER_PART = 0.25

logger = logging.getLogger(__name__)


class BridgeConsumer(Consumer):
    """Consumes one queue.

    Args:
        state: The worker process.
        group_commit: Commits how attempts ended.
        queue: Name of the queue.
        timeout_ms: Upper bound of one ``__next__``.
        types: The job types.
        carried: Names of the job types for which this process has actors.
    """

    def __init__(
        self,
        state: WorkerState,
        group_commit: GroupCommit,
        queue: str,
        timeout_ms: int,
        *,
        types: TypeDirectory,
        carried: Container[str],
    ) -> None:
        self._state = state
        self._types = types
        self._carried = carried
        self._group_commit = group_commit
        self._queue = queue
        self._timeout_s = timeout_ms / 1000
        self._ready: deque[JobMessage] = deque()
        self._bell: Connection | None = None
        self._listens_until_s: float | None = None
        self._rung = True
        self._backlog = False
        self._fetched_s = 0.0
        self._backoff = Backoff()
        self._fetch_interval_s = _FETCH_INTERVAL_S.get(queue, _FETCH_INTERVAL_S[QUEUE])
        self._share = SlotShare(state.slots, _DELIVER_PART if queue == DELIVER_QUEUE else None)

    def __next__(self) -> MessageProxy | None:
        """Return the next job, or None after the timeout."""
        if self._ready:
            return self._ready.popleft()
        state = self._state
        if state.vitals is not None:
            state.vitals.record_poll()
        if state.stopping.is_set():
            time.sleep(min(self._timeout_s, 0.05))  # Dramatiq stops this thread within a moment
            return None
        try:
            if not self._rung and time.monotonic() - self._fetched_s < self._fetch_interval_s:
                if not self._listen():
                    return None
                if not self._rung:
                    state.store_answered()
                    return None
            room = self._share.reserve(self._timeout_s, backlog=self._backlog)
            if room == 0 or state.stopping.is_set():
                self._share.give(room)
                return None
            self._fetch(room)
        except (StoreUnreachable, StoreError) as error:
            self._back_off(error)
        else:
            self._backoff.reset()
            state.store_answered()
        return self._ready.popleft() if self._ready else None

    def _fetch(self, room: int) -> None:
        """Fetch up to ``room`` jobs; return the reserved slots that stay empty."""
        state = self._state
        taken = 0
        try:
            delivery = state.next_delivery(self._queue)
            asked_s = time.monotonic()
            fetched = state.scripts.fetch(
                state.worker_id,
                self._queue,
                room=room,
                delivery=delivery,
                lease_ms=state.lease_ms,
            )
            state.delivery_arrived(self._queue)
            fetched_s = time.monotonic()
            for delivered in fetched.jobs:
                if self._accept(delivered, delivery, asked_s, fetched_s):
                    taken += 1
        finally:
            self._share.give(room - taken)
        # As many jobs as there was room for: there may be more. Fewer: the queue is empty, and the next job
        # that is enqueued rings the bell.
        self._rung = self._backlog = len(fetched.jobs) == room
        self._fetched_s = time.monotonic()
        state.timer.note(fetched.next_due_ms)

    def _accept(self, delivered: Delivered, delivery: str, asked_s: float, fetched_s: float) -> bool:
        state = self._state
        try:
            job = decode_job(delivered.spec)
        except InvalidJob as error:
            # Written by a newer version, or by hand. No worker of this version can run it: it fails here.
            logger.exception("job.unreadable: %s", delivered.job_id)
            failure = Settlement(outcome="failed", error=JobError.of(error).encode(), reason=str(error))
            state.scripts.settle(state.worker_id, delivered.job_id, delivery, failure)
            return False
        if job.job_type not in self._carried:
            reason = f"no worker on queue {self._queue} has an actor for {job.job_type}"
            logger.info("job.uncarried", extra={"job_id": job.job_id, "job_type": job.job_type})
            state.scripts.park(state.worker_id, job.job_id, delivery, job_type=job.job_type, reason=reason)
            return False
        message = message_of_job(
            job,
            self._types,
            queue=self._queue,
            created_ms=delivered.created_ms,
            options=delivered.options,
        )
        self._ready.append(
            JobMessage(job, delivered, delivery, message, asked_s=asked_s, fetched_s=fetched_s)
        )
        return True

    def _listen(self) -> bool:
        """Wait for the bell until the timeout; return whether the store has answered.

        A wait in the store outlasts this call: the next one continues it.
        """
        store = self._state.scripts.store
        if self._bell is None:
            self._bell = store.connect()
        try:
            if self._listens_until_s is None:
                self._bell.send([("BLPOP", self._state.bell(self._queue), _BELL_S)])
                self._listens_until_s = time.monotonic() + _BELL_S + store.timeout_s
            reply = self._bell.read(self._timeout_s)
        except (TimeoutError, StoreUnreachable) as error:
            until_s = self._listens_until_s
            if isinstance(error, TimeoutError) and until_s is not None and time.monotonic() < until_s:
                return False
            self._hang_up()
            raise StoreUnreachable(f"The store does not answer ({error}).") from error
        self._listens_until_s = None
        if isinstance(reply, hiredis.ReplyError):
            self._hang_up()
            raise as_error(reply)
        self._rung = reply is not None
        return True

    def _back_off(self, error: Exception) -> None:
        self._state.outage.begin(error)
        self._rung = True
        self._state.stopping.wait(min(self._backoff.next_s(), self._timeout_s))

    def _hang_up(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None
        self._listens_until_s = None

    def ack(self, message: MessageProxy) -> None:
        """Commit how the attempt ended; see ``group_commit.py``."""
        self._commit(message)

    def nack(self, message: MessageProxy) -> None:
        """Commit how the attempt ended: the settlement says whether it failed."""
        self._commit(message)

    def _commit(self, message: MessageProxy) -> None:
        if not isinstance(message, JobMessage):
            raise TypeError(f"not a job: {message!r}")
        settlement = message.complete_settlement()
        if settlement is None:
            # A middleware raised and Dramatiq only logged it. The job must not stay "processing".
            lost = StoreError("A middleware failed before the outcome was known; see 3ox.log.")
            settlement = Settlement(
                outcome="failed",
                error=JobError.of(lost).encode(),
                reason="its outcome was lost: a middleware failed",
            )
        self._group_commit.add(message, settlement, self._share.give)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Hand back jobs that were not started; neither an attempt nor a crash is counted."""
        back = Settlement(outcome="queued", reason=f"handed back: {self._state.worker_id} is stopping")
        for message in messages:
            if isinstance(message, JobMessage):
                self._group_commit.add(message, back, self._share.give)

    def close(self) -> None:
        """Hand back what was fetched and not started, and close the connection."""
        self.requeue(list(self._ready))
        self._ready.clear()
        may_be_rung = self._rung or self._listens_until_s is not None
        self._hang_up()
        if may_be_rung:
            self._ring_again()

    def _ring_again(self) -> None:
        """Wake another worker: a ring that this one received may be for a job that it no longer fetches."""
        try:
            self._state.scripts.store.call("LPUSH", self._state.bell(self._queue), "1")
        except (StoreUnreachable, StoreError) as error:
            self._state.outage.begin(error)
