"""What ``/metrics`` tells Prometheus: the state of the store when asked, and what has ended since the start.

Which jobs ended how is heard from the events; how long they waited and ran is read from the store, many in
one round trip. More than can be read in time are counted as such (``bridge_jobs_unread_total``).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ingress.core.bridge import Bridge
from middleware.job.records import JobEvent
from middleware.job.states import FINAL
from ops.errors import BridgeError
from ops.threads import start_duty

if TYPE_CHECKING:
    from ops.store.resp import Reply

#: Jobs that ended and whose times are still to be read.
_BACKLOG_MAX = 10_000
_BATCH = 100
#: A scrape every few seconds need not see the last moment; reading in batches spares the store.
_GATHER_S = 0.25
#: From a job that a waiting worker takes at once to one that waits for hours, in seconds.
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_FIELDS = ("spec", "status", "created", "queued", "started", "completed", "crashes")


class _Spec(msgspec.Struct):
    """What of a job's specification counts here.

    A job without a source came from Python: the store leaves out what has its default.
    """

    job_type: str = "unknown"
    source: str = "python"


_read_spec = msgspec.json.Decoder(_Spec).decode


class Metrics:
    """Gathers and tells.

    Args:
        bridge: Whose state.
        reading: The same, for whoever cannot wait long.
        streams: Says how many streams are open.
    """

    def __init__(self, bridge: Bridge, reading: Bridge, streams: Callable[[], int]) -> None:
        self._bridge = bridge
        # When a counter began says nothing that its process does not say, and doubles the answer.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(_Now(reading, streams))
        self._ended: deque[str] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        labels = ("type", "source")
        self._jobs = Counter(
            "bridge_jobs_ended",
            "Jobs that ended since this process began.",
            (*labels, "state"),
            registry=self._registry,
        )
        self._wait_s = Histogram(
            "bridge_job_wait_seconds",
            "From ready to started.",
            labels,
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._run_s = Histogram(
            "bridge_job_run_seconds",
            "From started to ended, the last attempt.",
            labels,
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._recoveries = Counter(
            "bridge_job_recoveries",
            "Attempts that lost their worker, of jobs that ended since this process began.",
            labels,
            registry=self._registry,
        )
        self._unread = Counter(
            "bridge_jobs_unread",
            "Jobs that ended while there were too many to read.",
            registry=self._registry,
        )
        self._requests = Counter(
            "bridge_http_requests",
            "Requests that were answered.",
            ("method", "status"),
            registry=self._registry,
        )

    def start(self) -> None:
        """Start to read what ends."""
        start_duty("metrics", self._gather, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._wake.set()

    def record_event(self, event: JobEvent) -> None:
        """Take an event; called in the thread that follows them."""
        if event.kind != "state" or event.status not in FINAL:
            return
        if len(self._ended) >= _BACKLOG_MAX:
            self._unread.inc()
            return
        self._ended.append(event.job_id)
        self._wake.set()

    def answered(self, method: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(method, str(status)).inc()

    def render(self) -> bytes:
        """Give all, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _gather(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            # Whatever ends in the meantime comes along.
            self._stopping.wait(_GATHER_S)
            self._wake.clear()
            while self._ended and not self._stopping.is_set():
                batch = [self._ended.popleft() for _ in range(min(_BATCH, len(self._ended)))]
                try:
                    self._count(batch)
                except BridgeError:
                    self._unread.inc(len(batch))

    def _count(self, job_ids: list[str]) -> None:
        reader = self._bridge.reader
        for life in reader.read([("HMGET", reader.keys.job(job_id), *_FIELDS) for job_id in job_ids]):
            self._count_one(life)

    def _count_one(self, life: list[Reply]) -> None:
        spec, status, created, queued, started, completed, crashes = life
        try:
            said = _read_spec(b"{}" if spec is None else spec)
        except msgspec.MsgspecError:
            said = _Spec(source="unknown")
        if status is None or spec is None:
            self._unread.inc()
            return
        self._jobs.labels(said.job_type, said.source, status.decode()).inc()
        if crashes is not None and int(crashes):
            self._recoveries.labels(said.job_type, said.source).inc(int(crashes))
        ready = created if queued is None else queued
        if started is not None and ready is not None:
            self._wait_s.labels(said.job_type, said.source).observe(max(0, int(started) - int(ready)) / 1000)
            if completed is not None:
                self._run_s.labels(said.job_type, said.source).observe(
                    max(0, int(completed) - int(started)) / 1000
                )


class _Now(Collector):
    """The state of the bridge at the moment of the question.

    Args:
        bridge: Whose.
        streams: Says how many streams are open.
    """

    def __init__(self, bridge: Bridge, streams: Callable[[], int]) -> None:
        self._bridge = bridge
        self._streams = streams

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked of the store when this is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Ask the store, in a few round trips."""
        from ingress.core.status_report import overview

        yield GaugeMetricFamily("bridge_http_streams", "Event streams and waits open.", self._streams())
        yield GaugeMetricFamily(
            "bridge_spool_jobs", "Jobs on disk until the store is back.", self._bridge.spooled()
        )
        up = GaugeMetricFamily("bridge_store_up", "Whether the store answers.")
        try:
            state = overview(self._bridge)
            summary = self._bridge.reader.summary()
        except BridgeError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield GaugeMetricFamily(
            "bridge_store_latency_seconds", "One round trip.", state["store"]["latency_ms"] / 1000
        )
        jobs = GaugeMetricFamily("bridge_jobs", "Jobs in the store.", labels=["state"])
        for name, count in summary.items():
            jobs.add_metric([name], count)
        yield jobs
        depth = GaugeMetricFamily("bridge_queue_depth", "Jobs that wait.", labels=["queue"])
        queue = state["queue"]
        # The labels of version 0.1: "ready" is the state queued, and "scheduled" includes retrying.
        for name, count in (
            ("ready", queue["queued"]),
            ("scheduled", queue["scheduled"] + queue["retrying"]),
            ("held", queue["held"]),
        ):
            depth.add_metric([name], count)
        yield depth
        healthy = [worker for worker in state["workers"] if worker["healthy"]]
        yield GaugeMetricFamily("bridge_workers", "Workers that live.", len(healthy))
        yield GaugeMetricFamily(
            "bridge_worker_threads",
            "Jobs they can run at a time.",
            sum(worker["threads"] for worker in healthy),
        )
        daemons = GaugeMetricFamily("bridge_daemon_up", "Whether an ingress daemon lives.", labels=["daemon"])
        alive: dict[str, bool] = {}
        for daemon in state["daemons"]:
            alive[daemon["name"]] = alive.get(daemon["name"], False) or daemon["healthy"]
        for name, lives in alive.items():
            daemons.add_metric([name], int(lives))
        yield daemons
        yield from _told(state)


def _told(state: dict[str, Any]) -> Iterator[Metric]:
    """Give what is under way to receivers, and what the answers of today have taken."""
    deliveries = GaugeMetricFamily(
        "bridge_deliveries", "Results that have not arrived everywhere.", labels=["state"]
    )
    for name, count in state["deliveries"].items():
        deliveries.add_metric([name], count)
    yield deliveries
    for name, about in (
        ("answers", "Answers that providers charge for, since midnight UTC."),
        ("tokens", "Tokens of these, question and answer."),
        ("cost_usd", "Dollars that they took."),
    ):
        yield GaugeMetricFamily(f"bridge_ask_day_{name}", about, state["ask"][name])
