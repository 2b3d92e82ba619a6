"""Keep what was read of jobs in memory until the store reports that they changed.

For processes that run for long and read the same jobs often. The store reports each write to a job's hash
(``CLIENT TRACKING`` in broadcast mode), and reports that have arrived are processed before each answer, which
costs one system call. So an answer is never older than a write that was answered before the question.

Broadcast mode, because in the default mode the store replies to the writer first: a process that the writer
notifies could still read the old value. A broadcast is written to our socket before the replies to the
commands that caused it (``beforeSleep``, order of ``clients_pending_write``; Valkey 9.1 and Redis 7).
On a unix socket it has arrived by then; over a network it may be in transit. So there, and with a server that
does not support tracking, each answer is read from the store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import hiredis

from middleware.job.ids import ID_LENGTH
from middleware.job.keys import Keys
from ops.errors import StoreUnreachable
from ops.logs import get_logger
from ops.store.client import Store
from ops.store.resp import Connection, as_error
from ops.threads import start_duty

#: Interval at which reports are processed without reads, or they would pile up in the store. To wake up
#: for each would cost thousands of wake-ups a second on a busy bridge.
_DRAIN_INTERVAL_S = 1.0
#: Without a read for this long the connection is closed: each write of the bridge costs the store 0.4 us more
#: (2.2 instead of 1.8) while it is open.
_IDLE_S = 60.0

_Value = TypeVar("_Value")

log = get_logger(__name__)


class _Pending:
    """Stands for a value while it is read; removed when the job changes, and then the value is not kept."""


class _NotSupported(Exception):
    """The server does not know ``CLIENT TRACKING``, or the user may not use it."""


class JobCache(Generic[_Value]):
    """Remembers a value for each job, for any number of threads.

    Args:
        store: The bridge's store.
        prefix: Prefix of the bridge's keys.
        read: Reads the value of a job, by its full id, from the same store. It may raise; errors are not
            remembered. The value may depend on the job's hash, its result, its receipts and its deliveries.
        jobs_max: Number of values kept.
        keep: Whether a value is to be remembered.

    Attributes:
        hits: Answers from memory so far.
        misses: Answers read from the store so far.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        read: Callable[[str], _Value],
        *,
        jobs_max: int = 10_000,
        keep: Callable[[_Value], bool] = lambda _: True,
    ) -> None:
        self._store = store
        self._key_prefix = Keys(prefix).job("")
        self._read = read
        self._jobs_max = jobs_max
        self._keep = keep
        self._can_track = store.url.startswith("unix://")
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._link: Connection | None = None
        self._values: dict[str, _Value | _Pending] = {}
        self._closed = threading.Event()
        self._drainer: threading.Thread | None = None
        self._used_s = 0.0
        self.hits = 0
        self.misses = 0

    def known(self, job_id: str) -> _Value | None:
        """Return the value of a job from memory, None if it is not there; does not wait for the store.

        Args:
            job_id: The full id.
        """
        with self._lock:
            if self._link is None:
                return None
            self._drain(self._link)
            value = self._values.get(job_id)
            if value is None or isinstance(value, _Pending):
                return None
            self.hits += 1
            self._used_s = time.monotonic()
            return value

    def get(self, job_id: str) -> _Value:
        """Return the value of a job, from memory or from the store.

        Args:
            job_id: The full id.

        Raises:
            StoreUnreachable: The store is unavailable.
        """
        value = self.known(job_id)
        if value is not None:
            return value
        self._connect()
        pending = _Pending()
        with self._lock:
            self.misses += 1
            if self._link is not None:
                self._drain(self._link)
                if len(self._values) >= self._jobs_max:
                    self._values.clear()
                self._values[job_id] = pending
        try:
            value = self._read(job_id)
        except BaseException:
            self._settle(job_id, pending, None)
            raise
        self._settle(job_id, pending, value if self._keep(value) else None)
        return value

    def close(self) -> None:
        """Close the connection; the cache must not be used afterwards."""
        self._closed.set()
        with self._lock:
            self._drop()

    def _settle(self, job_id: str, pending: _Pending, value: _Value | None) -> None:
        """Remember what was read, unless the job changed meanwhile or another thread has begun to read it."""
        with self._lock:
            if self._values.get(job_id) is not pending:
                return
            if value is None:
                del self._values[job_id]
            else:
                self._values[job_id] = value

    def _connect(self) -> None:
        """Have the store report changes, if it can."""
        if not self._can_track or self._link is not None:
            return
        with self._connecting:
            if self._link is not None or self._closed.is_set():
                return
            link = self._store.connect()
            try:
                self._track(link)
            except _NotSupported as error:
                link.close()
                self._can_track = False
                log.info("job_cache.not_supported", reason=str(error))
                return
            except StoreUnreachable:
                link.close()
                raise
            with self._lock:
                self._link, self._used_s = link, time.monotonic()
            if self._drainer is None:
                self._drainer = start_duty("job-cache", self._keep_draining, ended=self._closed.is_set)

    def _track(self, link: Connection) -> None:
        link.send([("HELLO", 3), ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._key_prefix)])
        for _ in range(2):
            try:
                reply = link.read(self._store.timeout_s)
            except TimeoutError as error:
                raise StoreUnreachable(
                    f"the store at {self._store.url} did not answer within {self._store.timeout_s:g} s.",
                    remedy="Check whether it is paused or overloaded.",
                ) from error
            if isinstance(reply, hiredis.ReplyError):
                if str(reply).startswith(("ERR", "NOPERM", "NOPROTO")):
                    raise _NotSupported(str(reply))
                raise as_error(reply)

    def _drain(self, link: Connection) -> None:
        """Process the reports that have arrived; called with the lock held."""
        while True:
            try:
                reply = link.read(0.0)
            except TimeoutError:
                return
            except StoreUnreachable as error:
                log.info("job_cache.lost", reason=str(error))
                self._drop()
                return
            if isinstance(reply, hiredis.PushNotification) and reply[0] == b"invalidate":
                self._forget(reply[1])

    def _forget(self, keys: list[bytes] | None) -> None:
        if keys is None:
            # The whole database was flushed.
            self._values.clear()
            return
        for key in keys:
            job_id = key.decode(errors="replace").removeprefix(self._key_prefix)
            self._values.pop(job_id, None)
            # A delivery, whose id is the job's with a number: ID-1.
            self._values.pop(job_id[:ID_LENGTH], None)

    def _drop(self) -> None:
        """Forget everything: changes are not reported any more."""
        link, self._link = self._link, None
        self._values.clear()
        if link is not None:
            link.close()

    def _keep_draining(self) -> None:
        while not self._closed.wait(_DRAIN_INTERVAL_S):
            with self._lock:
                if self._link is None:
                    continue
                if time.monotonic() - self._used_s > _IDLE_S:
                    self._drop()
                else:
                    self._drain(self._link)
