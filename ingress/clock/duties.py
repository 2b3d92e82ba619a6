"""What a bridge does periodically: canary, recovery sweep, retention, metrics, a look at the spool.

All but the last are the leader's, so that several clocks do the work of one. Their intervals are kept by a
clock that nobody sets: a jump of the wall clock neither bunches them nor holds them up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from ingress.core.schedules import SOURCE
from middleware.broker.leadership import Leadership, steady_s
from middleware.broker.outage import Outage
from middleware.job.metrics import SPACING_S, Metrics
from middleware.job.records import utc_now
from middleware.job.schema import make_job
from middleware.job.states import FINAL, State
from ops.errors import BridgeError, JobNotFound
from ops.logs import get_logger

if TYPE_CHECKING:
    from ingress.core.daemon import Daemon

_RETENTION_INTERVAL_S = 60.0
_SPOOL_INTERVAL_S = 10.0
#: A spool that still holds something so long after it was accepted, with the store there, is told of.
_SPOOL_STUCK_S = 60.0
#: How many jobs one call deletes, about a millisecond of the store's time, and how many calls a round makes.
_BATCH = 50
_BATCHES_MAX = 200
_CANARY_TIMEOUT_S = 30.0

log = get_logger(__name__)


class Duty(Struct):
    """Something to be done now and then.

    Attributes:
        name: In logs.
        interval_s: How often.
        run: What.
        leads: Whether only the leader does it.
        due_s: When it is due next, by ``steady_s``.
    """

    name: str
    interval_s: float
    run: Callable[[], object]
    leads: bool = True
    due_s: float = 0.0


class Duties:
    """Does what is due, one after the other, in a thread of its own.

    Args:
        daemon: The clock.
        leadership: Tells whether we lead.
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
        self._duties = [
            Duty("recovery", max(0.5, settings.lease_s / 3), self._recover),
            Duty("retention", min(_RETENTION_INTERVAL_S, settings.retention_s), self._expire),
            Duty("metrics", SPACING_S["10s"], partial(metrics.sample, "10s")),
            Duty("metrics.long", SPACING_S["10m"], partial(metrics.sample, "10m")),
            Duty("spool", _SPOOL_INTERVAL_S, self._check_spool, leads=False),
        ]
        if settings.canary_interval_s > 0:
            self._duties.append(Duty("canary", settings.canary_interval_s, self._send_canary))
        now_s = steady_s()
        for duty in self._duties:
            # A week's point and a canary need not come with every restart.
            duty.due_s = now_s + min(duty.interval_s, 1.0 if duty.name == "metrics" else duty.interval_s)

    def run(self) -> None:
        """Do what is due until the daemon stops."""
        while not self._daemon.stopping.is_set():
            now_s = steady_s()
            for duty in self._duties:
                if duty.due_s <= now_s:
                    duty.due_s = now_s + duty.interval_s
                    self._do(duty)
            wait_s = min(duty.due_s for duty in self._duties) - steady_s()
            self._daemon.stopping.wait(max(0.0, wait_s))

    def _do(self, duty: Duty) -> None:
        if duty.leads and self._leadership.term is None:
            return
        try:
            duty.run()
        except BridgeError as error:
            self._outage.begin(error)
        else:
            self._outage.end()

    def _recover(self) -> None:
        """Take back the jobs of dead workers; the workers do so too, but there may be none left."""
        lease_ms = int(self._settings.lease_s * 1000)
        how = f"its lease ended, seen at {utc_now()}"
        for worker_id, job_id, status in self._bridge.scripts.recover(how=how, lease_ms=lease_ms):
            log.warning("job.recovered", job_id=job_id, from_worker=worker_id, status=status)

    def _expire(self) -> None:
        """Delete jobs that ended long ago; the workers do so too, but there may be none."""
        seconds = int(self._bridge.store.call("TIME")[0])
        until_ms = (seconds - self._settings.retention_s) * 1000
        deleted = sum(self._delete(state, _BATCH * _BATCHES_MAX, until_ms) for state in FINAL)
        counts = self._bridge.reader.summary()
        deleted += sum(
            self._delete(state, min(counts[state] - self._settings.finished_max, _BATCH * _BATCHES_MAX), None)
            for state in FINAL
        )
        if deleted:
            log.info("jobs.expired", jobs=deleted)

    def _delete(self, state: State, at_most: int, until_ms: int | None) -> int:
        deleted = 0
        while deleted < at_most and not self._daemon.stopping.is_set():
            wanted = min(_BATCH, at_most - deleted)
            batch = self._bridge.scripts.purge(state, wanted, until_ms)
            deleted += batch
            if batch < wanted:
                break
        return deleted

    def _send_canary(self) -> None:
        """Send a job through the whole bridge, and look what became of the one before."""
        if self._canary is not None:
            self._judge_canary(self._canary)
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

    def _judge_canary(self, job_id: str) -> None:
        try:
            record = self._bridge.reader.job(job_id)
        except JobNotFound:
            log.warning("canary.lost", job_id=job_id)
            return
        self._daemon.tell(canary=str(record.status), canary_at=str(record.completed_at))
        if record.status != State.COMPLETED:
            log.warning("canary.late", job_id=job_id, status=str(record.status), reason=record.reason)
        else:
            log.info("canary.back", job_id=job_id, sent=record.created_at, back=record.completed_at)

    def _check_spool(self) -> None:
        """See to it that what daemons of this host took in while the store was away does not stay there."""
        entries = self._daemon.acceptance.spool.entries()
        if not entries:
            return
        try:
            oldest_s = time.time() - entries[0].stat().st_mtime
        except FileNotFoundError:
            # Handed over at this moment.
            return
        handed = self._daemon.acceptance.hand_over()
        if handed:
            log.info("spool.handed_over", jobs=handed)
        elif oldest_s > _SPOOL_STUCK_S and not self._daemon.acceptance.spool.is_empty():
            log.warning("spool.stuck", jobs=len(entries), oldest_s=round(oldest_s))
