"""Periodic work of a bridge: canary, recovery, retention, expiry of approvals, metrics samples, the spool.

Only the leader does it, except for the spool, which belongs to a host. Intervals are measured with a clock
that is never set, so a jump of the wall clock neither delays nor repeats anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from ingress.core.daemon import Daemon
from ingress.core.schedules import SOURCE
from middleware.broker.leadership import Leadership, steady_s
from middleware.broker.maintenance import expire_approvals, recover_jobs, remove_old_jobs
from middleware.broker.outage import Outage
from middleware.job.metrics import SPACING_S, Metrics
from middleware.job.schema import make_job
from middleware.job.states import State
from ops.errors import BridgeError, JobNotFound
from ops.logs import get_logger
from ops.threads import start_duty

_RETENTION_INTERVAL_S = 60.0
_APPROVALS_INTERVAL_S = 60.0
_SPOOL_INTERVAL_S = 10.0
#: Jobs in the spool for longer than this, although the store is available, are logged.
_SPOOL_STUCK_S = 60.0
_CANARY_TIMEOUT_S = 30.0

log = get_logger(__name__)


class PeriodicTask(Struct):
    """A task that is repeated at an interval.

    Attributes:
        name: Short name.
        interval_s: Interval between two starts.
        run: What is called.
        leader_only: Whether only the leader runs it.
        due_s: When it is due next, on the clock of ``steady_s``.
    """

    name: str
    interval_s: float
    run: Callable[[], object]
    leader_only: bool = True
    due_s: float = 0.0


class PeriodicTasks:
    """Runs the periodic tasks of a bridge, one after the other, in a thread of its own.

    Args:
        daemon: The process that they run in.
        leadership: Knows whether this process leads.
    """

    def __init__(self, daemon: Daemon, leadership: Leadership) -> None:
        self._daemon = daemon
        self._leadership = leadership
        self._bridge = daemon.bridge
        self._settings = daemon.loaded.settings
        self._outage = Outage()
        self._canary: str | None = None
        metrics = Metrics(self._bridge.reader)
        settings = self._settings
        approvals_s = min(_APPROVALS_INTERVAL_S, settings.approval_ttl_s / 2)
        self._tasks = [
            PeriodicTask("recovery", max(0.5, settings.lease_s / 3), self._recover_jobs),
            PeriodicTask(
                "retention", min(_RETENTION_INTERVAL_S, settings.retention_s), self._remove_old_jobs
            ),
            PeriodicTask("approvals", approvals_s, self._expire_approvals),
            PeriodicTask("metrics", SPACING_S["10s"], partial(metrics.sample, "10s")),
            PeriodicTask("metrics.long", SPACING_S["10m"], partial(metrics.sample, "10m")),
            PeriodicTask("spool", _SPOOL_INTERVAL_S, self._check_spool, leader_only=False),
        ]
        if settings.canary_interval_s > 0:
            self._tasks.append(PeriodicTask("canary", settings.canary_interval_s, self._send_canary))
        now_s = steady_s()
        for task in self._tasks:
            # Only the short samples start at once: a restart needs neither a long sample nor a canary.
            task.due_s = now_s + min(task.interval_s, 1.0 if task.name == "metrics" else task.interval_s)

    def start(self) -> None:
        """Start the thread; it ends with the daemon."""
        start_duty("periodic-tasks", self.run, ended=self._daemon.stopping.is_set)

    def run(self) -> None:
        """Run each task when it is due, until the daemon stops."""
        while not self._daemon.stopping.is_set():
            now_s = steady_s()
            for task in self._tasks:
                if task.due_s <= now_s:
                    task.due_s = now_s + task.interval_s
                    self._run_task(task)
            wait_s = min(task.due_s for task in self._tasks) - steady_s()
            self._daemon.stopping.wait(max(0.0, wait_s))

    def _run_task(self, task: PeriodicTask) -> None:
        if task.leader_only and self._leadership.term is None:
            return
        try:
            task.run()
        except BridgeError as error:
            self._outage.begin(error)
        else:
            self._outage.end()

    def _recover_jobs(self) -> None:
        recover_jobs(self._bridge.scripts, lease_ms=int(self._settings.lease_s * 1000))

    def _remove_old_jobs(self) -> None:
        remove_old_jobs(
            self._bridge.scripts,
            retention_s=self._settings.retention_s,
            finished_max=self._settings.finished_max,
            stopping=self._daemon.stopping,
        )

    def _expire_approvals(self) -> None:
        expire_approvals(self._bridge.approvals, stopping=self._daemon.stopping)

    def _send_canary(self) -> None:
        """Submit a job that passes through the whole bridge, after reporting on the previous one."""
        if self._canary is not None:
            self._report_canary(self._canary)
        job = make_job(
            "heartbeat",
            {"nonce": "canary"},
            source=SOURCE,
            actor="canary",
            priority=1,
            timeout_seconds=_CANARY_TIMEOUT_S,
            metadata={"canary": "true"},
        )
        self._canary = job.job_id
        self._bridge.submit(job)

    def _report_canary(self, job_id: str) -> None:
        try:
            record = self._bridge.reader.job(job_id)
        except JobNotFound:
            log.warning("canary.lost", job_id=job_id)
            return
        self._daemon.report(canary=str(record.status), canary_at=str(record.completed_at))
        if record.status != State.COMPLETED:
            log.warning("canary.late", job_id=job_id, status=str(record.status), reason=record.reason)
        else:
            log.info("canary.back", job_id=job_id, sent=record.created_at, back=record.completed_at)

    def _check_spool(self) -> None:
        """Hand over jobs that daemons of this host spooled and no longer run to hand over themselves."""
        entries = self._daemon.acceptance.spool.entries()
        if not entries:
            return
        try:
            oldest_s = time.time() - entries[0].stat().st_mtime
        except FileNotFoundError:
            # Handed over meanwhile.
            return
        handed = self._daemon.acceptance.submit_spooled()
        if handed:
            log.info("spool.handed_over", jobs=handed)
        elif oldest_s > _SPOOL_STUCK_S and not self._daemon.acceptance.spool.is_empty():
            log.warning("spool.stuck", jobs=len(entries), oldest_s=round(oldest_s))
