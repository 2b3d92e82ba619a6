"""A daemon's heartbeat in the store, listed by ``3ox status``."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

from middleware.job.keys import Keys
from ops.errors import StoreUnreachable
from ops.logs import get_logger
from ops.processes import pid_alive
from ops.store.client import Store
from ops.threads import start_duty

#: Heartbeat interval; a daemon without one for ``LEASE_S`` is not healthy.
BEAT_S = 1.0
LEASE_S = 5.0
#: How long a daemon that died is listed as lost, if no other replaced it.
REMEMBER_S = 3600.0
#: How long after the end of its lease it is listed if another daemon of its name runs on any host.
REPLACED_S = 10.0
_REMOVE_MAX = 20

log = get_logger(__name__)


class DaemonHeartbeat:
    """Renews a daemon's entry in the store while the daemon's own loop runs.

    A thread sends the heartbeat, but only while ``pulse`` is called: a daemon whose loop hangs must not look
    healthy.

    Args:
        store: The store.
        keys: Names of the keys.
        name: Name of the daemon.
        stall_s: Time without ``pulse`` after which the loop is considered hung, in seconds.
    """

    def __init__(self, store: Store, keys: Keys, name: str, *, stall_s: float) -> None:
        self._store = store
        self._keys = keys
        self.name = name
        self.host = socket.gethostname()
        self.member = f"{name}@{self.host}:{os.getpid()}"
        self._stall_s = stall_s
        self._pulse_s = time.monotonic()
        self._facts: dict[str, str] = {}
        self._ended = threading.Event()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the heartbeat."""
        self._thread = start_duty("heartbeat", self._run, ended=self._ended.is_set)

    def stop(self) -> None:
        """Stop the heartbeat and remove the daemon from the list."""
        self._ended.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * BEAT_S)
        try:
            self._store.pipeline(
                [("ZREM", self._keys.daemons, self.member), ("DEL", self._keys.daemon(self.member))]
            )
        except StoreUnreachable as error:
            log.info("daemon.entry_left", reason=str(error))

    def pulse(self) -> None:
        """Note that the daemon's loop runs; to be called about once a second."""
        self._pulse_s = time.monotonic()

    def report(self, **facts: str) -> None:
        """Add facts that ``3ox status --json`` shows with the daemon; at once if one has a new name."""
        is_new = not self._facts.keys() >= facts.keys()
        self._facts = {**self._facts, **facts}
        if is_new:
            self._woken.set()

    @property
    def stalled_s(self) -> float:
        """Seconds since the latest ``pulse``."""
        return time.monotonic() - self._pulse_s

    def _run(self) -> None:
        self._remove_dead()
        while not self._ended.is_set():
            self._woken.clear()
            if self.stalled_s < self._stall_s:
                # The daemon reports the outage itself; the next heartbeat is the next attempt.
                with contextlib.suppress(StoreUnreachable):
                    self._beat()
            self._woken.wait(BEAT_S)

    def _beat(self) -> None:
        seconds, micros = self._store.call("TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        facts = {"name": self.name, "host": self.host, "pid": str(os.getpid()), "at": str(now_ms)}
        pairs = [part for pair in {**self._facts, **facts}.items() for part in pair]
        key = self._keys.daemon(self.member)
        replies = self._store.pipeline(
            [
                ("ZADD", self._keys.daemons, now_ms + int(LEASE_S * 1000), self.member),
                ("HSET", key, *pairs),
                ("PEXPIRE", key, int(REMEMBER_S * 1000)),
                ("ZREMRANGEBYSCORE", self._keys.daemons, "-inf", now_ms - int(REMEMBER_S * 1000)),
                (
                    *("ZRANGEBYSCORE", self._keys.daemons, "-inf", now_ms - int(REPLACED_S * 1000)),
                    *("LIMIT", 0, _REMOVE_MAX),
                ),
            ],
        )
        if isinstance(replies[-1], list):
            lost = [item.decode() for item in replies[-1]]
            self._remove([member for member in lost if member.startswith(f"{self.name}@")])

    def _remove_dead(self) -> None:
        """Remove the entries of killed processes of this daemon on this host."""
        try:
            members = [item.decode() for item in self._store.call("ZRANGE", self._keys.daemons, 0, -1)]
        except StoreUnreachable:
            return
        dead = []
        for member in members:
            daemon, _, pid = member.rpartition(":")
            if daemon == f"{self.name}@{self.host}" and pid.isdigit() and not pid_alive(int(pid)):
                dead.append(member)
        # The next heartbeat removes what is left.
        with contextlib.suppress(StoreUnreachable):
            self._remove(dead)

    def _remove(self, members: list[str]) -> None:
        if members:
            keys = [self._keys.daemon(member) for member in members]
            self._store.pipeline([("ZREM", self._keys.daemons, *members), ("DEL", *keys)])
