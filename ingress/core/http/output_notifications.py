"""Tells open streams that a job has written output; one thread for all, and none while nobody looks.

Output is not among the events of the bridge: it is told on a channel of its own, ``output:ID``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from ingress.core.bridge import Bridge
from ingress.core.http.event_broadcast import StreamSignal, Subscription
from ops.backoff import Backoff
from ops.errors import StoreUnreachable
from ops.logs import get_logger
from ops.store.resp import Connection
from ops.threads import start_duty

#: There is output that the stream has not told.
OUTPUT: Final = StreamSignal("output")
#: How often the thread looks whether anybody still looks on.
_IDLE_S = 1.0

log = get_logger(__name__)


class OutputSubscription:
    """One stream's interest in one job."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.told = False

    def tell(self) -> None:
        """Put the mark into the stream's queue, once until it is taken."""
        if not self.told:
            self.told = True
            self.subscription.put(OUTPUT)


class OutputNotifications:
    """OutputNotifications whoever waits for output; everything but its thread is used in the event loop only.

    Args:
        bridge: Whose jobs.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._channels = bridge.reader.keys.output("")
        self._watches: dict[str, set[OutputSubscription]] = {}
        self._lock = threading.Lock()
        self._running = False

    @contextlib.contextmanager
    def watch(self, job_id: str, subscription: Subscription) -> Iterator[OutputSubscription]:
        """Have ``OUTPUT`` put among what a stream hears, within this block.

        Args:
            job_id: Whose output.
            subscription: Of the stream.
        """
        watch = OutputSubscription(subscription)
        with self._lock:
            self._watches.setdefault(job_id, set()).add(watch)
            starts, self._running = not self._running, True
        if starts:
            loop = asyncio.get_running_loop()
            start_duty("output-wakes", self._run, loop, ended=lambda: not self._running)
        try:
            yield watch
        finally:
            with self._lock:
                group = self._watches[job_id]
                group.discard(watch)
                if not group:
                    del self._watches[job_id]

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        backoff = Backoff()
        while not self._is_over(loop):
            try:
                link = self._bridge.store.connect()
                try:
                    self._listen(link, loop)
                    return
                finally:
                    link.close()
            except StoreUnreachable as error:
                if backoff.failures == 0:
                    log.warning("rest.output_away", reason=str(error))
                backoff.sleep()

    def _listen(self, link: Connection, loop: asyncio.AbstractEventLoop) -> None:
        link.send([("PSUBSCRIBE", f"{_literal(self._channels)}*")])
        link.read(self._bridge.store.timeout_s)
        # What was written before we listened.
        self._hand(loop, None)
        while not self._is_over(loop):
            with contextlib.suppress(TimeoutError):
                channel = link.read(_IDLE_S)[2].decode()
                self._hand(loop, channel.removeprefix(self._channels))

    def _is_over(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether nobody looks any more; whoever comes next starts another thread then."""
        with self._lock:
            if self._watches and not loop.is_closed():
                return False
            self._running = False
            return True

    def _hand(self, loop: asyncio.AbstractEventLoop, job_id: str | None) -> None:
        with self._lock:
            known = job_id is None or job_id in self._watches
        if known:
            # The loop may close at this moment; nobody is left to be told then.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._tell, job_id)

    def _tell(self, job_id: str | None) -> None:
        with self._lock:
            groups = list(self._watches.values()) if job_id is None else [self._watches.get(job_id, set())]
            watches = [watch for group in groups for watch in group]
        for watch in watches:
            watch.tell()


def _literal(text: str) -> str:
    """Write a text so that a pattern of channels takes it as it stands."""
    return "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in text)
