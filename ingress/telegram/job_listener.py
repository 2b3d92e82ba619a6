"""Hears of changes of the jobs whose replies are owed: one connection, one thread, never polling."""

from __future__ import annotations

import threading
from collections.abc import Callable

import hiredis

from middleware.job.keys import Keys
from ops.backoff import Backoff
from ops.errors import StoreUnreachable
from ops.store.client import Store
from ops.store.resp import Connection, Reply, as_error
from ops.threads import start_duty

#: After so much silence it is looked whether the store is still there.
_LISTEN_S = 5.0


class Ear:
    """Subscribes to jobs.

    Args:
        store: To subscribe at.
        keys: Names of the channels.
        on_change: Called with a job's id, and whether its state may have changed (else: it has more output or
            progress); from the ear's thread. After a lost connection, for every job.
    """

    def __init__(self, store: Store, keys: Keys, on_change: Callable[[str, bool], None]) -> None:
        self._store = store
        self._keys = keys
        self._on_change = on_change
        self._jobs: set[str] = set()
        self._link: Connection | None = None
        # Guards the set, the link and what is sent on it; it is read by one thread only.
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._backoff = Backoff()
        self._events = keys.event_channel("")
        self._outputs = keys.output("")

    def start(self) -> None:
        """Begin to listen."""
        start_duty("telegram-ear", self._run, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop; the thread ends a little later."""
        self._stopping.set()

    def listen(self, job_id: str) -> None:
        """Hear of this job from now on; ``on_change`` is called once at least, when it is heard of."""
        with self._lock:
            self._jobs.add(job_id)
            self._send("SUBSCRIBE", [job_id])

    def ignore(self, job_id: str) -> None:
        """Hear of this job no more."""
        with self._lock:
            self._jobs.discard(job_id)
            self._send("UNSUBSCRIBE", [job_id])

    def _send(self, verb: str, job_ids: list[str]) -> None:
        if self._link is None or not job_ids:
            return
        channels = [
            name
            for job_id in job_ids
            for name in (self._keys.output(job_id), self._keys.event_channel(job_id))
        ]
        try:
            self._link.send([(verb, *channels)])
        except StoreUnreachable:
            # The reading thread finds out too, connects anew and subscribes to all.
            self._link = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except StoreUnreachable:
                self._backoff.wait(self._stopping)

    def _listen(self) -> None:
        link = self._store.connect()
        try:
            with self._lock:
                self._link = link
                self._send("SUBSCRIBE", sorted(self._jobs))
            asked = False
            while not self._stopping.is_set():
                try:
                    reply = link.read(_LISTEN_S)
                except TimeoutError:
                    if asked:
                        raise StoreUnreachable("the store is silent.") from None
                    with self._lock:
                        link.send([("PING",)])
                    asked = True
                    continue
                asked = False
                self._backoff.reset()
                self._hear(reply)
        finally:
            with self._lock:
                if self._link is link:
                    self._link = None
            link.close()

    def _hear(self, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError):
            raise as_error(reply)
        if not isinstance(reply, list) or reply[0] not in {b"message", b"subscribe"}:
            return
        channel = reply[1].decode()
        if channel.startswith(self._events):
            progress = reply[0] == b"message" and reply[2].endswith(b" progress")
            self._on_change(channel.removeprefix(self._events), not progress)
        elif reply[0] == b"message":
            self._on_change(channel.removeprefix(self._outputs), False)
