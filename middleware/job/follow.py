"""Follow jobs: one job to its end, its output, or the events of all jobs. Woken by the store, never polling.

One job is followed on its channel, all jobs on the event stream. On a channel, messages are lost without
a subscriber; so each (re)connection subscribes first and then reads the job's state.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import hiredis

from middleware.job.assembly import job_not_found
from middleware.job.keys import Keys
from middleware.job.reader import Reader
from middleware.job.records import JobEvent, JobRecord, OutputChunk, utc
from ops.backoff import Backoff
from ops.errors import StoreError, StoreTimeout, StoreUnreachable, WaitTimeout
from ops.store.channels import Subscription
from ops.store.client import Store
from ops.store.resp import Connection, as_error

#: After this time without a message, the job is read again in case the connection is half dead.
_SILENCE_S = 10.0
#: An outage of the store longer than this ends ``follow`` and ``output`` with an error.
_OUTAGE_MAX_S = 30.0
_RECONNECT_S = 0.2
_EVENTS_PER_READ = 200

T = TypeVar("T")


class Follower:
    """Follows the jobs of one bridge.

    Args:
        store: The store that has the jobs.
        reader: Reads their records and output.
    """

    def __init__(self, store: Store, reader: Reader) -> None:
        self._store = store
        self._reader = reader
        self._keys: Keys = reader.keys

    def follow(self, job_id: str, *, timeout_s: float | None = None) -> Iterator[JobRecord]:
        """Yield the job now and after every change, up to its final state.

        Args:
            job_id: The whole id.
            timeout_s: Limit for the whole wait; None waits without limit.

        Raises:
            WaitTimeout: The time ran out.
            JobNotFound: The store does not have the job.
            StoreUnreachable: The store was unavailable for longer than 30 s.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        for record in self._over_outages(lambda: self._changes(job_id, deadline_s), job_id, deadline_s):
            yield record
            if record.is_final:
                return

    def _changes(self, job_id: str, deadline_s: float | None) -> Iterator[JobRecord]:
        with Subscription(self._store, [self._keys.event_channel(job_id)]) as subscription:
            subscription.receive_soon()
            while True:
                yield self._reader.job(job_id)
                self._await_message(subscription, job_id, deadline_s)

    def _await_message(self, subscription: Subscription, job_id: str, deadline_s: float | None) -> None:
        """Return when something was published; messages that are already waiting count as one."""
        _require_time(deadline_s, job_id)
        left_s = _SILENCE_S if deadline_s is None else min(_SILENCE_S, deadline_s - time.monotonic())
        if subscription.receive(max(left_s, 0.001)) is None:
            _require_time(deadline_s, job_id)
            if self._reader.status_of(job_id) is None:
                raise job_not_found(job_id)
            return
        while subscription.receive(0.0) is not None:
            pass

    def _over_outages(
        self, connect: Callable[[], Iterator[T | None]], job_id: str, deadline_s: float | None = None
    ) -> Iterator[T]:
        """Yield what an iterator over one connection yields; after an outage start another one.

        Args:
            connect: Starts it; None tells that the store answers.
            job_id: For the error when the time runs out.
            deadline_s: Of the monotonic clock; None: no limit.
        """
        unavailable_since_s: float | None = None
        while True:
            try:
                for item in connect():
                    unavailable_since_s = None
                    if item is not None:
                        yield item
            except StoreUnreachable:
                now_s = time.monotonic()
                unavailable_since_s = now_s if unavailable_since_s is None else unavailable_since_s
                if now_s - unavailable_since_s > _OUTAGE_MAX_S:
                    raise
                _require_time(deadline_s, job_id)
                time.sleep(_RECONNECT_S)
            else:
                return

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> JobRecord:
        """Block until the job is final; see ``follow``."""
        for record in self.follow(job_id, timeout_s=timeout_s):
            if record.is_final:
                return record
        raise WaitTimeout(f"{job_id} has not finished.")

    def output(self, job_id: str, *, follow: bool, after: str = "-") -> Iterator[OutputChunk]:
        """Yield a job's output; with ``follow``, also what is written from now on, until the job is final.

        Args:
            job_id: The whole id.
            follow: Wait for more output while the job is not final.
            after: ``entry_id`` of the last piece seen.

        Raises:
            JobNotFound: The store does not have the job.
            StoreUnreachable: The store was unavailable for longer than 30 s.
        """
        if follow:
            yield from self._output_to_end(job_id, after)
            return
        if self._reader.status_of(job_id) is None:
            raise job_not_found(job_id)
        yield from self._written_output(job_id, after)

    def _output_to_end(self, job_id: str, after: str) -> Iterator[OutputChunk]:
        channels = [self._keys.event_channel(job_id), self._keys.output(job_id)]

        def connect() -> Iterator[OutputChunk | None]:
            nonlocal after
            with Subscription(self._store, channels) as subscription:
                for _ in channels:
                    subscription.receive_soon()
                yield None
                while True:
                    # The state before the output, so that all output of a final job is read.
                    record = self._reader.job(job_id)
                    for chunk in self._written_output(job_id, after):
                        after = chunk.entry_id
                        yield chunk
                    if record.is_final:
                        return
                    self._await_message(subscription, job_id, None)

        return self._over_outages(connect, job_id)

    def _written_output(self, job_id: str, after: str) -> Iterator[OutputChunk]:
        while chunks := self._reader.output(job_id, after):
            yield from chunks
            after = chunks[-1].entry_id

    def newest_event(self) -> str:
        """Return the id of the newest event; following after it misses nothing that comes later."""
        newest = self._store.call("XREVRANGE", self._keys.events, "+", "-", "COUNT", 1)
        return str(newest[0][0].decode()) if newest else "0-0"

    def oldest_event(self) -> str | None:
        """Return the id of the oldest event that the stream still has; None if it is empty."""
        oldest = self._store.call("XRANGE", self._keys.events, "-", "+", "COUNT", 1)
        return str(oldest[0][0].decode()) if oldest else None

    def events_after(self, after: str, limit: int) -> list[JobEvent]:
        """Return the next events that have happened already.

        Args:
            after: ``event_id`` of the last event seen.
            limit: Maximum number of stream entries; one entry may be about several jobs.
        """
        rows = self._store.call("XRANGE", self._keys.events, f"({after}", "+", "COUNT", limit)
        return [event for row in rows for event in _events(row[0].decode(), row[1])]

    def follow_all(self, *, after: str = "$", idle_s: float | None = None) -> Iterator[JobEvent | None]:
        """Yield every change of every job as it happens.

        Args:
            after: ``event_id`` of the last event seen; ``$`` starts with the next one.
            idle_s: Yield None after this time without an event; None waits without limit.

        Raises:
            StoreUnreachable: The store is unavailable; call again with the last ``event_id``.
        """
        for group in self._event_groups(after, idle_s):
            if group is None:
                yield None
            else:
                yield from group

    def watch_events(
        self,
        on_events: Callable[[list[JobEvent]], None],
        *,
        stopping: threading.Event,
        idle_s: float = 1.0,
        on_connected: Callable[[], None] | None = None,
        on_outage: Callable[[StoreUnreachable | StoreError], None] | None = None,
    ) -> None:
        """Handle every change of every job from now on, across outages of the store.

        Args:
            on_events: Called with the events that share an id. If it raises ``StoreUnreachable`` or
                ``StoreError``, it is called with the same events again later.
            stopping: Ends the loop, within ``idle_s``.
            idle_s: Interval, in seconds, at which ``stopping`` is checked while nothing happens.
            on_connected: Called when the loop begins and after each outage. What happened before is not
                reported, and events of a long outage may be lost: read again whatever state you keep.
            on_outage: Called with the first error of an outage.
        """
        after: str | None = None
        backoff = Backoff()
        while not stopping.is_set():
            try:
                newest = self.newest_event()
                after = newest if after is None else after
                if on_connected is not None:
                    on_connected()
                for group in self._event_groups(after, idle_s):
                    if stopping.is_set():
                        return
                    if group:
                        on_events(group)
                        after = group[-1].event_id
                    backoff.reset()
            except (StoreUnreachable, StoreError) as error:
                if backoff.failures == 0 and on_outage is not None:
                    on_outage(error)
                backoff.wait(stopping)

    def _event_groups(self, after: str, idle_s: float | None) -> Iterator[list[JobEvent] | None]:
        """Yield the events of each stream entry, and None after ``idle_s`` without one."""
        link = self._store.connect()
        try:
            if after == "$":
                after = self.newest_event()
            while True:
                entries = self._read_stream(link, after, _SILENCE_S if idle_s is None else idle_s)
                for entry_id, fields in entries:
                    after = entry_id.decode()
                    yield list(_events(after, fields))
                if not entries and idle_s is not None:
                    yield None
        finally:
            link.close()

    def _read_stream(self, link: Connection, after: str, block_s: float) -> list[tuple[bytes, list[bytes]]]:
        block = ("BLOCK", int(block_s * 1000), "STREAMS", self._keys.events, after)
        link.send([("XREAD", "COUNT", _EVENTS_PER_READ, *block)])
        try:
            reply = link.read(block_s + self._store.timeout_s)
        except TimeoutError as error:
            raise StoreTimeout(
                f"The store did not answer within {self._store.timeout_s:g} s.",
                remedy="Check whether it is paused or overloaded.",
            ) from error
        if isinstance(reply, hiredis.ReplyError):
            raise as_error(reply)
        return [] if reply is None else reply[0][1]


def _events(event_id: str, fields: list[bytes]) -> Iterator[JobEvent]:
    """Decode a stream entry: of one job, or of all jobs that were enqueued together."""
    row = {fields[at].decode(): fields[at + 1].decode(errors="replace") for at in range(0, len(fields), 2)}
    progress = row.get("progress")
    for job_id in row["job"].split(","):
        yield JobEvent(
            event_id=event_id,
            job_id=job_id,
            kind="state" if progress is None else "progress",
            status=row["status"],
            progress=None if progress is None else float(progress),
            message=row.get("message", ""),
            at=str(utc(event_id.partition("-")[0])),
        )


def _require_time(deadline_s: float | None, job_id: str) -> None:
    if deadline_s is not None and time.monotonic() >= deadline_s:
        raise WaitTimeout(f"{job_id} has not finished in time.", remedy="Wait longer, or cancel it.")
