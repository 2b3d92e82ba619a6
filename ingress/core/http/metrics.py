"""Metrics for Prometheus: the present state of the bridge, and the jobs ended since this process started.

The final states of jobs come from the events; their wait and run times are read from the store in batches.
Jobs beyond the backlog are counted without them (``bridge_jobs_unread_total``).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ingress.core.bridge import Bridge
from ingress.core.status_report import overview
from middleware.job.records import JobEvent
from middleware.job.states import FINAL
from ops.errors import BridgeError
from ops.store.resp import Reply
from ops.threads import start_duty

#: Jobs that ended and whose times are not read yet, at most.
_BACKLOG_MAX = 10_000
_BATCH = 100
#: Delay before a batch is read: scrapes come every few seconds, and batches spare the store.
_BATCH_DELAY_S = 0.25
#: From a job that an idle worker fetches at once to one that waits for hours, in seconds.
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_FIELDS = ("spec", "status", "created", "queued", "started", "completed", "crashes")


class _Spec(msgspec.Struct):
    """The labels in a job's specification; fields with their default value are omitted in the store."""

    job_type: str = "unknown"
    source: str = "python"


_read_spec = msgspec.json.Decoder(_Spec).decode


class Metrics:
    """Collects and renders the metrics.

    Args:
        bridge: The bridge.
        read_bridge: The same with short time-outs, for scrapes.
        open_streams: Returns the number of open streams.
    """

    def __init__(self, bridge: Bridge, read_bridge: Bridge, open_streams: Callable[[], int]) -> None:
        self._bridge = bridge
        # The creation times of counters equal the process start and would double the answer.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(_StateCollector(read_bridge, open_streams))
        self._ended: deque[str] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        labels = ("type", "source")
        self._jobs = Counter(
            "bridge_jobs_ended",
            "Jobs that ended since this process started.",
            (*labels, "state"),
            registry=self._registry,
        )
        self._wait_s = Histogram(
            "bridge_job_wait_seconds",
            "Time from queued to started.",
            labels,
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._run_s = Histogram(
            "bridge_job_run_seconds",
            "Time from started to ended, of the last attempt.",
            labels,
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._recoveries = Counter(
            "bridge_job_recoveries",
            "Attempts whose worker was lost, of jobs that ended since this process started.",
            labels,
            registry=self._registry,
        )
        self._unread = Counter(
            "bridge_jobs_unread",
            "Ended jobs whose times were not read because there were too many.",
            registry=self._registry,
        )
        self._requests = Counter(
            "bridge_http_requests",
            "Requests answered.",
            ("method", "status"),
            registry=self._registry,
        )

    def start(self) -> None:
        """Start the thread that reads the times of ended jobs."""
        start_duty("metrics", self._read_ended, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        self._wake.set()

    def record_event(self, event: JobEvent) -> None:
        """Note the end of a job; called in the thread that follows the events."""
        if event.kind != "state" or event.status not in FINAL:
            return
        if len(self._ended) >= _BACKLOG_MAX:
            self._unread.inc()
            return
        self._ended.append(event.job_id)
        self._wake.set()

    def count_request(self, method: str, status: int) -> None:
        """Count an answered request."""
        self._requests.labels(method, str(status)).inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _read_ended(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._stopping.wait(_BATCH_DELAY_S)
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
            labels = _read_spec(b"{}" if spec is None else spec)
        except msgspec.MsgspecError:
            labels = _Spec(source="unknown")
        if status is None or spec is None:
            self._unread.inc()
            return
        self._jobs.labels(labels.job_type, labels.source, status.decode()).inc()
        if crashes is not None and int(crashes):
            self._recoveries.labels(labels.job_type, labels.source).inc(int(crashes))
        queued_at = created if queued is None else queued
        if started is not None and queued_at is not None:
            self._wait_s.labels(labels.job_type, labels.source).observe(
                max(0, int(started) - int(queued_at)) / 1000
            )
            if completed is not None:
                self._run_s.labels(labels.job_type, labels.source).observe(
                    max(0, int(completed) - int(started)) / 1000
                )


class _StateCollector(Collector):
    """The state of the bridge at the time of a scrape.

    Args:
        bridge: The bridge.
        open_streams: Returns the number of open streams.
    """

    def __init__(self, bridge: Bridge, open_streams: Callable[[], int]) -> None:
        self._bridge = bridge
        self._open_streams = open_streams

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry must not read the store at registration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read the state from the store."""
        yield GaugeMetricFamily("bridge_http_streams", "Open event streams and waits.", self._open_streams())
        yield GaugeMetricFamily(
            "bridge_spool_jobs",
            "Jobs in the spool: on disk until the store accepts them.",
            self._bridge.spooled(),
        )
        up = GaugeMetricFamily("bridge_store_up", "1 if the store answers, else 0.")
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
            "bridge_store_latency_seconds", "Time of one round trip.", state["store"]["latency_ms"] / 1000
        )
        jobs = GaugeMetricFamily("bridge_jobs", "Jobs in the store.", labels=["state"])
        for name, count in summary.items():
            jobs.add_metric([name], count)
        yield jobs
        depth = GaugeMetricFamily("bridge_queue_depth", "Waiting jobs.", labels=["queue"])
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
        yield GaugeMetricFamily("bridge_workers", "Workers with a valid lease.", len(healthy))
        yield GaugeMetricFamily(
            "bridge_worker_threads",
            "Threads of these workers: jobs that they can run at the same time.",
            sum(worker["threads"] for worker in healthy),
        )
        daemons = GaugeMetricFamily(
            "bridge_daemon_up", "1 if a daemon of this name is healthy, else 0.", labels=["daemon"]
        )
        alive: dict[str, bool] = {}
        for daemon in state["daemons"]:
            alive[daemon["name"]] = alive.get(daemon["name"], False) or daemon["healthy"]
        for name, lives in alive.items():
            daemons.add_metric([name], int(lives))
        yield daemons
        yield from _use_and_deliveries(state)


def _use_and_deliveries(state: dict[str, Any]) -> Iterator[Metric]:
    """Yield the pending deliveries and today's use of paid language models."""
    deliveries = GaugeMetricFamily("bridge_deliveries", "Results not delivered yet.", labels=["state"])
    for name, count in state["deliveries"].items():
        deliveries.add_metric([name], count)
    yield deliveries
    for name, about in (
        ("answers", "Paid answers since midnight UTC."),
        ("tokens", "Tokens of these answers, input and output."),
        ("cost_usd", "Cost of these answers in US dollars."),
    ):
        yield GaugeMetricFamily(f"bridge_ask_day_{name}", about, state["ask"][name])
