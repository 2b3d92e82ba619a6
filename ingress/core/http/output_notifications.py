"""Notify open streams that a job has written output; one thread and one connection for all of them.

Output is not part of the bridge's events: it is published on a channel of its own, ``output:ID``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from ingress.core.bridge import Bridge
from ingress.core.http.event_broadcast import StreamSignal, Subscription
from ops.logs import get_logger
from ops.store.channels import ChannelListener

#: The job has output that the stream has not sent.
OUTPUT: Final = StreamSignal("output")

log = get_logger(__name__)


class OutputSubscription:
    """One stream's interest in one job's output."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.is_pending = False

    def notify(self) -> None:
        """Put ``OUTPUT`` into the stream's queue, unless it is in there already."""
        if not self.is_pending:
            self.is_pending = True
            self.subscription.put(OUTPUT)


class OutputNotifications:
    """Notifies streams of output; used in the event loop only, except for the listener's thread.

    Args:
        bridge: The bridge that has the jobs.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._channels = bridge.reader.keys.output("")
        self._watches: dict[str, set[OutputSubscription]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener = ChannelListener(
            bridge.store,
            on_message=lambda channel, _: self._pass_on(channel),
            # Output that was written before the subscription.
            on_subscribed=self._pass_on,
            on_outage=lambda error: log.warning("rest.output_away", reason=str(error)),
        )

    def start(self) -> None:
        """Start the thread; called in the event loop that the streams are served by."""
        self._loop = asyncio.get_running_loop()
        self._listener.start("output-notifications")

    def stop(self) -> None:
        """Stop; safe to call from a signal handler."""
        self._listener.stop()

    @contextlib.contextmanager
    def watch(self, job_id: str, subscription: Subscription) -> Iterator[OutputSubscription]:
        """Put ``OUTPUT`` into a stream's queue whenever a job has written, within this block.

        Args:
            job_id: The job that writes.
            subscription: The stream's queue.
        """
        watch = OutputSubscription(subscription)
        watches = self._watches.setdefault(job_id, set())
        watches.add(watch)
        if len(watches) == 1:
            self._listener.subscribe(self._channels + job_id)
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches:
                del self._watches[job_id]
                self._listener.unsubscribe(self._channels + job_id)

    def _pass_on(self, channel: str) -> None:
        loop = self._loop
        if loop is not None:
            # The loop may be closed at this moment; then no stream is left.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._notify, channel.removeprefix(self._channels))

    def _notify(self, job_id: str) -> None:
        for watch in self._watches.get(job_id, ()):
            watch.notify()
