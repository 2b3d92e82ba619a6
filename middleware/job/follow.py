"""Waits for jobs: woken by what the scripts publish, never by polling.

Whoever waits subscribes first and reads afterwards, so that nothing falls between. A connection that is
lost is made anew, and the state read again, since whatever was published meanwhile went unheard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hiredis

from middleware.job.keys import Keys
from middleware.job.reader import Reader
from middleware.job.records import JobEvent, JobRecord, OutputChunk, utc
from ops.errors import JobNotFound, StoreUnreachable, WaitTimeout
from ops.store.resp import Connection, Reply, as_error

if TYPE_CHECKING:
    from ops.store.client import Store

#: Ends a silent wait now and then, to see whether the store is still there.
_LISTEN_S = 10.0
#: For how long a store that has gone away is waited for before the error is passed on.
_PATIENCE_S = 30.0


class Follower:
    """Follows the jobs of one bridge.

    Args:
        store: Where they are.
        reader: To read them with.
    """

    def __init__(self, store: Store, reader: Reader) -> None:
        self._store = store
        self._reader = reader
        self._keys: Keys = reader.keys

    def follow(self, job_id: str, *, timeout_s: float | None = None) -> Iterator[JobRecord]:
        """Yield the job at once and after every change, up to its final state.

        Args:
            job_id: The whole id.
            timeout_s: For how long at most; None: as long as it takes.

        Raises:
            WaitTimeout: The time ran out.
            JobNotFound: There is no such job.
            StoreUnreachable: The store was away for longer than 30 s.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        away_since_s: float | None = None
        while True:
            try:
                for record in self._follow_once(job_id, deadline_s):
                    away_since_s = None
                    yield record
                    if record.is_final:
                        return
            except StoreUnreachable:
                now_s = time.monotonic()
                away_since_s = now_s if away_since_s is None else away_since_s
                if now_s - away_since_s > _PATIENCE_S:
                    raise
                _check(deadline_s, job_id)
                time.sleep(0.2)

    def _follow_once(self, job_id: str, deadline_s: float | None) -> Iterator[JobRecord]:
        link = self._store.connect()
        try:
            link.send([("SUBSCRIBE", self._keys.event_channel(job_id))])
            _take_soon(link, self._store.timeout_s)
            while True:
                yield self._reader.job(job_id)
                self._await_event(link, job_id, deadline_s)
        finally:
            link.close()

    def _await_event(self, link: Connection, job_id: str, deadline_s: float | None) -> None:
        """Return when something was published; what has piled up behind it is one change."""
        while True:
            _check(deadline_s, job_id)
            left_s = _LISTEN_S if deadline_s is None else min(_LISTEN_S, deadline_s - time.monotonic())
            try:
                _take(link, max(left_s, 0.001))
            except TimeoutError:
                if deadline_s is None or time.monotonic() < deadline_s:
                    # Nothing heard: make sure that nothing was missed by a half-dead connection.
                    if self._reader.status_of(job_id) is None:
                        raise JobNotFound(f"there is no job {job_id!r} any more.") from None
                    return
                continue
            while True:
                try:
                    _take(link, 0.0)
                except TimeoutError:
                    return

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> JobRecord:
        """Block until the job has ended; see ``follow``."""
        for record in self.follow(job_id, timeout_s=timeout_s):
            if record.is_final:
                return record
        raise WaitTimeout(f"{job_id} has not ended.")

    def output(self, job_id: str, *, follow: bool, after: str = "-") -> Iterator[OutputChunk]:
        """Yield a job's output; with ``follow``, as it is written, until the job has ended.

        Args:
            job_id: The whole id.
            follow: Wait for more while the job lives.
            after: ``entry_id`` of the last piece seen.

        Raises:
            JobNotFound: There is no such job.
            StoreUnreachable: The store was away for longer than 30 s.
        """
        if not follow:
            if self._reader.status_of(job_id) is None:
                raise JobNotFound(f"there is no job {job_id!r}.", remedy="'3ox jobs' lists all jobs.")
            yield from self._rest(job_id, after)
            return
        away_since_s: float | None = None
        while True:
            try:
                link = self._store.connect()
                try:
                    link.send([("SUBSCRIBE", self._keys.event_channel(job_id), self._keys.output(job_id))])
                    for _ in range(2):
                        _take_soon(link, self._store.timeout_s)
                    away_since_s = None
                    while True:
                        # The state before the output: what is written up to the end is then read too.
                        status = self._reader.job(job_id)
                        for chunk in self._rest(job_id, after):
                            after = chunk.entry_id
                            yield chunk
                        if status.is_final:
                            return
                        self._await_event(link, job_id, None)
                finally:
                    link.close()
            except StoreUnreachable:
                now_s = time.monotonic()
                away_since_s = now_s if away_since_s is None else away_since_s
                if now_s - away_since_s > _PATIENCE_S:
                    raise
                time.sleep(0.2)

    def _rest(self, job_id: str, after: str) -> Iterator[OutputChunk]:
        while chunks := self._reader.output(job_id, after):
            yield from chunks
            after = chunks[-1].entry_id

    def newest_event(self) -> str:
        """Give the id of the last event, to hear all that comes after what is read next."""
        newest = self._store.call("XREVRANGE", self._keys.events, "+", "-", "COUNT", 1)
        return str(newest[0][0].decode()) if newest else "0-0"

    def oldest_event(self) -> str | None:
        """Give the id of the oldest event that is still there; None if there is none."""
        oldest = self._store.call("XRANGE", self._keys.events, "-", "+", "COUNT", 1)
        return str(oldest[0][0].decode()) if oldest else None

    def events_after(self, after: str, limit: int) -> list[JobEvent]:
        """Give the next events that are there already.

        Args:
            after: ``event_id`` of the last event seen.
            limit: How many entries of the stream; one may be of several jobs.
        """
        rows = self._store.call("XRANGE", self._keys.events, f"({after}", "+", "COUNT", limit)
        return [event for row in rows for event in _events(row[0].decode(), row[1])]

    def follow_all(self, *, after: str = "$", idle_s: float | None = None) -> Iterator[JobEvent | None]:
        """Yield every change of every job, as it happens.

        Args:
            after: ``event_id`` of the last event seen; ``$``: from now on.
            idle_s: Yield None after so long without an event; None: wait on.

        Raises:
            StoreUnreachable: The store went away; call again with the last ``event_id``.
        """
        for group in self.follow_groups(after=after, idle_s=idle_s):
            if group is None:
                yield None
            else:
                yield from group

    def follow_groups(
        self, *, after: str = "$", idle_s: float | None = None
    ) -> Iterator[list[JobEvent] | None]:
        """Yield changes as ``follow_all`` does, those that share an id together."""
        link = self._store.connect()
        try:
            if after == "$":
                after = self.newest_event()
            while True:
                wait_s = _LISTEN_S if idle_s is None else idle_s
                link.send(
                    [
                        (
                            "XREAD",
                            "COUNT",
                            200,
                            "BLOCK",
                            int(wait_s * 1000),
                            "STREAMS",
                            self._keys.events,
                            after,
                        )
                    ]
                )
                reply = _take_soon(link, wait_s + self._store.timeout_s)
                if reply is None:
                    if idle_s is not None:
                        yield None
                    continue
                for entry_id, fields in reply[0][1]:
                    after = entry_id.decode()
                    yield list(_events(after, fields))
        finally:
            link.close()


def _events(event_id: str, fields: list[bytes]) -> Iterator[JobEvent]:
    """Read an entry of the stream: of one job, or of all jobs that were taken in together."""
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


def _take(link: Connection, timeout_s: float) -> Reply:
    reply = link.read(timeout_s)
    if isinstance(reply, hiredis.ReplyError):
        raise as_error(reply)
    return reply


def _take_soon(link: Connection, timeout_s: float) -> Reply:
    """Take a reply that the store owes us: silence is an outage."""
    try:
        return _take(link, timeout_s)
    except TimeoutError as error:
        raise StoreUnreachable(
            f"the store did not answer within {timeout_s:g} s.",
            remedy="Check whether it is paused or overloaded.",
        ) from error


def _check(deadline_s: float | None, job_id: str) -> None:
    if deadline_s is not None and time.monotonic() >= deadline_s:
        raise WaitTimeout(f"{job_id} has not ended in time.", remedy="Wait longer, or cancel it.")
