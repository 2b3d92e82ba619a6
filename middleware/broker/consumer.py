"""Takes jobs from the store and commits how they ended.

A consumer with nothing to do blocks on the bell. While the store is away it waits, says so once, and keeps
what it has to commit until the store is back.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import hiredis
from dramatiq import Consumer
from dramatiq.broker import MessageProxy

from middleware.broker.message import JobMessage
from middleware.broker.scripts import Delivered, Settlement
from middleware.broker.slots import Share
from middleware.job.keys import DELIVER_QUEUE, QUEUE
from middleware.job.records import JobError
from middleware.job.schema import decode_job
from ops.backoff import Backoff
from ops.errors import InvalidJob, StoreError, StoreUnreachable
from ops.store.resp import Connection, as_error

if TYPE_CHECKING:
    from middleware.broker.broker import BridgeBroker

#: Without a ring, look all the same after this long: a worker may have died between ring and fetch. A
#: delivery may wait longer for that rare case than a command.
_LOOK_EVERY_S = {QUEUE: 8.0, DELIVER_QUEUE: 30.0}
#: Deliveries may wait long for a sink that is down: they get this part of the threads at most.
_DELIVER_PART = 0.25

logger = logging.getLogger(__name__)


class BridgeConsumer(Consumer):
    """Consumes one queue.

    Args:
        broker: Whose worker this is.
        queue: The queue's name.
        timeout_ms: Bound on one ``__next__``.
    """

    def __init__(self, broker: BridgeBroker, queue: str, timeout_ms: int) -> None:
        self._broker = broker
        self._queue = queue
        self._timeout_s = timeout_ms / 1000
        self._ready: deque[JobMessage] = deque()
        self._bell: Connection | None = None
        self._rung = True
        self._backlog = False
        self._looked_s = 0.0
        self._backoff = Backoff()
        self._look_every_s = _LOOK_EVERY_S.get(queue, _LOOK_EVERY_S[QUEUE])
        self._share = Share(broker.slots, None if queue == QUEUE else _DELIVER_PART)

    def __next__(self) -> MessageProxy | None:
        """Give a job, or None after the time-out."""
        if self._ready:
            return self._ready.popleft()
        broker = self._broker
        if broker.vitals is not None:
            broker.vitals.went_round()
        if broker.stopping.is_set():
            time.sleep(min(self._timeout_s, 0.05))  # the thread is told to end within a moment
            return None
        try:
            if not self._rung and time.monotonic() - self._looked_s < self._look_every_s:
                self._listen()
                if not self._rung:
                    broker.store_answered()
                    return None
            room = self._share.reserve(self._timeout_s, backlog=self._backlog)
            if room == 0 or broker.stopping.is_set():
                self._share.give(room)
                return None
            self._fetch(room)
        except (StoreUnreachable, StoreError) as error:
            self._wait_out(error)
        else:
            self._backoff.reset()
            broker.store_answered()
        return self._ready.popleft() if self._ready else None

    def _fetch(self, room: int) -> None:
        """Get up to ``room`` jobs; the reserved slots that stay empty are given back."""
        broker = self._broker
        taken = 0
        try:
            delivery = broker.next_delivery(self._queue)
            asked_s = time.monotonic()
            fetched = broker.scripts.fetch(
                broker.worker_id,
                self._queue,
                room=room,
                delivery=delivery,
                lease_ms=broker.lease_ms,
            )
            broker.delivery_arrived(self._queue)
            for delivered in fetched.jobs:
                if self._accept(delivered, delivery, asked_s):
                    taken += 1
        finally:
            self._share.give(room - taken)
        # A full hand may mean that there is more. Any other means that the queue is empty now, and whoever
        # puts a job into it rings.
        self._rung = self._backlog = len(fetched.jobs) == room
        self._looked_s = time.monotonic()
        broker.timer.note(fetched.next_due_ms)

    def _accept(self, delivered: Delivered, delivery: str, asked_s: float) -> bool:
        broker = self._broker
        try:
            job = decode_job(delivered.spec)
        except InvalidJob as error:
            # Written by a newer version, or by hand: end it, with the reason, instead of passing it round.
            logger.exception("job.unreadable: %s", delivered.job_id)
            failure = Settlement(outcome="failed", error=JobError.of(error).encode(), reason=str(error))
            broker.scripts.settle(broker.worker_id, delivered.job_id, delivery, failure)
            return False
        self._ready.append(JobMessage(job, delivered, delivery, self._queue, asked_s=asked_s))
        return True

    def _listen(self) -> None:
        """Block until the bell rings, or until the time-out."""
        broker = self._broker
        if self._bell is None:
            self._bell = broker.scripts.store.connect()
        try:
            self._bell.send([("BLPOP", broker.bell(self._queue), self._timeout_s)])
            reply = self._bell.read(self._timeout_s + broker.scripts.store.timeout_s)
        except (TimeoutError, StoreUnreachable) as error:
            self._hang_up()
            raise StoreUnreachable(f"the store does not answer ({error}).") from error
        if isinstance(reply, hiredis.ReplyError):
            self._hang_up()
            raise as_error(reply)
        self._rung = reply is not None

    def _wait_out(self, error: Exception) -> None:
        self._broker.outage.begin(error)
        self._rung = True
        self._broker.stopping.wait(min(self._backoff.next_s(), self._timeout_s))

    def _hang_up(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def ack(self, message: MessageProxy) -> None:
        """Commit how the attempt ended; see ``commits.py``."""
        self._commit(message)

    def nack(self, message: MessageProxy) -> None:
        """See ``ack``: a failure is an end like any other."""
        self._commit(message)

    def _commit(self, message: MessageProxy) -> None:
        if not isinstance(message, JobMessage):
            raise TypeError(f"not a job: {message!r}")
        settlement = message.settlement
        if settlement is None:
            # A middleware broke and Dramatiq only logged it: the job must not stay "processing".
            lost = StoreError("a middleware failed before the outcome was known; see 3ox.log.")
            settlement = Settlement(
                outcome="failed",
                error=JobError.of(lost).encode(),
                reason="its outcome was lost: a middleware failed",
            )
        self._broker.commits.add(message, settlement, self._share.give)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Hand jobs back that were not started; no attempt and no crash is counted."""
        back = Settlement(outcome="queued", reason=f"handed back: {self._broker.worker_id} is stopping")
        for message in messages:
            if isinstance(message, JobMessage):
                self._broker.commits.add(message, back, self._share.give)

    def close(self) -> None:
        """Hand back what was fetched but not given out, and hang up."""
        self.requeue(list(self._ready))
        self._ready.clear()
        self._hang_up()
        if self._rung:
            self._pass_on()

    def _pass_on(self) -> None:
        """Ring for another worker: what we heard may have been for a job that we no longer fetch."""
        try:
            self._broker.scripts.store.call("LPUSH", self._broker.bell(self._queue), "1")
        except (StoreUnreachable, StoreError) as error:
            self._broker.outage.begin(error)
