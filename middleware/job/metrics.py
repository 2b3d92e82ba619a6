"""A bounded series of samples of the bridge, in the store: what the dashboard draws from.

Two resolutions: a point about every 10 s for an hour, and one about every 10 min for a week.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
from msgspec import Struct

from middleware.job.keys import DELIVER_QUEUE
from middleware.job.states import State

if TYPE_CHECKING:
    from middleware.job.reader import Reader

Resolution: TypeAlias = Literal["10s", "10m"]
#: How far its points are apart, and how many are kept: an hour and a week.
SPACING_S: dict[Resolution, int] = {"10s": 10, "10m": 600}
POINTS_MAX: dict[Resolution, int] = {"10s": 360, "10m": 1008}
#: Of the jobs that ended in a window, so many (the last ones) tell of the latency.
_LOOK_MAX = 200


class MetricPoint(Struct, frozen=True, kw_only=True):
    """One sample.

    Attributes:
        at_ms: When, in milliseconds since 1970, by the store's clock.
        window_s: The time that rates and latencies are about, up to ``at_ms``.
        states: How many jobs are in each state.
        deliveries: How many deliveries wait or run.
        workers: How many workers the store knows.
        completed_per_s: Jobs that completed, per second.
        failed_per_s: Jobs that failed, per second.
        wait_p50_ms: From ready to started, of the jobs that completed; None if there were none.
        wait_p95_ms: The same, of the slow ones.
        run_p50_ms: From started to completed.
        run_p95_ms: The same, of the slow ones.
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
    """Takes samples and gives them back.

    Args:
        reader: Of the bridge.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._keys = reader.keys

    def _key(self, resolution: Resolution) -> str:
        return f"{self._keys.prefix}metrics:{resolution}"

    def sample(self, resolution: Resolution) -> MetricPoint:
        """Take a sample and add it to the series.

        Args:
            resolution: Of which series; says how long a window the sample is about, too.

        Raises:
            StoreUnreachable: The store is away.
        """
        point = self.measure(SPACING_S[resolution])
        self._reader.store.call(
            *("XADD", self._key(resolution), "MAXLEN", POINTS_MAX[resolution], "*"),
            *("point", msgspec.json.encode(point)),
        )
        return point

    def series(self, resolution: Resolution) -> list[MetricPoint]:
        """Give all samples of a series, oldest first; at most an hour or a week of them."""
        rows = self._reader.store.call("XRANGE", self._key(resolution), "-", "+")
        return [msgspec.json.decode(row[1][1], type=MetricPoint) for row in rows]

    def measure(self, window_s: float) -> MetricPoint:
        """Take a sample without keeping it.

        Args:
            window_s: The time up to now that rates and latencies are about.
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
                ("ZREVRANGEBYSCORE", done, now_ms, since, "LIMIT", 0, _LOOK_MAX),
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
            # A job that went straight into the queue has no time of its own for that.
            ready_ms = int(created if queued is None else queued)
            waits.append(max(0, int(started) - ready_ms))
            runs.append(max(0, int(completed) - int(started)))
        return sorted(waits), sorted(runs)


def _percentile(ordered: list[int], share: float) -> float | None:
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))]) if ordered else None
