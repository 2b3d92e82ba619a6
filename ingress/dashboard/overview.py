"""What the first page shows: the state of the bridge, what waits for a decision, what ran last."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ingress.core.control import list_approvals
from ingress.core.lookup import find
from ingress.core.schedules import read_progress, run_job_id
from ingress.core.status_report import overview
from ingress.dashboard.charts import Latency, Throughput, latency, throughput
from ingress.dashboard.state import DashboardState
from middleware.archive.search import Narrowing
from middleware.job.metrics import Metrics
from middleware.job.records import JobRecord, ms_of, utc
from ops.errors import BridgeError, JobNotFound
from ops.settings.work import ScheduleSettings

_LATEST = 12
_APPROVALS_MAX = 20


class ScheduleRow(Struct, frozen=True, kw_only=True):
    """A schedule.

    Attributes:
        id: Its name.
        timing: When it runs, as 3ox.toml has it.
        job_type: What it starts.
        next_at: Its next run; None if there is none.
        last_at: Its last run that was treated; None before the first.
        last: The job of that run, if it is still known.
    """

    id: str
    timing: str
    job_type: str
    next_at: str | None
    last_at: str | None
    last: JobRecord | None


class Overview(Struct, frozen=True, kw_only=True):
    """The first page.

    Attributes:
        status: As ``3ox status --json`` has it.
        counts: How many jobs are in each state.
        running: What runs now, by id.
        latest: The last jobs.
        approvals: What waits for a decision.
        schedules: Of 3ox.toml.
        schedules_fault: Why they cannot be shown.
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
    """Read the first page; blocks on the store.

    Raises:
        StoreUnreachable: The store is away.
    """
    bridge = dashboard.bridge
    status = overview(bridge)
    page = dashboard.catalog().page(Narrowing(), limit=_LATEST)
    points = Metrics(bridge.reader).series("10s")
    # The store's, as of the samples and the schedules: this host's clock may be another.
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
            )
        )
    return rows


def _run(dashboard: DashboardState, schedule_id: str, run_ms: int) -> JobRecord | None:
    """Give the job of a run; a schedule that has not run yet has a mark too, but no job."""
    try:
        return find(dashboard.bridge, run_job_id(schedule_id, run_ms)).record()
    except JobNotFound:
        return None


def _timing(row: ScheduleSettings) -> str:
    if row.cron is not None:
        return row.cron if row.timezone == "UTC" else f"{row.cron} {row.timezone}"
    return f"every {row.every} s" if isinstance(row.every, float | int) else f"every {row.every}"
