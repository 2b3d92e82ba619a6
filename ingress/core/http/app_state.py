"""What every route of the REST door may use."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from litestar.di import NamedDependency

from ingress.core.bridge import Bridge
from ingress.core.daemon import Daemon
from ingress.core.http.event_broadcast import EventBroadcast
from ingress.core.http.metrics import Metrics
from ingress.core.http.output_notifications import OutputNotifications
from ingress.core.http.stream_limit import StreamLimit
from ops.errors import StoreTimeout, StoreUnreachable
from ops.settings.load import LoadedSettings, ProjectSettings
from ops.settings.rest import RestSettings
from ops.store.client import Store
from ops.store.resp import Argument, Reply
from ops.tokens import Tokens

#: Whoever asks whether we live waits for a second, seldom for longer: the default of Kubernetes' probes.
PROBE_S = 0.8


class AppState:
    """The REST door of one process.

    Args:
        daemon: Takes jobs in, reads, says when to stop.

    Attributes:
        tokens: Who may.
        bridge: For what is done to jobs, and what outlives a request.
        reading: For what is only read: it answers within a second or says that the store is away.
        probe: The store, for whoever asks only whether it answers.
        fanout: Hands the store's events to streams and waits.
        wakes: Tell of output.
        metrics: What ``/metrics`` tells.
        streams: How many streams and waits are open.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.bridge = daemon.bridge
        read_s = min(READ_S, daemon.loaded.settings.store_timeout_s)
        self.read_bridge = Bridge(
            daemon.loaded, store=ShortTimeoutStore.open(daemon.loaded, timeout_s=read_s)
        )
        self.acceptance = daemon.acceptance
        self.tokens = Tokens(daemon.loaded.workspace, daemon.loaded.settings.api_token)
        self.probe = Store.open(daemon.loaded, timeout_s=PROBE_S)
        self.events = EventBroadcast(daemon.bridge)
        self.output = OutputNotifications(daemon.bridge)
        self.streams = StreamLimit(self.rest.streams_max)
        self.metrics = Metrics(daemon.bridge, self.read_bridge, lambda: self.streams.taken)
        self.events.listen(self.metrics.hear)

    @property
    def loaded(self) -> LoadedSettings:
        """Settings and workspace."""
        return self.daemon.loaded

    @property
    def rest(self) -> RestSettings:
        """The settings of this door."""
        return self.daemon.loaded.settings.rest

    @property
    def projects(self) -> Mapping[str, ProjectSettings]:
        """The projects as they stand in the file now."""
        return self.bridge.admission.latest().projects

    def start(self) -> None:
        """Start what runs beside the requests; called in the event loop."""
        self.events.start()
        self.output.start()
        self.metrics.start()

    def stop(self) -> None:
        """End the streams, so that nobody has to wait for them; safe to call from a signal handler."""
        self.events.stop()
        self.output.stop()
        self.metrics.stop()


#: What a handler writes to be given the door: ``app_state: AppStateDependency``.
AppStateDependency: TypeAlias = NamedDependency[AppState]


#: Bound on one answer. A person waits for a page, and a program may ask again.
READ_S = 1.0
#: After a question in vain nobody asks for so long: each would hold one of the few threads all the while.
PAUSE_S = 0.5


class ShortTimeoutStore(Store):
    """A store that is given up soon; see ``Store`` for its arguments."""

    def __init__(self, url: str, *, timeout_s: float = READ_S) -> None:
        super().__init__(url, timeout_s=timeout_s)
        self._ask_again_s = 0.0

    def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run several commands in one round trip; see ``Store.pipeline``.

        Raises:
            StoreUnreachable: No answer in time, or none a moment ago.
        """
        began_s = time.monotonic()
        if began_s < self._ask_again_s:
            raise StoreTimeout(
                f"the store at {self.url} did not answer a moment ago.",
                remedy="Check whether it is paused or overloaded.",
            )
        try:
            return super().pipeline(commands)
        except StoreUnreachable:
            now_s = time.monotonic()
            if now_s - began_s > self.timeout_s / 2:
                self._ask_again_s = now_s + PAUSE_S
            raise
