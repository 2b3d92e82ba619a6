"""Notify of changes of the jobs that have pending replies; one connection, one thread, no polling."""

from __future__ import annotations

from collections.abc import Callable

from middleware.job.keys import Keys
from ops.store.channels import ChannelListener
from ops.store.client import Store


class JobListener:
    """Subscribes to the channels of single jobs.

    Args:
        store: The store to subscribe at.
        keys: Names of the channels.
        on_change: Called from the listener's thread with a job id, and whether the job's state may have
            changed; otherwise it has more output or progress. Called for every job after a reconnection.
    """

    def __init__(self, store: Store, keys: Keys, on_change: Callable[[str, bool], None]) -> None:
        self._keys = keys
        self._on_change = on_change
        self._events = keys.event_channel("")
        self._outputs = keys.output("")
        self._listener = ChannelListener(
            store, on_message=self._on_message, on_subscribed=self._on_subscribed
        )

    def start(self) -> None:
        """Start the thread."""
        self._listener.start("telegram-jobs")

    def stop(self) -> None:
        """Stop the thread; it ends a little later."""
        self._listener.stop()

    def subscribe(self, job_id: str) -> None:
        """Notify of a job from now on; ``on_change`` is called at least once."""
        self._listener.subscribe(self._keys.output(job_id), self._keys.event_channel(job_id))

    def unsubscribe(self, job_id: str) -> None:
        """Stop notifying of a job."""
        self._listener.unsubscribe(self._keys.output(job_id), self._keys.event_channel(job_id))

    def _on_subscribed(self, channel: str) -> None:
        if channel.startswith(self._events):
            self._on_change(channel.removeprefix(self._events), True)

    def _on_message(self, channel: str, data: bytes) -> None:
        if channel.startswith(self._events):
            self._on_change(channel.removeprefix(self._events), not data.endswith(b" progress"))
        else:
            self._on_change(channel.removeprefix(self._outputs), False)
