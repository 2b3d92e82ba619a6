"""Content of the overview: state of the bridge, pending approvals, latest jobs."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ingress.core.control import list_approvals
from ingress.core.lookup import find
from ingress.core.schedules import read_progress, run_job_id, unknown_types
from ingress.core.status_report import overview
from ingress.dashboard.charts import Latency, Throughput, latency, throughput
from ingress.dashboard.state import DashboardState
from middleware.archive.search import JobFilter
from middleware.job.metrics import Metrics
from middleware.job.records import JobRecord, ms_of, utc
from ops.errors import BridgeError, JobNotFound
from ops.settings.work import ScheduleSettings

_LATEST = 12
_APPROVALS_MAX = 20


class ScheduleRow(Struct, frozen=True, kw_only=True):
    """A schedule.

    Attributes:
        id: Name of the schedule.
        timing: When it runs, as written in 3ox.toml.
        job_type: Type of its jobs.
        next_at: Time of the next run; None if there is none.
        last_at: Time of the last processed run; None before the first.
        last: The job of that run, if it still exists.
        fault: Why its runs are refused; empty if they are not.
    """

    id: str
    timing: str
    job_type: str
    next_at: str | None
    last_at: str | None
    last: JobRecord | None
    fault: str = ""


class Overview(Struct, frozen=True, kw_only=True):
    """The overview page.

    Attributes:
        status: State of the bridge, as in ``3ox status --json``.
        counts: Number of jobs in each state.
        running: Jobs being processed, by id.
        latest: The latest jobs.
        approvals: Held jobs that wait for approval.
        schedules: Schedules of 3ox.toml.
        schedules_fault: Why the schedules cannot be shown.
        sampled: Whether there are samples of the last hour.
    """

    status: dict[str, Any]
    counts: dict[str, int]
    running: dict[str, JobRecord]
    latest: list[JobRecord]
    approvals: list[JobRecord]
    schedules: list[ScheduleRow]
    schedules_fault: str
    sampled: bool
    throughput: Throughput
    latency: Latency


def read_overview(dashboard: DashboardState) -> Overview:
    """Read the overview; blocks on the store.

    Raises:
        StoreUnreachable: The store is unavailable.
    """
    bridge = dashboard.bridge
    status = overview(bridge)
    page = dashboard.catalog().page(JobFilter(), limit=_LATEST)
    points = Metrics(bridge.reader).series("10s")
    # Time of the store, as in samples and schedules: this host's clock may differ.
    now_ms = ms_of(status["at"])
    busy = [job_id for worker in status["workers"] for job_id in worker["processing"]]
    running = {record.job_id: record for record in bridge.reader.records(busy)}
    fault, schedules = "", []
    try:
        schedules = _schedules(dashboard, now_ms)
    except BridgeError as error:
        fault = str(error)
    return Overview(
        status=status,
        counts=page.summary,
        running=running,
        latest=page.jobs,
        approvals=list_approvals(bridge, _APPROVALS_MAX),
        schedules=schedules,
        schedules_fault=fault,
        sampled=bool(points),
        throughput=throughput(points, now_ms),
        latency=latency(points, now_ms),
    )


def _schedules(dashboard: DashboardState, now_ms: int) -> list[ScheduleRow]:
    book = dashboard.schedules()
    if not book.schedules:
        return []
    progress = read_progress(dashboard.bridge)
    settings = {row.id: row for row in book.loaded.settings.schedule}
    faults = unknown_types(dashboard.bridge, book.schedules)
    rows = []
    for schedule in book.schedules:
        done = progress.get(schedule.id)
        last = None if done is None else _run(dashboard, schedule.id, done.done_ms)
        rows.append(
            ScheduleRow(
                id=schedule.id,
                timing=_timing(settings[schedule.id]),
                job_type=schedule.job["job_type"],
                next_at=utc(schedule.timing.next_ms(now_ms)),
                last_at=None if last is None or done is None else utc(done.done_ms),
                last=last,
                fault=faults.get(schedule.id, ""),
            )
        )
    return rows


def _run(dashboard: DashboardState, schedule_id: str, run_ms: int) -> JobRecord | None:
    """Return the job of a run; a schedule without a run has progress too, but no job."""
    try:
        return find(dashboard.bridge, run_job_id(schedule_id, run_ms)).record()
    except JobNotFound:
        return None


def _timing(row: ScheduleSettings) -> str:
    if row.cron is not None:
        return row.cron if row.timezone == "UTC" else f"{row.cron} {row.timezone}"
    return f"every {row.every} s" if isinstance(row.every, float | int) else f"every {row.every}"
