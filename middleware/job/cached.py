"""Reads the state of jobs again and again, from memory, and never an old one.

For a process that lives long and asks often. The store tells it of every job that changes (``CLIENT
TRACKING`` in broadcast mode); what has been told is taken in before each answer, which costs one system call.

Broadcast, and not the mode in which the store remembers who read what: there the writer gets its reply
first, and whoever hears of the write from the writer could still read what was before. A broadcast is written
to our socket before the replies to the commands that caused it (``beforeSleep`` and the order of
``clients_pending_write`` in Valkey 9.1 and Redis 7). On a unix socket what has been written is there; over a
network it may still be under way, so there each read asks the store.
"""

from __future__ import annotations

import threading

import hiredis
from msgspec import Struct

from middleware.job.keys import Keys
from ops.errors import StoreUnreachable
from ops.logs import get_logger
from ops.store.client import Store
from ops.store.resp import Connection, Reply, as_error
from ops.threads import start_duty

#: What is told of jobs that nobody asks for is taken in so often, or it would pile up in the store.
#: To be woken by each message would cost a busy bridge thousands of wake-ups a second.
_TAKE_IN_EVERY_S = 1.0
_FIELDS = ("status", "progress", "message", "reason", "attempt", "worker")

log = get_logger(__name__)


class JobState(Struct, frozen=True, gc=False):
    """Where a job is now.

    Attributes:
        status: A ``State``.
        progress: 0 to 100.
        message: What it said of its progress last.
        reason: Why it is where it is; empty where the status speaks for itself.
        attempt: Number of the attempt that runs or ran last, 0 before the first.
        worker_id: Who runs it, or ran it last.
    """

    status: str
    progress: float = 0.0
    message: str = ""
    reason: str = ""
    attempt: int = 0
    worker_id: str = ""


class CachedReader:
    """Reads states of jobs; for any number of threads.

    Args:
        store: Where to read.
        prefix: Before all key names.
        jobs_max: States that are remembered at most.

    Attributes:
        hits: Answers from memory so far.
        misses: Answers for which the store was asked.
    """

    def __init__(self, store: Store, prefix: str, *, jobs_max: int = 10_000) -> None:
        self._store = store
        self._keys = Keys(prefix)
        self._jobs_max = jobs_max
        self._local = store.url.startswith("unix://")
        self._lock = threading.Lock()
        self._link: Connection | None = None
        self._known: dict[bytes, JobState | None] = {}
        self._closed = threading.Event()
        self._taking_in: threading.Thread | None = None
        self.hits = 0
        self.misses = 0

    def state(self, job_id: str) -> JobState | None:
        """Give a job's state as it is now, None if there is no such job.

        Args:
            job_id: The whole id.

        Raises:
            StoreUnreachable: The store is away.
        """
        key = self._keys.job(job_id).encode()
        if not self._local:
            self.misses += 1
            return _state(self._store.call("HMGET", key, *_FIELDS))
        with self._lock:
            try:
                return self._answer(key)
            except StoreUnreachable:
                self._drop()
            # The store was restarted since: once more, on a new connection.
            try:
                return self._answer(key)
            except StoreUnreachable:
                self._drop()
                raise

    def status(self, job_id: str) -> str | None:
        """Give a job's status as it is now, None if there is no such job; see ``state``."""
        found = self.state(job_id)
        return None if found is None else found.status

    def close(self) -> None:
        """Hang up; the reader is not used again."""
        self._closed.set()
        with self._lock:
            self._drop()

    def _answer(self, key: bytes) -> JobState | None:
        link = self._link
        if link is None:
            link = self._open()
        self._take_in(link)
        if key in self._known:
            self.hits += 1
            return self._known[key]
        self.misses += 1
        link.send([("HMGET", key, *_FIELDS)])
        state = _state(self._reply(link))
        if len(self._known) >= self._jobs_max:
            self._known.clear()
        self._known[key] = state
        return state

    def _open(self) -> Connection:
        link = self._store.connect()
        try:
            link.send([("HELLO", 3), ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._keys.job(""))])
            for _ in range(2):
                self._reply(link)
        except BaseException:
            link.close()
            raise
        if self._taking_in is None:
            self._taking_in = start_duty("cached-reader", self._keep_taking_in, ended=self._closed.is_set)
        self._link = link
        return link

    def _reply(self, link: Connection) -> Reply:
        """Give the reply that is owed to us; what the store tells in between is taken in."""
        while True:
            try:
                reply = link.read(self._store.timeout_s)
            except TimeoutError as error:
                raise StoreUnreachable(
                    f"the store at {self._store.url} did not answer within {self._store.timeout_s:g} s.",
                    remedy="Check whether it is paused or overloaded.",
                ) from error
            if isinstance(reply, hiredis.ReplyError):
                raise as_error(reply)
            if not self._is_news(reply):
                return reply

    def _take_in(self, link: Connection) -> None:
        """Take in all that has arrived."""
        while True:
            try:
                reply = link.read(0.0)
            except TimeoutError:
                return
            self._is_news(reply)

    def _is_news(self, reply: Reply) -> bool:
        """Forget the jobs of which the store tells that they have changed; tells whether it was that."""
        if not isinstance(reply, hiredis.PushNotification):
            return False
        if reply[0] == b"invalidate":
            if reply[1] is None:
                self._known.clear()
            else:
                for key in reply[1]:
                    self._known.pop(key, None)
        return True

    def _drop(self) -> None:
        """What is not told to us any more is not known."""
        link, self._link = self._link, None
        self._known.clear()
        if link is not None:
            link.close()

    def _keep_taking_in(self) -> None:
        while not self._closed.wait(_TAKE_IN_EVERY_S):
            with self._lock:
                if self._link is None:
                    continue
                try:
                    self._take_in(self._link)
                except StoreUnreachable as error:
                    log.info("cached_reader.lost", reason=str(error))
                    self._drop()


def _state(row: list[bytes | None]) -> JobState | None:
    status, progress, message, reason, attempt, worker = row
    if status is None:
        return None
    done = 100.0 if status == b"completed" else 0.0 if progress is None else float(progress)
    return JobState(
        status.decode(),
        done,
        _text(message),
        _text(reason),
        0 if attempt is None else int(attempt),
        _text(worker),
    )


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="replace")
