"""A daemon's sign of life in the store: what ``3ox status`` lists under ``daemons``."""

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

#: A beat is due so often, and a daemon that has missed five of them is not healthy.
BEAT_S = 1.0
LEASE_S = 5.0
#: What a daemon that vanished leaves is shown as lost for so long, if nobody took its place.
REMEMBER_S = 3600.0
#: If another daemon of this name lives, on whatever host, it is forgotten so soon after its lease has ended.
REPLACED_S = 10.0
_FORGET_MAX = 20

log = get_logger(__name__)


class Presence:
    """Tells the store that a daemon serves, for as long as its own loop turns.

    The beat is given by a thread, but only while ``pulse`` has been called of late: a daemon whose loop hangs
    must not look well.

    Args:
        store: Where it is told.
        keys: Names of the keys.
        name: Of the daemon.
        stall_s: A loop that has not turned for so long hangs.
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
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._thread = start_duty("presence", self._run, ended=self._ended.is_set)

    def stop(self) -> None:
        """Stop, and take the entry out of the list."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * BEAT_S)
        try:
            self._store.pipeline(
                [("ZREM", self._keys.daemons, self.member), ("DEL", self._keys.daemon(self.member))]
            )
        except StoreUnreachable as error:
            log.info("daemon.entry_left", reason=str(error))

    def pulse(self) -> None:
        """Say that the daemon's loop turns; to be called at least every second or so."""
        self._pulse_s = time.monotonic()

    def tell(self, **facts: str) -> None:
        """Add facts that ``3ox status --json`` shows with the daemon."""
        self._facts.update(facts)

    @property
    def stalled_s(self) -> float:
        """For how long the loop has not turned."""
        return time.monotonic() - self._pulse_s

    def _run(self) -> None:
        self._forget_dead_kin()
        while not self._ended.is_set():
            if self.stalled_s < self._stall_s:
                # The daemon itself says so where it matters; here the next beat is the next try.
                with contextlib.suppress(StoreUnreachable):
                    self._beat()
            self._ended.wait(BEAT_S)

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
                    *("LIMIT", 0, _FORGET_MAX),
                ),
            ],
        )
        if isinstance(replies[-1], list):
            lost = [item.decode() for item in replies[-1]]
            self._forget([member for member in lost if member.startswith(f"{self.name}@")])

    def _forget_dead_kin(self) -> None:
        """Remove what an earlier process of this daemon on this host left when it was killed."""
        try:
            members = [item.decode() for item in self._store.call("ZRANGE", self._keys.daemons, 0, -1)]
        except StoreUnreachable:
            return
        dead = []
        for member in members:
            kin, _, pid = member.rpartition(":")
            if kin == f"{self.name}@{self.host}" and pid.isdigit() and not pid_alive(int(pid)):
                dead.append(member)
        # The next beat is the next try.
        with contextlib.suppress(StoreUnreachable):
            self._forget(dead)

    def _forget(self, members: list[str]) -> None:
        if members:
            keys = [self._keys.daemon(member) for member in members]
            self._store.pipeline([("ZREM", self._keys.daemons, *members), ("DEL", *keys)])
