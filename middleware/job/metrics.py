"""Samples of the bridge over time, kept in the store for the dashboard.

There are two series: a sample about every 10 s for an hour, and one about every 10 min for a week.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from middleware.job.keys import DELIVER_QUEUE
from middleware.job.reader import Reader
from middleware.job.states import State

Resolution: TypeAlias = Literal["10s", "10m"]
#: Interval between two samples of a series, and how many are kept: an hour and a week.
SPACING_S: dict[Resolution, int] = {"10s": 10, "10m": 600}
POINTS_MAX: dict[Resolution, int] = {"10s": 360, "10m": 1008}
#: Latencies are computed from this many jobs, the latest of the window.
_LATENCY_JOBS_MAX = 200


class MetricPoint(Struct, frozen=True, kw_only=True):
    """One sample.

    Attributes:
        at_ms: Time of the sample, in milliseconds since 1970, by the store's clock.
        window_s: Rates and latencies are about this time before ``at_ms``.
        states: Number of jobs in each state.
        deliveries: Number of pending deliveries.
        workers: Number of workers in the store.
        completed_per_s: Jobs that completed, per second.
        failed_per_s: Jobs that failed, per second.
        wait_p50_ms: Median time in the queue of the jobs that completed; None if there were none.
        wait_p95_ms: 95th percentile of the same.
        run_p50_ms: Median time from start to completion.
        run_p95_ms: 95th percentile of the same.
    """

    at_ms: int
    window_s: float
    states: dict[str, int]
    deliveries: int = 0
    workers: int = 0
    completed_per_s: float = 0.0
    failed_per_s: float = 0.0
    wait_p50_ms: float | None = None
    wait_p95_ms: float | None = None
    run_p50_ms: float | None = None
    run_p95_ms: float | None = None


class Metrics:
    """Takes and returns samples.

    Args:
        reader: The reader of the bridge.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._keys = reader.keys

    def _key(self, resolution: Resolution) -> str:
        return f"{self._keys.prefix}metrics:{resolution}"

    def sample(self, resolution: Resolution) -> MetricPoint:
        """Take a sample and add it to the series.

        Args:
            resolution: The series; its interval is the window of the sample.

        Raises:
            StoreUnreachable: The store is unavailable.
        """
        point = self.measure(SPACING_S[resolution])
        self._reader.store.call(
            *("XADD", self._key(resolution), "MAXLEN", POINTS_MAX[resolution], "*"),
            *("point", msgspec.json.encode(point)),
        )
        return point

    def series(self, resolution: Resolution) -> list[MetricPoint]:
        """Return all samples of a series, oldest first: an hour or a week."""
        rows = self._reader.store.call("XRANGE", self._key(resolution), "-", "+")
        return [msgspec.json.decode(row[1][1], type=MetricPoint) for row in rows]

    def measure(self, window_s: float) -> MetricPoint:
        """Take a sample without keeping it.

        Args:
            window_s: Rates and latencies are about this time before now.
        """
        seconds, micros = self._reader.store.call("TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        since = f"({now_ms - round(window_s * 1000)}"
        done, failed = self._keys.state(State.COMPLETED), self._keys.state(State.FAILED)
        waiting = [self._keys.state(state, DELIVER_QUEUE) for state in (State.QUEUED, State.RETRYING)]
        completed, failures, ids, workers, *deliveries = self._reader.read(
            [
                ("ZCOUNT", done, since, now_ms),
                ("ZCOUNT", failed, since, now_ms),
                ("ZREVRANGEBYSCORE", done, now_ms, since, "LIMIT", 0, _LATENCY_JOBS_MAX),
                ("ZCARD", self._keys.workers),
                *(("ZCARD", key) for key in waiting),
            ],
        )
        waits, runs = self._latencies([job_id.decode() for job_id in ids])
        return MetricPoint(
            at_ms=now_ms,
            window_s=window_s,
            states=self._reader.summary(),
            deliveries=sum(deliveries),
            workers=workers,
            completed_per_s=round(completed / window_s, 3),
            failed_per_s=round(failures / window_s, 3),
            wait_p50_ms=_percentile(waits, 0.5),
            wait_p95_ms=_percentile(waits, 0.95),
            run_p50_ms=_percentile(runs, 0.5),
            run_p95_ms=_percentile(runs, 0.95),
        )

    def _latencies(self, job_ids: list[str]) -> tuple[list[int], list[int]]:
        if not job_ids:
            return [], []
        fields = ("created", "queued", "started", "completed")
        rows = self._reader.read([("HMGET", self._keys.job(job_id), *fields) for job_id in job_ids])
        waits, runs = [], []
        for created, queued, started, completed in rows:
            if created is None or started is None or completed is None:
                continue
            # A job that was enqueued at its creation has no time of its own for that.
            ready_ms = int(created if queued is None else queued)
            waits.append(max(0, int(started) - ready_ms))
            runs.append(max(0, int(completed) - int(started)))
        return sorted(waits), sorted(runs)


def _percentile(ordered: list[int], share: float) -> float | None:
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))]) if ordered else None
