"""What the handlers of one API process share: bridge, tokens, events, limits, metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec
from litestar.di import NamedDependency

from ingress.core.bridge import Bridge
from ingress.core.daemon import Daemon
from ingress.core.http.event_broadcast import EventBroadcast
from ingress.core.http.metrics import Metrics
from ingress.core.http.output_notifications import OutputNotifications
from ingress.core.http.stream_limit import StreamLimit
from middleware.job.job_cache import JobCache
from ops.errors import StoreTimeout, StoreUnreachable
from ops.settings.load import LoadedSettings, ProjectSettings
from ops.settings.rest import RestSettings
from ops.store.client import Store
from ops.store.resp import Argument, Reply
from ops.tokens import Tokens

#: Time-out of the health check. The default of Kubernetes' probes is a second.
PROBE_S = 0.8
#: Time-out of reads: a person waits for a page, and a program may repeat its request.
READ_S = 1.0
#: After a time-out, reads fail at once for this long: each would block one of the few threads.
PAUSE_S = 0.5
#: Bounds of the answers kept in memory, 16 MB together.
_ANSWERS_MAX = 1_000
_ANSWER_MAX_BYTES = 16_384


class ShortTimeoutStore(Store):
    """A store client that fails fast while the store does not answer; see ``Store`` for its arguments."""

    def __init__(self, url: str, *, timeout_s: float = READ_S) -> None:
        super().__init__(url, timeout_s=timeout_s)
        self._retry_at_s = 0.0

    def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run several commands in one round trip; see ``Store.pipeline``.

        Raises:
            StoreUnreachable: The store did not answer in time, now or less than ``PAUSE_S`` ago.
        """
        began_s = time.monotonic()
        if began_s < self._retry_at_s:
            raise StoreTimeout(
                f"the store at {self.url} did not answer a moment ago.",
                remedy="Check whether it is paused or overloaded.",
            )
        try:
            return super().pipeline(commands)
        except StoreUnreachable:
            now_s = time.monotonic()
            if now_s - began_s > self.timeout_s / 2:
                self._retry_at_s = now_s + PAUSE_S
            raise


class AppState:
    """The state of one API process.

    Args:
        daemon: The process: settings, acceptance of jobs, shutdown.

    Attributes:
        tokens: API tokens and their scopes.
        bridge: For changes to jobs, and for what outlives a request.
        read_bridge: For reads: it answers within ``READ_S`` or raises.
        job_answers: Encoded job records by job id, for ``GET /v1/jobs/{id}``.
        probe: Store client of the health check.
        events: Distributes the store's events to streams and waits.
        output: Notifies streams of output.
        streams: Limits the number of open streams and waits.
        metrics: Content of ``/metrics``.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.bridge = daemon.bridge
        read_s = min(READ_S, daemon.loaded.settings.store_timeout_s)
        self.read_bridge = Bridge(
            daemon.loaded, store=ShortTimeoutStore.open(daemon.loaded, timeout_s=read_s)
        )
        self.read_bridge.admission.follow_settings(daemon.bridge.admission.latest)
        reader = self.read_bridge.reader
        self.job_answers = JobCache(
            reader.store,
            reader.keys.prefix,
            lambda job_id: msgspec.json.encode(reader.job(job_id)),
            jobs_max=_ANSWERS_MAX,
            # Why a job is queued depends on the workers too.
            keep=lambda answer: len(answer) <= _ANSWER_MAX_BYTES and b'"status":"queued"' not in answer,
        )
        self.acceptance = daemon.acceptance
        self.tokens = Tokens(daemon.loaded.workspace, daemon.loaded.settings.api_token)
        self.probe = Store.open(daemon.loaded, timeout_s=PROBE_S)
        self.events = EventBroadcast(daemon.bridge)
        self.output = OutputNotifications(daemon.bridge)
        self.streams = StreamLimit(self.rest.streams_max)
        self.metrics = Metrics(daemon.bridge, self.read_bridge, lambda: self.streams.taken)
        self.events.listen(self.metrics.record_event)

    @property
    def loaded(self) -> LoadedSettings:
        """Settings and workspace."""
        return self.daemon.loaded

    @property
    def rest(self) -> RestSettings:
        """The section ``[rest]`` of the settings."""
        return self.daemon.loaded.settings.rest

    @property
    def projects(self) -> Mapping[str, ProjectSettings]:
        """The projects that 3ox.toml has now."""
        return self.bridge.admission.latest().projects

    def start(self) -> None:
        """Start the background threads; called in the event loop."""
        self.events.start()
        self.output.start()
        self.metrics.start()

    def stop(self) -> None:
        """Stop the background threads and end all streams; safe to call from a signal handler."""
        self.events.stop()
        self.output.stop()
        self.metrics.stop()


#: Type of a handler's parameter that receives the state: ``app_state: AppStateDependency``.
AppStateDependency: TypeAlias = NamedDependency[AppState]
